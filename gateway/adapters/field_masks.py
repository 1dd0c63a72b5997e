"""Update masks: which fields of a stored message a request replaces (AIP-134)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from gateway.validation.fields import Violations, quote

M = TypeVar("M", bound=Message)

MOST_PATHS = 100
_PARTED = ("penstock.",)
"""Messages of these packages are changed field by field; times and durations as a whole."""


def merged(stored: M, given: M, mask: FieldMask | None, fixed: Collection[str]) -> M:
    """A copy of ``stored`` with the mask's fields as in ``given``, absent ones cleared.

    Without a mask: with every field that is set in ``given``, ``fixed`` ones left alone. Lists and
    maps are replaced as a whole. Raises InvalidArgument for a path that does not exist or is fixed.
    """
    if mask is None or not mask.paths:
        paths = [path for path in _set_paths(given) if path.partition(".")[0] not in fixed]
    else:
        paths = list(mask.paths)
        _check(paths, given.DESCRIPTOR, fixed)
    result = type(stored)()
    result.CopyFrom(stored)
    for path in paths:
        _replace(result, given, path.split("."))
    return result


def _replace(target: Any, given: Any, names: list[str]) -> None:
    for name in names[:-1]:
        if not given.HasField(name) and not target.HasField(name):
            return
        target, given = getattr(target, name), getattr(given, name)
    name = names[-1]
    target.ClearField(name)
    field = given.DESCRIPTOR.fields_by_name[name]
    single = type(given)()
    if field.has_presence and not given.HasField(name):
        return
    # Through a message that holds this field alone, every kind of field is copied the same way.
    single.CopyFrom(given)
    for other in given.DESCRIPTOR.fields_by_name:
        if other != name:
            single.ClearField(other)
    target.MergeFrom(single)


def _set_paths(given: Message, prefix: str = "") -> Iterator[str]:
    for field, value in given.ListFields():
        if _parted(field):
            yield from _set_paths(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _check(paths: list[str], root: Any, fixed: Collection[str]) -> None:
    violations = Violations()
    if len(paths) > MOST_PATHS:
        violations.add("update_mask", f"has {len(paths):,} paths; at most {MOST_PATHS} are allowed")
    for index, path in enumerate(paths[:MOST_PATHS]):
        if not _exists(path, root):
            violations.add(f"update_mask.paths[{index}]", f"{quote(path)} is not a field")
        elif path.partition(".")[0] in fixed:
            violations.add(f"update_mask.paths[{index}]", f"{quote(path)} cannot be changed")
    violations.refuse()


def _exists(path: str, descriptor: Any) -> bool:
    *parents, last = path.split(".")
    for name in parents:
        field = descriptor.fields_by_name.get(name)
        if field is None or not _parted(field):
            return False
        descriptor = field.message_type
    return last in descriptor.fields_by_name


def _parted(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and not field.is_repeated and message.full_name.startswith(_PARTED)
