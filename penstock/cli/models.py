"""The verbs that say which models there are: models list, get, versions."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.api.models.v1 import models_pb2
from penstock.cli import output
from penstock.cli.inference import Json, Model, Timeout
from penstock.cli.session import session

models = typer.Typer(help="Which models there are.", no_args_is_help=True)


@models.command("list")
def list_models(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="Only models of this task.")] = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Lists the models that the key may use."""
    with session(context, as_json) as client:
        found = client.models.list(task, timeout=timeout)
    if as_json:
        output.print_json({"models": [output.plain(model) for model in found]})
        return
    table = output.new_table("model", "task", "state", "traffic", "description")
    for model in found:
        cells = (model.name, model.task, state_name(model.state), traffic(model))
        output.add_row(table, *cells, output.shortened(model.description))
    output.show(table)


@models.command("get")
def get(
    context: typer.Context, model: Model, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Describes one model: what it takes and gives, and which versions answer."""
    with session(context, as_json) as client:
        found = client.models.get(model, timeout=timeout)
    if as_json:
        output.print_json(output.plain(found))
        return
    signature = found.signature
    features = [_feature(feature) for feature in signature.features]
    described = {
        "model": found.name,
        "task": found.task,
        "description": found.description,
        "license": found.license,
        "state": state_name(found.state),
        "traffic": traffic(found),
        "labels": ", ".join(signature.labels),
        "features": "\n".join(features),
        "dimensions": signature.dimensions or "",
        "max tokens": signature.max_tokens or "",
    }
    output.show_fields(described)


@models.command("versions")
def versions(
    context: typer.Context, model: Model, timeout: Timeout = None, as_json: Json = False
) -> None:
    """Lists a model's versions, newest first."""
    with session(context, as_json) as client:
        found = client.models.versions(model, timeout=timeout)
    if as_json:
        output.print_json({"versions": [output.plain(version) for version in found]})
        return
    table = output.new_table("version", "state", "#replicas", "registered (UTC)", "digest")
    for version in found:
        registered = version.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
        cells = (state_name(version.state), version.ready_replicas, registered, version.digest)
        output.add_row(table, version.version, *cells)
    output.show(table)


def state_name(state: models_pb2.ModelState.ValueType) -> str:
    """The state in a word."""
    return models_pb2.ModelState.Name(state).removeprefix("MODEL_STATE_").lower()


def traffic(model: models_pb2.Model) -> str:
    """Which versions answer, with their shares."""
    total = sum(share.weight for share in model.traffic) or 1
    return ", ".join(
        f"{share.version}: " + ("shadow" if share.shadow else f"{share.weight / total:.0%}")
        for share in model.traffic
    )


def _feature(feature: models_pb2.Feature) -> str:
    kind = "one of " + ", ".join(feature.categories) if feature.categories else "a number"
    return f"{feature.name}: {kind}" + (", may be absent" if feature.optional else "")
