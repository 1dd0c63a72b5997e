"""Reads what a refusal complains about."""

from __future__ import annotations

from collections.abc import Callable

from penstock.errors import InvalidArgument


def violations_of(check: Callable[[], object]) -> list[tuple[str, str]]:
    """(field, description) of every violation; empty when the check lets the request pass."""
    try:
        check()
    except InvalidArgument as error:
        return [(violation.field, violation.description) for violation in error.violations]
    return []


def fields_of(check: Callable[[], object]) -> list[str]:
    """The fields alone."""
    return [field for field, _ in violations_of(check)]


NAN, INFINITY = float("nan"), float("inf")
