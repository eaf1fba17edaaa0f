"""The commands that talk to a running server: submit, list, status, watch, pause, resume, cancel, download."""

from __future__ import annotations

from typing import Annotated

import typer

from chainrule.cli.commands.datasets import upload_files
from chainrule.cli.commands.train import check_success
from chainrule.cli.failures import given_as, interrupted, wrong_input
from chainrule.cli.options import DEFAULT_SERVER, JobFile, JobId, Json, Server, Settings
from chainrule.cli.output import print_json, print_line, print_table
from chainrule.client.blocking.client import Client
from chainrule.client.blocking.job import followed
from chainrule.client.job_text import FINAL_STATES, fields_of, job_lines, state_name, state_number
from chainrule.client.progress import ProgressDisplay
from chainrule.spec.job_file import load_job_file
from chainrule.text import number, size, time_text
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api

app = typer.Typer()


@app.command()
def submit(
    job_file: JobFile,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check the job, tell what it takes, and start nothing.")
    ] = False,
    request_id: Annotated[
        str,
        typer.Option("--request-id", metavar="ID", help="Such as a UUID: the same again makes no second job."),
    ] = "",
    upload: Annotated[
        bool,
        typer.Option(
            "--upload",
            help="Upload the files that data.uri and model.start.model name beside the job file, and train on them.",
        ),
    ] = False,
    settings: Settings = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Put a job in a server's queue."""
    spec = load_job_file(job_file, settings or ())
    with Client(server) as client:
        if upload:
            upload_files(client, spec, job_file.parent)
        if validate_only:
            _print_estimate(client.validate_job(spec), as_json=as_json)
            return
        job = client.create_job(spec, request_id=request_id)
        if watch:
            _follow(client, job.job_id, as_json=as_json)
        elif as_json:
            print_json(fields_of(job))
        else:
            print_line(f"job {job.job_id} ({job.spec.name}) is queued; 'chainrule watch {job.job_id}' follows it")


@app.command("list")
def list_jobs(
    states: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only jobs in this state; may be repeated.")
    ] = None,
    name_prefix: Annotated[str, typer.Option("--name", metavar="PREFIX", help="Only jobs whose name begins so.")] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Only jobs with this label; may be repeated."),
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """List a server's jobs, the latest first."""
    wanted = [_state(name) for name in states or ()]
    with Client(server) as client:
        jobs = client.list_jobs(states=wanted, name_prefix=name_prefix, labels=dict(map(_label, labels or ())))
    if as_json:
        print_json({"jobs": [fields_of(job) for job in jobs]})
        return
    if not jobs and (states or name_prefix or labels):
        print_line("there are no such jobs; 'chainrule list' shows all")
        return
    if not jobs:
        print_line("there are no jobs; 'chainrule submit JOB.toml' makes one")
        return
    rows = [("JOB", "NAME", "STATE", "STEP", "LOSS", "CREATED")]
    for job in jobs:
        progress = job.progress
        rows.append(
            (
                job.job_id,
                job.spec.name,
                state_name(job.state).lower(),
                f"{progress.step}/{progress.total_steps}",
                number(job.result.loss if job.HasField("result") else progress.loss) if progress.step else "",
                time_text(job.create_time),
            )
        )
    print_table(rows)


@app.command()
def status(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Show how far a job is."""
    with Client(server) as client:
        _print(client.get_job(job_id), as_json=as_json)


@app.command()
def watch(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Follow a job to its end; with --json, a line for each change."""
    with Client(server) as client:
        _follow(client, job_id, as_json=as_json)


@app.command()
def cancel(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """End a job; its last parameters are kept."""
    with Client(server) as client:
        job = client.cancel_job(job_id)
    if as_json:
        print_json(fields_of(job))
    elif job.state in FINAL_STATES:
        print_line(f"job {job.job_id} is {state_name(job.state).lower()}")
    else:
        print_line(f"job {job.job_id} is being cancelled; it ends with its current step")


@app.command()
def pause(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Let a job give its workers to others, and keep what it has until it is resumed."""
    with Client(server) as client:
        job = client.pause_job(job_id)
    if as_json:
        print_json(fields_of(job))
    else:
        goes_on = f"'chainrule resume {job.job_id}' lets it go on"
        print_line(f"job {job.job_id} is paused after step {job.progress.step}; {goes_on}")


@app.command()
def resume(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Put a paused job back in the queue."""
    with Client(server) as client:
        job = client.resume_job(job_id)
    if as_json:
        print_json(fields_of(job))
    else:
        print_line(f"job {job.job_id} is {state_name(job.state).lower()}; 'chainrule watch {job.job_id}' follows it")


@app.command()
def delete(job_id: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Forget a job that has ended, its model on the server included."""
    with Client(server) as client:
        job_id = client.delete_job(job_id)
    if as_json:
        print_json({"job": job_id, "deleted": True})
    else:
        print_line(f"job {job_id} is deleted, and its model on the server too")


def _follow(client: Client, job_id: str, *, as_json: bool) -> None:
    """Show a job until it ends: with JSON, a line for each state it is seen in. Raises CommandFailed."""
    job = job_pb2.Job()
    try:
        with ProgressDisplay() as display:
            for job in followed(client, job_id, display.note):
                if as_json:
                    print_json(fields_of(job))
                else:
                    display.show(job)
    except KeyboardInterrupt:
        raise interrupted(message=f"interrupted; job {job_id} goes on, 'chainrule cancel {job_id}' ends it") from None
    if not as_json:
        _print(job, as_json=False)
    check_success(job)


def _state(name: str) -> job_pb2.JobState:
    """The state 'running' names. Raises CommandFailed."""
    with given_as("--state"):
        return state_number(name)


def _label(text: str) -> tuple[str, str]:
    """The key and the value of 'team=vision'. Raises CommandFailed."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise wrong_input("--label", f"must be KEY=VALUE, got {text[:80]!r}")
    return key, value


def _print_estimate(response: api.CreateJobResponse, *, as_json: bool) -> None:
    if as_json:
        print_json({"spec": fields_of(response.job.spec), "estimate": fields_of(response.estimate)})
        return
    estimate = response.estimate
    print_table(
        [
            ("job", f"{response.job.spec.name}, valid; nothing was started"),
            ("parameters", str(estimate.parameter_count)),
            ("features", str(estimate.feature_count)),
            ("rows", f"{estimate.row_count}, and {estimate.validation_row_count} for validation"),
            ("steps", str(estimate.total_steps)),
            ("server memory", size(estimate.server_bytes)),
            ("file of rows", size(estimate.row_file_bytes)),
            ("worker memory", size(estimate.worker_bytes)),
        ]
    )


def _print(job: job_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        print_json(fields_of(job))
        return
    for line in job_lines(job):
        print_line(line)
