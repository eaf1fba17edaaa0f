"""Why a job doesn't advance: for whom or what it waits, for how long, and what happens next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.holding.lease import Lease
from chainrule.v1 import job_pb2

# A worker that was heard of so recently isn't called silent, nor its work still.
QUIET_S = 1.5


@dataclass(frozen=True)
class Silent:
    """A worker that is waited for. left_s: until it loses its shards, if no sign of it comes."""

    name: str
    silent_s: float = 0.0
    still_s: float = 0.0
    left_s: float | None = None

    @classmethod
    def of(cls, name: str, lease: Lease | None) -> Silent:
        """What its lease says; only the name without one."""
        return cls(name) if lease is None else cls(name, lease.silent_s, lease.still_s, lease.left_s)

    @property
    def words(self) -> str:
        """Such as 'w-3 is silent for 4.1 s'; empty where there is nothing odd about it."""
        if self.silent_s >= QUIET_S:
            return f"{self.name} is silent for {self.silent_s:.1f} s"
        if self.still_s >= QUIET_S:
            return f"{self.name} lives, but has got nothing done for {self.still_s:.1f} s"
        return ""


@dataclass(frozen=True)
class Waiting:
    """what: ends the sentence 'the job waits for …'. next: what happens then, in words.

    next_in_s: when, where that is decided by time. for_s: since when, in seconds before now."""

    reason: job_pb2.WaitingReason
    what: str
    for_s: float | None = None
    workers: tuple[Silent, ...] = ()
    next: str = ""
    next_in_s: float | None = None

    @property
    def words(self) -> str:
        """All of it in a line."""
        parts = [self.what, *(each.words for each in self.workers if each.words)]
        if self.next:
            when = "" if self.next_in_s is None else f"in {max(self.next_in_s, 0.0):.1f} s "
            parts.append(when + self.next)
        return "; ".join(parts)

    def message(self, now_s: float) -> job_pb2.Waiting:
        """The same for programs. now_s: Unix seconds."""
        message = job_pb2.Waiting(reason=self.reason, next=self.next)
        for each in self.workers:
            message.workers.add(name=each.name, silent_s=each.silent_s, still_s=each.still_s)
        if self.for_s is not None:
            message.since.FromNanoseconds(int((now_s - self.for_s) * 1e9))
        if self.next_in_s is not None:
            message.next_time.FromNanoseconds(int((now_s + max(self.next_in_s, 0.0)) * 1e9))
        return message


def for_workers(
    reason: job_pb2.WaitingReason, what: str, workers: Sequence[Silent], *, others: Sequence[str], for_s: float
) -> Waiting:
    """The wait for workers that owe something: which of them is odd, and to whom its shards go and when.

    others: who would get its shards; nobody where none is named."""
    odd = sorted((each for each in workers if each.words), key=lambda each: -max(each.silent_s, each.still_s))
    ordered = (*odd, *(each for each in workers if not each.words))
    if not odd or odd[0].left_s is None:
        return Waiting(reason, what, for_s, ordered)
    heirs = " and ".join(others) if others else "the next worker that joins"
    # With one silent worker "its" is plain; with more its name is not.
    whose = "its" if len(odd) == 1 else f"{odd[0].name}'s"
    return Waiting(reason, what, for_s, ordered, f"{whose} shards go to {heirs}", odd[0].left_s)
