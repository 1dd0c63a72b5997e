"""The write-ahead file: nothing that was written is lost, and nothing is believed that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.ledger.frames import ANCHOR, RECORD, anchor, frame, read_frame
from gateway.ledger.journal import Journal, Rotation
from gateway.ledger.reading import JournalReader, JournalTampered
from gateway.ledger.sources import Source, sources
from tests.gateway.ledger.records import KEY, ended, event, opened, read_all, written


def frames_of(path: Path) -> list[tuple[int, int, int]]:
    """(kind, offset, size) of every frame."""
    data, offset, found = path.read_bytes(), 0, []
    while (one := read_frame(data, offset)) is not None:
        found.append((one.kind, offset, one.size))
        offset += one.size
    assert offset == len(data)
    return found


async def test_what_was_written_is_read_back_in_order(tmp_path: Path) -> None:
    records = [ended(event(1)), opened(event(2)), ended(event(3)), ended(event(4))]
    source = await written(tmp_path, records)
    assert [r.payload for r in read_all(source)] == records
    assert [r.sequence for r in read_all(source)] == [1, 0, 2, 3]


async def test_a_reader_goes_on_where_it_stopped_across_files(tmp_path: Path) -> None:
    source = Source.create(tmp_path)
    journal = Journal(source, KEY, Rotation(max_bytes=1000))
    reader = JournalReader(source, KEY)
    seen: list[int] = []
    for number in range(1, 101):
        journal.append(ended(event(number)))
        if number % 7 == 0:
            await journal.sync()
            for record in reader.read(journal.durable):
                seen.append(record.sequence)
                if random.random() < 0.3:
                    break
    await journal.sync()
    seen += [record.sequence for record in reader.read(journal.durable)]
    assert seen == list(range(1, 101))
    assert len(source.files()) > 5
    await journal.close()


async def test_only_what_is_synced_is_behind_the_durable_position(tmp_path: Path) -> None:
    source = Source.create(tmp_path)
    journal = Journal(source, KEY)
    journal.append(ended(event(1)))
    await journal.sync()
    journal.append(ended(event(2)))
    assert [r.sequence for r in JournalReader(source, KEY).read(journal.durable)] == [1]
    await journal.close()


async def test_a_tail_torn_at_any_byte_costs_the_last_record_only(tmp_path: Path) -> None:
    source = await written(tmp_path, [ended(event(1)), opened(event(2))], synced=False)
    path = source.path(1)
    before = path.stat().st_size
    with path.open("ab") as file:
        chain = JournalReader(source, KEY)
        list(chain.read(None))
        file.write(frame(chain._chain, RECORD, ended(event(3)))[0])
    whole = path.read_bytes()
    assert [r.sequence for r in read_all(source)] == [1, 0, 2]
    for length in range(before, len(whole)):
        path.write_bytes(whole[:length])
        assert [r.sequence for r in read_all(source)] == [1, 0]
        blank = whole[:length] + bytes(len(whole) - length)
        if blank != whole:  # a frame may end with zeros
            path.write_bytes(blank)
            assert [r.sequence for r in read_all(source)] == [1, 0]


@pytest.mark.parametrize("length", range(0, 70, 3))
async def test_a_file_torn_in_its_header_ends_the_source(tmp_path: Path, length: int) -> None:
    source = await written(tmp_path, [ended(event(1)), ended(event(2))], each_file=2)
    last = source.path(2)
    last.write_bytes(last.read_bytes()[:length])
    assert [r.sequence for r in read_all(source)] == [1, 2]


async def test_a_file_lost_in_part_before_its_sync_ends_the_source(tmp_path: Path) -> None:
    """The power may go while the end of one file and the beginning of the next are in the air."""
    source = Source.create(tmp_path)
    records = [ended(event(n)) for n in range(1, 5)]
    first = await written(tmp_path, records[:2], each_file=2)
    shutil.rmtree(source.folder)
    old = first.path(1)
    kind, offset, _ = frames_of(old)[-1]
    assert kind == ANCHOR
    old.write_bytes(old.read_bytes()[: offset - 5])
    assert [r.sequence for r in read_all(first)] == [1]


async def test_every_mutation_before_the_last_anchor_is_detected(tmp_path: Path) -> None:
    source = await written(tmp_path, [ended(event(n)) for n in range(1, 41)], each_file=8)
    originals = {path: path.read_bytes() for _, path in source.files()}
    random.seed(3)
    for _ in range(100):
        path = random.choice([path for path in originals if path != source.files()[-1][1]])
        data = bytearray(originals[path])
        anchors = [offset for kind, offset, _ in frames_of(path) if kind == ANCHOR]
        mutate(data, anchors[-1])
        assert bytes(data) != originals[path]
        path.write_bytes(data)
        with pytest.raises(JournalTampered):
            read_all(source)
        path.write_bytes(originals[path])
    assert len(read_all(source)) == 40


def mutate(data: bytearray, end: int) -> None:
    """Changes, removes, adds or moves bytes before ``end``."""
    at = random.randrange(end)
    match random.randrange(4):
        case 0:
            data[at] ^= 1 << random.randrange(8)
        case 1:
            del data[at : at + random.randrange(1, 200)]
        case 2:
            data[at:at] = random.randbytes(random.randrange(1, 200))
        case _:
            piece = random.randbytes(random.randrange(1, 50))
            data[at : at + len(piece)] = piece


async def test_a_forger_without_the_key_is_detected(tmp_path: Path) -> None:
    """Every checksum and the whole chain made again, over cheaper events."""
    source = await written(tmp_path, [ended(event(n, tokens=500)) for n in (1, 2)])
    forged = await written(tmp_path, [ended(event(n, tokens=5)) for n in (1, 2)], synced=False)
    reader = JournalReader(source, KEY)
    kept: list[bytes] = []
    data = source.path(1).read_bytes()
    chain = b""
    for kind, offset, size in frames_of(source.path(1)):
        found = read_frame(data, offset)
        assert found is not None
        payload = found.payload
        if kind == RECORD:
            payload = ended(event(len(kept), tokens=5))
        if not kept:
            kept.append(data[offset : offset + size])
            chain = found.chain
            continue
        again, chain = (
            anchor(b"another key", chain) if kind == ANCHOR else frame(chain, kind, payload)
        )
        kept.append(again)
    source.path(1).write_bytes(b"".join(kept))
    with pytest.raises(JournalTampered, match="anchor"):
        list(reader.read(None))
    assert len(read_all(forged)) == 2


async def test_files_of_another_source_or_order_are_detected(tmp_path: Path) -> None:
    source = await written(tmp_path, [ended(event(n)) for n in range(1, 7)], each_file=2)
    other = await written(tmp_path, [ended(event(n)) for n in range(1, 7)], each_file=2)
    second = source.path(2).read_bytes()
    for path in (other.path(2), source.path(3)):
        source.path(2).write_bytes(path.read_bytes())
        with pytest.raises(JournalTampered):
            read_all(source)
    source.path(2).write_bytes(second)
    assert len(read_all(source)) == 6
    source.path(2).unlink()
    with pytest.raises(JournalTampered):
        read_all(source)


async def test_sealed_files_may_be_gone_from_the_beginning(tmp_path: Path) -> None:
    source = await written(tmp_path, [ended(event(n)) for n in range(1, 7)], each_file=2)
    source.path(1).unlink()
    assert [r.sequence for r in read_all(source)] == [3, 4, 5, 6]


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from gateway.ledger.journal import Journal
from gateway.ledger.sources import Source
from penstock.errors import DependencyUnavailable
from tests.gateway.ledger.records import KEY, ended, event

def limit(most_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

async def main():
    journal, taken, refused = Journal(Source.create(Path(sys.argv[1])), KEY), 0, 0
    limit(10_000)
    for number in range(1, 1000):
        try:
            journal.append(ended(event(number)))
            taken += 1
        except DependencyUnavailable:
            refused += 1
    await journal.sync()
    try:
        journal.check()
    except DependencyUnavailable:
        refused += 1
    limit(resource.RLIM_INFINITY)
    await journal.sync()
    journal.check()
    journal.append(ended(event(1001)))
    await journal.close()
    print(taken, refused)

asyncio.run(main())
"""


