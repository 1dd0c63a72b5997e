"""``python -m gateway`` as an operator sees it: starting, sharing a port, certificates, ending."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

PEPPER = "a pepper of the tests"
Start = Callable[..., Any]


def environment(redis_url: str, **settings: str) -> dict[str, str]:
    own = {
        "LISTEN": "127.0.0.1:0",
        "CONTROL_REDIS_URL": redis_url,
        "SOFT_REDIS_URL": redis_url,
        "KEY_PEPPER": PEPPER,
    } | settings
    return os.environ | {f"PENSTOCK_GATEWAY_{name}": value for name, value in own.items()}


@asynccontextmanager
async def gateway(redis_url: str, **settings: str) -> AsyncIterator[tuple[Any, str]]:
    """The process and the address it says it serves on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"),
        env=environment(redis_url, **settings),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            async for line in process.stderr:
                told = json.loads(line)
                if told["event"] == "serving":
                    break
            else:
                pytest.fail("the gateway ended")
        yield process, told["address"]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def certificate(folder: Path, name: str) -> None:
    """A self-signed pair for localhost whose subject is ``name``; both files change at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


async def healthy(channel: grpc.aio.Channel, service: str = "") -> bool:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_it_serves_health_and_reflection_of_every_contract(redis_url: str) -> None:
    async with (
        gateway(redis_url) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        assert await healthy(channel)
        assert await healthy(channel, "penstock.api.inference.v1.InferenceService")
        reflect: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        listed = {service.name for service in (await call.read()).list_services_response.service}
        call.cancel()
    assert {
        "penstock.api.inference.v1.InferenceService",
        "penstock.api.batch.v1.BatchService",
        "inference.GRPCInferenceService",
    } <= listed


async def test_sigterm_ends_it_in_order(redis_url: str) -> None:
    async with gateway(redis_url) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_several_processes_share_one_port_and_end_together(redis_url: str) -> None:
    async with gateway(redis_url, PROCESSES="2") as (process, address):
        assert process.stderr is not None
        async with asyncio.timeout(20):
            second = json.loads(await process.stderr.readline())
        assert (second["event"], second["address"]) == ("serving", address)
        async with grpc.aio.insecure_channel(address) as channel:
            assert await healthy(channel)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        with socket.socket() as probe:
            host, _, port = address.rpartition(":")
            assert probe.connect_ex((host, int(port))) != 0


async def test_a_certificate_is_replaced_without_a_restart(redis_url: str, tmp_path: Path) -> None:
    certificate(tmp_path, "first")
    first = (tmp_path / "certificate.pem").read_bytes()
    settings = {
        "TLS_CERTIFICATE": str(tmp_path / "certificate.pem"),
        "TLS_PRIVATE_KEY": str(tmp_path / "key.pem"),
    }
    async with gateway(redis_url, **settings) as (_, address):
        target = f"localhost:{address.rpartition(':')[2]}"

        async def trusted(root: bytes) -> bool:
            async with grpc.aio.secure_channel(
                target, grpc.ssl_channel_credentials(root)
            ) as channel:
                try:
                    return await healthy(channel)
                except grpc.aio.AioRpcError:
                    return False

        assert await trusted(first)
        certificate(tmp_path, "second")
        assert await trusted((tmp_path / "certificate.pem").read_bytes())
        assert not await trusted(first)


def run(redis_url: str, **settings: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=environment(redis_url, **settings),
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.returncode, done.stderr


def peak_memory(process: int) -> int:
    """Bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_a_compressed_message_is_refused_without_unpacking_it(redis_url: str) -> None:
    async with gateway(redis_url) as (process, address), grpc.aio.insecure_channel(address) as on:
        classify: Any = on.unary_unary("/penstock.api.inference.v1.InferenceService/Classify")
        before = peak_memory(process.pid)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await classify(bytes(96 * 1024 * 1024), compression=grpc.Compression.Gzip, timeout=30)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert peak_memory(process.pid) - before < 32 * 1024 * 1024


def test_a_bad_setting_is_named_and_stops_it(redis_url: str) -> None:
    status, told = run(redis_url, KEY_PEPPER="short", DRAIN_SECONDS="soon")
    assert status == 2
    assert "PENSTOCK_GATEWAY_KEY_PEPPER" in told
    assert "PENSTOCK_GATEWAY_DRAIN_SECONDS" in told


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_taken_port_is_said_and_stops_it(redis_url: str, processes: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = "{}:{}".format(*taken.getsockname())
        status, told = run(redis_url, LISTEN=listen, PROCESSES=processes)
    assert status == 1
    assert listen in json.loads(told.splitlines()[-1])["event"]


def test_a_redis_that_is_away_is_said_and_stops_it() -> None:
    status, told = run("redis://127.0.0.1:1/0")
    assert status == 1
    assert "Redis" in json.loads(told.splitlines()[-1])["event"]
