"""Logs as one JSON object a line, and metrics by OpenTelemetry."""

from __future__ import annotations

import json
import logging
import sys
import time

from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from penstock.service.settings import ServiceSettings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, event, then whatever ``extra`` brought."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Sends all logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def start_metrics(service: str, settings: ServiceSettings) -> tuple[Meter, MeterProvider]:
    """A meter whose readings go where the settings say; shut the provider down at the end."""
    readers: list[MetricReader] = []
    if settings.metrics_listen:
        readers.append(_prometheus(settings.metrics_listen))
    if settings.otlp_endpoint:
        readers.append(PeriodicExportingMetricReader(_otlp(settings.otlp_endpoint)))
    resource = Resource.create({"service.name": service, "cloud.region": settings.region})
    provider = MeterProvider(readers, resource)
    return provider.get_meter(service), provider


def _prometheus(listen: str) -> MetricReader:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import start_http_server

    host, _, port = listen.rpartition(":")
    start_http_server(int(port), host)
    return PrometheusMetricReader()


def _otlp(endpoint: str) -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
