"""Which models a key may use: its own list within its tenant's names and prefixes."""

from __future__ import annotations

from collections.abc import Iterable

_FINE_TUNED = "ft:"


class AllowedModels:
    """A container of model names, made once a credential and asked on every call.

    ``patterns`` are the tenant's: names, or prefixes that end with ``*``; none at all means every
    public model. A fine-tuned model, ``ft:<base>:<tenant>:<suffix>``, is its own tenant's alone and
    needs no pattern. ``names`` are the key's, within all that; None means no narrower.
    """

    __slots__ = ("_exact", "_names", "_prefixes", "_tenant")

    def __init__(
        self, tenant: str, patterns: Iterable[str] = (), names: Iterable[str] | None = None
    ) -> None:
        patterns = tuple(patterns) or ("*",)
        self._tenant = tenant
        self._names = None if names is None else frozenset(names)
        self._exact = frozenset(patterns)
        self._prefixes = tuple(p[:-1] for p in patterns if p.endswith("*"))

    def __contains__(self, model: object) -> bool:
        if not isinstance(model, str) or not (self._names is None or model in self._names):
            return False
        if model.startswith(_FINE_TUNED):
            return owner_of(model) == self._tenant
        return model in self._exact or model.startswith(self._prefixes)


def owner_of(model: str) -> str:
    """The tenant of a fine-tuned model; empty for any other name.

    Read from the right, for the base may hold colons and the suffix may not.
    """
    parts = model.rsplit(":", 2)
    return parts[1] if len(parts) == 3 and model.startswith(_FINE_TUNED) else ""
