"""The commands about jobs on a server, and about the server itself. chainrule.cli.commands holds what they do."""

from __future__ import annotations

from typing import Annotated

import typer

from chainrule.cli.options import DEFAULT_SERVER, JobFile, JobId, Json, Server, Settings

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
    from chainrule.cli.commands import jobs

    jobs.submit(
        server,
        job_file,
        watch=watch,
        validate_only=validate_only,
        request_id=request_id,
        upload=upload,
        settings=settings or (),
        as_json=as_json,
    )


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
    from chainrule.cli.commands import jobs

    jobs.list_jobs(server, states=states or [], name_prefix=name_prefix, labels=labels or [], as_json=as_json)


@app.command()
def health(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Tell whether a server is serving: exit code 0, or 1."""
    from chainrule.cli.commands.health import health as ask

    ask(server, as_json=as_json)


@app.command()
def workers(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the workers that are connected: where they run, what they compute, when they were last heard of."""
    from chainrule.cli.commands.workers import list_workers

    list_workers(server, as_json=as_json)


@app.command()
def status(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Show how far a job is."""
    from chainrule.cli.commands import jobs

    jobs.status(server, job, as_json=as_json)


@app.command()
def watch(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Follow a job to its end; with --json, a line for each change."""
    from chainrule.cli.commands import jobs

    jobs.watch(server, job, as_json=as_json)


@app.command()
def cancel(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """End a job; its last parameters are kept."""
    from chainrule.cli.commands import jobs

    jobs.cancel(server, job, as_json=as_json)


@app.command()
def pause(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Let a job give its workers to others, and keep what it has until it is resumed."""
    from chainrule.cli.commands import jobs

    jobs.pause(server, job, as_json=as_json)


@app.command()
def resume(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Put a paused job back in the queue."""
    from chainrule.cli.commands import jobs

    jobs.resume(server, job, as_json=as_json)


@app.command()
def delete(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Forget a job that has ended, its model on the server included."""
    from chainrule.cli.commands import jobs

    jobs.delete(server, job, as_json=as_json)
