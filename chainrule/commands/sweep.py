"""`chainrule sweep`: many jobs that differ in some settings, one table, and the best model."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from chainrule.client import Client
from chainrule.commands.machine import look_at_machine
from chainrule.errors import PreconditionFailed
from chainrule.failures import FAILED, CommandFailed, interrupted, wrong_input
from chainrule.job_file import load_table
from chainrule.local_processes import LocalProcesses
from chainrule.output import FINAL_STATES, print_json, print_line, print_note, state_name
from chainrule.sweep import LABEL, Sweep, Trial, sweep_of_table
from chainrule.text import number, table_lines
from chainrule.v1 import job_pb2
from chainrule.whole_file import DEFAULT_FOLDER, check_output

POLL_INTERVAL_S = 0.3
# So many jobs wait or run at once, so that a sweep neither fills a server nor leaves it idle.
MAX_OPEN_JOBS = 32
MAX_ATTEMPTS = 100
CANCELLED, SUCCEEDED = job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_SUCCEEDED


@dataclass
class Run:
    """A trial with its jobs as they are; None: not asked for yet."""

    trial: Trial
    jobs: list[job_pb2.Job | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.jobs = [None] * len(self.trial.jobs)

    @property
    def state(self) -> str:
        """In one word."""
        states = [None if job is None else job.state for job in self.jobs]
        for state in (job_pb2.JOB_STATE_FAILED, CANCELLED):
            if state in states:
                return state_name(state)
        if all(state == SUCCEEDED for state in states):
            return state_name(SUCCEEDED)
        return "WAITING" if not any(states) else state_name(max(state for state in states if state))

    @property
    def losses(self) -> list[float]:
        """The validation losses of the jobs that have succeeded."""
        ended = [job for job in self.jobs if job is not None and job.state == SUCCEEDED]
        return [job.result.validation_loss for job in ended if job.result.HasField("validation_loss")]

    @property
    def score(self) -> float | None:
        """The mean validation loss; None before all jobs have one."""
        return statistics.fmean(self.losses) if len(self.losses) == len(self.jobs) else None


def sweep(
    server: str,
    job_file: Path,
    *,
    workers: int | None,
    output: Path | None,
    data_root: Path | None,
    cancel: bool,
    as_json: bool,
) -> None:
    """Train all jobs of a sweep and download the best model. workers: of a local cluster, None: on the server.

    cancel: end the jobs of this sweep instead. Raises CommandFailed, JobFileError, ServerError."""
    if workers is not None and cancel:
        raise wrong_input("--cancel", "is for jobs on a server; a local cluster's end with it")
    found = sweep_of_table(load_table(job_file))
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
        best = _best(runs)
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
    """All jobs, ended; with folds also the best trial's on the job's own rows, else the best job itself."""
    runs = [Run(trial) for trial in found.trials]
    waiting = [(run, place) for run in runs for place in range(len(run.jobs))]
    with _Display(found, runs) as display:
        while True:
            opened = [(run, place) for run in runs for place, job in enumerate(run.jobs) if _is_open(job)]
            while waiting and len(opened) < MAX_OPEN_JOBS:
                run, place = waiting.pop(0)
                run.jobs[place] = _asked_for(client, found, run.trial.jobs[place])
                opened.append((run, place))
            display.show()
            if not opened:
                break
            time.sleep(POLL_INTERVAL_S)
            for run, place in opened:
                job = run.jobs[place]
                if job is not None and _is_open(job):
                    run.jobs[place] = client.get_job(job.job_id)
        best = _best(runs)
        if best is None:
            return runs, None
        if not found.folds:
            return runs, best.jobs[0]
        final = _asked_for(client, found, best.trial.final)
        while _is_open(final):
            time.sleep(POLL_INTERVAL_S)
            final = client.get_job(final.job_id)
        if final.state != SUCCEEDED:
            message = f"job {final.job_id}, the best trial on the job's own rows, is {state_name(final.state)}"
            raise CommandFailed(FAILED, [("", message)])
    return runs, final


def _is_open(job: job_pb2.Job | None) -> bool:
    return job is not None and job.state not in FINAL_STATES


def _asked_for(client: Client, found: Sweep, spec: job_pb2.JobSpec) -> job_pb2.Job:
    """The job of this sweep; one that was cancelled is asked for anew."""
    for attempt in range(MAX_ATTEMPTS):
        job = client.create_job(spec, request_id=found.request_id(spec, attempt))
        if job.state != CANCELLED:
            return job
    raise CommandFailed(FAILED, [("", f"job {spec.name} was cancelled {MAX_ATTEMPTS} times; change the sweep's seed")])


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


def _best(runs: list[Run]) -> Run | None:
    """The lowest mean validation loss; of equal ones the first."""
    scored = [run for run in runs if run.score is not None]
    return min(scored, key=lambda run: run.score or 0.0) if scored else None


def _report(
    found: Sweep, runs: list[Run], best: Run | None, final: job_pb2.Job | None, path: Path, *, as_json: bool
) -> None:
    if as_json:
        print_json(
            {
                "sweep": found.sweep_id,
                "trials": [_fields(run) for run in runs],
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


def _fields(run: Run) -> dict[str, Any]:
    return {
        "number": run.trial.number,
        "settings": run.trial.settings,
        "state": run.state,
        "jobs": [job.job_id for job in run.jobs if job is not None],
        "validation_losses": run.losses,
        "validation_loss": run.score,
    }


def table_of(found: Sweep, runs: list[Run], best: Run | None) -> list[str]:
    """A line for each trial, below their names."""
    spread = ("SPREAD",) if found.folds else ()
    rows: list[tuple[str, ...]] = [
        ("TRIAL", *(path.rpartition(".")[2] for path in found.paths), "STATE", "VALIDATION LOSS", *spread, "")
    ]
    for run in runs:
        values = [_value_text(run.trial.settings[path]) for path in found.paths]
        loss = "" if run.score is None else number(run.score)
        losses = run.losses
        more = ("" if len(losses) < 2 else number(statistics.stdev(losses), 3),) if found.folds else ()
        rows.append((str(run.trial.number), *values, run.state, loss, *more, "best" if run is best else ""))
    return table_lines(rows)


def _value_text(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _settings_text(settings: dict[str, Any]) -> str:
    return ", ".join(f"{path} = {_value_text(value)}" for path, value in settings.items())


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
            lines = table_of(self._found, self._runs, _best(self._runs))
            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _tell(self) -> None:
        for run in self._runs:
            if run.trial.number not in self._told and all(job is not None and not _is_open(job) for job in run.jobs):
                self._told.add(run.trial.number)
                loss = "" if run.score is None else f", validation loss {number(run.score)}"
                settings = _settings_text(run.trial.settings)
                print_note(f"trial {run.trial.number} of {len(self._runs)} ({settings}): {run.state}{loss}")
