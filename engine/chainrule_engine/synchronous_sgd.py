"""Synchronous SGD itself: the parameters, and how a reduced gradient becomes the next parameters.

The server runs it with partial sums from workers. `train_in_one_process` is the same without server or workers: it
defines the bits that any number of workers must give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
from numpy.typing import NDArray

from chainrule_engine.errors import ValueMismatch
from chainrule_engine.evaluation import initial_statistics, updated_statistics
from chainrule_engine.finite import NotFinite
from chainrule_engine.microbatch import MicrobatchComputer
from chainrule_engine.parameters import ParameterLayout, Vector, sha256_of
from chainrule_engine.precision import FLOAT32, Precision, tree_rounding
from chainrule_engine.published import PublishedParameters
from chainrule_engine.reduction import PartialSum, Subtree, TreeSum
from chainrule_engine.schedules import PlateauState, plateau_of
from chainrule_engine.step_update import Buffers, StepUpdate, Workspace
from chainrule_engine.step_update import UpdateRecipe as UpdateRecipe

# The tree as one partial sum: whoever holds all shards has added it up already.
WHOLE = (Subtree(0, 1),)


@dataclass
class ParameterState:
    """The parameters and optimizer state after the last applied step, and a second buffer for the next ones.

    A step is prepared in the second buffer and committed by exchanging the two, so what is read meanwhile never
    changes. Memory: parameters and optimizer state twice, and some blocks for each thread that prepares.

    next_parameters: (n,) float32, the second buffer; both may be given, as views into shared memory.
    precision: what partial sums are rounded to, and with them every sum of the tree.
    statistics: (statistics_layout.size,) float64, batch_norm's running statistics; empty without."""

    recipe: UpdateRecipe
    parameters: Vector
    step: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)
    next_parameters: InitVar[Vector | None] = None
    precision: Precision = FLOAT32
    statistics_layout: ParameterLayout = field(default_factory=lambda: ParameterLayout.of([]))
    state: Mapping[str, Vector] = field(init=False)
    statistics: NDArray[np.float64] = field(init=False)
    _next_parameters: Vector = field(init=False)
    _next_state: Mapping[str, Vector] = field(init=False)
    _workspaces: list[Workspace] = field(default_factory=list, init=False)
    # Of the subtrees of the last step: they stay the same as long as workers neither come nor go.
    _tree: TreeSum | None = field(default=None, init=False)

    def __post_init__(self, next_parameters: Vector | None) -> None:
        names = self.recipe.rule.state_names
        self.state = {name: np.zeros_like(self.parameters) for name in names}
        self.statistics = initial_statistics(self.statistics_layout)
        self._next_state = {name: np.empty_like(self.parameters) for name in names}
        self._next_parameters = np.empty_like(self.parameters) if next_parameters is None else next_parameters
        if self._next_parameters.shape != self.parameters.shape or self._next_parameters.dtype != np.float32:
            raise ValueMismatch(f"the second buffer must be {self.parameters.shape} float32, as the parameters are")

    @property
    def sha256(self) -> str:
        """The SHA-256, in hexadecimal, of all that was trained: the parameters, and running statistics after them."""
        return sha256_of(self.parameters, *([self.statistics] if self.statistics.size else []))

    def begin(
        self, row_count: int, subtrees: Sequence[Subtree], *, clock_ns: Callable[[], int] | None = None
    ) -> StepUpdate:
        """The update of the next step, to be prepared and then committed; one that is not committed changes nothing.

        row_count: of the whole step. subtrees: those that have rows, whose partial sums will come; both are known
        before the gradients are. A second one may begin only once nothing prepares the first any more."""
        recipe, step = self.recipe, self.step + 1
        tree = self._tree
        if tree is None or (tree.subtrees is not subtrees and tree.subtrees != tuple(subtrees)):
            tree = self._tree = TreeSum(subtrees, tree_rounding(self.precision))
        rate = recipe.schedule.learning_rate(recipe.learning_rate, step, recipe.total_steps) * self.plateau.factor
        return StepUpdate(
            recipe=recipe,
            step=step,
            row_count=row_count,
            learning_rate=rate,
            buffers=Buffers(self.parameters, self.state, self._next_parameters, self._next_state),
            tree=tree,
            workspaces=self._workspaces,
            clock_ns=clock_ns,
        )

    def commit(self, update: StepUpdate, sums: NDArray[np.float64] | None = None) -> None:
        """Make the prepared step the current one. sums: the step's reduced sums, the loss and then the statistics.

        Raises NotFinite, with nothing changed, where the new parameters, state or statistics would not be finite, and
        RuntimeError where the update is of another step or not all prepared."""
        if update.step != self.step + 1:
            raise RuntimeError(f"the update is of step {update.step}, but step {self.step + 1} is next")
        if not update.is_complete:
            update.complete()
        statistics = self.statistics
        if statistics.size:
            statistics = self._next_statistics(sums, update.row_count)
        self.parameters, self._next_parameters = update.buffers.next_parameters, self.parameters
        self.state, self._next_state = update.buffers.next_state, self.state
        self.statistics = statistics
        self.step += 1

    def apply(self, total: PartialSum) -> None:
        """One step from what the whole tree adds up to. Nothing of `total` is changed. Raises as `commit` does."""
        if total.gradient is None:
            raise TypeError("a step needs a gradient")
        update = self.begin(total.row_count, WHOLE)
        update.prepare_all((total.gradient,))
        self.commit(update, total.sums)

    def observe(self, validation_loss: float) -> None:
        """Tell a schedule that reduces on a plateau the loss after an epoch."""
        plateau = plateau_of(self.recipe.schedule)
        if plateau is not None:
            self.plateau = plateau.observe(self.plateau, validation_loss)

    def _next_statistics(self, sums: NDArray[np.float64] | None, row_count: int) -> NDArray[np.float64]:
        if sums is None or len(sums) != 1 + self.statistics.size:
            raise ValueMismatch(f"a step needs the sums of the loss and of {self.statistics.size} statistics")
        statistics = updated_statistics(self.statistics, sums[1:], layout=self.statistics_layout, row_count=row_count)
        if not np.isfinite(statistics).all():
            raise NotFinite(shard=0, row=None)
        return statistics


def train_in_one_process(computer: MicrobatchComputer, state: ParameterState, *, steps: int) -> list[float]:
    """Train for some steps in this process alone and return the mean loss of each; `state` holds the parameters."""
    root = Subtree(0, len(computer.schedule.shard_sizes))
    losses = []
    gradient = np.empty_like(state.parameters)
    published = PublishedParameters(state.precision, state.parameters)
    for _ in range(steps):
        total = computer.gradient(root, step=state.step + 1, parameters=published.current, out=gradient)
        if total is None:
            raise ValueError("a step without rows")
        losses.append(float(total.sums[0]) / total.row_count)
        state.apply(total)
        published.prepare(state.parameters, 0, state.parameters.size)
        published.commit(state.parameters)
    return losses
