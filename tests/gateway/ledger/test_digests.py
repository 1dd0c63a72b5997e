"""Digests are HMAC-SHA256, however the bytes come."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.digests import Digest, digest


@given(key=st.binary(max_size=100), pieces=st.lists(st.binary(max_size=200), max_size=5))
def test_a_digest_is_an_hmac_of_all_pieces_joined(key: bytes, pieces: list[bytes]) -> None:
    running = Digest(key)
    for piece in pieces:
        running.update(piece)
    expected = hmac.digest(key, b"".join(pieces), "sha256")
    assert running.digest() == digest(key, b"".join(pieces)) == expected
