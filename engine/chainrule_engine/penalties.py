"""L1 and L2 penalties on all parameters: a term that is added to the mean loss, and to its gradient.

The gradient's part is element by element, so it has the same bits however the vector is cut into ranges; the value is
summed over fixed blocks. The penalty is added after the reduction, once, and not for each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from chainrule_engine.blocks import add_in_order, magnitude_sums, square_sums
from chainrule_engine.parameters import Vector
from chainrule_engine.settings import check_known, check_number


class Penalty(Protocol):
    """A term added to the mean loss."""

    name: ClassVar[str]

    @property
    def strength(self) -> float:
        """What the term is multiplied by, at least 0."""

    def value(self, parameters: Vector) -> float:
        """The term itself, to be added to the mean loss. parameters: (n,) float32, the whole vector."""

    def add_gradient(self, gradient: Vector, parameters: Vector, *, out: Vector, scratch: Vector) -> None:
        """Write gradient + ∂value/∂parameters to `out`.

        gradient: of the mean loss. All are (n,) float32, or the same range of each. `out` may be `gradient` itself; no
        other two may share memory. scratch: whatever it holds. No vector is allocated."""


@dataclass(frozen=True)
class L1:
    """strength · Σ|p|; its gradient is strength · sign(p), 0 at p = 0.

    It draws parameters to exactly zero. Source: Tibshirani 1996, "Regression shrinkage and selection via the lasso"."""

    strength: float
    name: ClassVar[str] = "l1"

    def __post_init__(self) -> None:
        check_number(self.strength, setting="penalties.l1", at_least=0)

    def value(self, parameters: Vector) -> float:
        """See Penalty."""
        return self.strength * add_in_order(magnitude_sums(parameters))

    def add_gradient(self, gradient: Vector, parameters: Vector, *, out: Vector, scratch: Vector) -> None:
        """See Penalty."""
        np.sign(parameters, out=scratch)
        np.multiply(scratch, np.float32(self.strength), out=scratch)
        np.add(gradient, scratch, out=out)


@dataclass(frozen=True)
class L2:
    """strength / 2 · Σp²; its gradient is strength · p.

    Source: Hoerl & Kennard 1970, "Ridge regression". The half makes `strength` the weight decay of plain SGD; under
    Adam the two differ, see chainrule_engine.optimizers.AdamW."""

    strength: float
    name: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        check_number(self.strength, setting="penalties.l2", at_least=0)

    def value(self, parameters: Vector) -> float:
        """See Penalty."""
        return self.strength / 2 * add_in_order(square_sums(parameters))

    def add_gradient(self, gradient: Vector, parameters: Vector, *, out: Vector, scratch: Vector) -> None:
        """See Penalty."""
        np.multiply(parameters, np.float32(self.strength), out=scratch)
        np.add(gradient, scratch, out=out)


PENALTIES: dict[str, type[L1] | type[L2]] = {"l1": L1, "l2": L2}


def make_penalties(strengths: Mapping[str, float]) -> tuple[Penalty, ...]:
    """The penalties of a job, such as {"l1": 0.001, "l2": 0.01}: always l1 before l2, and none of strength 0.

    Raises SettingError, with a setting such as "penalties.l2", for an unknown name or a value out of range."""
    check_known(strengths, PENALTIES, kind="penalties", what="penalty")
    # In the table's order: a sum must not depend on how the job is written.
    made = [kind(strengths[name]) for name, kind in PENALTIES.items() if name in strengths]
    return tuple(penalty for penalty in made if penalty.strength > 0)
