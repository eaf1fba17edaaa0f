"""The command `chainrule`. It only declares commands and options; chainrule.cli.commands holds what they do.

gRPC is imported inside the commands, so that `chainrule --help` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from chainrule.cli.datasets import app as datasets
from chainrule.cli.failures import FAILED, OUTPUT_CLOSED, WRONG_INPUT, CommandFailed, interrupted, report, wrong_input
from chainrule.cli.history import app as history
from chainrule.cli.jobs import app as jobs
from chainrule.cli.models import app as models
from chainrule.cli.options import (
    DATA_FILES,
    DEFAULT_SERVER,
    DataRoot,
    JobFile,
    Json,
    Output,
    Server,
    Settings,
    Transport,
)
from chainrule.cli.processes import app as processes
from chainrule.cli.security import add_security_options, certificates, token
from chainrule.cli.streams import let_go_of_streams, prepare_streams
from chainrule.errors import ChainruleError

app = typer.Typer(
    name="chainrule",
    help="Write a loss as a formula; a parameter server trains it on many workers, with the same bits as on one.",
    epilog="Exit codes: 0 succeeded, 1 failed, 2 wrong input, 130 interrupted, 141 nobody reads the output, "
    "143 SIGTERM; of 'chainrule wait' also 3 cancelled, 124 the job goes on.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(datasets, name="datasets")
app.add_typer(processes)
app.add_typer(jobs)
app.add_typer(models)
app.add_typer(history)

app.add_typer(certificates, name="certificates")
app.add_typer(token, name="token")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        from chainrule.version import installed_version

        found = installed_version()
        typer.echo(f"chainrule {found}" if found else "chainrule, not installed")
        raise typer.Exit


def _let_sigint_end_it() -> None:
    # A shell starts background commands with SIGINT ignored; then ctrl-C or kill -INT could never end the cluster.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@app.command()
def train(
    job_file: JobFile,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", metavar="N", help="How many worker processes; else 2.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the same job where ctrl-C interrupted it, to the same bits.")
    ] = False,
    output: Output = None,
    data_root: DataRoot = None,
    transport: Transport = "auto",
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write the last steps as a trace for Chrome or Perfetto."),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a job on this machine: start a server and N workers, write the model, end them all."""
    from chainrule.cli.commands.train import Training

    _let_sigint_end_it()
    Training(
        job_file,
        workers,
        output,
        as_json,
        data_root=data_root,
        transport=transport,
        trace=trace,
        settings=settings or (),
        resume=resume,
    ).run()


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
    settings: Settings = None,
    server: Server = DEFAULT_SERVER,
    as_json: Json = False,
) -> None:
    """Train the jobs of a file's [sweep], show them in one table, and write the best model."""
    from chainrule.cli.commands import sweep as command

    _let_sigint_end_it()
    command.sweep(
        server,
        job_file,
        workers=workers,
        output=output,
        data_root=data_root,
        cancel=cancel,
        settings=settings or (),
        as_json=as_json,
    )


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
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Draw a job's computation graph with the forward and backward values of one example."""
    from chainrule.cli.commands.graph import graph as draw

    draw(
        job_file,
        output,
        row=row,
        parameters=parameters,
        as_json=as_json,
        data_root=data_root,
        settings=settings or (),
    )


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
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Hold a job's gradients against central differences, on rows of its data."""
    from chainrule.cli.commands.check import Check

    # As in train: a shell starts background commands with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Check(
        job_file=job_file,
        worker_count=workers,
        row_count=row_count,
        as_json=as_json,
        data_root=data_root,
        settings=settings or (),
    ).run()


@app.command()
def init(
    data_file: Annotated[Path, typer.Argument(metavar="DATA", help=f"A {DATA_FILES} file.")],
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="What to predict; else the last column.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="JOB.toml", help="Else beside the data file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a commented job file for a data file: its columns are looked at, and a model is proposed."""
    from chainrule.cli.commands.init import init as write_job

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
    from chainrule.cli.commands.doctor import diagnose

    diagnose(server or DEFAULT_SERVER, is_named=server is not None, as_json=as_json)


def main() -> NoReturn:
    """The entry point of the command: run it with the process's arguments and exit."""
    prepare_streams()
    # gRPC's own log and its warnings about starting processes are not for our users.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = OUTPUT_CLOSED
    except CommandFailed as failure:
        # It was to be told on standard output, which can't be written.
        code = report(failure, as_json=False)
    if code == OUTPUT_CLOSED:
        let_go_of_streams()
    sys.exit(code)


def narrowed(whole: typer.Typer, name: str) -> typer.Typer:
    """The app with the command or group of this name alone, or the whole app where there is none.

    Making all of its commands takes as long as many of them: 0.06 s."""
    groups = [each for each in whole.registered_groups if each.name == name]
    parts = [whole, *(each.typer_instance for each in whole.registered_groups if not each.name)]
    commands = [
        each
        for part in parts
        if part is not None
        for each in part.registered_commands
        if each.callback is not None and (each.name or each.callback.__name__.replace("_", "-")) == name
    ]
    if not groups and not commands:
        return whole
    found = typer.Typer(rich_markup_mode=None)
    found.info, found.registered_callback = whole.info, whole.registered_callback
    found.registered_groups, found.registered_commands = groups, commands
    return found


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Failures are printed, never raised."""
    as_json = "--json" in arguments
    try:
        command = typer.main.get_command(narrowed(app, arguments[0] if arguments else ""))
        add_security_options(command)
        code = command.main(arguments or ["--help"], prog_name="chainrule", standalone_mode=False)
    except CommandFailed as failure:
        return report(failure, as_json=as_json)
    except ChainruleError as error:
        return report(CommandFailed.of(error), as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return report(interrupted(), as_json=as_json)
    except BrokenPipeError:
        return OUTPUT_CLOSED
    except SystemExit as end:
        # click makes exit code 1 of a pipe that is closed.
        if isinstance(end.__context__, BrokenPipeError):
            return OUTPUT_CLOSED
        raise
    except Exception as error:
        if hasattr(error, "format_message"):
            # A usage error; its class is click's or typer's own, by version.
            context = getattr(error, "ctx", None)
            command_path = context.command_path if context is not None else "chainrule"
            message = f"{error.format_message().rstrip('.')}; see '{command_path} --help'"
            return report(CommandFailed(WRONG_INPUT, [("", message)], reason="USAGE"), as_json=as_json)
        if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
            # What Python makes of bytes that are no UTF-8, in an argument or a file's name; no message takes it.
            return report(wrong_input("", f"{error.object!r:.80} is no text in UTF-8"), as_json=as_json)
        if os.environ.get("CHAINRULE_DEBUG"):
            raise
        message = f"an error of chainrule itself: {type(error).__name__}: {error}; CHAINRULE_DEBUG=1 shows where"
        return report(CommandFailed(FAILED, [("", message)], reason="INTERNAL"), as_json=as_json)
    if code == interrupted().code:
        return report(interrupted(), as_json=as_json)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
