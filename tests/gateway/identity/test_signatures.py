"""Signed requests: what was signed is what runs, once, in one cluster, within five minutes."""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from redis.asyncio import Redis

from gateway.identity import first_message
from penstock import AsyncClient, SigningKey
from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from penstock.service.local.ports import free_port
from penstock.service.local.redis_server import RedisServer
from penstock.service.redis import connect
from penstock.signatures import Signed
from tests.gateway.identity.front import PREDICT, REQUEST, Front, Records, fronted, records_of

OTHER_METHOD = PREDICT.replace("Predict", "Classify")
EMBED_STREAM = "/penstock.api.embeddings.v1.EmbeddingsService/EmbedStream"
OTHER_REQUEST = pb.PredictRequest(model="another").SerializeToString()


class Signer:
    """Signs as docs/identity.md says, without any code of the SDK's."""

    def __init__(self, key_id: str, sign: Callable[[bytes], bytes], public_key: str = "") -> None:
        self.key_id = key_id
        self.sign = sign
        self.public_key = public_key

    def signed(self, method: str = PREDICT, message: bytes = REQUEST, **fields: Any) -> Signed:
        head = Signed(self.key_id, int(time.time()), secrets.token_hex(16), "penstock")
        head = replace(head, **fields)
        signature = base64.b64encode(self.sign(head.canonical(method, message))).decode()
        return replace(head, signature=signature)


@pytest.fixture
def private_key() -> bytes:
    """32 random bytes, as an Ed25519 key."""
    return secrets.token_bytes(32)


@pytest.fixture
async def signer(records: Records, private_key: bytes) -> Signer:
    """With an Ed25519 key of the tenant acme."""
    return await ed25519_signer(records, Ed25519PrivateKey.from_private_bytes(private_key))


async def ed25519_signer(records: Records, private: Ed25519PrivateKey, **fields: Any) -> Signer:
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    record, _ = await records.key(credential="ed25519", public_key=public, **fields)
    return Signer(record.id, private.sign, public)


@pytest.fixture
async def secret_signer(records: Records) -> Signer:
    """With a shared secret of the tenant acme."""
    record, text = await records.key(credential="hmac")
    secret = text.split("_")[2].encode()
    return Signer(record.id, lambda text: hmac.digest(secret, text, "sha256"))


def test_the_documented_vector_is_what_is_signed() -> None:
    page = (Path(__file__).parents[3] / "docs" / "identity.md").read_text()
    signed = Signed("00112233445566ff", 1767225600, "AAECAwQFBgcICQoLDA0ODw", "penstock")
    text = signed.canonical(PREDICT, REQUEST)
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    header = replace(signed, signature=base64.b64encode(key.sign(text)).decode()).header()
    secret = base64.b64encode(hmac.digest(b"0" * 43, text, "sha256")).decode()
    assert text.decode() in page
    assert f"authorization: {header}" in page
    assert secret in page


async def test_both_kinds_of_signature_pass(
    front: Front, signer: Signer, secret_signer: Signer
) -> None:
    for one in (signer, secret_signer):
        assert await front.call(one.signed().header()) == "OK"
        assert front.probe.calls[-1].principal.key_id == one.key_id
        assert front.probe.calls[-1].principal.tenant == "acme"


async def test_the_sdks_signatures_pass(
    front: Front, signer: Signer, records: Records, private_key: bytes
) -> None:
    _, secret = await records.key(credential="hmac")
    for key in (SigningKey(signer.key_id, private_key), SigningKey.of_secret(secret)):
        async with AsyncClient(f"http://{front.address}", signing_key=key) as client:
            stub = client.stub(InferenceServiceStub)
            for _ in range(2):
                assert await stub.Predict(pb.PredictRequest(model="m"))
            assert (await client.generate("story", "once").result()).text == "once"
            groups = client.embed_stream("m", [("a", ["x"]), ("b", ["y"])])
            assert [group async for group in groups] == []
            assert front.probe.calls[-1].principal.key_id == key.key_id
    assert len(front.probe.calls) == 8


