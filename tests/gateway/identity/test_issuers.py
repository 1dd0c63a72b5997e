"""The issuers file: what is read from it, and that a bad one stops the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.identity.issuers import Issuers, IssuersInvalid, read_issuers

ROOT = Path(__file__).parents[3]
GOOD: dict[str, Any] = {
    "issuer": "https://login.example.com",
    "audiences": ["penstock"],
    "algorithms": ["RS256"],
    "tenant": {"fixed": "acme"},
}
DOMAIN: dict[str, Any] = {"trust_domain": "example.org", "tenant": "acme", "scopes": ["files:*"]}


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "identity.md").read_text()
    file = tmp_path / "issuers.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    read = read_issuers(str(file))
    assert len(read.issuers) == 2
    assert read.issuers[1].tenant.tenant_of({"org_id": "org_1"}) == "acme"
    assert read.domain_of("spiffe://example.org/ns/shop/sa/x") is not None
    assert read_issuers("") == Issuers()


@pytest.mark.parametrize(
    "changed",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"audiences": []},
        {"issuer": "http://login.example.com"},
        {"issuer": "http://login.example.com", "insecure_loopback": True},
        {"jwks_url": "http://127.0.0.1/jwks"},
        {"jwks_url": "file:///etc/passwd"},
        {"tenant": {}},
        {"tenant": {"fixed": "Not A Tenant"}},
        {"tenant": {"fixed": "acme", "claim": "org"}},
        {"tenant": {"claim": "org"}},
        {"scopes": {"granted": ["inference:nothing"]}},
        {"scopes": {"at_most": ["everything"]}},
        {"highest_tier": 9},
        {"ca_file": "/nowhere/ca.pem"},
        {"algorithm": ["RS256"]},
    ],
    ids=lambda changed: str(changed)[:60],
)
def test_an_entry_that_makes_no_sense_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(IssuersInvalid):
        read_issuers(written(tmp_path, {"issuers": [GOOD | changed]}))
    assert read_issuers(written(tmp_path, {"issuers": [GOOD]})).issuers


@pytest.mark.parametrize(
    "changed",
    [
        {"trust_domain": "spiffe://example.org"},
        {"trust_domain": "EXAMPLE"},
        {"path_prefix": "/ns"},
        {"scopes": []},
        {"scopes": ["nothing"]},
    ],
    ids=lambda changed: str(changed)[:60],
)
def test_a_trust_domain_that_makes_no_sense_is_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    with pytest.raises(IssuersInvalid):
        read_issuers(written(tmp_path, {"trust_domains": [DOMAIN | changed]}))


def test_of_two_paths_the_longer_counts(tmp_path: Path) -> None:
    wide, narrow = DOMAIN, DOMAIN | {"path_prefix": "/ns/shop/", "tenant": "shop"}
    read = read_issuers(written(tmp_path, {"trust_domains": [wide, narrow]}))
    found = [read.domain_of(f"spiffe://example.org/ns/{name}/x") for name in ("shop", "shops")]
    assert [one and one.tenant for one in found] == ["shop", "acme"]
    with pytest.raises(IssuersInvalid):
        read_issuers(written(tmp_path, {"trust_domains": [wide, wide]}))


def test_a_bad_file_stops_the_process(tmp_path: Path) -> None:
    file = written(tmp_path, {"issuers": [GOOD | {"algorithms": ["HS256"]}]})
    settings = {"KEY_PEPPER": "a pepper of the tests", "ISSUERS_FILE": file}
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"],
        cwd=ROOT,
        env=os.environ | {f"PENSTOCK_GATEWAY_{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert "issuers.0.algorithms.0" in ended.stderr


def written(folder: Path, content: Any) -> str:
    file = folder / "issuers.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(content))
    return str(file)
