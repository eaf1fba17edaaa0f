"""Learning-rate schedules: the learning rate of each step, as a function of the step.

Steps count from 1 to total_steps; a later step has the last one's rate. Everything relative: a schedule multiplies the
base learning rate, so the same settings serve another base. A schedule is pure; the one that looks at the validation
loss, ReduceOnPlateau, has an explicit state, which a checkpoint carries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from chainrule_engine.settings import check_count, check_number, make, whole


class Schedule(Protocol):
    """A learning-rate schedule. Its settings are its dataclass fields."""

    name: ClassVar[str]

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:
        """The learning rate of a step. base: the job's learning rate. step: from 1. total_steps: of the whole job."""


@dataclass(frozen=True)
class Constant:
    """base, at every step."""

    name: ClassVar[str] = "constant"

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:  # noqa: ARG002 - every step is alike
        """See Schedule."""
        return base


@dataclass(frozen=True)
class StepDecay:
    """base · factor^⌊(step - 1) / every_steps⌋: the rate drops every so many steps, and stays between."""

    every_steps: int
    factor: float = 0.1
    name: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        check_count(self.every_steps, setting="schedule.every_steps", at_least=1)
        check_number(self.factor, setting="schedule.factor", above=0, at_most=1)

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:
        """See Schedule."""
        done = min(step, total_steps) - 1
        return float(base * self.factor ** (done // self.every_steps))


@dataclass(frozen=True)
class Exponential:
    """base · factor^((step - 1) / every_steps): a smooth decay, by `factor` in every so many steps."""

    factor: float
    every_steps: int = 1
    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        check_number(self.factor, setting="schedule.factor", above=0, at_most=1)
        check_count(self.every_steps, setting="schedule.every_steps", at_least=1)

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:
        """See Schedule."""
        done = min(step, total_steps) - 1
        return float(base * self.factor ** (done / self.every_steps))


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from base, at the first step, towards base · minimum_factor, after the last.

    base · (m + (1 - m) · (1 + cos(π · (step - 1) / total_steps)) / 2), with m = minimum_factor
    Source: Loshchilov & Hutter 2017 (arXiv:1608.03983), without restarts."""

    minimum_factor: float = 0.0
    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        check_number(self.minimum_factor, setting="schedule.minimum_factor", at_least=0, at_most=1)

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:
        """See Schedule."""
        return base * _half_cosine(1.0, self.minimum_factor, (min(step, total_steps) - 1) / total_steps)


@dataclass(frozen=True)
class OneCycle:
    """Up from base · start_factor to base, and down to base · end_factor at the last step, each by half a cosine.

    The peak lies after the fraction peak_fraction of the steps: at step peak_fraction · total_steps.
    Source: Smith & Topin 2018, "Super-convergence" (arXiv:1708.07120), in two phases."""

    peak_fraction: float = 0.3
    start_factor: float = 0.04
    end_factor: float = 4e-6
    name: ClassVar[str] = "one_cycle"

    def __post_init__(self) -> None:
        check_number(self.peak_fraction, setting="schedule.peak_fraction", at_least=0, at_most=1)
        check_number(self.start_factor, setting="schedule.start_factor", at_least=0, at_most=1)
        check_number(self.end_factor, setting="schedule.end_factor", at_least=0, at_most=1)

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:
        """See Schedule."""
        done = min(step, total_steps) - 1
        peak, last = max(self.peak_fraction * total_steps - 1, 0.0), total_steps - 1
        if done < peak:
            return base * _half_cosine(self.start_factor, 1.0, done / peak)
        if done <= peak:
            return base
        return base * _half_cosine(1.0, self.end_factor, (done - peak) / (last - peak))


@dataclass(frozen=True)
class WarmUp:
    """A straight line up to the first rate of another schedule, which follows as if it had begun after it.

    first · step / (steps + 1), first = the other schedule's rate at its step 1
    Source: Goyal et al. 2017 (arXiv:1706.02677), section 2.2."""

    steps: int
    then: Schedule
    name: ClassVar[str] = "warm_up"

    def __post_init__(self) -> None:
        check_count(self.steps, setting="schedule.warmup_steps", at_least=1)

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:
        """See Schedule."""
        rest = max(total_steps - self.steps, 1)
        if step > self.steps:
            return self.then.learning_rate(base, step - self.steps, rest)
        return self.then.learning_rate(base, 1, rest) * step / (self.steps + 1)


@dataclass(frozen=True)
class PlateauState:
    """What ReduceOnPlateau knows after some epochs: plain numbers, so that JSON holds it exactly.

    factor: what every learning rate is multiplied by from now on. best_loss: None before the first finite loss.
    waited_epochs: epochs since the last improvement or reduction."""

    factor: float = 1.0
    best_loss: float | None = None
    waited_epochs: int = 0


@dataclass(frozen=True)
class ReduceOnPlateau:
    """Multiplies the rate by `factor` once patience_epochs epochs in a row brought no better validation loss.

    Better means below the best so far by more than min_delta. The rate never falls below base · minimum_factor.
    `learning_rate` is the rate before any reduction: multiply it by the state's factor."""

    factor: float = 0.1
    patience_epochs: int = 10
    min_delta: float = 0.0
    minimum_factor: float = 0.0
    name: ClassVar[str] = "reduce_on_plateau"

    def __post_init__(self) -> None:
        check_number(self.factor, setting="schedule.factor", above=0, below=1)
        check_count(self.patience_epochs, setting="schedule.patience_epochs", at_least=1)
        check_number(self.min_delta, setting="schedule.min_delta", at_least=0)
        check_number(self.minimum_factor, setting="schedule.minimum_factor", at_least=0, at_most=1)

    def learning_rate(self, base: float, step: int, total_steps: int) -> float:  # noqa: ARG002 - every step is alike
        """See Schedule; the state's factor is still to be applied."""
        return base

    def observe(self, state: PlateauState, validation_loss: float) -> PlateauState:
        """The state after one more epoch, whose factor holds from the next step on.

        validation_loss: the mean over the validation rows. NaN and infinity are no improvement."""
        best = math.inf if state.best_loss is None else state.best_loss
        if math.isfinite(validation_loss) and validation_loss < best - self.min_delta:
            return replace(state, best_loss=float(validation_loss), waited_epochs=0)
        if state.waited_epochs + 1 < self.patience_epochs:
            return replace(state, waited_epochs=state.waited_epochs + 1)
        return replace(state, factor=max(state.factor * self.factor, self.minimum_factor), waited_epochs=0)


SCHEDULES: dict[str, type[Schedule]] = {
    schedule.name: schedule for schedule in (Constant, StepDecay, Exponential, Cosine, OneCycle, ReduceOnPlateau)
}


def make_schedule(name: str, settings: Mapping[str, float]) -> Schedule:
    """The schedule of a name with its settings; with "warmup_steps" above 0, which each takes, behind a WarmUp.

    Raises SettingError for what is unknown ("schedule.name", "schedule.every_step"), missing or out of range."""
    own = {setting: value for setting, value in settings.items() if setting != "warmup_steps"}
    schedule = make("schedule", SCHEDULES, name, own, elsewhere=("warmup_steps",))
    warmup_steps = whole(settings.get("warmup_steps", 0))
    check_count(warmup_steps, setting="schedule.warmup_steps", at_least=0)
    return WarmUp(int(warmup_steps), schedule) if warmup_steps else schedule


def plateau_of(schedule: Schedule) -> ReduceOnPlateau | None:
    """The ReduceOnPlateau in a schedule, also behind a warm-up: whoever trains keeps its state."""
    while isinstance(schedule, WarmUp):
        schedule = schedule.then
    return schedule if isinstance(schedule, ReduceOnPlateau) else None


def _half_cosine(start: float, end: float, progress: float) -> float:
    """From start, at progress 0, to end, at progress 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
