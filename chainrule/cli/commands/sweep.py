"""`chainrule sweep`: many jobs that differ in some settings, one table, and the best model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from chainrule.cli.commands.machine import let_sigint_end_it, look_at_machine
from chainrule.cli.failures import FAILED, CommandFailed, interrupted, wrong_input
from chainrule.cli.options import DEFAULT_SERVER, DataRoot, JobFile, Json, Server, Settings
from chainrule.cli.output import print_json, print_line, print_note
from chainrule.client.blocking.client import Client
from chainrule.client.blocking.connection import take_steps
from chainrule.client.job_text import FINAL_STATES
from chainrule.client.model_output import DEFAULT_FOLDER, check_output
from chainrule.client.sweep_runs import Run, best_of, steps_of, table_of, value_text
from chainrule.errors import PreconditionFailed
from chainrule.local.processes import LocalProcesses
from chainrule.spec.job_file import load_table
from chainrule.spec.settings import with_settings
from chainrule.spec.sweep import LABEL, Sweep, sweep_of_table
from chainrule.text import number
from chainrule.v1 import job_pb2

app = typer.Typer()


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
    let_sigint_end_it()
    if workers is not None and cancel:
        raise wrong_input("--cancel", "is for jobs on a server; a local cluster's end with it")
    found = sweep_of_table(with_settings(load_table(job_file), settings or ()))
    path = output or DEFAULT_FOLDER / f"{found.name}-sweep-{found.sweep_id}.safetensors"
    if not cancel:
        check_output(path)
    with _connected(server, workers, data_root or job_file.parent) as client:
        if cancel:
            _cancel(client, found, as_json=as_json)
            return
        try:
            runs, final = _train(client, found)
        except KeyboardInterrupt:
            said = (
                "the jobs ended with their cluster"
                if workers is not None
                else ("the jobs go on: the same command takes the sweep up again, and --cancel ends them")
            )
            raise interrupted({"sweep": found.sweep_id}, f"interrupted; {said}") from None
        best = best_of(runs)
        if best is not None and final is not None:
            client.download_model(final.job_id, path)
    _report(found, runs, best, final, path, as_json=as_json)


@contextlib.contextmanager
def _connected(server: str, workers: int | None, data_root: Path) -> Iterator[Client]:
    if workers is None:
        with Client(server) as client:
            yield client
        return
    if workers < 1:
        raise wrong_input("--workers", f"must be at least 1, got {workers}")
    look_at_machine(worker_count=workers, transport="auto")
    with (
        LocalProcesses(workers, data_root, "auto") as cluster,
        Client(cluster.address, credentials=cluster.credentials) as client,
    ):
        yield client


def _train(client: Client, found: Sweep) -> tuple[list[Run], job_pb2.Job | None]:
    """All jobs, ended, and the best: see `chainrule.client.sweep_runs.steps_of`."""
    runs = [Run(trial) for trial in found.trials]
    with _Display(found, runs) as display:
        return runs, take_steps(client, steps_of(found, runs, lambda: display.show()))


def _cancel(client: Client, found: Sweep, *, as_json: bool) -> None:
    cancelled = []
    for job in client.list_jobs(labels={LABEL: found.sweep_id}):
        if job.state not in FINAL_STATES:
            # It may have ended meanwhile.
            with contextlib.suppress(PreconditionFailed):
                cancelled.append(client.cancel_job(job.job_id).job_id)
    if as_json:
        print_json({"sweep": found.sweep_id, "cancelled": cancelled})
    else:
        print_line(f"sweep {found.sweep_id}: {len(cancelled)} jobs cancelled")


def _report(
    found: Sweep, runs: list[Run], best: Run | None, final: job_pb2.Job | None, path: Path, *, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "sweep": found.sweep_id,
                "trials": [run.fields for run in runs],
                "best": None if best is None else best.trial.number,
                "job": None if final is None else final.job_id,
                "parameters_sha256": None if final is None else final.result.parameters_sha256,
                "model_path": None if final is None else str(path),
            }
        )
    else:
        for line in table_of(found, runs, best):
            print_line(line)
    if best is None:
        raise CommandFailed(FAILED, [("", "no trial has a validation loss: there is no best model")], reason="NO_BEST")
    if not as_json:
        print_line()
        print_line(f"best: {best.trial.number}, {_settings_text(best.trial.settings)}")
        print_line(f"model: {path}")


def _settings_text(settings: dict[str, Any]) -> str:
    return ", ".join(f"{path} = {value_text(value)}" for path, value in settings.items())


class _Display:
    """The table on standard error while it changes: live on a terminal, elsewhere a line for each trial that ended."""

    def __init__(self, found: Sweep, runs: list[Run]) -> None:
        self._found, self._runs = found, runs
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._told: set[int] = set()
        self.show: Callable[[], None] = self._tell

    def __enter__(self) -> _Display:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
            self.show = self._draw
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> None:
        if self._live is not None:
            lines = table_of(self._found, self._runs, best_of(self._runs))
            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _tell(self) -> None:
        for run in self._runs:
            if run.trial.number not in self._told and run.has_ended:
                self._told.add(run.trial.number)
                loss = "" if run.score is None else f", validation loss {number(run.score)}"
                settings = _settings_text(run.trial.settings)
                print_note(f"trial {run.trial.number} of {len(self._runs)} ({settings}): {run.state}{loss}")
