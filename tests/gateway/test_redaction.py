"""What identifies people is blacked out wherever text is, and only there."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from gateway.redaction import BLACK, redact, redacted
from penstock.api.inference.v1 import inference_pb2 as pb


@pytest.mark.parametrize(
    "secret",
    [
        "ada@example.com",
        "ada.l+x@mail.example.co.uk",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5500005555555559",
        "378282246310005",
        "+49 30 901820",
        "+493090182012",
        "(030) 901 820 12",
        "030/9018201",
        "212-555-0143",
        "0171 234 567 8",
    ],
)
def test_mail_addresses_card_and_telephone_numbers_are_blacked_out(secret: str) -> None:
    assert redacted(f"write to {secret}, please") == f"write to {BLACK}, please"


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112 fails the check",
        "order 1234567890 of 2026",
        "pi is 3.14159265 and not 0.00000001",
        "since 2026-11-25 14:30",
        "at 12:30 for 25 people",
        "user@localhost",
        "build 20261125 abc1234567def",
    ],
)
def test_other_numbers_and_words_stay(text: str) -> None:
    assert redacted(text) == text


@given(st.text())
def test_any_text_can_be_redacted_and_again_without_change(text: str) -> None:
    once = redacted(text)
    assert redacted(once) == once


@given(st.from_regex(r"[a-z]{1,9}\.[a-z]{1,9}@[a-z]{1,9}\.(com|org)", fullmatch=True))
def test_no_mail_address_survives(address: str) -> None:
    assert address not in redacted(f"a {address} b")


def test_a_message_is_redacted_to_its_depth() -> None:
    request = pb.ClassifyRequest(model="m", texts=["ada@example.com", "nothing"])
    redact(request)
    assert list(request.texts) == [BLACK, "nothing"]
    assert request.model == "m"


def test_maps_and_lists_are_redacted() -> None:
    struct = struct_pb2.Struct()
    struct.update({"mail": "ada@example.com", "n": 7, "deep": {"list": ["+49 30 901820"]}})
    redact(struct)
    assert MessageToDict(struct) == {"mail": BLACK, "n": 7, "deep": {"list": [BLACK]}}


def test_bytes_fields_are_emptied() -> None:
    request = pb.DetectObjectsRequest(model="m")
    request.images.add(data=b"\x89PNG")
    redact(request)
    assert request.images[0].data == b""
