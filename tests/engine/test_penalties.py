"""L1 and L2: values, gradients, and the same bits in any cutting into ranges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.errors import SettingError
from chainrule_engine.parameters import Vector
from chainrule_engine.penalties import L1, L2, PENALTIES, Penalty, make_penalties

BOTH = [L1(0.3), L2(0.3)]
NAMES = [penalty.name for penalty in BOTH]


def vectors(size: int = 100) -> tuple[Vector, Vector]:
    random = np.random.default_rng(0)
    gradient, parameters = random.standard_normal((2, size)).astype(np.float32)
    parameters[::5] = 0
    return gradient, parameters


def with_penalty(penalty: Penalty, gradient: Vector, parameters: Vector) -> Vector:
    out, scratch = np.empty_like(gradient), np.full_like(gradient, np.nan)
    penalty.add_gradient(gradient, parameters, out=out, scratch=scratch)
    return out


def test_the_values_are_those_of_the_formulas() -> None:
    parameters = np.array([3.0, -4.0, 0.0], np.float32)
    assert L1(0.5).value(parameters) == 0.5 * 7
    assert L2(0.5).value(parameters) == 0.25 * 25


def test_the_gradients_are_those_of_the_formulas() -> None:
    gradient, parameters = np.array([1.0, 1.0, 1.0], np.float32), np.array([3.0, -4.0, 0.0], np.float32)
    assert with_penalty(L1(0.5), gradient, parameters).tolist() == [1.5, 0.5, 1.0]
    assert with_penalty(L2(0.5), gradient, parameters).tolist() == [2.5, -1.0, 1.0]


@pytest.mark.parametrize("penalty", BOTH, ids=NAMES)
def test_the_gradient_is_that_of_pytorchs_autograd(penalty: Penalty) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the referee of the penalties")
    gradient, parameters = vectors()
    theirs = torch.tensor(parameters, requires_grad=True)
    value = theirs.abs().sum() * 0.3 if penalty.name == "l1" else (theirs**2).sum() * 0.15
    value.backward()
    assert penalty.value(parameters) == pytest.approx(value.item(), rel=1e-6)
    np.testing.assert_allclose(
        with_penalty(penalty, gradient, parameters), gradient + theirs.grad.numpy(), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("penalty", BOTH, ids=NAMES)
@given(st.integers(0, 100), st.integers(0, 100))
def test_any_cutting_into_ranges_gives_the_same_bits(penalty: Penalty, first: int, second: int) -> None:
    gradient, parameters = vectors()
    bounds = [0, *sorted((first, second)), 100]
    parts = [
        with_penalty(penalty, gradient[start:stop], parameters[start:stop])
        for start, stop in itertools.pairwise(bounds)
    ]
    assert np.concatenate(parts).tobytes() == with_penalty(penalty, gradient, parameters).tobytes()


@pytest.mark.parametrize("penalty", BOTH, ids=NAMES)
def test_adding_in_place_gives_the_same_bits(penalty: Penalty) -> None:
    gradient, parameters = vectors()
    beside = with_penalty(penalty, gradient, parameters)
    penalty.add_gradient(gradient, parameters, out=gradient, scratch=np.empty_like(gradient))
    assert gradient.tobytes() == beside.tobytes()


def test_penalties_come_in_one_order_however_the_job_writes_them() -> None:
    assert make_penalties({"l2": 0.1, "l1": 0.2}) == make_penalties({"l1": 0.2, "l2": 0.1}) == (L1(0.2), L2(0.1))


def test_a_penalty_of_strength_zero_is_left_out() -> None:
    assert make_penalties({"l1": 0.0, "l2": 0.1}) == (L2(0.1),)
    assert make_penalties({}) == ()


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"elastic": 0.1}, "penalties.elastic: unknown penalty 'elastic'; there is l1, l2"),
        ({"l1": -0.1}, "penalties.l1: must be at least 0, got -0.1"),
        ({"l2": float("nan")}, "penalties.l2: must be at least 0, got nan"),
        ({"l2": 1e39}, "penalties.l2: must be at least 0 and at most 1e+30, got 1e+39"),
    ],
)
def test_a_wrong_penalty_is_refused_by_its_name(strengths: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        make_penalties(strengths)
    assert str(caught.value).startswith(message)


def test_the_table_holds_every_penalty_under_its_name() -> None:
    assert {name: kind.name for name, kind in PENALTIES.items()} == {"l1": "l1", "l2": "l2"}
