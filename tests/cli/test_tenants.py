"""tenants create, list, get, update, suspend, resume, erase."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.api.admin.v1 import tenants_pb2 as pb
from penstock.api.types.v1 import limits_pb2, metadata_pb2
from tests.cli.conftest import Run
from tests.client.scripted import Scripted

ROW, TOKEN = metadata_pb2.USAGE_UNIT_ROW, metadata_pb2.USAGE_UNIT_TOKEN
DAY, MONTH = limits_pb2.BUDGET_PERIOD_DAY, limits_pb2.BUDGET_PERIOD_MONTH


def acme() -> pb.Tenant:
    tenant = pb.Tenant(
        id="acme",
        display_name="Acme [bold]Ltd[/bold]",
        state=pb.TENANT_STATE_SUSPENDED,
        limits=limits_pb2.Limits(requests_per_minute=6_000),
        budgets=[limits_pb2.Budget(currency="EUR", amount=12_500_000, period=DAY)],
        model_limits=[
            limits_pb2.ModelLimits(
                model="fraud", budgets=[limits_pb2.Budget(unit=ROW, amount=5, period=MONTH)]
            )
        ],
        highest_tier=metadata_pb2.SERVICE_TIER_BEST_EFFORT,
        etag="7",
    )
    tenant.retention.files.FromSeconds(86_400)
    tenant.create_time.FromSeconds(0)
    return tenant


@pytest.fixture(autouse=True)
def answers(scripted: Scripted) -> None:
    def answering(kind: Any) -> Any:
        return lambda *_: kind(tenant=acme())

    for method in ("Create", "Get", "Update", "Suspend", "Resume", "Erase"):
        kind = getattr(pb, f"{method}TenantResponse")
        scripted.behaviours[f"{method}Tenant"] = answering(kind)
    scripted.behaviours["ListTenants"] = lambda *_: pb.ListTenantsResponse(tenants=[acme()])


def test_a_tenant_is_created_as_the_options_say(run: Run, scripted: Scripted) -> None:
    words = (
        "tenants create acme --name Acme --limit requests-per-minute=600 --limit stored_bytes=0"
        " --budget token=1000000/day --budget EUR=12.5/month --model fraud --model team-*"
        " --region eu-1 --highest-tier best-effort --weight 7 --retain files=30d"
        " --payloads --label team=risk --idempotency-key mine --json"
    )
    result = run(*words.split())
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["id"] == "acme"
    expected = pb.Tenant(
        id="acme",
        display_name="Acme",
        limits=limits_pb2.Limits(requests_per_minute=600, stored_bytes=0),
        budgets=[
            limits_pb2.Budget(unit=TOKEN, amount=1_000_000, period=DAY),
            limits_pb2.Budget(currency="EUR", amount=12_500_000, period=MONTH),
        ],
        allowed_models=["fraud", "team-*"],
        allowed_regions=["eu-1"],
        highest_tier=metadata_pb2.SERVICE_TIER_BEST_EFFORT,
        weight=7,
        audit_payloads=True,
        labels={"team": "risk"},
    )
    expected.retention.files.FromSeconds(30 * 86_400)
    (request,) = scripted.requests
    assert request == pb.CreateTenantRequest(tenant=expected, idempotency_key="mine")


def test_an_update_sends_a_mask_of_what_was_given(run: Run, scripted: Scripted) -> None:
    words = "tenants update acme --limit units_per_minute=5 --no-payloads --clear labels --etag 7"
    assert run(*words.split()).exit_code == 0
    (request,) = scripted.requests
    assert list(request.update_mask.paths) == [
        "limits.units_per_minute",
        "labels",
        "audit_payloads",
    ]
    assert (request.tenant.id, request.tenant.etag) == ("acme", "7")
    assert run("tenants", "update", "acme").exit_code == 2
    assert len(scripted.requests) == 1


def test_a_tenant_is_described(run: Run) -> None:
    shown = run("tenants", "get", "acme").stdout
    for text in (
        "Acme [bold]Ltd[/bold]",
        "suspended",
        "best_effort",
        "requests_per_minute 6,000",
        "12.50 EUR a day",
        "fraud:  5 rows a month",
        "files 1 day",
        "1970-01-01",
    ):
        assert text in shown


def test_tenants_are_listed(run: Run, scripted: Scripted) -> None:
    assert "acme" in run("tenants", "list", "--state", "suspended").stdout
    assert list(scripted.requests[-1].states) == [pb.TENANT_STATE_SUSPENDED]
    assert json.loads(run("tenants", "list", "--json").stdout)["tenants"][0]["id"] == "acme"
    assert run("tenants", "list", "--state", "asleep").exit_code == 2


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_a_tenant_is_suspended_and_resumed(run: Run, scripted: Scripted, verb: str) -> None:
    assert json.loads(run("tenants", verb, "acme", "--json").stdout)["id"] == "acme"
    (request,) = scripted.requests
    assert type(request).__name__ == f"{verb.title()}TenantRequest"


def test_nothing_is_erased_without_a_yes(run: Run, scripted: Scripted) -> None:
    assert run("tenants", "erase", "acme", stdin="n\n").exit_code == 1
    assert run("tenants", "erase", "acme", stdin="").exit_code == 1
    assert not [r for r in scripted.requests if isinstance(r, pb.EraseTenantRequest)]
    assert run("tenants", "erase", "acme", stdin="y\n").exit_code == 0
    assert run("tenants", "erase", "acme", "--yes", "--json").exit_code == 0
    asked = pb.EraseTenantRequest(tenant_id="acme", etag="7")
    assert [r for r in scripted.requests if isinstance(r, pb.EraseTenantRequest)] == [asked] * 2


@pytest.mark.parametrize(
    "words",
    [
        "--limit speed=5",
        "--limit requests_per_minute=many",
        "--limit requests_per_minute",
        "--budget token=5",
        "--budget token=5/year",
        "--budget EUR=lots/day",
        "--budget pebble=5/day",
        "--highest-tier first",
        "--retain files=soon",
        "--retain dreams=5d",
    ],
)
def test_what_makes_no_sense_is_not_sent(run: Run, scripted: Scripted, words: str) -> None:
    result = run("tenants", "create", "acme", *words.split())
    assert result.exit_code == 2, result.stdout
    assert result.stderr.startswith("penstock: ")
    assert scripted.requests == []
