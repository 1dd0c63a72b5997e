"""The catalog's records as the messages of ModelsService."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.catalog import Catalog
from penstock.api.models.v1 import models_pb2 as pb
from penstock.service.packages import ModelSpec
from penstock.service.registry import ModelRecord

_BEST_FIRST = (
    pb.MODEL_STATE_READY,
    pb.MODEL_STATE_LOADING,
    pb.MODEL_STATE_FAILED,
    pb.MODEL_STATE_RETIRED,
)


def newest_first(record: ModelRecord) -> list[str]:
    """The model's versions; ties in time fall to the name."""
    versions = record.versions
    return sorted(versions, key=lambda v: (versions[v].created_at, v), reverse=True)


def current_version(record: ModelRecord) -> str:
    """The version that takes the most traffic, else the newest."""
    shares = [share for share in record.traffic if share.version in record.versions]
    if shares:
        return max(shares, key=lambda share: share.weight).version
    return newest_first(record)[0]


def model_message(record: ModelRecord, catalog: Catalog) -> pb.Model:
    """One model as its callers see it."""
    traffic = [share for share in record.traffic if share.weight > 0]
    states = {
        version_state(record, share.version, catalog)
        for share in traffic
        if share.version in record.versions
    }
    spec = record.versions[current_version(record)].spec
    return pb.Model(
        name=record.name,
        task=spec.task,
        description=spec.description,
        license=spec.license,
        traffic=[pb.TrafficShare(version=s.version, weight=s.weight) for s in traffic],
        state=next((state for state in _BEST_FIRST if state in states), pb.MODEL_STATE_RETIRED),
        signature=signature_message(spec),
    )


def version_message(record: ModelRecord, version: str, catalog: Catalog) -> pb.ModelVersion:
    """One version as its callers see it."""
    found = record.versions[version]
    created = Timestamp()
    created.FromMicroseconds(round(found.created_at * 1e6))
    return pb.ModelVersion(
        version=version,
        digest=found.digest,
        state=version_state(record, version, catalog),
        ready_replicas=catalog.ready(record.name, version),
        create_time=created,
        signature=signature_message(found.spec),
    )


def version_state(record: ModelRecord, version: str, catalog: Catalog) -> pb.ModelState.ValueType:
    """Whether a version can answer; one replica that serves it outweighs another's failure."""
    if record.versions[version].state == "retired":
        return pb.MODEL_STATE_RETIRED
    if catalog.ready(record.name, version):
        return pb.MODEL_STATE_READY
    if catalog.failure(record.name, version) is not None:
        return pb.MODEL_STATE_FAILED
    return pb.MODEL_STATE_LOADING


def signature_message(spec: ModelSpec) -> pb.Signature:
    """What a version takes and gives."""
    return pb.Signature(
        features=[
            pb.Feature(name=f.name, categories=f.categories, optional=f.optional)
            for f in spec.features
        ],
        labels=spec.labels,
        dimensions=spec.dimensions,
        max_tokens=spec.max_tokens,
    )
