"""How the running jobs share the workers: `chainrule_server.jobs.allocation` says who is to have which, this makes it
so.

A worker changes its job at a step's end: a job that is to give some holds back its next step and gives them then. What
is decided before is only an intention, and is decided anew with everything that happens meanwhile. Where a worker is
lost its job changes at once: there is no step's end to wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

from google.rpc import code_pb2, status_pb2

from chainrule.holding.errors import ProtocolError
from chainrule.process.logs import log_event
from chainrule.transport.wire_codec import RawPart, Request
from chainrule.v1 import job_pb2
from chainrule_server.errors import NotFound, OutOfRange, PermissionDenied
from chainrule_server.jobs.allocation import Claim, allocate, in_line
from chainrule_server.jobs.job import Job
from chainrule_server.jobs.job_life import Phase
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.training.result import TrainingFailed
from chainrule_server.training.training import Training
from chainrule_server.workers.departure import Departure
from chainrule_server.workers.kinds import kind_of, sets_of_like
from chainrule_server.workers.pool import WorkerPool
from chainrule_server.workers.waiting import Waiting

log = logging.getLogger(__name__)
TURN, WORKERS = job_pb2.WAITING_REASON_TURN, job_pb2.WAITING_REASON_WORKERS
# Kept of one job while it runs. Its own events, such as the states that it passes, don't count.
MOST_WORKER_EVENTS = 10_000


@dataclass
class WorkerSharing:
    """The jobs that run, with the workers that each holds; a job that is still being read in has some laid by.

    jobs: all of the server. append_event: keeps an event of a job. reallocate: has the workers shared by the jobs'
    scheduler, as something has changed. end: a job has succeeded or failed, which is the scheduler's to store."""

    pool: WorkerPool
    jobs: JobRegistry
    append_event: Callable[[str, job_pb2.JobEvent], None]
    reallocate: Callable[[], None]
    end: Callable[[Job, job_pb2.JobState], None]
    running: dict[str, Job] = field(default_factory=dict)
    _held: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Who serves which job.
    _serves: dict[str, Job] = field(default_factory=dict)
    # Of each job, about its workers.
    _event_counts: dict[str, int] = field(default_factory=dict)

    def training_of(self, worker: str) -> Training | None:
        """The training that a worker serves; it may hold no shards of it now."""
        job = self._serves.get(worker)
        training = None if job is None else job.training
        return training if training is not None and worker in training.roster.given else None

    def owes(self, worker: str) -> tuple[bool, bool]:
        """Whether a worker has something to do for its job, and whether that is the first since it was assigned."""
        training = self.training_of(worker)
        return (False, False) if training is None else training.owes(worker)

    def where(self, worker: str) -> str:
        """Where the job of a worker is, in words that end a sentence; empty without one."""
        training = self.training_of(worker)
        return "" if training is None else f"; job {training.job_id} is at step {training.state.step + 1}"

    def departed(self, worker: str, why: Departure) -> None:
        """A worker is gone: its job's watchers are to know why."""
        training = self.training_of(worker)
        if training is not None:
            self._note(training.job_id, why.event(worker))

    def report_departure(self, worker: str, why: Departure) -> None:
        """Somebody saw how a worker that is gone ended; told again it is no second event.

        Raises NotFound where no job that goes on is concerned."""
        job_id = self.pool.registry.last_job(worker)
        if job_id is None or self.jobs.find(job_id).is_final:
            raise NotFound(f"no job that goes on has had a worker {worker[:64]!r}")
        if self.pool.registry.reported(worker):
            self._note(job_id, why.event(worker))

    def shard_source(self, job_id: str, shard: int, *, worker: str) -> PreparedJob:
        """The prepared rows of a running job, for a worker that was given the shard.

        Raises NotFound, OutOfRange, PermissionDenied."""
        job = self.running.get(job_id)
        if job is None or job.prepared is None:
            raise NotFound(f"job {job_id!r} is not running")
        if shard >= job.spec.training.shards:
            raise OutOfRange(f"job {job_id} has {job.spec.training.shards} shards, counted from 0; got {shard}")
        if job.training is None or not job.training.may_read(worker, shard):
            raise PermissionDenied(f"shard {shard} of job {job_id} is not among those of worker {worker}")
        return job.prepared

    def route_message(self, worker: str, request: Request) -> None:
        """Pass a worker's message on to the training that it serves, and send what comes of it.

        Raises ProtocolError, WorkerFailed, which end the worker's stream."""
        job = self._serves.get(worker)
        training = None if job is None else job.training
        if isinstance(request, RawPart):
            if training is not None:
                training.push_part(worker, request)
                self.flush(training)
            return
        kind = request.WhichOneof("message")
        if kind not in ("ready", "partial_sum", "failure"):
            raise ProtocolError(f"a worker's stream goes on with ready, part, partial_sum or failure, not {kind}")
        if job is None or training is None:
            return
        try:
            # A worker that has just changed its job may still answer for the one before.
            if kind == "ready" and request.ready.job_id == training.job_id:
                training.report_ready(worker, request.ready)
            elif kind == "partial_sum" and request.partial_sum.job_id == training.job_id:
                training.push_partial_sum(worker, request.partial_sum)
            elif kind == "failure" and request.failure.job_id == training.job_id:
                training.report_failure(worker, request.failure)
        except TrainingFailed as error:
            log.warning("job %s failed: %s", job.job_id, error, extra=log_event("job_failed", job=job.job_id))
            job.error = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=str(error))
            self.end(job, job_pb2.JOB_STATE_FAILED)
            return
        self.flush(training)
        if training.result is not None:
            self.end(job, job_pb2.JOB_STATE_SUCCEEDED)
        elif training.is_held and not training.is_ordered:
            self.reallocate()

    def add(self, job: Job) -> None:
        """A job runs from now on; it gets workers when they are shared the next time."""
        self.running[job.job_id] = job
        self._held.setdefault(job.job_id, ())

    def remove(self, job: Job) -> None:
        """A job runs no longer, and its workers are free. Nothing happens where it doesn't run."""
        if self.running.pop(job.job_id, None) is not None:
            if job.training is not None:
                self._set(job, job.training, ())
                self.flush(job.training)
            self._hold(job, ())
            del self._held[job.job_id]
            self._event_counts.pop(job.job_id, None)

    def stop(self) -> None:
        """No job runs any longer; workers are told nothing, so that they join the server that comes after this one."""
        self.running.clear()
        self._held.clear()
        self._serves.clear()

    def hand_over(self, job: Job) -> None:
        """Let a job that has just begun have the workers that were laid by."""
        self._apply(job, self._held[job.job_id], ())
        if job.training is not None:
            self.flush(job.training)

    def relieve_stragglers(self, worker: str) -> None:
        """Let others help a worker that is late, or the shards of its job move where that makes its steps shorter."""
        job = self._serves.get(worker)
        if job is None or job.training is None:
            return
        if job.training.relieve_stragglers():
            self._set(job, job.training, job.training.roster.given)
        else:
            self._append_events(job, job.training)
        self.flush(job.training)

    def flush(self, training: Training) -> None:
        """Send what a training wants to send."""
        self.pool.send(training.outbox)
        training.outbox.clear()

    def _flush_all(self, trainings: Sequence[Training]) -> None:
        """The same for several: a worker is released from one job before it is assigned to another."""
        messages = [message for training in trainings for message in training.outbox]
        self.pool.send(sorted(messages, key=lambda message: not message.is_release))
        for training in trainings:
            training.outbox.clear()

    def allocate_workers(self, jobs: Sequence[Job], *, relinked: Container[str] = ()) -> list[Job]:
        """Let every running job have its workers, now or at its step's end; return the queued jobs whose turn it is.

        jobs: those that run or wait, in the order of creation. relinked: workers that are reached by another link."""
        joined = self.pool.joined
        connected = {*joined}
        kinds = {backend: self._kinds(backend) for backend in {job.spec.training.backend for job in jobs}}
        claims = [self._claim(job, kinds[job.spec.training.backend]) for job in jobs]
        plan = allocate(claims, joined)
        running = [job for job in jobs if job.job_id in self.running]
        # What each job keeps now; one that is to change at its step's end keeps all until then.
        kept, waits = {}, set()
        for job in running:
            held, names = self._held[job.job_id], plan[job.job_id]
            is_forced = any(name not in connected or name in relinked for name in held)
            kept[job.job_id] = tuple(name for name in held if name in names)
            if job.training is not None and job.training.is_ordered and names != held and not is_forced:
                job.training.is_held = True
                kept[job.job_id] = held
                waits.add(job.job_id)
        taken = {name for names in kept.values() for name in names}
        for job in running:
            if job.job_id not in waits:
                names = tuple(name for name in plan[job.job_id] if name in kept[job.job_id] or name not in taken)
                taken.update(names)
                self._apply(job, names, relinked)
        self._flush_all([job.training for job in running if job.training is not None])
        begun = []
        for job in jobs:
            names = tuple(name for name in plan.get(job.job_id, ()) if name not in taken)
            if job.job_id not in self.running and len(names) >= job.spec.training.min_workers:
                taken.update(names)
                self.add(job)
                self._hold(job, names)
                begun.append(job)
        for job in running:
            if job.training is not None:
                self._report_refused(job, job.training, kinds[job.spec.training.backend])
        self._explain_waits(jobs, claims, plan, joined)
        return begun

    def _kinds(self, backend: str) -> dict[str, str]:
        """What each worker that can be given jobs computes with."""
        connected = self.pool.registry.connected
        return {name: kind_of(connected[name].hello, backend=backend) for name in self.pool.joined}

    def _claim(self, job: Job, kinds: Mapping[str, str]) -> Claim:
        training = job.spec.training
        # What is still being read in can't use extras, nor is it known of which kind its workers were.
        is_reading = job.job_id in self.running and job.training is None
        must_be_identical = training.require_identical_workers and not is_reading
        return Claim(
            job.job_id,
            min_workers=training.min_workers,
            max_workers=training.min_workers if is_reading else training.max_workers or training.shards,
            priority=job.spec.priority,
            held=self._held.get(job.job_id, ()),
            is_running=job.job_id in self.running,
            kinds=sets_of_like(kinds, self._own_kinds(job, kinds), must_be_identical=must_be_identical),
        )

    def _own_kinds(self, job: Job, kinds: Mapping[str, str]) -> Sequence[str]:
        """The kind that a job's workers must have: that of its steps; before the first that of those it holds now."""
        if job.training is None:
            return ()
        held = [kinds[name] for name in self._held.get(job.job_id, ()) if name in kinds]
        return job.training.roster.computed_kinds or held[:1]

    def _apply(self, job: Job, names: tuple[str, ...], relinked: Container[str]) -> None:
        training = job.training
        if training is None:
            self._hold(job, names)
        elif names != training.roster.given or any(name in relinked for name in names):
            self._set(job, training, names)
        elif training.is_held and job.life.phase is Phase.TRAINING:
            # What it was to give is needed no more.
            training.go_on()

    def _set(self, job: Job, training: Training, names: tuple[str, ...]) -> None:
        before, rested = training.workers, training.roster.resting
        self._hold(job, names)
        training.set_workers(self.pool.reached(names))
        after = training.workers
        joined, left = [name for name in after if name not in before], [name for name in before if name not in after]
        if (joined or left) and job.job_id in self.running:
            rests = [name for name in training.roster.resting if name in left]
            tried_again = [name for name in joined if name in rested]
            changed = job_pb2.WorkersChanged(
                joined=joined, left=left, worker_count=len(after), resting=rests, tried_again=tried_again
            )
            self._note(job.job_id, job_pb2.JobEvent(workers_changed=changed))
            job.pace.restart()
        self._report_refused(job, training, self._kinds(job.spec.training.backend))
        for name in after:
            self.pool.registry.computes_for(name, job.job_id)
        self.pool.give_up_memory(training.without_room)

    def _report_refused(self, job: Job, training: Training, kinds: Mapping[str, str]) -> None:
        """Tell of a job whose workers' shards move, and who may not compute for it."""
        training.roster.report_refused(kinds)
        self._append_events(job, training)

    def _note(self, job_id: str, event: job_pb2.JobEvent) -> None:
        """Keep an event about a job's workers; of one job only so many, however often they come and go."""
        count = self._event_counts.get(job_id, 0)
        if count < MOST_WORKER_EVENTS:
            self._event_counts[job_id] = count + 1
            self.append_event(job_id, event)
            if count + 1 == MOST_WORKER_EVENTS:
                message = "job %s has %d events about its workers; of those to come none is kept"
                log.warning(message, job_id, count + 1, extra=log_event("events_left_out", job=job_id))

    def _append_events(self, job: Job, training: Training) -> None:
        for event in training.roster.events:
            self._note(job.job_id, event)
        training.roster.events.clear()

    def _hold(self, job: Job, names: tuple[str, ...]) -> None:
        for name in self._held.get(job.job_id, ()):
            if self._serves.get(name) is job:
                del self._serves[name]
        self._held[job.job_id] = names
        self._serves.update(dict.fromkeys(names, job))

    def _explain_waits(
        self, jobs: Sequence[Job], claims: Sequence[Claim], plan: Mapping[str, tuple[str, ...]], joined: Sequence[str]
    ) -> None:
        """Tell each job that has no workers why."""
        ahead: Job | None = None
        by_id = {job.job_id: job for job in jobs}
        # Of those that are connected, how many it could have.
        most = {claim.job_id: claim.most(joined) for claim in claims}
        for claim in in_line(claims):
            job, needed, count = by_id[claim.job_id], claim.min_workers, most[claim.job_id]
            if job.job_id in self.running:
                continue
            if needed > count:
                connected = f"workers: {count} of the {needed} that it asks for are connected"
                if count < len(joined):
                    connected += f"; besides, {len(joined) - count} of other kinds, which may not compute with these"
                job.waits_for = Waiting(WORKERS, connected, next="it begins once enough have joined")
            elif ahead is not None:
                job.waits_for = Waiting(TURN, f"its turn after job {ahead.job_id}")
            elif job.job_id in plan:
                job.waits_for = Waiting(WORKERS, "workers that finish a step of other jobs")
            else:
                busy = f"{needed} of the {count} workers: the jobs that run need them"
                job.waits_for = Waiting(TURN, busy)
            if needed <= count:
                ahead = job
        for job in self.running.values():
            count = most.get(job.job_id, 0)
            is_short = count > 0 and not self._held[job.job_id]
            serving = f"a worker: {count} are connected, and serve other jobs"
            job.waits_for = Waiting(TURN, serving) if is_short else None
