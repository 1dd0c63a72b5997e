"""Penstock's client side: the SDK, the error tree and the generated stubs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.client import (
        AsyncClient,
        Client,
        ConfigurationError,
        SigningKey,
        Unreachable,
        error_of,
    )

__all__ = [
    "AsyncClient",
    "Client",
    "ConfigurationError",
    "SigningKey",
    "Unreachable",
    "error_of",
]


def __getattr__(name: str) -> Any:
    # The services import this package too, and must not pay for a client that they never use.
    if name in __all__:
        from penstock import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
