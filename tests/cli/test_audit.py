"""The audit verbs: what they ask for, what they show, what they write."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penstock.api.audit.v1 import audit_pb2 as pb
from penstock.cli import exports
from tests.cli.conftest import Run
from tests.client.scripted import Scripted

HASH = "ab" * 32


def an_event(number: int) -> pb.AuditEvent:
    made = pb.AuditEvent(
        id=f"evt_{number}",
        request_id=f"request-{number}",
        tenant_id="acme",
        method="/penstock.api.inference.v1.InferenceService/Classify",
        model="=intent",
        code="OK",
        decision=pb.AUDIT_DECISION_ALLOWED,
        segment=number,
    )
    made.time.FromSeconds(1_790_000_000 + number)
    made.usage.input_units = number
    return made


def pages(request: pb.QueryEventsRequest, _: Any) -> pb.QueryEventsResponse:
    """Five events in pages of two."""
    start = int(request.page_token or 0)
    events = [an_event(n) for n in range(start, min(start + 2, 5))]
    return pb.QueryEventsResponse(
        events=events, next_page_token=str(start + 2) if start + 2 < 5 else ""
    )


def intact(request: pb.VerifyChainRequest, _: Any) -> pb.VerifyChainResponse:
    """Two pages of two segments."""
    first = request.first_segment
    answer = pb.VerifyChainResponse(
        intact=True, segments=2, events=7, next_segment=3 if first == 1 else 0
    )
    answer.head.segment, answer.head.hash = first + 1, HASH
    return answer


def broken(request: pb.VerifyChainRequest, _: Any) -> pb.VerifyChainResponse:
    fault = pb.ChainFault(
        segment=2, kind=pb.CHAIN_FAULT_KIND_MAC_MISMATCH, description="it was changed"
    )
    return pb.VerifyChainResponse(intact=False, segments=3, faults=[fault])


def test_list_follows_the_pages_up_to_the_limit(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["QueryEvents"] = pages
    result = run("audit", "list", "--limit", "3", "--model", "intent", "--decision", "refused")
    assert result.exit_code == 0
    assert [f"request-{n}" in result.stdout for n in range(5)] == [True, True, True, False, False]
    (first, second) = scripted.requests
    assert (first.model, first.decision, first.page_size) == (
        "intent",
        pb.AUDIT_DECISION_REFUSED,
        3,
    )
    assert second.page_token == "2"


def test_list_takes_a_period_in_utc(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["QueryEvents"] = pages
    result = run(
        "audit", "list", "--since", "2026-09-21", "--until", "2026-09-22T12:00:00", "--json"
    )
    assert len(json.loads(result.stdout)["events"]) == 5
    asked = scripted.requests[0]
    assert asked.start_time.ToJsonString() == "2026-09-21T00:00:00Z"
    assert asked.end_time.ToJsonString() == "2026-09-22T12:00:00Z"


def test_verify_walks_both_chains_to_their_ends(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["VerifyChain"] = intact
    result = run("audit", "verify", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["intact"]
    assert {name: found["segments"] for name, found in told["ledgers"].items()} == {
        "audit": 4,
        "usage": 4,
    }
    assert [(r.ledger, r.first_segment) for r in scripted.requests] == [
        (pb.LEDGER_AUDIT, 1),
        (pb.LEDGER_AUDIT, 3),
        (pb.LEDGER_USAGE, 1),
        (pb.LEDGER_USAGE, 3),
    ]


def test_a_broken_chain_is_shown_and_is_status_1(run: Run, scripted: Scripted) -> None:
    scripted.behaviours["VerifyChain"] = broken
    result = run("audit", "verify", "--ledger", "audit")
    assert result.exit_code == 1
    assert "BROKEN" in result.stdout
    assert "mac mismatch" in result.stdout


def test_anchors_are_noted_when_all_is_well_and_sent_the_next_time(
    run: Run, scripted: Scripted, tmp_path: Path
) -> None:
    anchors = tmp_path / "anchors.json"
    scripted.behaviours["VerifyChain"] = intact
    for _ in range(2):
        assert run("audit", "verify", "--anchors", str(anchors)).exit_code == 0
    assert json.loads(anchors.read_text()) == {
        name: [{"segment": 4, "hash": HASH}] for name in ("audit", "usage")
    }
    assert [len(request.known_links) for request in scripted.requests] == [0] * 4 + [1] * 4
    before = anchors.read_text()
    scripted.behaviours["VerifyChain"] = broken
    assert run("audit", "verify", "--anchors", str(anchors)).exit_code == 1
    assert anchors.read_text() == before


@pytest.mark.parametrize("kind", exports.FORMATS)
def test_export_writes_every_event_in_files_of_a_bounded_size(
    run: Run, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(exports, "ROWS_A_FILE", 3)
    scripted.behaviours["QueryEvents"] = pages
    result = run("audit", "export", str(tmp_path / "out"), "--format", kind, "--json")
    assert result.exit_code == 0, result.stderr
    files = [Path(name) for name in json.loads(result.stdout)["files"]]
    assert files == sorted((tmp_path / "out").iterdir())
    rows = [row for path in files for row in read(path)]
    assert [row["request_id"] for row in rows] == [f"request-{n}" for n in range(5)]
    assert rows[0]["time"] == "2026-09-21T14:13:20Z"
    assert rows[0]["model"] == ("'=intent" if kind == "csv" else "=intent")
    assert str(rows[4]["input_units"]) == "4"


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    with path.open(newline="") as file:
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--decision", "maybe"),
        ("verify", "--ledger", "money"),
        ("export", "out", "--format", "xml"),
        ("list", "--since", "yesterday"),
    ],
)
def test_what_makes_no_sense_is_status_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("audit", *arguments).exit_code == 2


def test_a_file_that_holds_no_anchors_is_refused(run: Run, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors.json"
    anchors.write_text("[]")
    assert run("audit", "verify", "--anchors", str(anchors)).exit_code == 2
