"""The commands that tell what became of a job: wait, logs, metrics. chainrule.cli.commands.history holds what they
do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.options import DEFAULT_SERVER, JobId, Json, Server

app = typer.Typer()


@app.command()
def wait(
    job: JobId,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout-s", metavar="S", min=0.001, help="Give up after so many seconds.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Wait for a job's end. Exit code 0: it succeeded, 1: it failed, 3: it was cancelled, 124: it goes on."""
    from chainrule.cli.commands import history

    history.wait(server, job, timeout_s=timeout_s, as_json=as_json)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also what is to come, until the job ends.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Print what happened to a job, a line for each event: states, workers, checkpoints, restarts."""
    from chainrule.cli.commands import history

    history.logs(server, job, follow=follow, as_json=as_json)


@app.command()
def metrics(
    job: JobId,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.csv", help="A CSV file.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="The folder of runs that TensorBoard shows.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Print a job's losses and measures as CSV, also while it runs; or write them for a spreadsheet or TensorBoard."""
    from chainrule.cli.commands import history

    history.metrics(server, job, output, tensorboard=tensorboard, as_json=as_json)
