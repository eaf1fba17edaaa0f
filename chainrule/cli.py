"""The command `chainrule`. It only declares commands and options; chainrule.commands holds what they do.

gRPC is imported inside the commands, so that `chainrule --help` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from chainrule.cli_datasets import app as datasets
from chainrule.cli_history import app as history
from chainrule.cli_options import DEFAULT_SERVER, JobId, Json, Server
from chainrule.cli_security import add_security_options, certificates, token
from chainrule.errors import ChainruleError
from chainrule.failures import FAILED, WRONG_INPUT, CommandFailed, interrupted, report

app = typer.Typer(
    name="chainrule",
    help="Write a loss as a formula; a parameter server trains it on many workers, with the same bits as on one.",
    epilog="Exit codes: 0 succeeded, 1 failed, 2 wrong input, 130 interrupted.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(datasets, name="datasets")
app.add_typer(history)

app.add_typer(certificates, name="certificates")
app.add_typer(token, name="token")

JobFile = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file.")]
Transport = Annotated[
    str,
    typer.Option(
        "--transport",
        help="auto, grpc or shared-memory: how vectors travel. auto shares memory where both are on one machine.",
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        envvar="CHAINRULE_DATA_ROOT",
        help="The folder whose files a job may read; the job file's own where none is given.",
    ),
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", metavar="text|json", help="The log's lines; CHAINRULE_LOG_FORMAT or text.")
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error; CHAINRULE_LOG_LEVEL or info."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="The model file; models/NAME-JOB.safetensors where none is given."
    ),
]
Step = Annotated[
    int | None, typer.Option("--step", metavar="N", help="The parameters after this step, where they are kept.")
]
Best = Annotated[bool, typer.Option("--best", help="Those with the lowest validation loss that is known.")]
Last = Annotated[bool, typer.Option("--last", help="The last ones, also of a job that runs.")]

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
MaxMessageBytes = Annotated[
    int | None, typer.Option("--max-message-bytes", metavar="N", help="Bytes of a client's message; 2^22.")
]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        from chainrule.version import installed_version

        found = installed_version()
        typer.echo(f"chainrule {found}" if found else "chainrule, not installed")
        raise typer.Exit


@app.command()
def train(
    job_file: JobFile,
    workers: Annotated[int, typer.Option("--workers", "-w", metavar="N", help="How many worker processes.")] = 2,
    output: Output = None,
    data_root: DataRoot = None,
    transport: Transport = "auto",
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write the last steps as a trace for Chrome or Perfetto."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a job on this machine: start a server and N workers, write the model, end them all."""
    from chainrule.commands.train import Training

    # A shell starts background commands with SIGINT ignored; then ctrl-C or kill -INT could never end the cluster.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Training(job_file, workers, output, as_json, data_root=data_root, transport=transport, trace=trace).run()


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
    max_message_bytes: MaxMessageBytes = None,
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
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    as_json: Json = False,  # noqa: ARG001 - the server's output is JSON anyway
) -> None:
    """Run a parameter server until ctrl-C or SIGTERM. It prints its address as one line of JSON."""
    options = ["--host", host, "--port", str(port), "--transport", transport]
    if socket is not None:
        options += ["--socket", str(socket)]
    if home is not None:
        options += ["--home", str(home)]
    if data_root is not None:
        options += ["--data-root", str(data_root)]
    for prefix in allow_object_storage or []:
        options += ["--allow-object-storage", prefix]
    limits = {
        "--max-active-jobs": max_active_jobs,
        "--max-jobs": max_jobs,
        "--max-parameters": max_parameters,
        "--max-data-bytes": max_data_bytes,
        "--max-data-set-bytes": max_data_set_bytes,
        "--max-message-bytes": max_message_bytes,
    }
    for option, limit in limits.items():
        if limit is not None:
            options += [option, str(limit)]
    if checkpoint_every_s is not None:
        options += ["--checkpoint-every-s", str(checkpoint_every_s)]
    for name, count in (("--keep-checkpoints", keep_checkpoints), ("--keep-jobs", keep_jobs)):
        if count is not None:
            options += [name, str(count)]
    if metrics_port is not None:
        options += ["--metrics-port", str(metrics_port), "--metrics-host", metrics_host]
    _become("server", [*options, *_log_options(log_format, log_level)])


