"""A job's life as phases: which may follow which, and who waits for one to be left.

                  its turn                its data is read again
        QUEUED ────────────────► READING ───────────────────────► TRAINING
         │ ▲ └── its turn; its data is there ─────────────────────►│   ▲
         │ │                                                       │   │ its pause
         │ │ resumed                                       to pause│   │ can't be kept
         │ │                                                       ▼   │
         │ PAUSED ◄──────────── PAUSING ◄──────────────────── LEAVING_OFF
         │           is stored    ▲         is at its step's end
         └─── to pause ───────────┘

        every phase but PAUSING ──── succeeded, failed, cancelled ────► ENDING ────► ENDED

A phase is what the server does with a job now. The state that clients see, and that the disk holds, follows once it is
stored: a job that is READING is seen as queued, or after a restart as running; one that is ENDING in the state before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto


class Phase(Enum):
    """What is done with a job now."""

    # It waits for its turn.
    QUEUED = auto()
    # It has its turn; its data and its last checkpoint are read again.
    READING = auto()
    TRAINING = auto()
    # It is to pause, and goes on to its step's end.
    LEAVING_OFF = auto()
    # It has given its workers back; what it has goes to the disk.
    PAUSING = auto()
    PAUSED = auto()
    # Its end is decided; the model and then the end are stored, and what is needed no more is removed.
    ENDING = auto()
    ENDED = auto()


FOLLOWING: dict[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.READING, Phase.TRAINING, Phase.PAUSING, Phase.ENDING}),
    # QUEUED: the server stops meanwhile.
    Phase.READING: frozenset({Phase.TRAINING, Phase.QUEUED, Phase.ENDING}),
    Phase.TRAINING: frozenset({Phase.LEAVING_OFF, Phase.ENDING}),
    Phase.LEAVING_OFF: frozenset({Phase.PAUSING, Phase.TRAINING, Phase.ENDING}),
    # TRAINING, QUEUED: what it has can't be kept. Whoever wants to end it waits: it becomes a model of what is stored.
    Phase.PAUSING: frozenset({Phase.PAUSED, Phase.TRAINING, Phase.QUEUED}),
    Phase.PAUSED: frozenset({Phase.QUEUED, Phase.ENDING}),
    Phase.ENDING: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
}

# Those in which a job has workers, or gets some when it is its turn.
TAKES_WORKERS = frozenset({Phase.QUEUED, Phase.READING, Phase.TRAINING, Phase.LEAVING_OFF})
OVER = frozenset({Phase.ENDING, Phase.ENDED})


class NoSuchTransition(RuntimeError):
    """A phase that can't follow the one before: an error of the server itself."""


@dataclass
class JobLife:
    """The phase that a job is in. turn: to be held for a change that takes several phases, pausing and resuming."""

    job_id: str
    phase: Phase = Phase.QUEUED
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    # What is done in this phase; held here because nobody else holds it.
    _work: asyncio.Task[None] | None = None
    # Wakes those who wait for this phase to be left.
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        """Whether the job's end is decided."""
        return self.phase in OVER

    def become(self, phase: Phase, work: Coroutine[None, None, None] | None = None) -> None:
        """Go on to another phase, and wake those who wait for this one to be left. work: to be done in the new one.

        Raises NoSuchTransition, with nothing changed, where it can't follow."""
        if phase not in FOLLOWING[self.phase]:
            if work is not None:
                work.close()
            following = ", ".join(sorted(each.name for each in FOLLOWING[self.phase])) or "nothing"
            raise NoSuchTransition(
                f"job {self.job_id} is {self.phase.name}, after which comes {following}, but not {phase.name}"
            )
        self.phase = phase
        if work is not None:
            self._work = asyncio.get_running_loop().create_task(work)
        left, self._left = self._left, asyncio.Event()
        left.set()

    async def left(self, phase: Phase) -> None:
        """Wait until the job has left this phase; at once where it isn't in it."""
        if self.phase is phase:
            await self._left.wait()
