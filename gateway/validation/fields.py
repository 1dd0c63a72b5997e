"""The rules of fields that several families share, and the list of what a request breaks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from penstock.errors import FieldViolation, InvalidArgument

MOST_VIOLATIONS = 16
"""Violations that one refusal names."""
MOST_VIOLATION_BYTES = 1_200
"""Bytes of all of them: a refusal travels twice, encoded, in metadata limited to 8 KiB."""
MOST_DESCRIPTION_CHARACTERS = 300
"""Characters of one description."""
MOST_QUOTED_CHARACTERS = 40
"""Characters of the caller's own text that a violation repeats."""
MAX_TEXT_BYTES = 256 * 1024
"""Longest text, in bytes of UTF-8."""
MOST_UTF8_BYTES = 4
"""Bytes of UTF-8 that one character may take."""

_MODEL = re.compile(r"[a-z0-9][a-z0-9._:-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_SURELY_SHORT = MAX_TEXT_BYTES // MOST_UTF8_BYTES
_HIGHEST_TIER_NUMBER = 4


class Violations:
    """What is wrong with one request, as far as an answer can carry it."""

    __slots__ = ("_found", "_room")

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []
        self._room = MOST_VIOLATION_BYTES

    @property
    def full(self) -> bool:
        """Whether looking for more is of no use."""
        return self._room <= 0 or len(self._found) >= MOST_VIOLATIONS

    def add(self, field: str, description: str) -> None:
        """Notes one more; whatever does not fit is left out."""
        if self.full:
            return
        description = shorten(description, MOST_DESCRIPTION_CHARACTERS)
        self._room -= len(field.encode()) + len(description.encode())
        if self._room > 0 or not self._found:
            self._found.append(FieldViolation(field, description))

    def refuse(self, kind: type[InvalidArgument] = InvalidArgument) -> None:
        """Raises an error with all of them, if there are any."""
        if self._found:
            raise kind(violations=self._found)


class ModelRequest(Protocol):
    """What every request that runs a model has."""

    @property
    def model(self) -> str: ...
    @property
    def model_version(self) -> str: ...
    @property
    def tier(self) -> int: ...


def quote(text: str) -> str:
    """The caller's text for use in a description: short and on one line."""
    return repr(shorten(text, MOST_QUOTED_CHARACTERS))


def shorten(text: str, most_characters: int) -> str:
    """The text, or its beginning when it is too long."""
    return text if len(text) <= most_characters else text[: most_characters - 3] + "..."


def check_model(request: ModelRequest, violations: Violations) -> None:
    """Checks the name, the version and the tier."""
    check_model_name(request.model, violations)
    version = request.model_version
    if version and _VERSION.fullmatch(version) is None:
        violations.add("model_version", f"{quote(version)} cannot be a version")
    check_enum("tier", request.tier, _HIGHEST_TIER_NUMBER, violations)


def check_model_name(model: str, violations: Violations, field: str = "model") -> None:
    """Checks a model's name."""
    if _MODEL.fullmatch(model) is not None:
        return
    if not model:
        violations.add(field, "is required")
        return
    violations.add(
        field,
        f"{quote(model)} cannot be a model's name: up to 128 of a-z 0-9 . _ : -,"
        " beginning with a letter or digit",
    )


def check_enum(field: str, value: int, highest: int, violations: Violations) -> None:
    """Checks that the number of an enum value is one that this version of the API knows."""
    if not 0 <= value <= highest:
        violations.add(field, f"{value} is not a known value")


def check_count(field: str, count: int, most: int, violations: Violations) -> bool:
    """Checks that there are 1 to ``most`` items; whether they are worth looking at."""
    if 0 < count <= most:
        return True
    if count == 0:
        violations.add(field, f"is empty; give 1 to {most:,}")
    else:
        violations.add(field, f"has {count:,} items; at most {most:,} are allowed")
    return False


def check_texts(field: str, texts: Sequence[str], most: int, violations: Violations) -> None:
    """Checks that there are 1 to ``most`` texts, none empty or too long."""
    if check_count(field, len(texts), most, violations):
        for index, text in enumerate(texts):
            if not 0 < len(text) <= _SURELY_SHORT:
                check_text(f"{field}[{index}]", text, violations)


def check_text(field: str, text: str, violations: Violations) -> None:
    """Checks that a text is neither empty nor too long."""
    if not text:
        violations.add(field, "is empty")
    elif len(text) > _SURELY_SHORT and (size := len(text.encode())) > MAX_TEXT_BYTES:
        violations.add(field, f"has {size:,} bytes; at most {MAX_TEXT_BYTES:,} are allowed")


def check_unit_interval(field: str, value: float, violations: Violations) -> None:
    """Checks that a number is between 0 and 1, which NaN is not."""
    if not 0.0 <= value <= 1.0:
        violations.add(field, f"{value:g} is not between 0 and 1")
