"""The verbs of `penstock` that start, find and end the local cluster."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from penstock.client.configuration import config_path
from penstock.service.local.administration import Json, bootstrapping
from penstock.service.local.building import BuildFailed
from penstock.service.local.cli_configuration import write_configuration
from penstock.service.local.cluster import (
    DEFAULT_PORT,
    AlreadyRunning,
    ClusterFailed,
    ClusterOptions,
    LocalCluster,
)
from penstock.service.local.keeper import end_cluster
from penstock.service.local.ports import NoPortFree
from penstock.service.local.processes import wait_for_end
from penstock.service.local.readiness import ServedVersion, gateway_view
from penstock.service.local.redis_server import RedisMissing
from penstock.service.local.state import (
    DEFAULT_STATE_DIR,
    ClusterState,
    read_state,
    remove_state,
)

NOT_RUNNING = 3
"""Exit status of `penstock status` when there is no cluster, as service managers have it."""

StateDir = Annotated[
    Path, typer.Option(help="Where the cluster keeps its data, logs and state file.")
]

console = Console()
server = typer.Typer(no_args_is_help=True)
server.add_typer(bootstrapping)


@server.command()
def up(
    models: Annotated[list[str] | None, typer.Argument(help="Demo models; all by default.")] = None,
    port: Annotated[int, typer.Option(help="The gateway's port, if it is free.")] = DEFAULT_PORT,
    gateways: Annotated[int, typer.Option(min=1, help="Gateway processes on that port.")] = 1,
    replicas: Annotated[int, typer.Option(min=1, help="Tritons, each with every model.")] = 1,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Starts the local cluster and keeps it running; Ctrl-C drains it."""
    # Also where the shell that started this in the background made it deaf to Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    options = ClusterOptions(
        state_dir=state_dir,
        models=tuple(models or ()),
        port=port,
        gateways=gateways,
        replicas=replicas,
    )
    started = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  ", end="")
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        with LocalCluster(options, report) as cluster:
            _introduce(cluster)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        report("everything has ended")
    except (AlreadyRunning, BuildFailed, ClusterFailed, NoPortFree, RedisMissing) as error:
        _fail(str(error))


@server.command()
def down(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    quiet: Annotated[bool, typer.Option(help="Say nothing when none runs.")] = False,
    as_json: Json = False,
) -> None:
    """Drains and ends the local cluster that `penstock up` keeps."""
    state = read_state(state_dir)
    if state is not None:
        _end(state, state_dir)
    if as_json:
        typer.echo(json.dumps({"was_running": state is not None}))
    elif state is not None:
        console.print("the cluster has ended")
    elif not quiet:
        console.print("no cluster runs")


@server.command()
def status(state_dir: StateDir = DEFAULT_STATE_DIR, as_json: Json = False) -> None:
    """Shows what the local cluster runs, and which models answer."""
    state = read_state(state_dir)
    if state is None or not state.owner.process.alive():
        typer.echo(json.dumps({"running": False}) if as_json else "no cluster runs")
        raise typer.Exit(NOT_RUNNING)
    with gateway_view(state.endpoint, state.api_key) as view:
        versions = view.versions()
    if as_json:
        typer.echo(json.dumps(_described(state, versions)))
    else:
        console.print(_process_table(state))
        console.print(_model_table(versions or []))
    if versions is None or not all(version.ready for version in versions):
        raise typer.Exit(1)


def _end(state: ClusterState, state_dir: Path) -> None:
    owner = state.owner.process
    owner.end(signal.SIGTERM)
    if not wait_for_end([owner], state.owner.grace_seconds):
        owner.end(signal.SIGKILL)
        wait_for_end([owner], 5.0)
    if read_state(state_dir) == state:
        # It was killed, now or before, and so could not clear up itself.
        end_cluster(state)
        remove_state(state_dir)


def _introduce(cluster: LocalCluster) -> None:
    path = config_path()
    configured = write_configuration(path, cluster.endpoint, cluster.api_key)
    told = {
        "gateway (gRPC)": cluster.endpoint,
        "development key": cluster.api_key,
        "models": ", ".join(sorted({version.model for version in cluster.versions})),
        "logs": str(cluster.options.state_dir / "logs"),
    }
    if configured:
        told["`penstock` reads"] = str(path)
    # Not a table of rich's: it would cut the key where the terminal is narrow.
    console.print("\n[bold]Penstock is up[/bold]")
    for name, value in told.items():
        console.print(f"  {name:<17} ", end="")
        console.print(value, markup=False, highlight=False, soft_wrap=True)
    if not configured:
        console.print(f"{path} points elsewhere and stays so; to call this cluster:")
        told = {"ENDPOINT": f"http://{cluster.endpoint}", "API_KEY": cluster.api_key}
        for name, value in told.items():
            console.print(f"  export PENSTOCK_{name}={value}", highlight=False, soft_wrap=True)
    console.print("Ctrl-C drains it.")


def _described(state: ClusterState, versions: list[ServedVersion] | None) -> dict[str, object]:
    return {
        "running": True,
        "endpoint": state.endpoint,
        "answers": versions is not None,
        "processes": [
            {
                "name": record.name,
                "pid": record.pid,
                "running": record.process.alive(),
                "restarts": record.restarts,
            }
            for record in state.processes
        ],
        "models": [
            {
                "model": version.model,
                "version": version.version,
                "task": version.task,
                "state": version.state_name,
                "replicas": version.replicas,
            }
            for version in versions or []
        ],
    }


def _process_table(state: ClusterState) -> Table:
    table = Table("process", "pid", "", "restarts", title=f"gateway on {state.endpoint}")
    for record in state.processes:
        alive = "runs" if record.process.alive() else "[red]is down[/red]"
        table.add_row(record.name, str(record.pid), alive, str(record.restarts))
    return table


def _model_table(versions: list[ServedVersion]) -> Table:
    table = Table("model", "version", "task", "state", "replicas")
    for found in versions:
        table.add_row(found.model, found.version, found.task, found.state_name, str(found.replicas))
    return table


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(message, style="red", markup=False, highlight=False)
    raise typer.Exit(1)
