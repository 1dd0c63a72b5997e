"""As whom a client calls: an API key, a bearer token or a signing key; exactly one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock.client.configuration import ConfigurationError
from penstock.client.signing import SigningKey

Token = str | Callable[[], str]
"""An OAuth2 access token, or a function that gives the present one; it is asked before each call,
so it must be quick and renew the token itself."""
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Credentials:
    """What a client shows. With neither, a client certificate must say it all."""

    token: Token = ""
    signing_key: SigningKey | None = None

    def metadata(self) -> Metadata | Callable[[], Metadata]:
        """What goes with every call, or what makes it."""
        token = self.token
        if callable(token):
            return lambda: _bearer(token())
        return _bearer(token) if token else ()


def find_credentials(
    api_key: str | None, token: Token | None, signing_key: SigningKey | str | None
) -> Credentials | None:
    """The one that was given; None: the configuration knows. Raises ConfigurationError."""
    if sum(given is not None for given in (api_key, token, signing_key)) > 1:
        raise ConfigurationError("give one of api_key, token and signing_key")
    if isinstance(signing_key, str):
        return Credentials(signing_key=SigningKey.of_secret(signing_key))
    if signing_key is not None:
        return Credentials(signing_key=signing_key)
    return None if token is None else Credentials(token)


def _bearer(text: str) -> Metadata:
    return (("authorization", f"Bearer {text}"),)
