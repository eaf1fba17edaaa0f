"""How the running jobs share the workers: `server.allocation` says who is to have which, this makes it so.

A worker changes its job at a step's end: a job that is to give some holds back its next step and gives them then. What
is decided before is only an intention, and is decided anew with everything that happens meanwhile. Where a worker is
lost its job changes at once: there is no step's end to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

from chainrule.v1 import job_pb2
from server.allocation import Claim, allocate, in_line
from server.jobs import Job
from server.training import Training
from server.waiting import Waiting
from server.worker_pool import WorkerPool

TURN, WORKERS = job_pb2.WAITING_REASON_TURN, job_pb2.WAITING_REASON_WORKERS


@dataclass
class Sharing:
    """The jobs that run, with the workers that each holds; a job that is still being read in has some laid by.

    note_event: keeps an event of a job."""

    pool: WorkerPool
    note_event: Callable[[str, job_pb2.JobEvent], None]
    running: dict[str, Job] = field(default_factory=dict)
    _held: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Who serves which job.
    _serves: dict[str, Job] = field(default_factory=dict)

    def job_of(self, worker: str) -> Job | None:
        """The job that a worker serves."""
        return self._serves.get(worker)

    def add(self, job: Job) -> None:
        """A job runs from now on; it gets workers when they are shared the next time."""
        self.running[job.job_id] = job
        self._held.setdefault(job.job_id, ())

    def remove(self, job: Job) -> None:
        """A job runs no longer, and its workers are free. Nothing happens where it doesn't run."""
        if self.running.pop(job.job_id, None) is not None:
            if job.training is not None:
                self._set(job, job.training, ())
            self._hold(job, ())
            del self._held[job.job_id]

    def stop(self) -> None:
        """No job runs any longer; workers are told nothing, so that they join the server that comes after this one."""
        self.running.clear()
        self._held.clear()
        self._serves.clear()

    def seat(self, job: Job) -> None:
        """Let a job that has just begun have the workers that were laid by."""
        self._apply(job, self._held[job.job_id], ())

    def look_after(self, worker: str) -> None:
        """Let the shards of a worker's job move where that makes its steps shorter."""
        job = self.job_of(worker)
        if job is not None and job.training is not None and job.training.look_after():
            self._set(job, job.training, job.training.roster.seated)

    def flush(self, training: Training) -> None:
        """Send what a training wants to send."""
        self.pool.send(training.outbox)
        training.outbox.clear()

    def share(self, jobs: Sequence[Job], *, relinked: Container[str] = ()) -> list[Job]:
        """Let every running job have its workers, now or at its step's end; return the queued jobs whose turn it is.

        jobs: those that run or wait, in the order of creation. relinked: workers that are reached by another link."""
        joined = self.pool.joined
        connected = {*joined}
        plan = allocate([self._claim(job) for job in jobs], joined)
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
        # Who gives goes first: a worker is released from one job before it is assigned to another.
        gives = {job.job_id for job in running if {*self._held[job.job_id]} & connected - {*plan[job.job_id]}}
        for job in sorted(running, key=lambda job: job.job_id not in gives):
            if job.job_id not in waits:
                names = tuple(name for name in plan[job.job_id] if name in kept[job.job_id] or name not in taken)
                taken.update(names)
                self._apply(job, names, relinked)
        begun = []
        for job in jobs:
            names = tuple(name for name in plan.get(job.job_id, ()) if name not in taken)
            if job.job_id not in self.running and len(names) >= job.spec.training.min_workers:
                taken.update(names)
                self.add(job)
                self._hold(job, names)
                begun.append(job)
        self._say_why(jobs, plan, len(joined))
        return begun

    def _claim(self, job: Job) -> Claim:
        training = job.spec.training
        # What is still being read in can't use extras.
        is_reading = job.job_id in self.running and job.training is None
        return Claim(
            job.job_id,
            min_workers=training.min_workers,
            max_workers=training.min_workers if is_reading else training.max_workers or training.shards,
            priority=job.spec.priority,
            held=self._held.get(job.job_id, ()),
            is_running=job.job_id in self.running,
        )

    def _apply(self, job: Job, names: tuple[str, ...], relinked: Container[str]) -> None:
        training = job.training
        if training is None:
            self._hold(job, names)
        elif names != training.roster.seated or any(name in relinked for name in names):
            self._set(job, training, names)
        elif training.is_held and job.step_end is None:
            # What it was to give is needed no more.
            training.go_on()
            self.flush(training)

    def _set(self, job: Job, training: Training, names: tuple[str, ...]) -> None:
        before = training.workers
        self._hold(job, names)
        training.set_workers(self.pool.seats(names))
        after = training.workers
        joined, left = [name for name in after if name not in before], [name for name in before if name not in after]
        if (joined or left) and job.job_id in self.running:
            changed = job_pb2.WorkersChanged(joined=joined, left=left, worker_count=len(after))
            self.note_event(job.job_id, job_pb2.JobEvent(workers_changed=changed))
            job.pace.restart()
        for event in training.roster.events:
            self.note_event(job.job_id, event)
        training.roster.events.clear()
        for name in after:
            self.pool.book.computes_for(name, job.job_id)
        self.pool.give_up_memory(training.without_room)
        self.flush(training)

    def _hold(self, job: Job, names: tuple[str, ...]) -> None:
        for name in self._held.get(job.job_id, ()):
            if self._serves.get(name) is job:
                del self._serves[name]
        self._held[job.job_id] = names
        self._serves.update(dict.fromkeys(names, job))

    def _say_why(self, jobs: Sequence[Job], plan: Mapping[str, tuple[str, ...]], worker_count: int) -> None:
        """Tell each job that has no workers why."""
        ahead: Job | None = None
        claims = {job.job_id: job for job in jobs}
        for claim in in_line([self._claim(job) for job in jobs]):
            job, needed = claims[claim.job_id], claim.min_workers
            if needed > worker_count:
                connected = f"workers: {worker_count} of the {needed} that it asks for are connected"
                job.waits_for = Waiting(WORKERS, connected, next="it begins once enough have joined")
            elif ahead is not None:
                job.waits_for = Waiting(TURN, f"its turn after job {ahead.job_id}")
            elif job.job_id in plan:
                job.waits_for = Waiting(WORKERS, "workers that finish a step of other jobs")
            else:
                busy = f"{needed} of the {worker_count} workers: the jobs that run need them"
                job.waits_for = Waiting(TURN, busy)
            if needed <= worker_count:
                ahead = job
        for job in self.running.values():
            is_short = worker_count > 0 and not self._held[job.job_id]
            serving = f"a worker: {worker_count} are connected, and serve other jobs"
            job.waits_for = Waiting(TURN, serving) if is_short else None
