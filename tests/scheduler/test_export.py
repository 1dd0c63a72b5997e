"""Sealed usage reaches an HTTP sink: all of it, in OpenMeter's shape, whatever the sink does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from penstock.api.types.v1 import metadata_pb2
from penstock.service.tasks import end_tasks
from scheduler import export
from scheduler.export import Exporter, SinkRefused
from tests.service.ledger.writing import Ledger, event


class Sink:
    """An HTTP server that notes what it is posted; ``statuses`` are answered first, then 204."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.posts: list[tuple[dict[str, str], Any]] = []
        self.taken: list[Any] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                assert line.startswith(b"POST /api/v1/events ")
                headers = {}
                while (line := await reader.readline()) != b"\r\n":
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                status = self.statuses.pop(0) if self.statuses else 204
                self.posts.append((headers, body))
                if status == 204:
                    self.taken += body
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        finally:
            writer.close()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    sink = Sink()
    server = await asyncio.start_server(sink.answer, "127.0.0.1", 0)
    sink.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1/events"
    yield sink
    server.close()


@pytest.fixture
async def exporter(ledger: Ledger, sink: Sink) -> AsyncIterator[Exporter]:
    exporter = Exporter(ledger.control, ledger.usage, sink.url, "a token", "me")
    yield exporter
    await exporter.close()


async def test_an_event_has_the_shape_that_openmeter_sums(
    ledger: Ledger, exporter: Exporter, sink: Sink
) -> None:
    one = event(4)
    one.usage.add(output_units=3, unit=metadata_pb2.USAGE_UNIT_TOKEN)
    await ledger.seal([one, event(5, billed=False)])
    assert await exporter.export_segment()
    ((headers, (posted,)),) = sink.posts
    assert headers["content-type"] == "application/cloudevents-batch+json"
    assert headers["authorization"] == "Bearer a token"
    data = posted.pop("data")
    assert posted == {
        "specversion": "1.0",
        "id": one.id,
        "source": "penstock/s1",
        "type": "dev.penstock.usage",
        "time": "2026-09-21T14:13:20.004500Z",
        "subject": "acme",
        "datacontenttype": "application/json",
    }
    assert (data["input_tokens"], data["output_tokens"], data["tokens"]) == (5, 3, 8)
    assert (data["rows"], data["input_images"], data["seconds"]) == (0, 0, 0)
    assert (data["model"], data["family"], data["cost_micros"]) == ("intent", "inference", 35)


async def test_every_segment_is_posted_once_in_batches(
    ledger: Ledger, exporter: Exporter, sink: Sink
) -> None:
    await ledger.seal([event(n) for n in range(150)], [event(n) for n in range(150, 160)])
    while await exporter.export_segment():
        pass
    assert [len(body) for _, body in sink.posts] == [100, 50, 10]
    assert [one["id"] for one in sink.taken] == [event(n).id for n in range(160)]


async def test_a_segment_that_the_sink_refused_is_posted_again(
    ledger: Ledger, exporter: Exporter, sink: Sink
) -> None:
    await ledger.seal([event(n) for n in range(150)])
    sink.statuses = [204, 503]
    with pytest.raises(SinkRefused, match="503"):
        await exporter.export_segment()
    assert await exporter.export_segment()
    wanted = {event(n).id for n in range(150)}
    assert {(one["source"], one["id"]) for one in sink.taken} == {
        ("penstock/s1", i) for i in wanted
    }
    assert len(sink.taken) == 250


async def test_a_failing_sink_is_asked_until_it_takes_everything(
    ledger: Ledger, exporter: Exporter, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "FIRST_PAUSE_SECONDS", 0.01)
    sink.statuses = [500, 429, 401]
    await ledger.seal([event(1)], [event(2)])
    task = asyncio.create_task(exporter.run())
    try:
        async with asyncio.timeout(10):
            while len(sink.taken) < 2:
                await asyncio.sleep(0.01)
    finally:
        assert await end_tasks([task], 10)
    assert [one["id"] for one in sink.taken] == [event(1).id, event(2).id]


async def test_one_scheduler_exports_at_a_time(
    ledger: Ledger, exporter: Exporter, sink: Sink, redis: Redis
) -> None:
    await ledger.seal([event(1)])
    assert await exporter.export_segment()
    await ledger.seal([event(2)], first=2)
    other = Exporter(redis, ledger.usage, sink.url, "", "another")
    assert not await other.export_segment()
    await other.close()
    assert await exporter.export_segment()
