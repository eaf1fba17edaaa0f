"""Synchronous SGD itself: the parameters, and how a reduced gradient becomes the next parameters.

The server runs it with partial sums from workers. `train_in_one_process` is the same without server or workers: it
defines the bits that any number of workers must give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from engine.microbatch import MicrobatchComputer, NotFinite
from engine.optimizers import UpdateRule
from engine.parameters import Vector
from engine.reduction import PartialSum, Subtree


@dataclass
class ParameterState:
    """The parameters and optimizer state after the last applied step, and a second buffer for the next ones.

    A step is prepared in the second buffer and committed by exchanging the two, so what is read meanwhile never
    changes."""

    rule: UpdateRule
    learning_rate: float
    parameters: Vector
    step: int = 0
    state: Mapping[str, Vector] = field(init=False)
    _next_parameters: Vector = field(init=False)
    _next_state: Mapping[str, Vector] = field(init=False)
    _scratch: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.state = {name: np.zeros_like(self.parameters) for name in self.rule.state_names}
        self._next_parameters = np.empty_like(self.parameters)
        self._next_state = {name: np.empty_like(self.parameters) for name in self.rule.state_names}
        self._scratch = np.empty((max(1, self.rule.scratch_rows), self.parameters.size), dtype=np.float32)

    def apply(self, total: PartialSum) -> None:
        """Apply one step: the gradient summed over the batch, divided by its rows. `total.gradient` is overwritten.

        Raises NotFinite, with nothing changed, where the new parameters would not be finite."""
        gradient = total.gradient
        if gradient is None:
            raise TypeError("a step needs a gradient")
        np.divide(gradient, np.float32(total.row_count), out=gradient)
        self.rule.update(
            self.parameters,
            gradient,
            self.state,
            step=self.step + 1,
            learning_rate=self.learning_rate,
            out=self._next_parameters,
            out_state=self._next_state,
            scratch=self._scratch,
        )
        if not np.isfinite(self._next_parameters).all():
            raise NotFinite(shard=0, row=None)
        self.parameters, self._next_parameters = self._next_parameters, self.parameters
        self.state, self._next_state = self._next_state, self.state
        self.step += 1


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
