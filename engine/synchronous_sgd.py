"""Synchronous SGD itself: the parameters, and how a reduced gradient becomes the next parameters.

The server runs it with partial sums from workers. `train_in_one_process` is the same without server or workers: it
defines the bits that any number of workers must give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.clipping import clip_by_global_norm, clip_by_value, global_norm
from engine.microbatch import MicrobatchComputer, NotFinite
from engine.optimizers import UpdateRule
from engine.parameters import Vector
from engine.penalties import Penalty
from engine.reduction import PartialSum, Subtree
from engine.schedules import Constant, PlateauState, Schedule, plateau_of


@dataclass(frozen=True)
class UpdateRecipe:
    """How a mean gradient is turned into a step: penalties, clipping by value, then by norm, then the rule.

    learning_rate: the base that the schedule works on. clip_value, clip_norm: None for no limit."""

    rule: UpdateRule
    learning_rate: float
    total_steps: int
    schedule: Schedule = field(default_factory=Constant)
    penalties: tuple[Penalty, ...] = ()
    clip_value: float | None = None
    clip_norm: float | None = None


@dataclass
class ParameterState:
    """The parameters and optimizer state after the last applied step, and a second buffer for the next ones.

    A step is prepared in the second buffer and committed by exchanging the two, so what is read meanwhile never
    changes."""

    recipe: UpdateRecipe
    parameters: Vector
    step: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)
    state: Mapping[str, Vector] = field(init=False)
    _next_parameters: Vector = field(init=False)
    _next_state: Mapping[str, Vector] = field(init=False)
    _scratch: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.state = {name: np.zeros_like(self.parameters) for name in self.recipe.rule.state_names}
        self._next_parameters = np.empty_like(self.parameters)
        self._next_state = {name: np.empty_like(self.parameters) for name in self.recipe.rule.state_names}
        self._scratch = np.empty((max(1, self.recipe.rule.scratch_rows), self.parameters.size), dtype=np.float32)

    def apply(self, total: PartialSum) -> None:
        """Apply one step: the gradient summed over the batch, divided by its rows. `total.gradient` is overwritten.

        Raises NotFinite, with nothing changed, where the new parameters would not be finite."""
        gradient = total.gradient
        if gradient is None:
            raise TypeError("a step needs a gradient")
        np.divide(gradient, np.float32(total.row_count), out=gradient)
        self._limit(gradient)
        recipe = self.recipe
        learning_rate = recipe.schedule.learning_rate(recipe.learning_rate, self.step + 1, recipe.total_steps)
        # What overflows is refused below, with a reason; numpy's warning would only repeat it.
        with np.errstate(over="ignore", invalid="ignore"):
            recipe.rule.update(
                self.parameters,
                gradient,
                self.state,
                step=self.step + 1,
                learning_rate=learning_rate * self.plateau.factor,
                out=self._next_parameters,
                out_state=self._next_state,
                scratch=self._scratch,
            )
        # The state too: an infinite second moment would freeze its element for ever without a word.
        if not all(np.isfinite(vector).all() for vector in (self._next_parameters, *self._next_state.values())):
            raise NotFinite(shard=0, row=None)
        self.parameters, self._next_parameters = self._next_parameters, self.parameters
        self.state, self._next_state = self._next_state, self.state
        self.step += 1

    def observe(self, validation_loss: float) -> None:
        """Tell a schedule that reduces on a plateau the loss after an epoch."""
        plateau = plateau_of(self.recipe.schedule)
        if plateau is not None:
            self.plateau = plateau.observe(self.plateau, validation_loss)

    def _limit(self, gradient: Vector) -> None:
        """Add the penalties to the mean gradient and clip it, in place."""
        recipe = self.recipe
        for penalty in recipe.penalties:
            penalty.add_gradient(gradient, self.parameters, out=gradient, scratch=self._scratch[0])
        if recipe.clip_value is not None:
            if not np.isfinite(gradient).all():
                # Clipping would hide an infinity.
                raise NotFinite(shard=0, row=None)
            clip_by_value(gradient, limit=recipe.clip_value, out=gradient)
        if recipe.clip_norm is not None:
            clip_by_global_norm(gradient, norm=global_norm(gradient), limit=recipe.clip_norm, out=gradient)


def train_in_one_process(computer: MicrobatchComputer, state: ParameterState, *, steps: int) -> list[float]:
    """Train for some steps in this process alone and return the mean loss of each; `state` holds the parameters."""
    root = Subtree(0, len(computer.schedule.shard_sizes))
    losses = []
    for _ in range(steps):
        total = computer.gradient(root, step=state.step + 1, parameters=state.parameters)
        if total is None:
            raise ValueError("a step without rows")
        losses.append(float(total.sums[0]) / total.row_count)
        state.apply(total)
    return losses
