"""Update rules: how a mean gradient becomes the next parameters.

A rule is pure and works element by element on the flat vector, so that it gives the same bits however the vector is cut
into ranges. What it reads is never written: the next parameters and the next state go to buffers of the caller, which
may be the very buffers that were read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from chainrule_engine.parameters import Vector
from chainrule_engine.settings import check_number, make

State = Mapping[str, Vector]


class Step(NamedTuple):
    """What a rule reads of a step, and where it writes. To update a range a:b, give each array cut to it.

    `out` may be `parameters` itself, and a vector of `out_state` the same one of `state`: then the step is done in
    place. No other two of the arrays may share memory."""

    number: int
    """It counts from 1."""
    learning_rate: float
    parameters: Vector
    """(n,) float32, as are gradient, out and each vector of a state."""
    gradient: Vector
    """The mean over the batch."""
    state: State
    out: Vector
    out_state: State
    scratch: Vector
    """(scratch_rows, n) float32 to work in, whatever it holds."""


class UpdateRule(Protocol):
    """An update rule. state_names: the flat vectors that it keeps, zeros at first. scratch_rows: vectors to work in."""

    name: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]]
    scratch_rows: ClassVar[int]

    def update(self, step: Step) -> None:
        """Write the parameters and the state after the step to its `out` and `out_state`. No vector is allocated."""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent.

    θ ← θ - learning_rate · g
    Source: Robbins & Monro 1951."""

    name: ClassVar[str] = "sgd"
    state_names: ClassVar[tuple[str, ...]] = ()
    scratch_rows: ClassVar[int] = 1

    def update(self, step: Step) -> None:
        """See UpdateRule."""
        np.multiply(step.gradient, np.float32(step.learning_rate), out=step.scratch[0])
        np.subtract(step.parameters, step.scratch[0], out=step.out)


@dataclass(frozen=True)
class Momentum:
    """SGD with a velocity that remembers earlier gradients.

    v ← momentum · v + g        θ ← θ - learning_rate · v
    Source: Polyak 1964, in the form of Sutskever et al. 2013 without the learning rate in v."""

    momentum: float = 0.9
    name: ClassVar[str] = "momentum"
    state_names: ClassVar[tuple[str, ...]] = ("velocity",)
    scratch_rows: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_fraction(momentum=self.momentum)

    def update(self, step: Step) -> None:
        """See UpdateRule."""
        velocity = step.out_state["velocity"]
        np.multiply(step.state["velocity"], np.float32(self.momentum), out=velocity)
        np.add(velocity, step.gradient, out=velocity)
        np.multiply(velocity, np.float32(step.learning_rate), out=step.scratch[0])
        np.subtract(step.parameters, step.scratch[0], out=step.out)


@dataclass(frozen=True)
class Nesterov:
    """Momentum that looks ahead.

    v ← momentum · v + g        θ ← θ - learning_rate · (g + momentum · v)
    Source: Nesterov 1983, in the form of Sutskever et al. 2013."""

    momentum: float = 0.9
    name: ClassVar[str] = "nesterov"
    state_names: ClassVar[tuple[str, ...]] = ("velocity",)
    scratch_rows: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_fraction(momentum=self.momentum)

    def update(self, step: Step) -> None:
        """See UpdateRule."""
        momentum = np.float32(self.momentum)
        velocity = step.out_state["velocity"]
        np.multiply(step.state["velocity"], momentum, out=velocity)
        np.add(velocity, step.gradient, out=velocity)
        np.multiply(velocity, momentum, out=step.scratch[0])
        np.add(step.scratch[0], step.gradient, out=step.scratch[0])
        np.multiply(step.scratch[0], np.float32(step.learning_rate), out=step.scratch[0])
        np.subtract(step.parameters, step.scratch[0], out=step.out)


@dataclass(frozen=True)
class Adagrad:
    """Each element's step shrinks with the sum of its squared gradients.

    s ← s + g²        θ ← θ - learning_rate · g / (√s + epsilon)
    Source: Duchi, Hazan & Singer 2011."""

    epsilon: float = 1e-10
    name: ClassVar[str] = "adagrad"
    state_names: ClassVar[tuple[str, ...]] = ("squared_sum",)
    scratch_rows: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_epsilon(self.epsilon)

    def update(self, step: Step) -> None:
        """See UpdateRule."""
        np.multiply(step.gradient, step.gradient, out=step.scratch[0])
        np.add(step.state["squared_sum"], step.scratch[0], out=step.out_state["squared_sum"])
        _scaled_step(step, step.out_state["squared_sum"], self.epsilon)


