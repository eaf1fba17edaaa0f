"""`chainrule train`: a job on a cluster of its own, from the job file to the model file."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.cli.commands.kept_run import KeptRun, NotKept
from chainrule.cli.commands.machine import let_sigint_end_it, look_at_machine
from chainrule.cli.failures import FAILED, CommandFailed, interrupted, wrong_input
from chainrule.cli.options import DataRoot, JobFile, Json, Output, Settings, Transport
from chainrule.cli.output import print_json, print_line, print_note
from chainrule.client.blocking.client import Client
from chainrule.client.job_text import FINAL_STATES, event_text, fields_of, result_lines, state_name
from chainrule.client.model_output import DEFAULT_FOLDER, check_output, safe_name
from chainrule.client.progress import ProgressDisplay
from chainrule.client.watching import states_of
from chainrule.errors import (
    ChainruleError,
    ClusterError,
    ModelFileError,
    PreconditionFailed,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from chainrule.export.chrome_trace import chrome_trace
from chainrule.local import preflight
from chainrule.local.processes import LocalProcesses
from chainrule.process.available_memory import available_memory_bytes
from chainrule.spec.job_file import load_job_file
from chainrule.text import duration, one_line, workers
from chainrule.v1 import job_pb2

app = typer.Typer()

# What job.proto says of a job that doesn't set `shards`.
DEFAULT_SHARDS = 8
DEFAULT_WORKERS = 2
TRANSPORTS = ("auto", "grpc", "shared-memory")
POLL_INTERVAL_S = 0.1
LAST_WORDS_TIMEOUT_S = 2.0


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
    let_sigint_end_it()
    training = Training(
        job_file,
        workers,
        output,
        as_json,
        data_root=data_root,
        transport=transport,
        trace=trace,
        settings=settings or (),
        resume=resume,
    )
    training.run()


@dataclass
class Training:
    """One run of the command. Failures carry what was known of the job."""

    job_file: Path
    worker_count: int | None
    output: Path | None
    as_json: bool
    data_root: Path | None = None
    transport: str = "auto"
    trace: Path | None = None
    settings: Sequence[str] = ()
    resume: bool = False
    job: job_pb2.Job = field(default_factory=job_pb2.Job)
    # Where the parameters are, and with what, of a run that was interrupted and is kept.
    _kept_model: Path | None = None
    _count: int = DEFAULT_WORKERS

    def run(self) -> None:
        """Train, write the model, print the result. Raises CommandFailed."""
        started_s = time.monotonic()
        try:
            model_path = self._train()
        except ChainruleError as error:
            raise CommandFailed.of(error, self._known("FAILED")) from None
        except CommandFailed as failure:
            failure.fields = self._known("FAILED") | failure.fields
            raise
        except KeyboardInterrupt:
            raise interrupted(self._known("CANCELLED"), self._what_is_kept("interrupted")) from None
        except SystemExit as ended:
            # From the cluster's signal handlers: SIGTERM or SIGHUP.
            code = ended.code if isinstance(ended.code, int) else FAILED
            how = f"ended by {signal.Signals(code - 128).name}" if code > 128 else "ended"
            problem = ("", self._what_is_kept(how))
            raise CommandFailed(code, [problem], reason="INTERRUPTED", fields=self._known("CANCELLED")) from None
        wall_s = time.monotonic() - started_s
        if self.as_json:
            print_json(self._summary(model_path, wall_s))
            return
        progress = self.job.progress
        print_line(
            f"{self.job.spec.name} ({self.job.job_id}) succeeded: {progress.step} steps, {progress.epoch} epochs, "
            f"{workers(self._count)}, {self.job.spec.training.shards} shards"
        )
        print_line()
        for line in result_lines(self.job, [("wall time", duration(wall_s)), ("model", str(model_path))]):
            print_line(line)

    def _train(self) -> Path:
        if self.transport not in TRANSPORTS:
            raise wrong_input("--transport", f"must be one of {', '.join(TRANSPORTS)}, got {self.transport!r}")
        if self.trace is not None and not self.trace.parent.is_dir():
            raise wrong_input("--trace", f"{self.trace}: there is no folder {self.trace.parent}; make it first")
        spec = load_job_file(self.job_file, self.settings)
        kept = KeptRun.of(spec, DEFAULT_FOLDER if self.output is None else self.output.parent)
        job_id, count_before = kept.facts() if self.resume else ("", DEFAULT_WORKERS)
        self._count = count_before if self.worker_count is None else self.worker_count
        shards = spec.training.shards if spec.training.HasField("shards") else DEFAULT_SHARDS
        # Where the shards themselves are wrong, the server says so.
        least = count_before if self.resume else 1
        if self._count < least or self._count > max(shards, least):
            whose = ", the job's number of shards" + (f", and the {least} of before at least" if least > 1 else "")
            raise wrong_input("--workers", f"must be from {least} to {shards}{whose}, got {self._count}")
        spec.training.min_workers = self._count
        look_at_machine(worker_count=self._count, transport=self.transport)
        available_bytes = available_memory_bytes()
        data_root = self.data_root or self.job_file.parent
        with (
            ProgressDisplay() as display,
            LocalProcesses(self._count, data_root, self.transport, home=kept.home if self.resume else None) as cluster,
            Client(cluster.address, credentials=cluster.credentials) as client,
        ):
            if self.resume:
                self.job = client.resume_job(job_id)
            else:
                created = client.create_estimated_job(spec)
                self.job = created.job
                memory = preflight.job_memory(
                    created.estimate, worker_count=self._count, available_bytes=available_bytes
                )
                if memory.state != "ok":
                    display.note(preflight.told(memory))
            path = self.output or default_model_path(self.job)
            try:
                check_output(path)
            except ModelFileError as error:
                raise wrong_input("--output", str(error)) from None
            try:
                for job in _follow(client, cluster, self.job, display):
                    self.job = job
                    display.show(job)
            except (KeyboardInterrupt, SystemExit) as stop:
                if not self._has_ended_after_all(client, display):
                    self._keep(client, cluster, kept, path)
                    raise stop from None
            if self.job.state == job_pb2.JOB_STATE_FAILED and self.job.progress.step:
                client.download_model(self.job.job_id, path)
                print_note(f"the parameters of step {self.job.progress.step}, the last good ones, are in {path}")
            if self.trace is not None:
                self._write_trace(client, self.trace)
            check_success(self.job)
            found = client.download_model(self.job.job_id, path)
            kept.remove()
            return found

    def _has_ended_after_all(self, client: Client, display: ProgressDisplay) -> bool:
        """Let the job finish its step and pause there; whether that step was its last."""
        display.note("the step is being finished, and what is trained is kept; ctrl-C again ends at once")
        while True:
            try:
                self.job = client.pause_job(self.job.job_id)
                return False
            except PreconditionFailed:
                self.job = client.get_job(self.job.job_id)
                return True
            except ServerTimeout:
                # A step may take minutes. Whoever doesn't want to wait interrupts once more.
                continue

    def _keep(self, client: Client, cluster: LocalProcesses, kept: KeptRun, path: Path) -> None:
        """Write the model of the paused job, and all that the next step needs beside it."""
        if not self.job.progress.step:
            return
        try:
            client.download_model(self.job.job_id, path, version="last")
            kept.keep(cluster.end(), self.job.job_id, worker_count=self._count)
        except NotKept as error:
            print_note(f"the parameters of step {self.job.progress.step} are in {path}; --resume can't go on: {error}")
            return
        self._kept_model = path

    def _what_is_kept(self, how: str) -> str:
        """What an interrupted run says last."""
        if self._kept_model is None:
            return how
        progress = self.job.progress
        return (
            f"{how} after step {progress.step} of {progress.total_steps}; its parameters are in {self._kept_model}, "
            "and the same command with --resume goes on from there"
        )

    def _write_trace(self, client: Client, path: Path) -> None:
        title = f"{self.job.spec.name} ({self.job.job_id})"
        try:
            path.write_text(chrome_trace(client.read_trace(self.job.job_id), title=title))
        except OSError as error:
            raise wrong_input("--trace", f"{path} can't be written: {error.strerror}") from None

    def _known(self, state: str) -> dict[str, Any]:
        if self.job.state in FINAL_STATES or self._kept_model is not None:
            state = state_name(self.job.state)
        found = {"job": self.job.job_id or None, "state": state, "steps": self.job.progress.step}
        return found if self._kept_model is None else found | {"model_path": str(self._kept_model)}

    def _summary(self, model_path: Path, wall_s: float) -> dict[str, Any]:
        progress, result = self.job.progress, self.job.result
        return {
            "job": self.job.job_id,
            "state": state_name(self.job.state),
            "steps": progress.step,
            "epochs": progress.epoch,
            "row_count": result.row_count,
            "workers": self._count,
            "shards": self.job.spec.training.shards,
            "loss": result.loss,
            "validation_loss": result.validation_loss if result.HasField("validation_loss") else None,
            "metrics": {metric.name: metric.value for metric in result.metrics},
            "parameters_sha256": result.parameters_sha256,
            "model_path": str(model_path),
            "transport": progress.transport,
            "precision": self.job.spec.training.precision,
            "step_cost": fields_of(progress.step_cost),
            "samples_per_second": result.samples_per_second,
            "step_ms_median": result.step_ms_median,
            "wall_s": wall_s,
        }


def default_model_path(job: job_pb2.Job) -> Path:
    """Where a model goes that the user gave no file for."""
    return DEFAULT_FOLDER / f"{safe_name(job.spec.name)}-{safe_name(job.job_id)}.safetensors"


def check_success(job: job_pb2.Job) -> None:
    """Raise CommandFailed where a job that has ended didn't succeed."""
    if job.state == job_pb2.JOB_STATE_SUCCEEDED:
        return
    if job.state == job_pb2.JOB_STATE_CANCELLED:
        message = f"job {job.job_id} was cancelled after step {job.progress.step}"
    else:
        message = f"job {job.job_id} failed: {job.error.message or 'the server gave no reason; its log may'}"
    fields = {"job": job.job_id, "state": state_name(job.state)}
    raise CommandFailed(FAILED, [("", message)], reason=f"JOB_{state_name(job.state)}", fields=fields)


