"""What a request of ModelsService may hold, and the tokens that its pages hand out."""

from __future__ import annotations

import base64
import binascii
from typing import get_args

from gateway.validation.fields import Violations, check_model_name, quote
from penstock.api.models.v1 import models_pb2 as pb
from penstock.service.packages import Task

DEFAULT_PAGE_SIZE = 100
"""Items of a page when the caller does not choose."""
MAX_PAGE_SIZE = 1_000
"""Items of one page."""

_TASKS = frozenset(get_args(Task))


def check_list_models(request: pb.ListModelsRequest) -> None:
    """Raises InvalidArgument."""
    violations = Violations()
    _check_page(request.page_size, request.page_token, violations)
    if request.task and request.task not in _TASKS:
        violations.add("task", f"{quote(request.task)} is not one of {', '.join(sorted(_TASKS))}")
    violations.refuse()


def check_get_model(request: pb.GetModelRequest) -> None:
    """Raises InvalidArgument."""
    violations = Violations()
    check_model_name(request.model, violations)
    violations.refuse()


def check_list_versions(request: pb.ListVersionsRequest) -> None:
    """Raises InvalidArgument."""
    violations = Violations()
    check_model_name(request.model, violations)
    _check_page(request.page_size, request.page_token, violations)
    violations.refuse()


def page_token(last: str) -> str:
    """The token of the page that follows the item of this name."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def read_page_token(token: str) -> str:
    """The name that a page follows; raises ValueError when this server never made the token."""
    try:
        last = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not a page token") from error
    if page_token(last) != token:
        raise ValueError("not a page token")
    return last


def _check_page(page_size: int, token: str, violations: Violations) -> None:
    if page_size > MAX_PAGE_SIZE:
        violations.add("page_size", f"is {page_size:,}; at most {MAX_PAGE_SIZE:,} are allowed")
    try:
        read_page_token(token)
    except ValueError:
        violations.add("page_token", "is not one that an earlier page gave")
