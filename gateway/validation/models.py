"""What a request of ModelsService may hold."""

from __future__ import annotations

from typing import get_args

from gateway.validation.fields import Violations, check_model_name, quote
from gateway.validation.pages import check_page
from penstock.api.models.v1 import models_pb2 as pb
from penstock.service.packages import Task

_TASKS = frozenset(get_args(Task))


def check_list_models(request: pb.ListModelsRequest) -> None:
    """Raises InvalidArgument."""
    violations = Violations()
    check_page(request.page_size, request.page_token, violations)
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
    check_page(request.page_size, request.page_token, violations)
    violations.refuse()
