"""The commands that become a process of the cluster: server and worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from chainrule.cli.options import DEFAULT_SERVER, Json, Server, Transport

app = typer.Typer()
# What one server takes; each has an environment variable too, such as CHAINRULE_MAX_JOBS.
MaxActiveJobs = Annotated[
    int | None, typer.Option("--max-active-jobs", metavar="N", help="Jobs that have not ended; 1,000.")
]
MaxJobs = Annotated[int | None, typer.Option("--max-jobs", metavar="N", help="Jobs that are kept; 100,000.")]
MaxParameters = Annotated[
    int | None, typer.Option("--max-parameters", metavar="N", help="Parameters of a job; 250,000,000.")
]
MaxDataBytes = Annotated[
    int | None, typer.Option("--max-data-bytes", metavar="N", help="Bytes of a job's prepared features; 2^34.")
]
MaxDataSetBytes = Annotated[
    int | None, typer.Option("--max-data-set-bytes", metavar="N", help="What uploaded data sets may take; 2^40.")
]
MaxPreparationBytes = Annotated[
    int | None,
    typer.Option("--max-preparation-bytes", metavar="N", help="Bytes of memory that reading data takes, in all; 2^33."),
]
MaxMessageBytes = Annotated[
    int | None, typer.Option("--max-message-bytes", metavar="N", help="Bytes of a client's message; 2^22.")
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", metavar="text|json", help="The log's lines; CHAINRULE_LOG_FORMAT or text.")
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error; CHAINRULE_LOG_LEVEL or info."),
]


@app.command()
def server(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 50051,
    socket: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Listen on this Unix socket too.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option("--home", help="Where the server keeps its files; CHAINRULE_HOME or ~/.chainrule.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", metavar="DIR", help="The folder whose files jobs may read; CHAINRULE_DATA_ROOT."),
    ] = None,
    allow_object_storage: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-object-storage", metavar="PREFIX", help="Let jobs read below s3://BUCKET/ or gs://BUCKET/."
        ),
    ] = None,
    max_active_jobs: MaxActiveJobs = None,
    max_jobs: MaxJobs = None,
    max_parameters: MaxParameters = None,
    max_data_bytes: MaxDataBytes = None,
    max_data_set_bytes: MaxDataSetBytes = None,
    max_preparation_bytes: MaxPreparationBytes = None,
    max_message_bytes: MaxMessageBytes = None,
    lease_s: Annotated[
        float | None,
        typer.Option("--lease-s", metavar="S", help="Seconds after which a silent worker loses its shards; 10."),
    ] = None,
    checkpoint_every_s: Annotated[
        float | None,
        typer.Option("--checkpoint-every-s", metavar="S", help="Seconds between two checkpoints of a job; 30."),
    ] = None,
    keep_checkpoints: Annotated[
        int | None,
        typer.Option("--keep-checkpoints", metavar="N", min=1, help="A job's last checkpoints, besides the best; 2."),
    ] = None,
    keep_jobs: Annotated[
        int | None, typer.Option("--keep-jobs", metavar="N", min=1, help="Forget ended jobs but the last N; none.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=0, max=65535, help="Answer Prometheus at this port; 0 takes a free one."),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", help="Whoever reaches it may read the metrics.")
    ] = "127.0.0.1",
    transport: Annotated[str, typer.Option("--transport", help="auto, or grpc: share memory with no worker.")] = "auto",
    local_link: Annotated[
        Path | None,
        typer.Option("--local-link", metavar="PATH", help="A Unix socket by which other containers share memory."),
    ] = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    as_json: Json = False,  # noqa: ARG001 - the server's output is JSON anyway
) -> None:
    """Run a parameter server until ctrl-C or SIGTERM. It prints its address as one line of JSON."""
    options = {
        "--host": host,
        "--port": port,
        "--transport": transport,
        "--socket": socket,
        "--local-link": local_link,
        "--home": home,
        "--data-root": data_root,
        "--allow-object-storage": allow_object_storage,
        "--max-active-jobs": max_active_jobs,
        "--max-jobs": max_jobs,
        "--max-parameters": max_parameters,
        "--max-data-bytes": max_data_bytes,
        "--max-data-set-bytes": max_data_set_bytes,
        "--max-preparation-bytes": max_preparation_bytes,
        "--max-message-bytes": max_message_bytes,
        "--lease-s": lease_s,
        "--checkpoint-every-s": checkpoint_every_s,
        "--keep-checkpoints": keep_checkpoints,
        "--keep-jobs": keep_jobs,
        "--metrics-port": metrics_port,
        "--metrics-host": None if metrics_port is None else metrics_host,
        "--log-format": log_format,
        "--log-level": log_level,
    }
    _become("chainrule_server", options)


@app.command()
def worker(
    server: Server = DEFAULT_SERVER,
    name: Annotated[
        str | None, typer.Option("--name", help="The worker's name; HOST-PID where none is given, or HOST-1, HOST-2, …")
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            "--workers",
            "-w",
            metavar="N",
            envvar="CHAINRULE_WORKERS",
            help="How many; auto: one for each processor, of the container where it has a limit.",
        ),
    ] = "1",
    connect_timeout_s: Annotated[
        float | None, typer.Option("--connect-timeout-s", metavar="S", help="How long the server may be away.")
    ] = None,
    transport: Transport = "auto",
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    as_json: Json = False,  # noqa: ARG001 - a worker prints nothing but its log
) -> None:
    """Run a worker of a server, or several, until ctrl-C or SIGTERM."""
    from chainrule.cli.commands.worker import run_workers, worker_count

    options = {
        "--server": server,
        "--transport": transport,
        "--connect-timeout-s": connect_timeout_s,
        "--log-format": log_format,
        "--log-level": log_level,
    }
    if (count := worker_count(workers)) > 1:
        run_workers(count, name=name, options=_arguments(options))
    else:
        _become("chainrule_worker", {**options, "--name": name})


def _become(module: str, options: Mapping[str, Any]) -> NoReturn:
    """Replace this process by the server or a worker. -P: modules in the current folder must not shadow ours."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *_arguments(options)])  # noqa: S606


def _arguments(options: Mapping[str, Any]) -> list[str]:
    """The options as a command has them: None is not passed on, of a list each entry is."""
    arguments: list[str] = []
    for name, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            arguments += [] if each is None else [name, str(each)]
    return arguments