@app.command()
def worker(
    server: Server = DEFAULT_SERVER,
    name: Annotated[str | None, typer.Option("--name", help="The worker's name; HOST-PID where none is given.")] = None,
    connect_timeout_s: Annotated[
        float | None, typer.Option("--connect-timeout-s", metavar="S", help="How long the server may be away.")
    ] = None,
    transport: Transport = "auto",
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    as_json: Json = False,  # noqa: ARG001 - a worker prints nothing but its log
) -> None:
    """Run a worker of a server until ctrl-C or SIGTERM."""
    options = ["--server", server, "--transport", transport]
    if name is not None:
        options += ["--name", name]
    if connect_timeout_s is not None:
        options += ["--connect-timeout-s", str(connect_timeout_s)]
    _become("worker", [*options, *_log_options(log_format, log_level)])


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
        typer.Option("--upload", help="Upload the file that data.uri names beside the job file, and train on that."),
    ] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Put a job in a server's queue."""
    from chainrule.commands import jobs

    jobs.submit(
        server,
        job_file,
        watch=watch,
        validate_only=validate_only,
        request_id=request_id,
        upload=upload,
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
    from chainrule.commands import jobs

    jobs.list_jobs(server, states=states or [], name_prefix=name_prefix, labels=labels or [], as_json=as_json)


@app.command()
def health(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Tell whether a server is serving: exit code 0, or 1."""
    from chainrule.commands import jobs

    jobs.health(server, as_json=as_json)


@app.command()
def workers(server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the workers that are connected: where they run, what they compute, when they were last heard of."""
    from chainrule.commands.workers import list_workers

    list_workers(server, as_json=as_json)


@app.command()
def status(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Show how far a job is."""
    from chainrule.commands import jobs

    jobs.status(server, job, as_json=as_json)


@app.command()
def watch(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Follow a job to its end; with --json, a line for each change."""
    from chainrule.commands import jobs

    jobs.watch(server, job, as_json=as_json)


@app.command()
def cancel(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """End a job; its last parameters are kept."""
    from chainrule.commands import jobs

    jobs.cancel(server, job, as_json=as_json)


@app.command()
def pause(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Let a job give its workers to others, and keep what it has until it is resumed."""
    from chainrule.commands import jobs

    jobs.pause(server, job, as_json=as_json)


@app.command()
def resume(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Put a paused job back in the queue."""
    from chainrule.commands import jobs

    jobs.resume(server, job, as_json=as_json)


@app.command()
def delete(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """Forget a job that has ended, its model on the server included."""
    from chainrule.commands import jobs

    jobs.delete(server, job, as_json=as_json)


@app.command()
def download(
    job: JobId,
    output: Output = None,
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Write a job's model to a safetensors file: the result, or another version of the parameters."""
    from chainrule.commands import jobs, models

    version = models.version_of(step, best=best, last=last)
    jobs.download(server, job, output, version=version, as_json=as_json)


@app.command()
def checkpoints(job: JobId, server: Server = DEFAULT_SERVER, as_json: Json = False) -> None:
    """List the versions of a job's model: checkpoints, the last and the best."""
    from chainrule.commands import models

    models.checkpoints(server, job, as_json=as_json)


@app.command()
def predict(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id, or a model file: MODEL.safetensors needs no server.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Rows of raw features; - is standard input.")],
    header: Annotated[
        bool, typer.Option("--header/--no-header", help="Whether the first line names the columns.")
    ] = True,
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Print a model's prediction for each row of a CSV file, as CSV or, with --json, a line of JSON for each."""
    from chainrule.commands import models

    version = models.version_of(step, best=best, last=last)
    models.predict(server, job, file, header=header, version=version, as_json=as_json)


@app.command()
def explain(
    job: JobId,
    row: Annotated[
        int | None,
        typer.Option("--row", metavar="I", help="The example: a row of the job's data; 0 where none is given."),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option("--shard", metavar="I", help="Instead: this shard's next microbatch, counted from 0."),
    ] = None,
    reduced: Annotated[
        bool, typer.Option("--reduced", help="Instead: the next step's gradient, reduced over all shards.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A picture: .svg, .html, .dot, .mmd or .png."),
    ] = None,
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Show every node's forward and backward value, of a finished job's model or of one that is being trained."""
    from chainrule.commands import models

    version = models.version_of(step, best=best, last=last)
    if reduced:
        models.explain_reduction(server, job, others=(row, shard, output), version=version, as_json=as_json)
    else:
        models.explain(server, job, row=row, shard=shard, output=output, version=version, as_json=as_json)


@app.command()
def sweep(
    job_file: JobFile,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", metavar="N", help="On a local cluster of N workers, and not on a server."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The best model; models/NAME-sweep-ID.safetensors else."),
    ] = None,
    data_root: DataRoot = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the jobs of this sweep that go on.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Train the jobs of a file's [sweep], show them in one table, and write the best model."""
    from chainrule.commands import sweep as command

    command.sweep(server, job_file, workers=workers, output=output, data_root=data_root, cancel=cancel, as_json=as_json)


@app.command()
def export(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="A job's id, or a model file: MODEL.safetensors needs no server.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help=".onnx, .npz, .safetensors, .svg, .html, .dot or .mmd."),
    ],
    step: Step = None,
    best: Best = False,
    last: Last = False,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Write a model for other programs: as ONNX, as arrays, or as a picture of its graph."""
    from chainrule.commands import export, models

    version = models.version_of(step, best=best, last=last)
    export.export(server, job, output, version=version, as_json=as_json)


@app.command()
def graph(
    job_file: JobFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Ends in .svg, .html, .dot, .mmd or .png.")
    ],
    row: Annotated[int, typer.Option("--row", metavar="I", help="The example: a row of the data, from 0.")] = 0,
    parameters: Annotated[
        Path | None,
        typer.Option("--parameters", metavar="MODEL.safetensors", help="A trained model; else the first parameters."),
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Draw a job's computation graph with the forward and backward values of one example."""
    from chainrule.commands.graph import graph as draw

    draw(job_file, output, row=row, parameters=parameters, as_json=as_json, data_root=data_root)


@app.command()
def check(
    job_file: JobFile,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", metavar="N", help="Also check what a cluster of N workers reduces."),
    ] = None,
    row_count: Annotated[
        int | None, typer.Option("--row-count", metavar="R", help="Rows to check; a microbatch where none is given.")
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Hold a job's gradients against central differences, on rows of its data."""
    from chainrule.commands.check import Check

    # As in train: a shell starts background commands with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Check(job_file=job_file, worker_count=workers, row_count=row_count, as_json=as_json, data_root=data_root).run()


@app.command()
def init(
    data_file: Annotated[Path, typer.Argument(metavar="DATA", help="A .csv, .parquet, .arrow, .npz or .npy file.")],
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="What to predict; else the last column.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JOB.toml", help="Else beside the data file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a commented job file for a data file: its columns are looked at, and a model is proposed."""
    from chainrule.commands.init import init as write_job

    write_job(data_file, target=target, output=output, as_json=as_json)


@app.command()
def doctor(
    server: Annotated[
        str | None,
        typer.Option("--server", metavar="HOST:PORT", envvar="CHAINRULE_SERVER", help="A server that must answer."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with this machine and say how to mend it: exit code 0, or 1."""
    from chainrule.commands.doctor import diagnose

    diagnose(server or DEFAULT_SERVER, is_named=server is not None, as_json=as_json)


def main() -> NoReturn:
    """The entry point of the command: run it with the process's arguments and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without UTF-8 gets escapes and not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # gRPC's own log and its warnings about starting processes are not for our users.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Failures are printed, never raised."""
    as_json = "--json" in arguments
    try:
        command = typer.main.get_command(app)
        add_security_options(command)
        code = command.main(arguments or ["--help"], prog_name="chainrule", standalone_mode=False)
    except CommandFailed as failure:
        return report(failure, as_json=as_json)
    except ChainruleError as error:
        return report(CommandFailed.of(error), as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return report(interrupted(), as_json=as_json)
    except BrokenPipeError:
        # Whoever read our output has gone; without this Python complains when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if hasattr(error, "format_message"):
            # A usage error; its class is click's or typer's own, by version.
            message = f"{error.format_message().rstrip('.')}; see 'chainrule --help'"
            return report(CommandFailed(WRONG_INPUT, [("", message)], reason="USAGE"), as_json=as_json)
        if os.environ.get("CHAINRULE_DEBUG"):
            raise
        message = f"an error of chainrule itself: {type(error).__name__}: {error}; CHAINRULE_DEBUG=1 shows where"
        return report(CommandFailed(FAILED, [("", message)], reason="INTERNAL"), as_json=as_json)
    if code == interrupted().code:
        return report(interrupted(), as_json=as_json)
    return code if isinstance(code, int) else 0


def _log_options(log_format: str | None, log_level: str | None) -> list[str]:
    given = (("--log-format", log_format), ("--log-level", log_level))
    return [part for name, value in given if value is not None for part in (name, value)]


def _become(module: str, options: list[str]) -> NoReturn:
    """Replace this process by the server or a worker. -P: modules in the current folder must not shadow ours."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *options])  # noqa: S606


if __name__ == "__main__":
    main()