def run_child(program: str, ledger_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(ledger_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def only_source(ledger_dir: Path) -> Source:
    (name,) = sources(ledger_dir)
    source = Source.take(ledger_dir, name)
    assert source is not None
    return source


def test_a_disk_that_takes_no_more_refuses_until_it_does_again(tmp_path: Path) -> None:
    done = run_child(FULL_DISK, tmp_path)
    assert done.returncode == 0, done.stderr
    taken, refused = map(int, done.stdout.split())
    assert 10 < taken < 900
    assert refused == 999 - taken + 1
    source = only_source(tmp_path)
    assert [r.sequence for r in read_all(source)] == list(range(1, taken + 2))
    source.release()


KILLED = """
import os, signal, sys
from pathlib import Path
from gateway.ledger.journal import Journal
from gateway.ledger.sources import Source
from tests.gateway.ledger.records import KEY, ended, event

journal = Journal(Source.create(Path(sys.argv[1])), KEY)
for number in range(1, 501):
    journal.append(ended(event(number)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing_that_it_wrote(tmp_path: Path) -> None:
    assert run_child(KILLED, tmp_path).returncode == -signal.SIGKILL
    source = only_source(tmp_path)
    assert [r.sequence for r in read_all(source)] == list(range(1, 501))
    source.release()


def test_a_source_belongs_to_one_process_and_is_taken_when_that_ends(tmp_path: Path) -> None:
    source = Source.create(tmp_path)
    assert sources(tmp_path) == [source.name]
    assert Source.take(tmp_path, source.name) is None
    source.release()
    taken = Source.take(tmp_path, source.name)
    assert taken is not None
    assert Source.take(tmp_path, source.name) is None
    taken.remove()
    assert Source.take(tmp_path, source.name) is None
    assert os.listdir(tmp_path) == []
