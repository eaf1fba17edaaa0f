"""Where the time of each step goes: measured by the server and by every worker's own clock, put on one time line.

The phases are those of `StepCost` in job.proto. Between two clocks only differences count: the offset of a worker's
clock is estimated from the exchange with the shortest way there and back, as NTP does (RFC 5905, section 8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api
from chainrule_server.training.totals import PHASES, StepTotals

KEPT_STEPS = 1000
_NS_IN_MS = 1e6
_NS_IN_US = 1e3


@dataclass
class ClockOffset:
    """How far a worker's clock is ahead of the server's."""

    offset_ns: float = 0.0
    _shortest_ns: float = float("inf")

    def observe(self, *, issued_ns: int, started_ns: int, finished_ns: int, arrived_ns: int) -> None:
        """An order left at `issued_ns` and its answer arrived at `arrived_ns`; the other two are the worker's times."""
        way_ns = (arrived_ns - issued_ns) - (finished_ns - started_ns)
        # Clocks drift: an old estimate slowly loses against a new one.
        self._shortest_ns *= 1.001
        if way_ns <= self._shortest_ns:
            self._shortest_ns = max(way_ns, 1.0)
            self.offset_ns = ((started_ns - issued_ns) + (finished_ns - arrived_ns)) / 2


@dataclass
class _Answer:
    """A worker's answer to an order: first computed, last computed, last arrived; the first two by its own clock."""

    clock: ClockOffset
    started_ns: int
    finished_ns: int
    arrived_ns: int

    def computing(self, issued_ns: int) -> tuple[float, float]:
        """From when to when it computed, by the server's clock: within the order's time, whatever the clocks say."""
        started_ns = min(max(self.started_ns - self.clock.offset_ns, issued_ns), self.arrived_ns)
        return started_ns, min(max(self.finished_ns - self.clock.offset_ns, started_ns), self.arrived_ns)


@dataclass
class _Record:
    """A step as it went; times in the server's nanoseconds."""

    step: int
    issued_ns: int
    answers: dict[str, _Answer]
    complete_ns: int
    reduced_ns: int
    updated_ns: int


@dataclass
class StepCosts:
    """The last steps of a job. All times given are nanoseconds of a monotonic clock. totals: of all jobs."""

    totals: StepTotals = field(default_factory=StepTotals)
    _offsets: dict[str, ClockOffset] = field(default_factory=dict)
    _records: deque[_Record] = field(default_factory=lambda: deque(maxlen=KEPT_STEPS))
    # A row for each step, in the order of PHASES.
    _phases_ns: NDArray[np.float64] = field(default_factory=lambda: np.empty((KEPT_STEPS, len(PHASES))))
    _count: int = 0
    # How many steps the totals have the phases of.
    _added: int = 0
    _issued_ns: int = 0
    _answers: dict[str, _Answer] = field(default_factory=dict)

    def keep_clocks(self, names: Set[str]) -> None:
        """Forget the clocks of all other workers: who comes back under an old name may be on another machine."""
        self._offsets = {name: offset for name, offset in self._offsets.items() if name in names}

    def issued(self, now_ns: int) -> None:
        """An order goes out; what was known of the answers to the one before is forgotten."""
        self._issued_ns = now_ns
        self._answers = {}

    def arrived(self, name: str, started_ns: int, finished_ns: int, now_ns: int) -> None:
        """A partial sum of a worker arrived."""
        answer = self._answers.get(name)
        if answer is None:
            clock = self._offsets.setdefault(name, ClockOffset())
            self._answers[name] = _Answer(clock, started_ns, finished_ns, now_ns)
        else:
            answer.finished_ns, answer.arrived_ns = finished_ns, now_ns

    def applied(
        self,
        step: int,
        *,
        complete_ns: int,
        reduced_ns: int,
        updated_ns: int,
        sample_count: int = 0,
        wire_bytes: tuple[int, int] = (0, 0),
    ) -> None:
        """The step was committed. reduced_ns: when the last sum was there, updated_ns: the last parameter.

        sample_count: its rows. wire_bytes: what it pushed and pulled over the wire."""
        self.totals.applied(sample_count=sample_count, wire_bytes=wire_bytes)
        answers = self._answers
        if not answers:
            return
        for answer in answers.values():
            answer.clock.observe(
                issued_ns=self._issued_ns,
                started_ns=answer.started_ns,
                finished_ns=answer.finished_ns,
                arrived_ns=answer.arrived_ns,
            )
        last = max(answers.values(), key=_arrival)
        started_ns, finished_ns = last.computing(self._issued_ns)
        self._phases_ns[self._count % KEPT_STEPS] = (
            started_ns - self._issued_ns,
            finished_ns - started_ns,
            last.arrived_ns - finished_ns,
            last.arrived_ns - min(answer.arrived_ns for answer in answers.values()),
            reduced_ns - complete_ns,
            updated_ns - reduced_ns,
        )
        self._count += 1
        if self._count - self._added == KEPT_STEPS:
            self.add_up()
        self._records.append(_Record(step, self._issued_ns, answers, complete_ns, reduced_ns, updated_ns))

    def add_up(self) -> None:
        """Bring the totals' phases up to the last step."""
        rows = np.arange(self._added, self._count) % KEPT_STEPS
        self.totals.add_phases(self._phases_ns[rows])
        self._added = self._count

    def message(self) -> job_pb2.StepCost | None:
        """Median and 95th percentile of every phase; None before the first step."""
        if not self._count:
            return None
        rows = self._phases_ns[: min(self._count, KEPT_STEPS)] / _NS_IN_MS
        medians, percentiles = np.percentile(rows, (50, 95), axis=0)
        cost = job_pb2.StepCost()
        for phase, median, p95 in zip(PHASES, medians.tolist(), percentiles.tolist(), strict=True):
            getattr(cost, phase).CopyFrom(job_pb2.Latency(median_ms=median, p95_ms=p95))
        return cost

    def spans(self, *, origin_ns: int) -> Iterator[api.TraceSpan]:
        """Every phase of the kept steps, worker by worker, in microseconds from `origin_ns`."""
        for record in self._records:
            for name, answer in record.answers.items():
                started_ns, finished_ns = answer.computing(record.issued_ns)
                for phase, start_ns, stop_ns in (
                    ("pull", record.issued_ns, started_ns),
                    ("compute", started_ns, finished_ns),
                    ("push", finished_ns, answer.arrived_ns),
                    ("wait", answer.arrived_ns, record.complete_ns),
                ):
                    yield _span(phase, name, record.step, start_ns - origin_ns, stop_ns - origin_ns)
            for phase, start_ns, stop_ns in (
                ("reduce", record.complete_ns, record.reduced_ns),
                ("update", record.reduced_ns, record.updated_ns),
            ):
                yield _span(phase, "server", record.step, start_ns - origin_ns, stop_ns - origin_ns)


def _arrival(answer: _Answer) -> int:
    return answer.arrived_ns


def _span(phase: str, process: str, step: int, start_ns: float, stop_ns: float) -> api.TraceSpan:
    return api.TraceSpan(
        name=phase,
        process=process,
        step=step,
        start_us=start_ns / _NS_IN_US,
        duration_us=max(0.0, stop_ns - start_ns) / _NS_IN_US,
    )
