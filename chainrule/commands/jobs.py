"""The commands that talk to a running server: submit, list, status, watch, cancel, download."""

from __future__ import annotations

from pathlib import Path

from chainrule.client import Client
from chainrule.commands.train import check_success, default_model_path
from chainrule.failures import interrupted
from chainrule.job_file import load_job_file
from chainrule.output import FINAL_STATES, fields_of, job_lines, print_json, print_line, state_name
from chainrule.progress import ProgressDisplay
from chainrule.text import number, table_lines
from chainrule.v1 import job_pb2


def submit(server: str, job_file: Path, *, watch: bool, as_json: bool) -> None:
    """Put a job in the queue, and follow it to its end where `watch` is set."""
    spec = load_job_file(job_file)
    with Client(server) as client:
        job = client.create_job(spec)
        if watch:
            _follow(client, job.job_id, as_json=as_json)
        elif as_json:
            print_json(fields_of(job))
        else:
            print_line(f"job {job.job_id} ({job.spec.name}) is queued; 'chainrule watch {job.job_id}' follows it")


def list_jobs(server: str, *, as_json: bool) -> None:
    """Print all jobs of the server, the latest first."""
    with Client(server) as client:
        jobs = client.list_jobs()
    if as_json:
        print_json({"jobs": [fields_of(job) for job in jobs]})
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
                job.create_time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S UTC"),
            )
        )
    for line in table_lines(rows):
        print_line(line)


def status(server: str, job_id: str, *, as_json: bool) -> None:
    """Print how far a job is."""
    with Client(server) as client:
        _print(client.get_job(job_id), as_json=as_json)


def watch(server: str, job_id: str, *, as_json: bool) -> None:
    """Follow a job to its end."""
    with Client(server) as client:
        _follow(client, job_id, as_json=as_json)


def cancel(server: str, job_id: str, *, as_json: bool) -> None:
    """End a job."""
    with Client(server) as client:
        job = client.cancel_job(job_id)
    if as_json:
        print_json(fields_of(job))
    elif job.state in FINAL_STATES:
        print_line(f"job {job.job_id} is {state_name(job.state).lower()}")
    else:
        print_line(f"job {job.job_id} is being cancelled; it ends with its current step")


def download(server: str, job_id: str, output: Path | None, *, as_json: bool) -> None:
    """Write a job's model to a file."""
    with Client(server) as client:
        if output is None:
            job = client.get_job(job_id)
            job_id, output = job.job_id, default_model_path(job)
        path = client.download_model(job_id, output)
    if as_json:
        print_json({"job": job_id, "model_path": str(path), "size_bytes": path.stat().st_size})
    else:
        print_line(str(path))


def _follow(client: Client, job_id: str, *, as_json: bool) -> None:
    """Show a job until it ends: with JSON, a line for each state it is seen in. Raises CommandFailed."""
    job = job_pb2.Job()
    try:
        with ProgressDisplay() as display:
            for job in client.watch_job(job_id):
                if as_json:
                    print_json(fields_of(job))
                else:
                    display.show(job)
    except KeyboardInterrupt:
        raise interrupted(message=f"interrupted; job {job_id} goes on, 'chainrule cancel {job_id}' ends it") from None
    if not as_json:
        _print(job, as_json=False)
    check_success(job)


def _print(job: job_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        print_json(fields_of(job))
        return
    for line in job_lines(job):
        print_line(line)