@dataclass(frozen=True)
class RmsProp:
    """Adagrad with a moving average instead of the sum.

    s ← decay · s + (1 - decay) · g²        θ ← θ - learning_rate · g / (√s + epsilon)
    Source: Tieleman & Hinton 2012, lecture 6.5."""

    decay: float = 0.99
    epsilon: float = 1e-8
    name: ClassVar[str] = "rmsprop"
    state_names: ClassVar[tuple[str, ...]] = ("squared_mean",)
    scratch_rows: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_fraction(decay=self.decay)
        _check_epsilon(self.epsilon)

    def update(self, step: Step) -> None:
        """See UpdateRule."""
        np.multiply(step.gradient, step.gradient, out=step.scratch[0])
        _move(step.state["squared_mean"], step.scratch[0], self.decay, step.out_state["squared_mean"], step.scratch[1])
        _scaled_step(step, step.out_state["squared_mean"], self.epsilon)


@dataclass(frozen=True)
class Adam:
    """Moving averages of the gradient and of its square, both corrected for their start at 0.

    m ← beta1 · m + (1 - beta1) · g        v ← beta2 · v + (1 - beta2) · g²
    θ ← θ - learning_rate · (m / (1 - beta1ᵗ)) / (√(v / (1 - beta2ᵗ)) + epsilon)
    Source: Kingma & Ba 2015, algorithm 1 (arXiv:1412.6980)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    name: ClassVar[str] = "adam"
    state_names: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")
    scratch_rows: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_fraction(beta1=self.beta1, beta2=self.beta2)
        _check_epsilon(self.epsilon)

    def update(self, step: Step) -> None:
        """See UpdateRule."""
        first, second = step.out_state["first_moment"], step.out_state["second_moment"]
        _move(step.state["first_moment"], step.gradient, self.beta1, first, step.scratch[0])
        np.multiply(step.gradient, step.gradient, out=step.scratch[0])
        _move(step.state["second_moment"], step.scratch[0], self.beta2, second, step.scratch[1])
        # The corrections are scalars: √(v / c2) = √v / √c2, so no vector is divided twice.
        np.sqrt(second, out=step.scratch[0])
        np.divide(step.scratch[0], np.float32(math.sqrt(1 - self.beta2**step.number)), out=step.scratch[0])
        np.add(step.scratch[0], np.float32(self.epsilon), out=step.scratch[0])
        np.multiply(first, np.float32(step.learning_rate / (1 - self.beta1**step.number)), out=step.scratch[1])
        np.divide(step.scratch[1], step.scratch[0], out=step.scratch[1])
        np.subtract(step.parameters, step.scratch[1], out=step.out)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with weight decay that doesn't go through the moments.

    θ ← θ · (1 - learning_rate · weight_decay), then as Adam.
    Source: Loshchilov & Hutter 2019, algorithm 2 (arXiv:1711.05101)."""

    weight_decay: float = 0.01
    name: ClassVar[str] = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.weight_decay, setting="optimizer.weight_decay", at_least=0)

    def update(self, step: Step) -> None:
        """See UpdateRule."""
        np.multiply(step.parameters, np.float32(1 - step.learning_rate * self.weight_decay), out=step.out)
        super().update(step._replace(parameters=step.out))


OPTIMIZERS: dict[str, type[UpdateRule]] = {
    rule.name: rule for rule in (Sgd, Momentum, Nesterov, Adagrad, RmsProp, Adam, AdamW)
}


def make_optimizer(name: str, settings: Mapping[str, float]) -> UpdateRule:
    """The rule of a name with its settings. Raises SettingError for what is unknown or out of range."""
    return make("optimizer", OPTIMIZERS, name, settings)


def _move(average: Vector, value: Vector, decay: float, out: Vector, scratch: Vector) -> None:
    """out = decay · average + (1 - decay) · value. scratch may not be value."""
    np.multiply(value, np.float32(1 - decay), out=scratch)
    np.multiply(average, np.float32(decay), out=out)
    np.add(out, scratch, out=out)


def _scaled_step(step: Step, squares: Vector, epsilon: float) -> None:
    """out = parameters - learning_rate · gradient / (√squares + epsilon)."""
    scratch = step.scratch
    np.sqrt(squares, out=scratch[0])
    np.add(scratch[0], np.float32(epsilon), out=scratch[0])
    np.multiply(step.gradient, np.float32(step.learning_rate), out=scratch[1])
    np.divide(scratch[1], scratch[0], out=scratch[1])
    np.subtract(step.parameters, scratch[1], out=step.out)


def _check_fraction(**settings: float) -> None:
    for name, value in settings.items():
        check_number(value, setting=f"optimizer.{name}", at_least=0, below=1)


def _check_epsilon(value: float) -> None:
    # A smaller one may be 0 in float32, and a gradient of 0 would then give 0/0.
    check_number(value, setting="optimizer.epsilon", at_least=1e-30)
