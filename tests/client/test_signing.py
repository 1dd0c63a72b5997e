"""Signing in the SDK: every attempt anew, over the bytes that are sent, in both clients."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from penstock import AsyncClient, Client, ConfigurationError, SigningKey
from penstock.api.embeddings.v1 import embeddings_pb2
from penstock.api.inference.v1 import inference_pb2 as inference
from penstock.client.attempts import MOST_ATTEMPTS, Attempts
from penstock.errors import DeadlineExceeded, Unavailable
from penstock.signatures import Signed, parse
from tests.client.scripted import Scripted, Served, classified

KEY_ID = "00112233445566ff"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
SECRET = f"pss_{KEY_ID}_{'s' * 43}_000000"
CLASSIFY = "/penstock.api.inference.v1.InferenceService/Classify"
GENERATE = "/penstock.api.inference.v1.InferenceService/Generate"
EMBED_STREAM = "/penstock.api.embeddings.v1.EmbeddingsService/EmbedStream"


def verified(scripted: Scripted, method: str, call: int = -1, message: Any = None) -> Signed:
    """The signature of a call that has reached the server, held against what was sent."""
    signed = parse(str(scripted.metadata[call]["authorization"]))
    assert signed is not None
    if message is None:
        message = scripted.requests[call]
    body = message if isinstance(message, bytes) else message.SerializeToString()
    signature = base64.b64decode(signed.signature)
    PRIVATE.public_key().verify(signature, signed.canonical(method, body))
    return signed


@pytest.fixture
def signing(served: Served) -> Iterator[Client]:
    key = SigningKey(KEY_ID, PEM)
    with Client(f"http://{served.endpoint}", signing_key=key) as client:
        yield client


@pytest.fixture
async def async_signing(served: Served) -> AsyncIterator[AsyncClient]:
    key = SigningKey(KEY_ID, PEM)
    async with AsyncClient(f"http://{served.endpoint}", signing_key=key) as client:
        yield client


class Failing:
    """Fails so many times before it answers."""

    def __init__(self, times: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.left = times
        self.code = code

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.left > 0:
            self.left -= 1
            context.abort(self.code, "not now")
        return classified(request, context)


def told(_: Any, __: Any) -> Iterator[inference.GenerateResponse]:
    yield inference.GenerateResponse(delta="x", finish_reason=inference.FINISH_REASON_STOP)


RECEIVED: list[embeddings_pb2.EmbedStreamRequest] = []


def echoed(requests: Any, _: Any) -> Iterator[embeddings_pb2.EmbedStreamResponse]:
    RECEIVED.clear()
    for request in requests:
        RECEIVED.append(request)
        vector = embeddings_pb2.Embedding(values=[0.5])
        yield embeddings_pb2.EmbedStreamResponse(group_id=request.group_id, embeddings=[vector])


def test_every_attempt_is_signed_anew(signing: Client, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = Failing(2)
    signing.classify("intent", "hello")
    nonces = {verified(scripted, CLASSIFY, attempt).nonce for attempt in range(3)}
    assert len(scripted.metadata) == len(nonces) == 3


async def test_every_attempt_is_signed_anew_in_asynchronous_code(
    async_signing: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours["Classify"] = Failing(2)
    await async_signing.classify("intent", "hello")
    nonces = {verified(scripted, CLASSIFY, attempt).nonce for attempt in range(3)}
    assert len(scripted.metadata) == len(nonces) == 3


def test_attempts_end_and_other_refusals_are_final(signing: Client, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = Failing(100)
    with pytest.raises(Unavailable):
        signing.classify("intent", "hello")
    assert len(scripted.metadata) == MOST_ATTEMPTS
    scripted.behaviours["Classify"] = Failing(100, grpc.StatusCode.NOT_FOUND)
    with pytest.raises(Exception, match="not now"):
        signing.classify("intent", "hello")
    assert len(scripted.metadata) == MOST_ATTEMPTS + 1


def test_attempts_stay_within_the_deadline(signing: Client, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = Failing(100)
    with pytest.raises((Unavailable, DeadlineExceeded)):
        signing.classify("intent", "hello", timeout=0.15)
    assert len(scripted.metadata) <= 2
    assert all(left <= 0.15 for left in scripted.seconds_left)


def test_streams_are_signed_by_their_first_message(signing: Client, scripted: Scripted) -> None:
    scripted.behaviours |= {"Generate": told, "EmbedStream": echoed}
    assert signing.generate("story", "once").result().text == "x"
    verified(scripted, GENERATE)
    groups = list(signing.embed_stream("minilm", [("a", ["x"]), ("b", ["y"])]))
    assert [group.group_id for group in groups] == ["a", "b"]
    verified(scripted, EMBED_STREAM, message=RECEIVED[0])
    assert list(signing.embed_stream("minilm", [])) == []
    verified(scripted, EMBED_STREAM, message=b"")


async def test_streams_are_signed_in_asynchronous_code(
    async_signing: AsyncClient, scripted: Scripted
) -> None:
    scripted.behaviours |= {"Generate": told, "EmbedStream": echoed}
    assert (await async_signing.generate("story", "once").result()).text == "x"
    verified(scripted, GENERATE)

    async def groups() -> AsyncIterator[tuple[str, list[str]]]:
        yield "a", ["x"]
        await asyncio.sleep(0)
        yield "b", ["y"]

    found = [group async for group in async_signing.embed_stream("minilm", groups())]
    assert [group.group_id for group in found] == ["a", "b"]
    verified(scripted, EMBED_STREAM, message=RECEIVED[0])


def test_a_shared_secret_signs_too(served: Served, scripted: Scripted) -> None:
    scripted.behaviours["Classify"] = classified
    with Client(f"http://{served.endpoint}", signing_key=SECRET) as client:
        client.classify("intent", "hello")
    signed = parse(str(scripted.metadata[0]["authorization"]))
    assert signed is not None
    assert signed.key_id == KEY_ID
    digest = hashlib.sha256(scripted.requests[0].SerializeToString()).hexdigest()
    assert signed.canonical(CLASSIFY, scripted.requests[0].SerializeToString()).endswith(
        digest.encode()
    )
    assert len(base64.b64decode(signed.signature)) == 32


def test_a_private_key_comes_as_text_bytes_or_file(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(PEM)
    for private in (PEM, PEM.decode(), str(file), file, bytes(range(32))):
        header = SigningKey(KEY_ID, private, audience="staging").authorization(CLASSIFY, b"m")
        signed = parse(header)
        assert signed is not None
        assert signed.audience == "staging"
        signature = base64.b64decode(signed.signature)
        PRIVATE.public_key().verify(signature, signed.canonical(CLASSIFY, b"m"))


RSA = generate_private_key(65537, 2048).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)


@pytest.mark.parametrize(
    ("key_id", "private"),
    [("nonsense", PEM), (KEY_ID, b"short"), (KEY_ID, "/nowhere/key.pem"), (KEY_ID, RSA)],
    ids=["id", "bytes", "file", "RSA"],
)
def test_a_signing_key_that_is_none_is_refused(key_id: str, private: str | bytes) -> None:
    with pytest.raises(ConfigurationError):
        SigningKey(key_id, private)


def test_one_credential_is_enough() -> None:
    for extra in ({"token": "t"}, {"signing_key": SECRET}):
        with pytest.raises(ConfigurationError, match="one of"):
            Client("localhost:1", "psk_x", **extra)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="pss_"):
        Client("localhost:1", signing_key="psk_x")


def test_a_token_is_asked_for_before_each_call_and_the_stored_key_stays_at_home(
    served: Served, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_API_KEY", "psk_of_the_environment")
    scripted.behaviours["Classify"] = classified
    tokens = iter(("first", "second"))
    with Client(f"http://{served.endpoint}", token=lambda: next(tokens)) as client:
        client.classify("intent", "hello")
        client.classify("intent", "hello")
    with Client(f"http://{served.endpoint}", token="third") as client:
        client.classify("intent", "hello")
    shown = [metadata["authorization"] for metadata in scripted.metadata]
    assert shown == ["Bearer first", "Bearer second", "Bearer third"]


def test_a_cluster_in_trouble_is_not_flooded() -> None:
    attempts = Attempts()
    unavailable = grpc.StatusCode.UNAVAILABLE
    pauses = [attempts.pause_after(1, unavailable, ()) for _ in range(200)]
    assert sum(pause is not None for pause in pauses) == 99
    fresh = Attempts()
    assert fresh.pause_after(1, unavailable, [("grpc-retry-pushback-ms", "250")]) == 0.25
    assert fresh.pause_after(1, unavailable, [("grpc-retry-pushback-ms", "-1")]) is None
    assert fresh.pause_after(1, grpc.StatusCode.OK, ()) is None


def test_without_cryptography_an_ed25519_key_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import penstock\n"
        f"penstock.Client('localhost:1', signing_key={SECRET!r}).close()\n"
        f"penstock.SigningKey({KEY_ID!r}, b'x' * 32)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "penstock[signing]" in ended.stderr
