"""`chainrule check`: a job's gradients against central differences, on rows of its own data.

Without workers, backpropagation and the compiled plan on one microbatch. With them, also the gradient that a real
cluster reduces: a copy of the job makes one step of plain SGD, whose rate is a power of two, so the step shows the
gradient. What is computed is in `chainrule_server.offline.gradient_check`, because only the server's code reads and
prepares data.
"""

from __future__ import annotations

import base64
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from chainrule.cli.commands.machine import let_sigint_end_it
from chainrule.cli.commands.train import DEFAULT_SHARDS, POLL_INTERVAL_S, check_success
from chainrule.cli.failures import FAILED, CommandFailed, interrupted, wrong_input
from chainrule.cli.options import DataRoot, JobFile, Json, Settings
from chainrule.cli.output import print_json, print_line, print_note
from chainrule.client.blocking.client import Client
from chainrule.client.job_text import FINAL_STATES
from chainrule.errors import ChainruleError, ClusterError, ServerUnavailable
from chainrule.local.offline import ask
from chainrule.local.processes import LocalProcesses
from chainrule.spec.job_file import load_job_file
from chainrule.text import one_line, table_lines, workers
from chainrule.v1 import job_pb2

app = typer.Typer()

CHECK_TIMEOUT_S = 600.0
STEP_TIMEOUT_S = 300.0
LAST_WORDS_TIMEOUT_S = 2.0

Results = dict[str, Any]


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
    let_sigint_end_it()
    Check(job_file, workers, row_count, as_json, data_root, settings or ()).run()


@dataclass
class Check:
    """One run of the command. Failures carry what was found before.

    worker_count: None checks without a cluster. row_count: None takes a microbatch.
    data_root: the folder whose files the job may read; None takes the job file's own."""

    job_file: Path
    worker_count: int | None
    row_count: int | None
    as_json: bool
    data_root: Path | None = None
    settings: Sequence[str] = ()
    _found: Results = field(default_factory=dict)

    def run(self) -> None:
        """Check and print the results. Raises CommandFailed, with a problem for each parameter that is wrong."""
        # The processes that it starts end with this one.
        old_handler = signal.signal(signal.SIGTERM, _raise_exit)
        try:
            self._check()
        except ChainruleError as error:
            raise CommandFailed.of(error, self._found) from None
        except CommandFailed as failure:
            failure.fields = self._found | failure.fields
            raise
        except KeyboardInterrupt:
            raise interrupted(self._found) from None
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else FAILED
            problem = ("", f"ended by {signal.Signals(code - 128).name}" if code > 128 else "ended")
            raise CommandFailed(code, [problem], reason="INTERRUPTED", fields=self._found) from None
        finally:
            signal.signal(signal.SIGTERM, old_handler)
        self._found["agrees"] = True
        if self.as_json:
            print_json(self._found)

    def _check(self) -> None:
        spec = load_job_file(self.job_file, self.settings)
        if self.worker_count is not None:
            shards = spec.training.shards if spec.training.HasField("shards") else DEFAULT_SHARDS
            # Where the shards themselves are wrong, the process that checks says so.
            if self.worker_count < 1 or self.worker_count > max(shards, 1):
                raise wrong_input(
                    "--workers", f"must be from 1 to {shards}, the job's number of shards, got {self.worker_count}"
                )
        options = [] if self.row_count is None else [f"--row-count={self.row_count}"]
        if self.worker_count is not None:
            options.append("--one-step")
        results = self._ask(spec, options)
        one_step = results.pop("one_step", None)
        self._found = {"name": spec.name, "agrees": False, "microbatch": results}
        rows = _count(results["row_count"], "row")
        self._show(
            results,
            f"{spec.name}: {rows}, first parameters, seed {results['seed']}",
            ("backward - differences", "plan - backward"),
        )
        if self.worker_count is not None and one_step is not None:
            self._check_reduction(job_pb2.JobSpec.FromString(base64.b64decode(one_step)), self.worker_count)

    def _check_reduction(self, spec: job_pb2.JobSpec, worker_count: int) -> None:
        """Hold the gradient that a cluster reduces against differences. spec: of a job of one step."""
        with tempfile.TemporaryDirectory(prefix="chainrule-check-") as folder:
            model_path = Path(folder) / "model.safetensors"
            _make_the_step(spec, worker_count, model_path, self._data_root)
            results = self._ask(spec, [f"--trained={model_path}"])
        self._found["reduction"] = {"workers": worker_count, "shards": spec.training.shards, **results}
        if not self.as_json:
            print_line()
        rows, shards = _count(results["row_count"], "row"), _count(spec.training.shards, "shard")
        self._show(
            results,
            f"{workers(worker_count)}, {shards}: the reduced gradient of one step over {rows}",
            ("reduced - differences", "reduced - backward"),
        )

    @property
    def _data_root(self) -> Path:
        return self.data_root or self.job_file.parent

    def _ask(self, spec: job_pb2.JobSpec, options: Sequence[str]) -> Results:
        return ask(
            "chainrule_server.offline.gradient_check",
            spec,
            [*options, f"--data-root={self._data_root}"],
            timeout_s=CHECK_TIMEOUT_S,
            timeout_message="the gradients were not checked",
        )

    def _show(self, results: Results, title: str, headings: tuple[str, str]) -> None:
        """Print a table. Raises CommandFailed where a parameter is wrong."""
        if not self.as_json:
            for line in _lines(results["parameters"], results.get("ties", ()), title, headings):
                print_line(line)
        problems = [
            (f"model.parameters.{each['name']}", problem)
            for each in results["parameters"]
            for problem in each["problems"]
        ]
        if problems:
            raise CommandFailed(FAILED, problems, reason="GRADIENT_MISMATCH")


