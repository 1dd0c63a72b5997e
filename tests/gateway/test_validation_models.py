"""Pages of models and their tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.validation.models import check_get_model, check_list_models, check_list_versions
from gateway.validation.pages import page_token, read_page_token
from penstock.api.models.v1 import models_pb2 as pb
from tests.gateway.violations import fields_of


@given(st.text(max_size=200))
def test_a_page_token_remembers_where_the_page_ended(last: str) -> None:
    assert read_page_token(page_token(last)) == last


@pytest.mark.parametrize("token", ["!", "a", "YQ==", "YQ=", "YR", "_w", "é", "YQ YQ", "YQ\n"])
def test_a_token_that_no_page_gave_is_refused(token: str) -> None:
    listing = pb.ListModelsRequest(page_token=token, page_size=1_001, task="poetry")
    versions = pb.ListVersionsRequest(model="fraud", page_token=token)
    assert fields_of(lambda: check_list_models(listing)) == ["page_size", "page_token", "task"]
    assert fields_of(lambda: check_list_versions(versions)) == ["page_token"]


def test_a_model_is_asked_for_by_a_name_that_could_be_one() -> None:
    check_get_model(pb.GetModelRequest(model="fraud"))
    assert fields_of(lambda: check_get_model(pb.GetModelRequest(model="../etc"))) == ["model"]
