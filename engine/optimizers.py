"""Update rules: how a mean gradient becomes the next parameters.

A rule is pure and works element by element on the flat vector, so that it gives the same bits however the vector is cut
into ranges. What it reads is never written: the next parameters and the next state go to buffers of the caller.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from engine.errors import SettingError
from engine.parameters import Vector


class UpdateRule(Protocol):
    """An update rule. state_names: the flat vectors that it keeps. scratch_rows: how many more it needs to work."""

    name: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]]
    scratch_rows: ClassVar[int]

    def update(
        self,
        parameters: Vector,
        gradient: Vector,
        state: Mapping[str, Vector],
        *,
        step: int,
        learning_rate: float,
        out: Vector,
        out_state: Mapping[str, Vector],
        scratch: Vector,
    ) -> None:
        """Write the parameters and the state after a step to `out` and `out_state`.

        parameters, gradient, out and each state: (n,) float32; gradient: the mean over the batch. step counts from 1.
        scratch: (scratch_rows, n) float32. `out` may be `parameters` itself, and `out_state` the state itself."""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent.

    parameters ← parameters - learning_rate · gradient
    Source: Robbins & Monro 1951."""

    name: ClassVar[str] = "sgd"
    state_names: ClassVar[tuple[str, ...]] = ()
    scratch_rows: ClassVar[int] = 1

    def update(
        self,
        parameters: Vector,
        gradient: Vector,
        state: Mapping[str, Vector],  # noqa: ARG002 - it has none
        *,
        step: int,  # noqa: ARG002 - every step is alike
        learning_rate: float,
        out: Vector,
        out_state: Mapping[str, Vector],  # noqa: ARG002 - as state
        scratch: Vector,
    ) -> None:
        """See UpdateRule."""
        np.multiply(gradient, np.float32(learning_rate), out=scratch[0])
        np.subtract(parameters, scratch[0], out=out)


OPTIMIZERS: dict[str, type[Sgd]] = {"sgd": Sgd}


def make_optimizer(name: str, settings: Mapping[str, float]) -> UpdateRule:
    """The rule of a name with its settings. Raises SettingError for an unknown name or setting."""
    rule = OPTIMIZERS.get(name)
    if rule is None:
        near = difflib.get_close_matches(name, OPTIMIZERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(OPTIMIZERS)}"
        raise SettingError("optimizer.name", f"unknown optimizer {name!r}; {hint}")
    if settings:
        raise SettingError(f"optimizer.{min(settings)}", f"is no setting of {name}")
    return rule()
