"""The command `chainrule`. Each command stands whole, options and what it does, in a module of chainrule.cli.commands.

A module is imported when one of its commands is run, so that `chainrule --help` is quick: it loads no gRPC.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from chainrule.cli.failures import FAILED, OUTPUT_CLOSED, WRONG_INPUT, CommandFailed, interrupted, report, wrong_input
from chainrule.cli.security import add_security_options
from chainrule.cli.streams import let_go_of_streams, prepare_streams
from chainrule.errors import ChainruleError

# Of each command the module of chainrule.cli.commands that declares it, and the first sentence of its help.
COMMANDS = {
    "train": ("train", "Train a job on this machine: start a server and N workers, write the model, end them all."),
    "sweep": ("sweep", "Train the jobs of a file's [sweep], show them in one table, and write the best model."),
    "graph": ("graph", "Draw a job's computation graph with the forward and backward values of one example."),
    "check": ("check", "Hold a job's gradients against central differences, on rows of its data."),
    "init": ("init", "Write a commented job file for a data file: its columns are looked at, and a model is proposed."),
    "doctor": ("doctor", "Look for what is wrong with this machine and say how to mend it: exit code 0, or 1."),
    "datasets": ("datasets", "Upload, list and delete a server's data sets."),
    "server": ("processes", "Run a parameter server until ctrl-C or SIGTERM."),
    "worker": ("processes", "Run a worker of a server, or several, until ctrl-C or SIGTERM."),
    "submit": ("jobs", "Put a job in a server's queue."),
    "list": ("jobs", "List a server's jobs, the latest first."),
    "health": ("health", "Tell whether a server is serving: exit code 0, or 1."),
    "workers": (
        "workers",
        "List the workers that are connected: where they run, what they compute, when they were last heard of.",
    ),
    "status": ("jobs", "Show how far a job is."),
    "watch": ("jobs", "Follow a job to its end; with --json, a line for each change."),
    "cancel": ("jobs", "End a job; its last parameters are kept."),
    "pause": ("jobs", "Let a job give its workers to others, and keep what it has until it is resumed."),
    "resume": ("jobs", "Put a paused job back in the queue."),
    "delete": ("jobs", "Forget a job that has ended, its model on the server included."),
    "download": (
        "models",
        "Write a job's model to a safetensors file: the result, or another version of the parameters.",
    ),
    "checkpoints": ("models", "List the versions of a job's model: checkpoints, the last and the best."),
    "predict": (
        "models",
        "Print a model's prediction for each row of a table, as CSV or, with --json, a line of JSON for each.",
    ),
    "explain": (
        "models",
        "Show every node's forward and backward value, of a finished job's model or of one that is being trained.",
    ),
    "export": ("export", "Write a model for other programs: as ONNX, as arrays, or as a picture of its graph."),
    "wait": ("history", "Wait for a job's end."),
    "logs": ("history", "Print what happened to a job, a line for each event: states, workers, checkpoints, restarts."),
    "metrics": (
        "history",
        "Print a job's losses and measures as CSV, also while it runs; or write them for a spreadsheet or TensorBoard.",
    ),
    "certificates": ("certificates", "Make a private authority and certificates for TLS; renew and show them."),
    "token": ("tokens", "Make tokens, by which a server knows who calls."),
}


class _LazyGroup(typer.core.TyperGroup):
    """A group that lists commands by the table, and imports a command's module when one is run or asked for help."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: typer.core.TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else command_of(name), rest


app = typer.Typer(
    name="chainrule",
    cls=_LazyGroup,
    help="Write a loss as a formula; a parameter server trains it on many workers, with the same bits as on one.",
    epilog="Exit codes: 0 succeeded, 1 failed, 2 wrong input, 130 interrupted, 141 nobody reads the output, "
    "143 SIGTERM; of 'chainrule wait' also 3 cancelled, 124 the job goes on.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        from chainrule.version import installed_version

        found = installed_version()
        typer.echo(f"chainrule {found}" if found else "chainrule, not installed")
        raise typer.Exit


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


def command_of(name: str) -> Any:
    """The command or group of this name with all of its options, its module imported."""
    module = importlib.import_module(f"chainrule.cli.commands.{COMMANDS[name][0]}")
    whole = typer.Typer(rich_markup_mode=None)
    whole.add_typer(module.app)
    group = typer.main.get_group(whole)
    add_security_options(group)
    return group.commands[name]


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Failures are printed, never raised."""
    as_json = "--json" in arguments
    try:
        command = typer.main.get_command(app)
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
