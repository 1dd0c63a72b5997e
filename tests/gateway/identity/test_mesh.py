"""Workload identities: from client certificates, and from the proxies that may speak for others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr, ValidationError
from redis.asyncio import Redis

from gateway.identity import forwarded, spiffe
from gateway.identity.issuers import Issuers
from gateway.identity.mesh import Mesh
from gateway.settings import GatewaySettings
from gateway.tls import Certificates, open_ports
from penstock import AsyncClient, ConfigurationError
from penstock.api.inference.v1 import inference_pb2
from penstock.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from tests.gateway.identity.certificates import Authority, Pair, trusting
from tests.gateway.identity.front import PEPPER, PREDICT, REQUEST, Front, Records, fronted, outcome

SHOP = "spiffe://example.org/ns/shop/sa/checkout"
PROXY = "spiffe://example.org/ns/edge/sa/envoy"
BILLING = "spiffe://example.org/ns/billing/sa/nightly"
DOMAINS = Issuers.model_validate(
    {
        "trust_domains": [
            {
                "trust_domain": "example.org",
                "path_prefix": "/ns/billing/",
                "tenant": "other",
                "scopes": ["inference:invoke"],
                "highest_tier": 3,
            }
        ]
    }
)
AUTHORITY = Authority("mesh")


class Files:
    """A server's files on disk."""

    def __init__(self, folder: Path) -> None:
        server = AUTHORITY.server()
        self.certificate, self.key, self.bundle = (
            folder / name for name in ("tls.crt", "tls.key", "bundle.pem")
        )
        self.certificate.write_bytes(server.pem)
        self.key.write_bytes(server.key_pem)
        self.bundle.write_bytes(AUTHORITY.pem)

    def credentials(self) -> grpc.ServerCredentials:
        return Certificates(self.certificate, self.key, self.bundle).credentials()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
async def meshed(redis: Redis, records: Records, files: Files) -> AsyncIterator[Front]:
    """Requires client certificates and believes the proxy."""
    mesh = Mesh([PROXY])
    async with fronted(redis, issuers=DOMAINS, mesh=mesh, credentials=files.credentials()) as front:
        yield front