def resigned(**changed: Any) -> Callable[[Signer], str]:
    """Changed after it was signed."""
    return lambda signer: replace(signer.signed(), **changed).header()


def signed_so(**fields: Any) -> Callable[[Signer], str]:
    """Signed truly, but for something else."""
    return lambda signer: signer.signed(**fields).header()


def text_changed(old: str, new: str) -> Callable[[Signer], str]:
    return lambda signer: signer.signed().header().replace(old, new)


FORGERIES: dict[str, Callable[[Signer], str]] = {
    "body altered": signed_so(message=OTHER_REQUEST),
    "body emptied": signed_so(message=b""),
    "method altered": signed_so(method=OTHER_METHOD),
    "method in other letters": signed_so(method=PREDICT.lower()),
    "time altered": lambda signer: replace(
        signer.signed(), timestamp=int(time.time()) + 9
    ).header(),
    "nonce altered": resigned(nonce="0" * 32),
    "key altered": resigned(key_id="0123456789abcdef"),
    "signature altered": resigned(signature=base64.b64encode(b"\1" * 64).decode()),
    "signature of zeros": resigned(signature=base64.b64encode(bytes(64)).decode()),
    "signature cut to half": resigned(signature=base64.b64encode(b"\1" * 32).decode()),
    "signature that is no base64": resigned(signature="=" + "A" * 86),
    "another cluster's": signed_so(audience="staging"),
    "too old": lambda signer: signer.signed(timestamp=int(time.time()) - 302).header(),
    "too new": lambda signer: signer.signed(timestamp=int(time.time()) + 302).header(),
    "an endless time": signed_so(timestamp=10**11),
    "a short nonce": signed_so(nonce="abc"),
    "a nonce with a Redis key": signed_so(nonce="x:penstock:key:00112233445566ff"),
    "another version": text_changed("v=1", "v=2"),
    "a field twice": text_changed("v=1", "v=1,v=1"),
    "a field missing": text_changed("aud=penstock,", ""),
    "fields in another order": lambda signer: swapped(signer.signed().header()),
    "a key id in capitals": lambda signer: signer.signed(key_id=signer.key_id.upper()).header(),
    "a key id with SQL": lambda signer: signer.signed(key_id="' OR '1'='1").header(),
    "a sign before the time": text_changed("ts=", "ts=+"),
    "the public key as shared secret": lambda signer: (
        Signer(
            signer.key_id,
            lambda text: hmac.digest(bytes.fromhex(signer.public_key), text, "sha256"),
        )
        .signed()
        .header()
    ),
    "nothing but the scheme": lambda _: "Penstock-Signature ",
}


def swapped(header: str) -> str:
    scheme, _, fields = header.partition(" ")
    return f"{scheme} {','.join(reversed(fields.split(',')))}"


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_a_forged_signature_reaches_no_handler(
    front: Front, signer: Signer, redis: Redis, forge: Callable[[Signer], str]
) -> None:
    assert await front.call(forge(signer)) == "CREDENTIALS_INVALID"
    assert front.probe.calls == []
    # Only a key's holder can make the cluster remember anything.
    assert await redis.keys("penstock:nonce:*") == []
    assert await front.call(signer.signed().header()) == "OK"


async def test_a_forged_body_is_not_even_decoded(front: Front, signer: Signer) -> None:
    header = signer.signed().header()
    assert await front.call(header, body=b"\xff\xff") == "CREDENTIALS_INVALID"
    undecodable = signer.signed(message=b"\xff\xff").header()
    assert await front.call(undecodable, body=b"\xff\xff") == "FIELD_INVALID"


async def test_another_keys_signature_and_a_wrong_secret_are_refused(
    front: Front, signer: Signer, secret_signer: Signer
) -> None:
    crossed = Signer(signer.key_id, secret_signer.sign)
    guessed = Signer(secret_signer.key_id, lambda text: hmac.digest(b"x" * 43, text, "sha256"))
    for one in (crossed, guessed):
        assert await front.call(one.signed().header()) == "CREDENTIALS_INVALID"


