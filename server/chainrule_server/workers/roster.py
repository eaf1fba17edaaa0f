"""The workers that one job has been given: which of them may compute for it, how many shards each holds, and why.

It sends nothing and knows no step: a job's training asks it whenever the workers change, and now and then in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from chainrule.holding.lease import Lease
from chainrule.v1 import job_pb2
from chainrule_engine.precision import PRECISIONS
from chainrule_server.workers.balance import Balance, event_of
from chainrule_server.workers.kinds import admit, kind_of
from chainrule_server.workers.stragglers import Progress, Speed, late
from chainrule_server.workers.waiting import QUIET_S
from chainrule_server.workers.worker import Worker

LOOK_INTERVAL_S = 0.2
# Of who is late it is told again after this, then after twice that, and so on.
EVENT_INTERVAL_S = 60.0
MOST_EVENT_DOUBLINGS = 6


class Roster:
    """given: whom the scheduler has given the job. kinds: what has computed for it; its own is the first. Before the
    first step is committed these are who may compute it: if they go, they have computed nothing, and others may come.

    events: what is to be told of the job, until somebody takes it."""

    def __init__(self, training: job_pb2.TrainingSpec) -> None:
        self.given: tuple[str, ...] = ()
        self.refused: tuple[str, ...] = ()
        self.kinds: tuple[str, ...] = ()
        self.has_computed = False
        self.events: list[job_pb2.JobEvent] = []
        self._training = training
        # Under int8 who computes what decides the bits: there it must not depend on time.
        factor = 0.0 if PRECISIONS[training.precision].needs_feedback else training.stragglers.factor
        self._balance = Balance(factor)
        self._reported_kinds: set[tuple[str, str]] = set()
        self._looked_at_s = 0.0
        # For each worker: when it was told last that it is late, and how often it has been.
        self._reported_late: dict[str, tuple[float, int]] = {}
        self._ranges: dict[str, range] = {}
        # They lost their shards while they owed an answer, and nothing was heard of their work since.
        self._lagging: set[str] = set()

    def divide_shards(self, workers: Sequence[Worker]) -> tuple[list[Worker], dict[str, range]]:
        """Those of the workers that may compute for the job, and the shards of each; some may get none."""
        self.given = tuple(worker.name for worker in workers)
        self._lagging.intersection_update(self.given)
        kinds = {worker.name: kind_of(worker.hello, backend=self._training.backend) for worker in workers}
        admission = admit(kinds, self.computed_kinds, must_be_identical=self._training.require_identical_workers)
        self.kinds, self.refused = admission.kinds, admission.refused
        self._report(admission.events)
        admitted = [worker for worker in workers if worker.name in admission.admitted]
        self._ranges = self._balance.ranges([worker.name for worker in admitted], self._training.shards)
        return admitted, self._ranges

    @property
    def computed_kinds(self) -> tuple[str, ...]:
        """The kinds that have computed a step, which those to come must be like; none before the first."""
        return self.kinds if self.has_computed else ()

    def resume(self, kinds: Sequence[str], *, step: int) -> None:
        """Go on with what had computed when a checkpoint was taken after so many steps."""
        self.kinds, self.has_computed = tuple(kinds), step > 0

    @property
    def resting(self) -> list[str]:
        """Who has no shards because it is slow; it is tried again later."""
        return self._balance.resting([name for name in self.given if name not in self.refused], self._ranges)

    def report_refused(self, kinds_by_worker: Mapping[str, str]) -> None:
        """Take note of who is connected, but may not compute for the job and so is never given to it."""
        if self.kinds:
            must_be_identical = self._training.require_identical_workers
            admission = admit(kinds_by_worker, self.kinds, must_be_identical=must_be_identical)
            self.refused = admission.refused
            self._report([event for event in admission.events if event.is_refused])

    def _report(self, events: Sequence[job_pb2.WorkerDiffers]) -> None:
        for event in events:
            if (event.worker, event.kind) not in self._reported_kinds:
                self._reported_kinds.add((event.worker, event.kind))
                self.events.append(job_pb2.JobEvent(worker_differs=event))

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to look again."""
        if now_s - self._looked_at_s < LOOK_INTERVAL_S:
            return False
        self._looked_at_s = now_s
        return True

    def should_move_shards(
        self,
        now_s: float,
        progress: Mapping[str, Progress],
        lease_of: Callable[[str], Lease | None],
        *,
        speeds: Mapping[str, Speed],
        shard_counts: Mapping[str, int],
    ) -> bool:
        """Whether shards are to move because a worker is slow, or is to be tried again: then call `divide_shards` anew.

        progress: how far each worker with shards is with the current order. speeds, shard_counts: of the same."""
        # Who is silent has a lease that ends; here it is about those who work, but slowly.
        working = {name: each for name, each in progress.items() if each.is_done or _lives(lease_of(name))}
        move = self._balance.next_move(now_s, speeds, shard_counts, working)
        others = [name for name in self.given if name not in self.refused]
        if move is None:
            idle = [name for name in others if name not in speeds and name not in self._lagging]
            return self._balance.forgives(now_s, idle)
        ranges = self._balance.ranges(others, self._training.shards)
        self._lagging.update(name for name, each in progress.items() if not each.is_done and name not in ranges)
        self.events.append(event_of(move, ranges))
        return True

    def late(self, progress: Mapping[str, Progress]) -> list[str]:
        """Who is so late with the current order that others had better compute its part too; silent or not."""
        return [*late(progress, factor=self._balance.factor)]

    def report_help(
        self, now_s: float, names: Sequence[str], helpers: Sequence[str], progress: Mapping[str, Progress], *, step: int
    ) -> None:
        """Others are asked for what these late workers owe: an event, ever more rarely for each."""
        others_ns = max(each.took_ns for each in progress.values() if each.is_done)
        for name in names:
            reported_at_s, times = self._reported_late.get(name, (-math.inf, 0))
            if now_s - reported_at_s >= EVENT_INTERVAL_S * 2.0 ** min(times - 1, MOST_EVENT_DOUBLINGS):
                self._reported_late[name] = now_s, times + 1
                helped = job_pb2.LateWorkerHelped(
                    late_worker=name,
                    helpers=helpers,
                    step=step,
                    late_s=progress[name].took_ns / 1e9,
                    others_s=others_ns / 1e9,
                )
                self.events.append(job_pb2.JobEvent(late_worker_helped=helped))

    def heard_of(self, name: str) -> None:
        """A worker has got something done."""
        if self._lagging:
            self._lagging.discard(name)

    def lags(self, name: str) -> bool:
        """Whether a worker without shards still owes the answer that it was too late with."""
        return name in self._lagging


def _lives(lease: Lease | None) -> bool:
    return lease is None or lease.silent_s < QUIET_S
