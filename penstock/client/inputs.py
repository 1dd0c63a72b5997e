"""Python values as the contracts' messages; what already is a message passes unchanged."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.api.types.v1 import content_pb2, metadata_pb2

Tier: TypeAlias = Literal["interactive", "standard", "batch", "best_effort"]
"""How urgent a call is; None leaves it to the key's own default."""
ImageInput: TypeAlias = bytes | str | os.PathLike[str] | content_pb2.Image
"""Encoded bytes (PNG, JPEG, WebP, BMP, GIF), the path of such a file, or a message."""
Feature: TypeAlias = float | str | bool | None
"""A number, a category, a truth value, or None for a feature that is absent."""
RowInput: TypeAlias = Mapping[str, Feature] | inference.FeatureRow
ChatInput: TypeAlias = Mapping[str, str] | inference.ChatMessage
"""A turn of a chat: {"role": "system" | "user" | "assistant", "content": text}."""

_TIERS: Mapping[str, metadata_pb2.ServiceTier.ValueType] = {
    "interactive": metadata_pb2.SERVICE_TIER_INTERACTIVE,
    "standard": metadata_pb2.SERVICE_TIER_STANDARD,
    "batch": metadata_pb2.SERVICE_TIER_BATCH,
    "best_effort": metadata_pb2.SERVICE_TIER_BEST_EFFORT,
}
_ROLES: Mapping[str, inference.ChatRole.ValueType] = {
    "system": inference.CHAT_ROLE_SYSTEM,
    "user": inference.CHAT_ROLE_USER,
    "assistant": inference.CHAT_ROLE_ASSISTANT,
}


def tier_number(tier: Tier | None) -> metadata_pb2.ServiceTier.ValueType:
    """The tier's number in the contracts. Raises ValueError for a name that there is not."""
    if tier is None:
        return metadata_pb2.SERVICE_TIER_UNSPECIFIED
    number: metadata_pb2.ServiceTier.ValueType = _named(_TIERS, tier, "tier")
    return number


def text_list(texts: str | Sequence[str]) -> Sequence[str]:
    """One text is a list of one; without this, a string would be a list of its letters."""
    return [texts] if isinstance(texts, str) else texts


def image_list(images: ImageInput | Sequence[ImageInput]) -> list[content_pb2.Image]:
    """Encoded images, read from disk where a path is given. Raises OSError for a bad path."""
    if isinstance(images, bytes | str | os.PathLike | content_pb2.Image):
        images = [images]
    return [_image(image) for image in images]


def _image(image: ImageInput) -> content_pb2.Image:
    if isinstance(image, content_pb2.Image):
        return image
    if isinstance(image, bytes):
        return content_pb2.Image(data=image)
    return content_pb2.Image(data=Path(image).read_bytes())


def put_rows(request: inference.PredictRequest, rows: Any) -> None:
    """Puts rows of named features, or a numeric matrix, into the request.

    ``rows`` is one mapping, a list of mappings, a list of lists of numbers, or anything with a
    two-dimensional buffer of floats, such as a numpy array. Raises TypeError for anything else.
    """
    if isinstance(rows, Mapping | inference.FeatureRow):
        rows = [rows]
    if isinstance(rows, inference.FeatureMatrix):
        request.matrix.CopyFrom(rows)
    elif hasattr(rows, "__array_interface__") or isinstance(rows, memoryview):
        request.matrix.CopyFrom(_buffer_matrix(memoryview(rows)))
    elif rows and not isinstance(rows[0], Mapping | inference.FeatureRow):
        request.matrix.CopyFrom(_matrix(rows))
    else:
        request.rows.SetInParent()
        request.rows.rows.extend(_row(row) for row in rows)


def _row(row: RowInput) -> inference.FeatureRow:
    if isinstance(row, inference.FeatureRow):
        return row
    message = inference.FeatureRow()
    for name, value in row.items():
        if value is not None:
            message.features[name].CopyFrom(_feature(name, value))
    return message


def _feature(name: str, value: Any) -> inference.FeatureValue:
    if hasattr(value, "item"):
        value = value.item()  # numpy's scalars, without knowing numpy
    if isinstance(value, bool):
        return inference.FeatureValue(flag=value)
    if isinstance(value, str):
        return inference.FeatureValue(category=value)
    try:
        return inference.FeatureValue(number=float(value))
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise TypeError(f"feature {name!r} is a {kind}, not a number, text or bool") from None


def _matrix(rows: Sequence[Sequence[float]]) -> inference.FeatureMatrix:
    columns = len(rows[0])
    if any(len(row) != columns for row in rows):
        raise ValueError("the rows of a matrix must be of one length")
    data = _little_endian(array("f", chain.from_iterable(rows)))
    return inference.FeatureMatrix(rows=len(rows), columns=columns, data=data)


def _buffer_matrix(view: memoryview) -> inference.FeatureMatrix:
    if view.ndim != 2:
        raise ValueError(f"a matrix has two dimensions, not {view.ndim}")
    rows, columns = view.shape or (0, 0)
    if view.format == "f":
        values = array("f", view.tobytes())
    else:
        listed: Any = view.tolist()
        values = array("f", chain.from_iterable(listed))
    return inference.FeatureMatrix(rows=rows, columns=columns, data=_little_endian(values))


def _little_endian(values: array[float]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def chat_messages(messages: Sequence[ChatInput]) -> list[inference.ChatMessage]:
    """The turns of a chat. Raises ValueError for a role that there is not."""
    return [
        message
        if isinstance(message, inference.ChatMessage)
        else inference.ChatMessage(
            role=_named(_ROLES, message["role"], "role"), content=message["content"]
        )
        for message in messages
    ]


def _named(numbers: Mapping[str, Any], name: str, what: str) -> Any:
    try:
        return numbers[name]
    except KeyError:
        raise ValueError(f"no {what} {name!r}: one of {', '.join(numbers)}") from None
