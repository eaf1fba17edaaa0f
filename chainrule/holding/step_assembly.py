"""One step as it comes together: which ranges of which partial sums are there, and the update of those that are whole.

A range is reduced and updated as soon as all partial sums have arrived there. Vectors that arrive at once, in shared
memory, are reduced at the end, by several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from chainrule.transport import wire
from chainrule_engine.parameters import Vector
from chainrule_engine.published import PublishedParameters
from chainrule_engine.reduction import PartialSum, Subtree
from chainrule_engine.step_update import WORTH_A_THREAD
from chainrule_engine.synchronous_sgd import ParameterState


class StepAssembly:
    """`subtrees`: those that have rows in this step; each gives one partial sum. row_count: the step's rows."""

    def __init__(
        self,
        state: ParameterState,
        published: PublishedParameters,
        row_count: int,
        subtrees: Sequence[Subtree],
        clock_ns: Callable[[], int],
    ) -> None:
        self._state = state
        self._published = published
        self._update = state.begin(row_count, subtrees, clock_ns=clock_ns)
        self._subtrees = subtrees
        self._size = state.parameters.size
        self._vectors: dict[Subtree, Vector] = {}
        # By the start of a range: of how many partial sums it has arrived.
        self._arrived: dict[int, int] = {}
        self._prepared: set[int] = set()
        self._published_starts: set[int] = set()

    def assemble_part(self, subtree: Subtree, vector: Vector, start: int) -> memoryview | None:
        """The range that begins at `start` is there in `vector`; the values to be pulled, if they are final by that."""
        self._vectors[subtree] = vector
        self._arrived[start] = self._arrived.get(start, 0) + 1
        if self._arrived[start] < len(self._subtrees):
            return None
        self._reduce_and_update(start)
        # With a limit on the norm they are final only when all are.
        if self._update.recipe.clip_norm is not None:
            return None
        self._publish(start)
        stop = wire.part_stop(start, self._size)
        return self._published.next_values(self._update.buffers.next_parameters, start, stop)

    def assemble_whole(self, subtree: Subtree, vector: Vector) -> None:
        """All of a partial sum is there."""
        self._vectors[subtree] = vector

    @property
    def is_zero(self) -> bool:
        """Whether all that has arrived is exactly 0."""
        return not any(vector.any() for vector in self._vectors.values())

    def commit(self, total: PartialSum, pool: Executor | None, thread_count: int) -> int:
        """Prepare what isn't yet, and make the step's parameters the current ones; how long the reduction took, in ns.

        total: the sums without the gradient. Raises NotFinite, with nothing changed."""
        earlier_ns = self._update.reduce_ns
        threads = 1
        if self._prepared:
            for start in wire.part_starts(self._size):
                if start not in self._prepared:
                    self._reduce_and_update(start)
        else:
            self._update.prepare_all(self._in_order(), executor=pool, thread_count=thread_count)
            threads = thread_count if self._size >= WORTH_A_THREAD else 1
        self._update.complete(executor=pool, thread_count=thread_count)
        for start in wire.part_starts(self._size):
            if start not in self._published_starts:
                self._publish(start)
        self._state.commit(self._update, total.sums)
        self._published.commit(self._state.parameters)
        return (self._update.reduce_ns - earlier_ns) // threads

    def _reduce_and_update(self, start: int) -> None:
        self._update.prepare(start, wire.part_stop(start, self._size), self._in_order())
        self._prepared.add(start)

    def _publish(self, start: int) -> None:
        stop = wire.part_stop(start, self._size)
        self._published.prepare(self._update.buffers.next_parameters, start, stop)
        self._published_starts.add(start)

    def _in_order(self) -> list[Vector]:
        return [self._vectors[subtree] for subtree in self._subtrees]
