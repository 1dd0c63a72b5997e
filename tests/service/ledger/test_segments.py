"""A segment's file says of every event what the event says, in columns that any tool can read."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from penstock.service.ledger.segments import SegmentBroken, decode, encode, row_of
from tests.service.ledger.writing import NOW_US, event


def test_rows_come_back_as_they_were_written() -> None:
    rows = [row_of("s1", i + 1, event(i, billed=i % 2 == 0)) for i in range(50)]
    assert decode(encode(rows)) == rows


def test_the_columns_hold_the_cloudevents_attributes_and_the_fields() -> None:
    table = pq.read_table(io.BytesIO(encode([row_of("s1", 1, event(4))])))
    (row,) = table.to_pylist()
    assert row["id"] == event(4).id
    assert (row["source"], row["type"], row["specversion"]) == ("s1", "dev.penstock.call", "1.0")
    assert row["subject"] == row["tenant"] == "acme"
    assert row["time"].timestamp() * 1e6 == NOW_US + 4_500
    assert row["usage"] == [{"unit": "token", "input_units": 5, "output_units": 0}]
    assert (row["code"], row["decision"], row["family"]) == ("OK", "allowed", "inference")


def test_a_column_that_contradicts_its_event_is_noticed() -> None:
    table = pq.read_table(io.BytesIO(encode([row_of("s1", 1, event(4))])))
    index = table.schema.get_field_index("tenant")
    forged = table.set_column(index, table.schema.field(index), [["other"]])
    out = io.BytesIO()
    pq.write_table(forged, out)
    with pytest.raises(SegmentBroken, match="column"):
        decode(out.getvalue())


def test_what_is_no_segment_is_refused() -> None:
    for data in (b"", b"PAR1", encode([])[:-9]):
        with pytest.raises(SegmentBroken):
            decode(data)
