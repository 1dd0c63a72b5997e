"""What every service reads from its environment, and how a bad value stops it."""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings


class ServiceSettings(BaseSettings):
    """Knobs that all three services have, each under its own prefix."""

    control_redis_url: str = "redis://127.0.0.1:6379/0"
    """Redis that must not lose anything: models, tenants, keys, jobs."""
    soft_redis_url: str = "redis://127.0.0.1:6379/1"
    """Redis that may be lost: replicas, limits' buckets, caches."""
    region: str = "local"
    """The region this process runs in."""
    log_level: str = "INFO"
    """Python's name of the lowest level that is logged."""
    otlp_endpoint: str = ""
    """Where to push metrics over OTLP gRPC, such as http://collector:4317; empty pushes nothing."""
    metrics_listen: str = ""
    """host:port to serve Prometheus metrics on; empty serves none."""


S = TypeVar("S", bound=BaseSettings)


def read_settings(kind: type[S]) -> S:
    """Reads the environment once; a bad value ends the process with one line a mistake."""
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        for mistake in error.errors():
            name = prefix + "_".join(str(part) for part in mistake["loc"]).upper()
            print(f"{name}: {mistake['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