def _make_the_step(spec: job_pb2.JobSpec, worker_count: int, model_path: Path, data_root: Path) -> None:
    """Run a job of one step on a cluster of its own and write its parameters. Raises ChainruleError, CommandFailed."""
    spec.training.min_workers = worker_count
    with (
        LocalProcesses(workers=worker_count, data_root=data_root) as cluster,
        Client(cluster.address, credentials=cluster.credentials) as client,
    ):
        try:
            job = _wait_for_end(client, cluster, client.create_job(spec))
            # A step that was made is all that is wanted, whatever the evaluation after it met.
            if job.progress.step < 1:
                check_success(job)
            client.download_model(job.job_id, model_path)
        except ServerUnavailable:
            # A broken connection mostly means that the server is ending: its own words say more.
            deadline_s = time.monotonic() + LAST_WORDS_TIMEOUT_S
            while time.monotonic() < deadline_s:
                cluster.check_server()
                time.sleep(POLL_INTERVAL_S)
            raise


def _wait_for_end(client: Client, cluster: LocalProcesses, job: job_pb2.Job) -> job_pb2.Job:
    """The job in its final state. Raises ClusterError where no process is left to bring it there."""
    deadline_s = time.monotonic() + STEP_TIMEOUT_S
    while job.state not in FINAL_STATES:
        cluster.check_server()
        for death in cluster.new_deaths():
            # Asked again: what we heard last may be from before the start.
            job = client.get_job(job.job_id)
            if cluster.living_workers == 0 or job.state == job_pb2.JOB_STATE_QUEUED:
                raise ClusterError(f"the step can't be made: {death}")
            print_note(f"warning: {death}; the job goes on with {workers(cluster.living_workers)}")
        if time.monotonic() > deadline_s:
            waiting = f"; it waits for {one_line(job.waiting_for)}" if job.waiting_for else ""
            raise CommandFailed(FAILED, [("", f"no step within {STEP_TIMEOUT_S:g} s{waiting}")], reason="TIMEOUT")
        time.sleep(POLL_INTERVAL_S)
        job = client.get_job(job.job_id)
    return job


def _lines(parameters: Sequence[Results], ties: Sequence[Results], title: str, headings: tuple[str, str]) -> list[str]:
    rows = [["parameter", "shape", "differenced", *headings, "verdict"]]
    for each in parameters:
        checked = f"{each['checked']} of {each['element_count']}"
        if each["skipped"]:
            checked += f", {each['skipped']} at a kink"
        compared = bool(each["checked"])
        errors = [f"{each['difference_error']:.1e}" if compared else "", f"{each['float64_error']:.1e}"]
        verdict = "tie" if each["is_tie"] else "agrees" if compared else "not differenced"
        if each["problems"]:
            verdict = "DIFFERS"
        rows.append([each["name"], str(tuple(each["shape"])), checked, *errors, verdict])
    lines = [one_line(title), "", *table_lines(rows)]
    if any(each["skipped"] for each in parameters):
        lines += ["", "At a kink (max at a tie, |a| at 0) differences say nothing; those elements are left out."]
    for tie in ties:
        lines += ["", f"Tie: {one_line(tie['text'])} has two equal sides in {_count(tie['count'], 'value')}."]
    if ties:
        lines.append(
            "Both partial derivatives are 0 there, so nothing below is trained; other first values break a tie."
        )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _raise_exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)
