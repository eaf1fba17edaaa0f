"""Which workers may compute for one job: those that give the same bits, because they compute with the same things.

A kind is a text: numpy, the BLAS library with its kernel, the instructions that numpy uses, and numba for a job whose
backend that is. The kind that most of a job's first workers have is the job's, once they have computed a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb

NUMBA = "numba"
LACKS_NUMBA = "no numba, which the job's backend needs"


def kind_of(hello: pb.Hello, *, backend: str) -> str:
    """What a worker computes with, in words."""
    if backend == NUMBA and not hello.numba:
        return LACKS_NUMBA
    parts = [f"numpy {hello.numpy_version}" if hello.numpy_version else "", hello.blas, hello.instructions]
    if backend == NUMBA:
        parts.append(f"numba {hello.numba}")
    return ", ".join(part for part in parts if part)


def sets_of_like(
    kinds_by_worker: Mapping[str, str], known: Sequence[str], *, must_be_identical: bool
) -> tuple[frozenset[str], ...]:
    """The sets of workers that may compute for a job together; it takes those of one, and the largest is the first.

    known: the kinds that have computed for it, its own first; none before its first workers."""
    able = {name: kind for name, kind in kinds_by_worker.items() if kind != LACKS_NUMBA}
    if not must_be_identical:
        return (frozenset(able),)
    own = known[:1] or [kind for kind, _ in Counter(able.values()).most_common()]
    return tuple(frozenset(name for name, kind in able.items() if kind == each) for each in own)


def most_common(kinds: Sequence[str]) -> str:
    """The kind that most have; of several the one that came first. kinds: at least one."""
    return Counter(kinds).most_common(1)[0][0]


@dataclass(frozen=True)
class Admission:
    """Who may compute for a job, and what is to be told about those that differ."""

    admitted: tuple[str, ...]
    refused: tuple[str, ...]
    # What has computed for the job, the first first.
    kinds: tuple[str, ...]
    events: tuple[job_pb2.WorkerDiffers, ...] = ()


def admit(kinds_by_worker: Mapping[str, str], known: Sequence[str], *, must_be_identical: bool) -> Admission:
    """Let workers of the job's kind, known[0], compute for it; others only where they need not be identical.

    known: the kinds that have computed for it; none before its first workers."""
    able = {name: kind for name, kind in kinds_by_worker.items() if kind != LACKS_NUMBA}
    own = known[0] if known else (most_common(list(able.values())) if able else "")
    admitted = tuple(name for name, kind in able.items() if kind == own or not must_be_identical)
    odd = [name for name, kind in kinds_by_worker.items() if kind != own]
    # Of the first kinds the job's own is named first.
    seen = dict.fromkeys([*known, *([own] if admitted else ()), *(kinds_by_worker[name] for name in admitted)])
    events = tuple(
        job_pb2.WorkerDiffers(worker=name, kind=kinds_by_worker[name], job_kind=own, is_refused=name not in admitted)
        for name in odd
    )
    refused = tuple(name for name in kinds_by_worker if name not in admitted)
    return Admission(admitted, refused, tuple(seen), events)
