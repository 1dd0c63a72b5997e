"""Every element of the contracts that a reader meets, with the comment above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

Path = tuple[int, ...]
"""Where an element is in its file, as SourceCodeInfo.Location.path says it."""

FILE_PACKAGE, FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 2, 4, 5, 6
MESSAGE_FIELD, MESSAGE_MESSAGE, MESSAGE_ENUM, MESSAGE_ONEOF = 2, 3, 4, 8
ENUM_VALUE, SERVICE_METHOD = 2, 2


@dataclass(frozen=True)
class Element:
    """A package statement, message, field, oneof, enum, enum value, service or rpc."""

    kind: str
    name: str
    """Fully qualified."""
    comment: str
    """The comment above it, without its slashes; empty when there is none."""

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Method(Element):
    """An rpc."""

    descriptor: MethodDescriptorProto = field(default_factory=MethodDescriptorProto)

    @property
    def is_public(self) -> bool:
        """Whether callers outside the cluster can reach it."""
        return self.name.startswith("penstock.api.")


def our_files(image: FileDescriptorSet) -> list[FileDescriptorProto]:
    """The files of ``image`` that are Penstock's; Google's are left out."""
    return [file for file in image.file if file.name.startswith("penstock/")]


def elements(image: FileDescriptorSet) -> list[Element]:
    """Every element of Penstock's files in ``image``, which must hold their comments."""
    return [element for file in our_files(image) for element in _of_file(file)]


def methods(image: FileDescriptorSet) -> list[Method]:
    """Every rpc of Penstock's files in ``image``."""
    return [element for element in elements(image) if isinstance(element, Method)]


def messages(image: FileDescriptorSet) -> dict[str, DescriptorProto]:
    """Every top-level message of ``image`` by its type name, such as .penstock.api.X."""
    return {
        f".{file.package}.{message.name}": message
        for file in image.file
        for message in file.message_type
    }


def _of_file(file: FileDescriptorProto) -> Iterator[Element]:
    comments = {
        tuple(location.path): location.leading_comments.strip()
        for location in file.source_code_info.location
    }
    reader = _Reader(comments)
    yield Element("package", file.name, comments.get((FILE_PACKAGE,), ""))
    for index, message in enumerate(file.message_type):
        yield from reader.message(message, file.package, (FILE_MESSAGE, index))
    for index, enum in enumerate(file.enum_type):
        yield from reader.enum(enum, file.package, (FILE_ENUM, index))
    for index, service in enumerate(file.service):
        yield from reader.service(service, file.package, (FILE_SERVICE, index))


@dataclass(frozen=True)
class _Reader:
    comments: dict[Path, str]

    def _element(self, kind: str, name: str, path: Path) -> Element:
        return Element(kind, name, self.comments.get(path, ""))

    def message(self, message: DescriptorProto, scope: str, path: Path) -> Iterator[Element]:
        if message.options.map_entry:
            return
        name = f"{scope}.{message.name}"
        yield self._element("message", name, path)
        for index, part in enumerate(message.field):
            yield self._element("field", f"{name}.{part.name}", (*path, MESSAGE_FIELD, index))
        made_up = {part.oneof_index for part in message.field if part.proto3_optional}
        for index, choice in enumerate(message.oneof_decl):
            if index not in made_up:
                where = (*path, MESSAGE_ONEOF, index)
                yield self._element("oneof", f"{name}.{choice.name}", where)
        for index, nested in enumerate(message.nested_type):
            yield from self.message(nested, name, (*path, MESSAGE_MESSAGE, index))
        for index, enum in enumerate(message.enum_type):
            yield from self.enum(enum, name, (*path, MESSAGE_ENUM, index))

    def enum(self, enum: EnumDescriptorProto, scope: str, path: Path) -> Iterator[Element]:
        name = f"{scope}.{enum.name}"
        yield self._element("enum", name, path)
        for index, value in enumerate(enum.value):
            yield self._element("value", f"{name}.{value.name}", (*path, ENUM_VALUE, index))

    def service(self, service: ServiceDescriptorProto, scope: str, path: Path) -> Iterator[Element]:
        name = f"{scope}.{service.name}"
        yield self._element("service", name, path)
        for index, method in enumerate(service.method):
            comment = self.comments.get((*path, SERVICE_METHOD, index), "")
            yield Method("rpc", f"{name}.{method.name}", comment, method)