async def call_as(front: Front, client: Pair | None, *metadata: tuple[str, str]) -> str:
    """The outcome of a call over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = trusting(AUTHORITY, client)
    async with grpc.aio.secure_channel(front.address, credentials, options) as channel:
        return await outcome(channel, PREDICT, REQUEST, metadata)


async def test_a_certificate_stands_for_the_key_made_for_its_identity(
    meshed: Front, records: Records
) -> None:
    key, _ = await records.key("acme", credential="spiffe", identity=SHOP)
    assert await call_as(meshed, AUTHORITY.workload(SHOP)) == "OK"
    principal = meshed.probe.calls[0].principal
    assert (principal.tenant, principal.key_id) == ("acme", key.id)


async def test_the_sdk_shows_its_certificate(meshed: Front, tmp_path: Path) -> None:
    client = AUTHORITY.workload(BILLING)
    chain, key, authorities = (tmp_path / name for name in ("svid.pem", "svid_key.pem", "ca.pem"))
    chain.write_bytes(client.pem)
    key.write_bytes(client.key_pem)
    authorities.write_bytes(AUTHORITY.pem)
    async with AsyncClient(
        meshed.address, client_certificate=(chain, key), ca_file=authorities
    ) as sdk:
        stub = sdk.stub(InferenceServiceStub)
        assert await stub.Predict(inference_pb2.PredictRequest(model="m"))
    assert meshed.probe.calls[0].principal.tenant == "other"
    with pytest.raises(ConfigurationError, match="plaintext"):
        AsyncClient("http://localhost:1", client_certificate=(chain, key))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        AsyncClient("localhost:1", client_certificate=(chain, tmp_path / "none"))


async def test_a_trust_domain_stands_for_a_tenant(meshed: Front) -> None:
    assert await call_as(meshed, AUTHORITY.workload(BILLING)) == "OK"
    principal = meshed.probe.calls[0].principal
    assert principal.tenant == "other"
    assert principal.scopes == {"inference:invoke"}
    assert principal.highest_tier == 3
    assert principal.key_id.startswith("spiffe-")


FORGED: dict[str, tuple[str, ...]] = {
    "no mapped identity": ("spiffe://example.org/ns/unknown/sa/x",),
    "another trust domain": ("spiffe://evil.example/ns/billing/sa/nightly",),
    "two identities": (BILLING, SHOP),
    "an identity and a URL": (BILLING, "https://example.org"),
    "a path that climbs": ("spiffe://example.org/ns/billing/../shop",),
    "an empty segment": ("spiffe://example.org/ns/billing//x",),
    "a slash at the end": (BILLING + "/",),
    "percent signs": ("spiffe://example.org/ns/billing/%2e%2e",),
    "a port": ("spiffe://example.org:443/ns/billing/x",),
    "a query": (BILLING + "?a=b",),
    "capitals in the trust domain": ("spiffe://EXAMPLE.org/ns/billing/x",),
    "a prefix that only looks alike": ("spiffe://example.org/ns/billing-evil/x",),
}


@pytest.mark.parametrize("uris", FORGED.values(), ids=FORGED.keys())
async def test_a_certificate_that_misleads_reaches_no_handler(
    meshed: Front, uris: tuple[str, ...]
) -> None:
    assert await call_as(meshed, AUTHORITY.workload(*uris)) == "CREDENTIALS_INVALID"
    assert meshed.probe.calls == []


async def test_no_certificate_or_a_strangers_does_not_get_a_connection(meshed: Front) -> None:
    for client in (None, Authority("mesh").workload(BILLING)):
        assert (await call_as(meshed, client)).startswith("UNAVAILABLE")
    assert await call_as(meshed, AUTHORITY.workload()) == "CREDENTIALS_MISSING"
    authority = AUTHORITY.workload(BILLING, authority=True)
    assert await call_as(meshed, authority) != "OK"
    assert meshed.probe.calls == []


async def test_a_certificate_that_runs_out_ends_its_connections_calls(meshed: Front) -> None:
    client = AUTHORITY.workload(BILLING, seconds=2)
    async with grpc.aio.secure_channel(meshed.address, trusting(AUTHORITY, client)) as channel:
        assert await outcome(channel, PREDICT, REQUEST, ()) == "OK"
        async with asyncio.timeout(5):
            while (answer := await outcome(channel, PREDICT, REQUEST, ())) == "OK":
                await asyncio.sleep(0.05)
    assert answer == "CREDENTIALS_INVALID"


@pytest.mark.usefixtures("hasty")
async def test_a_revoked_identity_is_refused(meshed: Front, records: Records) -> None:
    key, _ = await records.key("acme", credential="spiffe", identity=SHOP)
    client = AUTHORITY.workload(SHOP)
    assert await call_as(meshed, client) == "OK"
    await records.keys.revoke(key.id)
    async with asyncio.timeout(5):
        while (answer := await call_as(meshed, client)) == "OK":
            await asyncio.sleep(0.05)
    assert answer == "CREDENTIALS_INVALID"


async def test_two_credentials_pass_only_within_one_tenant(meshed: Front, records: Records) -> None:
    await records.key("acme", credential="spiffe", identity=SHOP)
    own, own_text = await records.key("acme")
    _, foreign_text = await records.key("other")
    client = AUTHORITY.workload(SHOP)
    assert await call_as(meshed, client, ("authorization", f"Bearer {own_text}")) == "OK"
    assert meshed.probe.calls[0].principal.key_id == own.id
    refused = await call_as(meshed, client, ("authorization", f"Bearer {foreign_text}"))
    assert refused == "CREDENTIALS_INVALID"
    assert await call_as(meshed, client, ("authorization", "Bearer x")) == "CREDENTIALS_INVALID"
    # An identity that nobody knows is no credential, so it contradicts none.
    unknown = AUTHORITY.workload("spiffe://example.org/ns/unknown/sa/x")
    assert await call_as(meshed, unknown, ("authorization", f"Bearer {foreign_text}")) == "OK"


async def test_a_proxy_speaks_for_others_and_never_for_itself(
    meshed: Front, records: Records
) -> None:
    await records.key("acme", credential="spiffe", identity=PROXY)
    proxy = AUTHORITY.workload(PROXY)
    assert await call_as(meshed, proxy) == "CREDENTIALS_MISSING"
    element = f'By={PROXY};Hash=00ff;Subject="CN=a,O=\\"b\\";c";URI={BILLING}'
    assert await call_as(meshed, proxy, (forwarded.HEADER, element)) == "OK"
    assert meshed.probe.calls[0].principal.tenant == "other"
    # What was there before the proxy added its own element is hearsay.
    assert await call_as(meshed, proxy, (forwarded.HEADER, f"URI={SHOP},{element}")) == "OK"
    assert meshed.probe.calls[1].principal.tenant == "other"
    hearsay = f"{element},By={PROXY};URI=spiffe://example.org/ns/unknown/sa/x"
    assert await call_as(meshed, proxy, (forwarded.HEADER, hearsay)) == "CREDENTIALS_INVALID"


XFCC_FORGED = {
    "two identities": f"URI={BILLING};URI={SHOP}",
    "quotes that do not end": f'URI="{BILLING}',
    "a separator at the end": f"URI={BILLING},",
    "an unknown field": f"Tenant=acme;URI={BILLING}",
    "no fields": BILLING,
    "an identity that is none": "URI=spiffe://example.org/ns/billing/..",
    "an identity hidden in a quoted subject": f'Subject="x;URI={BILLING}"',
}


@pytest.mark.parametrize("header", XFCC_FORGED.values(), ids=XFCC_FORGED.keys())
async def test_a_forwarded_certificate_that_misleads_is_refused(meshed: Front, header: str) -> None:
    proxy = AUTHORITY.workload(PROXY)
    refused = await call_as(meshed, proxy, (forwarded.HEADER, header))
    assert refused in ("CREDENTIALS_INVALID", "CREDENTIALS_MISSING")
    assert meshed.probe.calls == []


async def test_two_forwarded_headers_are_refused(meshed: Front) -> None:
    twice = [(forwarded.HEADER, f"URI={BILLING}")] * 2
    assert await call_as(meshed, AUTHORITY.workload(PROXY), *twice) == "CREDENTIALS_INVALID"


async def test_a_client_cannot_forward_for_itself(
    meshed: Front, front: Front, records: Records
) -> None:
    await records.key("acme", credential="spiffe", identity=SHOP)
    header = (forwarded.HEADER, f"URI={BILLING}")
    assert await call_as(meshed, AUTHORITY.workload(SHOP), header) == "OK"
    assert meshed.probe.calls[0].principal.tenant == "acme"
    # Nobody is believed unless the settings say so.
    assert await front.call(None, header) == "CREDENTIALS_MISSING"


async def test_a_sidecar_on_this_machine_is_believed_where_the_settings_say_so(
    redis: Redis, records: Records
) -> None:
    header = (forwarded.HEADER, f"By=spiffe://example.org/gw;URI={BILLING}")
    async with fronted(redis, issuers=DOMAINS, mesh=Mesh([spiffe.LOOPBACK])) as front:
        assert await front.call(None, header) == "OK"
        assert front.probe.calls[0].principal.tenant == "other"
        _, text = await records.key("acme")
        assert await front.call(f"Bearer {text}") == "OK"
        assert await front.call(f"Bearer {text}", header) == "CREDENTIALS_INVALID"


async def test_a_new_authority_is_trusted_without_a_restart(meshed: Front, files: Files) -> None:
    newcomer = Authority("newcomer")
    client = newcomer.workload(BILLING)
    assert (await call_as(meshed, client)).startswith("UNAVAILABLE")
    files.bundle.write_bytes(AUTHORITY.pem + newcomer.pem)
    later = files.bundle.stat().st_mtime_ns + 1_000_000_000
    os.utime(files.bundle, ns=(later, later))
    assert await call_as(meshed, client) == "OK"
    files.bundle.write_bytes(newcomer.pem)
    os.utime(files.bundle, ns=(later + 1_000_000_000,) * 2)
    assert (await call_as(meshed, AUTHORITY.workload(BILLING))).startswith("UNAVAILABLE")


async def test_with_a_second_port_the_first_does_without_certificates(files: Files) -> None:
    settings = GatewaySettings(
        key_pepper=SecretStr(PEPPER.decode()),
        listen="localhost:0",
        mtls_listen="localhost:0",
        tls_certificate=str(files.certificate),
        tls_private_key=str(files.key),
        client_ca=str(files.bundle),
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = open_ports(server, settings)
    await server.start()
    async with grpc.aio.secure_channel(f"localhost:{port}", trusting(AUTHORITY)) as channel:
        assert (await outcome(channel, "/none/None", b"", ())).startswith("UNIMPLEMENTED")
    await server.stop(None)


@pytest.mark.parametrize(
    "fields",
    [
        {"client_ca": "ca.pem"},
        {"mtls_listen": "localhost:1"},
        {"trusted_forwarders": "spiffe://example.org/a, anybody"},
        {"trusted_forwarders": "*"},
    ],
    ids=["no certificate", "no authorities", "no SPIFFE id", "a wildcard"],
)
def test_settings_that_would_not_protect_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(key_pepper=SecretStr(PEPPER.decode()), **fields)
