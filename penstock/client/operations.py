"""What a method of the SDK does: which call to send, and how to read what comes back.

Each method is written once, as a function that makes one of these (inference, embeddings, models);
the two clients only differ in how they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penstock.client.streams import Reader

Result = TypeVar("Result")
Item = TypeVar("Item")
Piece = TypeVar("Piece")
Whole = TypeVar("Whole")


@dataclass(frozen=True, slots=True)
class Unary(Generic[Result]):
    """One call with one answer."""

    service: Any
    """The generated stub class."""
    method: str
    request: Any
    read: Callable[[Any], Result]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Paged(Generic[Item]):
    """A list that comes page by page; ``request`` is sent again with each page's token."""

    service: Any
    method: str
    request: Any
    items: Callable[[Any], Iterable[Item]]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Streaming(Generic[Piece, Whole]):
    """One call whose answer comes in pieces; ``request`` is an iterator where many are sent."""

    service: Any
    method: str
    request: Any
    reader: Reader[Piece, Whole]
    timeout: float | None
