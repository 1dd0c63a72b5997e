"""What Penstock asks of its contracts beyond buf's STANDARD rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import grpc
from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import penstock.errors
from penstock.errors import PenstockError
from protos.elements import Method, elements, messages, methods

Rule = Callable[[FileDescriptorSet], Iterator[str]]
"""Gives one finding a violation; the image must have been written with comments."""

NO_ERRORS = "Errors: none of its own."
SHARED_ERRORS = "Any method may also answer "


def everything_is_commented(image: FileDescriptorSet) -> Iterator[str]:
    """Each element has a comment of whole sentences; named things begin theirs with the name."""
    for element in elements(image):
        if not element.comment:
            yield f"{element.kind} {element.name} has no comment"
        elif not element.comment.endswith((".", "}")):
            yield f"{element.kind} {element.name}: its comment does not end with a full stop"
        elif element.kind in {"message", "enum", "service", "rpc"} and not (
            element.comment.startswith(f"{element.short_name} ")
        ):
            yield f"{element.kind} {element.name}: its comment does not begin with its name"


def errors_are_named(image: FileDescriptorSet) -> Iterator[str]:
    """Each rpc's comment ends with its errors, each service's with those that its rpcs share."""
    known = {(kind.code.name, kind.reason) for kind in error_classes()}
    for element in elements(image):
        if element.kind not in {"rpc", "service"}:
            continue
        text = last_paragraph(element.comment)
        if text == NO_ERRORS and element.kind == "rpc":
            continue
        opening = "Errors: " if element.kind == "rpc" else SHARED_ERRORS
        if not text.startswith(opening):
            yield f"{element.kind} {element.name}: its comment does not end with '{opening}...'"
            continue
        for code, reason in named_errors(text):
            if (code, reason) not in known:
                yield f"{element.name}: penstock.errors has no {code or 'codeless'} {reason or '-'}"


def streams_can_stall(image: FileDescriptorSet) -> Iterator[str]:
    """Each public stream of answers says that a reader who stalls is cut off."""
    for method in methods(image):
        named = named_errors(last_paragraph(method.comment))
        streams = method.is_public and method.descriptor.server_streaming
        if streams and ("ABORTED", "READER_STALLED") not in named:
            yield f"rpc {method.name} does not name ABORTED READER_STALLED"


def rest_reaches_everything(image: FileDescriptorSet) -> Iterator[str]:
    """Public rpcs without a client stream, and no others, have a REST route of their own."""
    taken: dict[tuple[str, str], str] = {}
    for method in methods(image):
        routes = rest_routes(method)
        if bool(routes) != (method.is_public and not method.descriptor.client_streaming):
            yield f"rpc {method.name} {'must not have' if routes else 'lacks'} a google.api.http"
        fields = {part.name for part in messages(image)[method.descriptor.input_type].field}
        for verb, path in routes:
            for variable in re.findall(r"{(\w+)", path):
                if variable not in fields:
                    yield f"rpc {method.name}: the request has no field {variable} for {path}"
            key = (verb, re.sub(r"{[^}]*}", "{}", path))
            if key in taken:
                yield f"rpc {method.name} and {taken[key]} share the route {verb} {path}"
            taken[key] = method.name


def lists_page(image: FileDescriptorSet) -> Iterator[str]:
    """Each List or Query rpc takes page_size and page_token and gives next_page_token."""
    types = messages(image)
    for method in methods(image):
        if not re.match(r"(List|Query)[A-Z]", method.short_name):
            continue
        asked = {part.name for part in types[method.descriptor.input_type].field}
        given = {part.name for part in types[method.descriptor.output_type].field}
        if not {"page_size", "page_token"} <= asked or "next_page_token" not in given:
            yield f"rpc {method.name} does not page"


def creation_is_idempotent(image: FileDescriptorSet) -> Iterator[str]:
    """Each public rpc that makes something takes an idempotency key, at most one message down."""
    types = messages(image)
    for method in methods(image):
        if not method.is_public or not re.match(
            r"(Create|Upload|Register|Rotate)[A-Z]", method.short_name
        ):
            continue
        request = types[method.descriptor.input_type]
        near = [
            request,
            *(types[part.type_name] for part in request.field if part.type_name in types),
        ]
        if not any(part.name == "idempotency_key" for message in near for part in message.field):
            yield f"rpc {method.name} takes no idempotency key"


RULES: tuple[Rule, ...] = (
    everything_is_commented,
    errors_are_named,
    streams_can_stall,
    rest_reaches_everything,
    lists_page,
    creation_is_idempotent,
)


def findings(image: FileDescriptorSet) -> list[str]:
    """Every violation of every rule."""
    return [finding for rule in RULES for finding in rule(image)]


def error_classes() -> list[type[PenstockError]]:
    """Every class of penstock.errors; what clients add for themselves is no part of a contract."""
    return [
        kind
        for kind in vars(penstock.errors).values()
        if isinstance(kind, type) and issubclass(kind, PenstockError)
    ]


def last_paragraph(comment: str) -> str:
    """The text after a comment's last empty line, on one line."""
    return " ".join(comment.split("\n\n")[-1].split()) if comment else ""


def named_errors(text: str) -> list[tuple[str, str]]:
    """The (gRPC code, reason) pairs of "Errors: CODE REASON, REASON or REASON, CODE REASON."

    A reason before any code has the code ""; a code without a reason has the reason "".
    """
    codes = {code.name for code in grpc.StatusCode}
    pairs: list[tuple[str, str]] = []
    for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", text):
        awaits_reason = bool(pairs) and pairs[-1][1] == ""
        if word in codes and not (awaits_reason and pairs[-1][0] == word):
            pairs.append((word, ""))
        elif awaits_reason:
            pairs[-1] = (pairs[-1][0], word)
        else:
            pairs.append((pairs[-1][0] if pairs else "", word))
    return pairs


def rest_routes(method: Method) -> list[tuple[str, str]]:
    """The (verb, path) pairs of an rpc's google.api.http annotation."""
    if not method.descriptor.options.HasExtension(annotations_pb2.http):
        return []
    rule = method.descriptor.options.Extensions[annotations_pb2.http]
    return [
        (kind.WhichOneof("pattern"), getattr(kind, kind.WhichOneof("pattern")))
        for kind in (rule, *rule.additional_bindings)
    ]
