"""Blacks out what identifies people in a message, before it is kept.

String fields lose mail addresses, payment card numbers (13 to 19 digits that pass the Luhn check,
ISO/IEC 7812-1 annex B) and telephone numbers; bytes fields, which hold images, sounds and packed
numbers, are emptied. Numbers in number fields stay, and so do names of map entries.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, MutableSequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

BLACK = "█" * 4
"""What stands where something was blacked out."""

_MAIL = re.compile(r"[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<!\w)(?!\d{4}-\d\d-\d\d)\+?\(?\d(?:[ ./()-]{0,3}\d){6,22}(?!\w)")
"""Not from where a date of ISO 8601 begins."""
_DECIMAL = re.compile(r"(?:0|[1-9]\d*)\.\d+")
_CARD_DIGITS = range(13, 20)
_PHONE_DIGITS = range(7, 16)
"""ITU-T E.164 allows 15 at most."""


def redact(message: Message) -> None:
    """Blacks the message out in place, with everything inside it."""
    for field, value in message.ListFields():
        kind = field.type
        if kind == FieldDescriptor.TYPE_BYTES:
            message.ClearField(field.name)
        elif isinstance(value, Message):
            redact(value)
        elif isinstance(value, MutableMapping):
            _redact_map(field, value)
        elif isinstance(value, MutableSequence):
            _redact_list(kind, value)
        elif kind == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, redacted(value))


def redacted(text: str) -> str:
    """The text with black bars."""
    return _DIGITS.sub(_number, _MAIL.sub(BLACK, text))


def _redact_map(field: FieldDescriptor, value: MutableMapping[Any, Any]) -> None:
    entry = field.message_type
    kind = None if entry is None else entry.fields_by_name["value"].type
    for key in list(value):
        if kind == FieldDescriptor.TYPE_STRING:
            value[key] = redacted(value[key])
        elif kind == FieldDescriptor.TYPE_BYTES:
            del value[key]
        elif kind == FieldDescriptor.TYPE_MESSAGE:
            redact(value[key])


def _redact_list(kind: int, value: MutableSequence[Any]) -> None:
    if kind == FieldDescriptor.TYPE_STRING:
        value[:] = [redacted(text) for text in value]
    elif kind == FieldDescriptor.TYPE_MESSAGE:
        for item in value:
            redact(item)


def _number(match: re.Match[str]) -> str:
    text = match.group()
    digits = [int(character) for character in text if character.isdigit()]
    if len(digits) in _CARD_DIGITS and _passes_luhn(digits):
        return BLACK
    if _DECIMAL.fullmatch(text):
        return text
    # A bare run of digits is a telephone number only where it is written like one.
    written_so = text[0] in "+(0" or any(character in " ./()-" for character in text)
    return BLACK if written_so and len(digits) in _PHONE_DIGITS else text


def _passes_luhn(digits: list[int]) -> bool:
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