def _follow(
    client: Client, cluster: LocalProcesses, job: job_pb2.Job, display: ProgressDisplay
) -> Iterator[job_pb2.Job]:
    """Each state of the job until it ends. Raises ClusterError where its processes can't finish it."""
    updates: queue.SimpleQueue[job_pb2.Job | str | Exception] = queue.SimpleQueue()

    def read() -> None:
        try:
            for update in client.watch_updates(job.job_id, after_event=0, reconnect_timeout_s=0):
                # What befalls workers is told by who looks after their processes.
                for event in update.events:
                    if event.HasField("gradient_is_zero"):
                        updates.put(event_text(event))
                for state in states_of(update):
                    updates.put(state)
            updates.put(ServerUnavailable(f"the server stopped telling how job {job.job_id} goes on"))
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            updates.put(error)

    # The main thread never blocks in gRPC: it looks after processes, and ctrl-C reaches it at once.
    threading.Thread(target=read, name="watch", daemon=True).start()
    while job.state not in FINAL_STATES:
        try:
            update = updates.get(timeout=POLL_INTERVAL_S)
        except queue.Empty:
            cluster.check_server()
        else:
            if isinstance(update, Exception):
                _wait_for_last_words(cluster)
                raise update
            if isinstance(update, str):
                display.note(one_line(update))
                continue
            job = update
            yield job
        if job.state not in FINAL_STATES:
            _look_after_workers(client, cluster, job, display)


def _look_after_workers(client: Client, cluster: LocalProcesses, job: job_pb2.Job, display: ProgressDisplay) -> None:
    deaths = cluster.new_deaths()
    if not deaths:
        return
    if cluster.living_workers == 0:
        raise ClusterError(f"no worker is left; {'; '.join(map(str, deaths))}")
    # Asked again: the last that we heard may be from before the start.
    if job.state == job_pb2.JOB_STATE_QUEUED and client.get_job(job.job_id).state == job_pb2.JOB_STATE_QUEUED:
        raise ClusterError(f"a worker ended before the job started; {'; '.join(map(str, deaths))}")
    for death in deaths:
        with contextlib.suppress(ServerError):
            # For the job's events; it is told here too.
            client.report_worker_end(death.name, f"{death.how}: {death.said}" if death.said else death.how)
        display.note(f"warning: {death}; the job goes on with {workers(cluster.living_workers)}")


def _wait_for_last_words(cluster: LocalProcesses) -> None:
    """A broken connection mostly means that the server is ending: its own words say more."""
    deadline_s = time.monotonic() + LAST_WORDS_TIMEOUT_S
    while time.monotonic() < deadline_s:
        cluster.check_server()
        time.sleep(POLL_INTERVAL_S)
