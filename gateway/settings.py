"""Every knob of the gateway."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from gateway.identity.spiffe import LOOPBACK, trust_domain_of
from penstock.service.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """Read from PENSTOCK_GATEWAY_* variables."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_GATEWAY_")

    listen: str = "127.0.0.1:8400"
    """host:port of the gRPC server; port 0 takes a free one."""
    processes: int = Field(default=1, ge=1, le=256)
    """Server processes that share the port; one a core is a good number."""
    share_port: bool = False
    """Whether other gateway processes listen on the same port; each of them sets it."""
    key_pepper: SecretStr = Field(min_length=16)
    """Secret mixed into the stored form of API keys; at least 16 characters."""
    tls_certificate: str = ""
    """PEM file of the certificate chain; read again when it changes. Empty serves plaintext."""
    tls_private_key: str = ""
    """PEM file of the certificate's key."""
    client_ca: str = ""
    """PEM file of the authorities whose client certificates prove a SPIFFE id; read again when it
    changes. Every client must then have one, unless mtls_listen is set. Needs tls_certificate."""
    mtls_listen: str = ""
    """host:port of a second port, where client certificates are required, so that listen can do
    without; empty opens none. Needs client_ca."""
    trusted_forwarders: str = ""
    """Whose x-forwarded-client-cert is believed: SPIFFE ids of proxies, with commas between them,
    or loopback for sidecars on this machine. Empty believes nobody's."""
    issuers_file: str = ""
    """YAML file of the token issuers and trust domains that may name callers (docs/identity.md)."""
    signature_audience: str = Field(default="penstock", pattern=r"^[A-Za-z0-9._:/-]{1,255}$")
    """What signed requests must be addressed to; one name a cluster."""
    default_deadline_seconds: float = Field(default=60.0, gt=0)
    """Deadline of a unary call whose caller set none."""
    default_stream_deadline_seconds: float = Field(default=600.0, gt=0)
    """Deadline of a streaming call whose caller set none."""
    longest_deadline_seconds: float = Field(default=3600.0, gt=0)
    """No call may run longer, whatever its caller asks for."""
    stream_gap_seconds: float = Field(default=30.0, gt=0)
    """A model that is silent for longer in the middle of a stream is given up."""
    stalled_reader_seconds: float = Field(default=30.0, gt=0)
    """A caller that does not read its stream for longer is cut off."""
    max_message_bytes: int = Field(default=32 * 1024 * 1024, gt=0)
    """Largest request message."""
    max_metadata_bytes: int = Field(default=16 * 1024, gt=0)
    """Largest request metadata."""
    max_concurrent_streams: int = Field(default=1024, gt=0)
    """Open calls on one connection."""
    ledger_uri: str = ""
    """Address of the ledger's segments, the scheduler's own; empty serves no audit trail."""
    ledger_key: SecretStr = SecretStr("")
    """Secret that authenticates the ledger, the scheduler's own; empty anchors the write-ahead
    files under one that is derived from the pepper."""
    payload_uri: str = ""
    """Address where the payloads of tenants that ask for it are kept; empty keeps none."""
    payload_max_bytes: int = Field(default=1024 * 1024, gt=0)
    """Payloads of larger calls are not kept."""
    drain_seconds: float = Field(default=20.0, ge=0)
    """How long open calls may finish after SIGTERM."""
    prices_file: str = ""
    """YAML file of prices (penstock/service/prices.py); empty prices nothing."""
    ledger_dir: str = Field(default="", min_length=1)
    """Folder of the write-ahead files, on a disk that outlives the process; the gateways of a
    machine share it. Must be given."""

    @model_validator(mode="after")
    def _mutual_tls(self) -> Self:
        if self.client_ca and not self.tls_certificate:
            raise ValueError("client_ca needs tls_certificate")
        if self.mtls_listen and not self.client_ca:
            raise ValueError("mtls_listen needs client_ca")
        wrong = [one for one in self.forwarders() if one != LOOPBACK and not trust_domain_of(one)]
        if wrong:
            raise ValueError(f"trusted_forwarders: {wrong[0]!r} is no SPIFFE id")
        return self

    def forwarders(self) -> tuple[str, ...]:
        """trusted_forwarders, one by one."""
        return tuple(one.strip() for one in self.trusted_forwarders.split(",") if one.strip())
