"""Every knob of the scheduler."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from penstock.service.settings import ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Read from PENSTOCK_SCHEDULER_* variables."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_SCHEDULER_")

    listen: str = "127.0.0.1:8500"
    """host:port of the gRPC server, which answers health checks; port 0 takes a free one."""
    ledger_uri: str
    """Address of the artifact store where the ledger's segments go, such as s3://bucket/ledger."""
    ledger_key: SecretStr = Field(min_length=16)
    """Secret that authenticates the segments; at least 16 characters. Whoever verifies needs it."""
    seal_seconds: float = Field(default=30.0, gt=0)
    """How long events wait before they are sealed."""
    seal_events: int = Field(default=20_000, ge=1, le=200_000)
    """A segment is sealed as soon as there are so many events, or a few more."""
    sweep_seconds: float = Field(default=3600.0, gt=0)
    """How often data whose time is over is removed."""
    usage_retention_seconds: float = Field(default=34_560_000.0, gt=0)
    """How long single usage events are kept where their tenant does not say; 400 days."""
    audit_retention_seconds: float = Field(default=34_560_000.0, gt=0)
    """How long audit events are kept where their tenant does not say; 400 days."""
    payload_uri: str = ""
    """Address where gateways keep payloads, to be swept; empty when none are kept."""
    payload_retention_seconds: float = Field(default=2_592_000.0, gt=0)
    """How long payloads are kept where their tenant does not say; 30 days."""
    cloudevents_sink: str = Field(default="", pattern=r"^$|^https?://")
    """URL to which sealed usage events are posted as CloudEvents batches; empty posts nowhere."""
    cloudevents_token: SecretStr = SecretStr("")
    """Bearer token for the sink."""
    drain_seconds: float = Field(default=10.0, ge=0)
    """How long work in progress may take to finish after SIGTERM."""
