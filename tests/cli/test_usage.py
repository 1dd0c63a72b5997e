"""usage and limits: tables and bars for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from typing import Any

import pytest

from penstock.api.types.v1 import limits_pb2, metadata_pb2
from penstock.api.usage.v1 import usage_pb2 as pb
from tests.cli.conftest import Run
from tests.client.scripted import Scripted

DAY = 86_400


def row(day: int, model: str, read: int, written: int, cost: int = 0) -> pb.UsageRow:
    made = pb.UsageRow(
        model=model,
        unit=metadata_pb2.USAGE_UNIT_TOKEN,
        calls=2,
        input_units=read,
        output_units=written,
        cost_micros=cost,
        currency="EUR",
    )
    made.day.seconds = day * DAY
    return made


def given(answer: Any, *_: object) -> Any:
    return answer


def paged(request: pb.QueryUsageRequest, _: object) -> pb.QueryUsageResponse:
    """Two pages, and a unit of its own on the second."""
    if not request.page_token:
        rows = [row(20_000, "story", 1000, 3000, 1_500_000), row(20_000, "[tiny]", 0, 1)]
        return pb.QueryUsageResponse(rows=rows, next_page_token="more")
    images = row(20_001, "scenes", 7, 0)
    images.unit = metadata_pb2.USAGE_UNIT_IMAGE
    return pb.QueryUsageResponse(rows=[row(20_001, "story", 500, 1500), images])


@pytest.fixture(autouse=True)
def used(scripted: Scripted) -> None:
    scripted.behaviours["QueryUsage"] = paged


def test_usage_is_a_table_and_bars_in_proportion(run: Run, scripted: Scripted) -> None:
    told = run("usage").stdout
    lines = [line.split() for line in told.splitlines()]
    figures = ["story", "token", "2", "1,000", "3,000", "1.500000", "EUR"]
    assert ["2024-10-04", *figures] in lines
    assert "[tiny]" in told
    bars = {line[0] + line[-1]: line[1] for line in lines if len(line) == 3 and "█" in line[1]}
    assert bars == {
        "2024-10-044,001": 40 * "█",
        "2024-10-052,000": 20 * "█",
        "2024-10-057": 40 * "█",
    }
    first, second = scripted.requests
    assert list(first.group_by) == [pb.USAGE_DIMENSION_DAY, pb.USAGE_DIMENSION_MODEL]
    assert (first.end_time.seconds - first.start_time.seconds) // DAY == 29
    assert second.page_token == "more"


def test_usage_is_filtered_and_split_as_asked(run: Run, scripted: Scripted) -> None:
    run("usage", "--by", "tenant,tier", "--days", "7", "--model", "story", "--key", "a")
    asked = scripted.requests[0]
    assert list(asked.group_by) == [pb.USAGE_DIMENSION_TENANT, pb.USAGE_DIMENSION_TIER]
    assert (list(asked.filter.models), list(asked.filter.key_ids)) == (["story"], ["a"])
    assert (asked.end_time.seconds - asked.start_time.seconds) // DAY == 6


def test_usage_is_csv_and_json_for_programs(run: Run) -> None:
    read = list(csv.DictReader(io.StringIO(run("usage", "--csv").stdout)))
    assert [r["model"] for r in read] == ["story", "[tiny]", "story", "scenes"]
    assert read[0] == {
        "day": "2024-10-04",
        "model": "story",
        "unit": "token",
        "calls": "2",
        "input_units": "1000",
        "output_units": "3000",
        "cost_micros": "1500000",
        "currency": "EUR",
    }
    rows = json.loads(run("usage", "--json").stdout)["rows"]
    assert len(rows) == 4
    assert rows[0]["output_units"] == "3000"


def test_no_usage_says_so(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["QueryUsage"] = partial(given, pb.QueryUsageResponse())
    assert run("usage").stdout == "Nothing was used.\n"


def test_an_unknown_dimension_is_refused_with_those_there_are(run: Run) -> None:
    result = run("usage", "--by", "day,colour")
    assert result.exit_code == 2
    assert "tenant, key, model, family, tier, day" in result.stderr


def test_limits_show_what_is_left(run: Run, scripted: Scripted) -> None:
    found = pb.GetLimitsResponse()
    limit = found.limits.add(
        kind=pb.LIMIT_KIND_UNITS_PER_MINUTE,
        subject=pb.LIMIT_SUBJECT_MODEL,
        model="story",
        limit=60_000,
        remaining=1_234,
    )
    limit.reset_time.seconds = 20_000 * DAY
    found.budgets.add(
        budget=limits_pb2.Budget(
            currency="EUR", amount=5_000_000, period=limits_pb2.BUDGET_PERIOD_MONTH
        ),
        subject=pb.LIMIT_SUBJECT_TENANT,
        spent=1_000_000,
        reserved=500_000,
    )
    scripted.behaviours["GetLimits"] = partial(given, found)
    lines = [" ".join(line.split()) for line in run("limits").stdout.splitlines()]
    assert "model story units per minute 60,000 1,234 2024-10-04 00:00:00 UTC" in lines
    assert "tenant EUR (month) 5.000000 EUR 3.500000 EUR" in lines
    assert json.loads(run("limits", "--json").stdout)["limits"][0]["remaining"] == "1234"
