"""The commands that tell what became of a job: its measures, its events, its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.commands.train import check_success
from chainrule.cli.failures import FAILED, CommandFailed, interrupted, wrong_input
from chainrule.cli.options import DEFAULT_SERVER, JobId, Json, Server
from chainrule.cli.output import print_json, print_line, print_note
from chainrule.client.blocking.client import Client
from chainrule.client.job_text import event_line, fields_of, state_name
from chainrule.client.metric_table import csv_text, table
from chainrule.client.model_output import safe_name
from chainrule.errors import JobNotEnded, ServerError
from chainrule.export.tensorboard import TensorBoardMissing, write_events
from chainrule.text import one_line
from chainrule.v1 import job_pb2

app = typer.Typer()

# What `chainrule wait` says besides the codes of all commands; the second is that of timeout(1).
CANCELLED = 3
TIMED_OUT = 124


@app.command()
def metrics(
    job_id: JobId,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.csv", help="A CSV file.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="The folder of runs that TensorBoard shows.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Print a job's losses and measures as CSV, also while it runs; or write them for a spreadsheet or TensorBoard."""
    with Client(server) as client:
        job = client.get_job(job_id)
        rows = client.read_metrics(job.job_id)
    written: dict[str, Path] = {}
    if output is not None:
        written["csv_path"] = _written("--output", output, lambda: _write(output, csv_text(rows)))
    if tensorboard is not None:
        run = tensorboard / f"{safe_name(job.spec.name)}-{safe_name(job.job_id)}"
        started_s = job.start_time.seconds + job.start_time.nanos / 1e9
        try:
            path = _written("--tensorboard", run, lambda: write_events(rows, run, otherwise_s=started_s))
        except TensorBoardMissing:
            message = "tensorboardX isn't installed; pip install 'chainrule[tensorboard]'"
            raise CommandFailed(FAILED, [("--tensorboard", message)], reason="NOT_INSTALLED") from None
        written["tensorboard_path"] = path
    if as_json:
        names, cells = table(rows)
        told = {} if written else {"rows": [dict(zip(names, row, strict=True)) for row in cells]}
        print_json({"job": job.job_id, "row_count": len(rows), **{k: str(path) for k, path in written.items()}, **told})
    elif written:
        for path in written.values():
            print_line(one_line(str(path)))
    else:
        print_line(csv_text(rows).removesuffix("\n"))


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also what is to come, until the job ends.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Print what happened to a job, a line for each event: states, workers, checkpoints, restarts."""
    with Client(server) as client:
        job_id = client.get_job(job_id).job_id
        try:
            for update in client.watch_updates(job_id, after_event=0, lost=_lost):
                for event in update.events:
                    if as_json:
                        print_json({"job": job_id, **fields_of(event)})
                    else:
                        print_line(event_line(event))
                if not follow:
                    return
        except KeyboardInterrupt:
            raise interrupted(message=f"interrupted; job {job_id} goes on") from None


@app.command()
def wait(
    job_id: JobId,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout-s", metavar="S", min=0.001, help="Give up after so many seconds.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Wait for a job's end. Exit code 0: it succeeded, 1: it failed, 3: it was cancelled, 124: it goes on."""
    with Client(server) as client:
        job = client.get_job(job_id)
        try:
            for update in client.watch_updates(job.job_id, timeout_s=timeout_s, lost=_lost):
                job = update.job
        except JobNotEnded:
            progress = job.progress
            message = (
                f"job {job.job_id} has not ended within {timeout_s:g} s: it is {state_name(job.state).lower()}, "
                f"at step {progress.step} of {progress.total_steps}"
            )
            fields = {"job": job.job_id, "state": state_name(job.state)}
            raise CommandFailed(TIMED_OUT, [("", message)], reason="TIMED_OUT", fields=fields) from None
        except KeyboardInterrupt:
            raise interrupted(message=f"interrupted; job {job.job_id} goes on") from None
    try:
        check_success(job)
    except CommandFailed as failure:
        if job.state == job_pb2.JOB_STATE_CANCELLED:
            failure.code = CANCELLED
        raise
    if as_json:
        print_json(fields_of(job))
    else:
        print_line(f"job {job.job_id} ({job.spec.name}) succeeded after {job.progress.step} steps")


def _lost(error: ServerError) -> None:
    print_note(f"{error}; trying again")


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _written(option: str, path: Path, write: Callable[[], Path]) -> Path:
    """The path that `write` returns. Raises CommandFailed where it can't be written."""
    try:
        return write()
    except OSError as error:
        raise wrong_input(option, f"{path} can't be written: {error.strerror}; choose another") from None