async def test_a_signature_does_not_pass_twice_and_its_owner_still_may(
    front: Front, signer: Signer
) -> None:
    header = signer.signed().header()
    assert await front.call(header) == "OK"
    assert await front.call(header) == "CREDENTIALS_INVALID"
    # The same nonce under a newer signature is the same nonce.
    nonce = header.partition("nonce=")[2].partition(",")[0]
    assert await front.call(signer.signed(nonce=nonce).header()) == "CREDENTIALS_INVALID"
    assert await front.call(signer.signed().header()) == "OK"


async def test_of_a_hundred_callers_at_three_gateways_with_one_nonce_one_passes(
    redis: Redis, signer: Signer
) -> None:
    async with AsyncExitStack() as stack:
        fronts = [await stack.enter_async_context(fronted(redis)) for _ in range(3)]
        for front in fronts:
            assert await front.call(signer.signed().header()) == "OK"
        header = signer.signed().header()
        results = await asyncio.gather(*(fronts[n % 3].call(header) for n in range(100)))
        assert sorted(results) == ["CREDENTIALS_INVALID"] * 99 + ["OK"]
        assert sum(len(front.probe.calls) for front in fronts) == 4


async def test_a_stream_is_signed_by_its_first_message(front: Front, signer: Signer) -> None:
    first, second = (
        embeddings_pb2.EmbedStreamRequest(group_id=name).SerializeToString() for name in "ab"
    )

    async def sent(header: str, *messages: bytes) -> list[bytes]:
        stream: Any = front.channel.stream_stream(EMBED_STREAM)
        call = stream(iter(messages), metadata=(("authorization", header),), timeout=20)
        return [answer async for answer in call]

    signed = signer.signed(EMBED_STREAM, first)
    assert len(await sent(signed.header(), first, second)) == 2
    for message in (second, b""):
        with pytest.raises(Exception, match="does not fit"):
            await sent(signer.signed(EMBED_STREAM, first).header(), message)
    # A stream without messages is signed as an empty one.
    assert await sent(signer.signed(EMBED_STREAM, b"").header()) == []
    assert len(front.probe.calls) == 2


async def test_a_signed_stream_that_never_begins_is_given_up(
    front: Front, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_message, "FIRST_MESSAGE_SECONDS", 0.1)

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    stream: Any = front.channel.stream_stream(EMBED_STREAM)
    metadata = (("authorization", signer.signed(EMBED_STREAM, b"").header()),)
    call = stream(silent(), metadata=metadata, timeout=20)
    with pytest.raises(Exception, match="first message did not come"):
        await call.read()


@pytest.mark.usefixtures("hasty")
async def test_a_rotated_signing_key_has_an_overlap_and_a_revoked_one_none(
    front: Front, signer: Signer, records: Records
) -> None:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    await records.keys.rotate(signer.key_id, public_key=public, overlap_seconds=3600)
    renewed = Signer(signer.key_id, private.sign)
    assert await front.call(renewed.signed().header()) == "OK"
    assert await front.call(signer.signed().header()) == "OK"
    await records.keys.revoke(signer.key_id)
    async with asyncio.timeout(5):
        while await front.call(renewed.signed().header()) == "OK":
            await asyncio.sleep(0.05)
    assert await front.call(renewed.signed().header()) == "CREDENTIALS_INVALID"


def started(server: RedisServer) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    assert server.wait()
    return child


async def test_a_replay_after_redis_was_killed_is_still_refused(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", free_port())
    child = started(server)
    redis = connect(server.url())
    try:
        records = records_of(redis)
        await records.tenant()
        signer = await ed25519_signer(records, Ed25519PrivateKey.generate())
        async with fronted(redis) as front:
            header = signer.signed().header()
            assert await front.call(header) == "OK"
            child.kill()
            child.wait()
            # The key is trusted for a while; a nonce without Redis is not.
            fresh = signer.signed().header()
            assert await front.call(fresh) == "DEPENDENCY_UNAVAILABLE"
            child = started(server)
            assert await front.call(header) == "CREDENTIALS_INVALID"
            assert await front.call(fresh) == "OK"
            assert len(front.probe.calls) == 2
    finally:
        await redis.aclose()
        child.kill()
        child.wait()
