"""Clipping against PyTorch's, and with gradients that are not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.blocks import BLOCK, add_in_order, square_sums
from chainrule_engine.clipping import check_limit, clip_by_global_norm, clip_by_value, global_norm
from chainrule_engine.errors import SettingError
from chainrule_engine.parameters import Vector


def gradient_of(size: int = 1000) -> Vector:
    return (np.random.default_rng(0).standard_normal(size) * 3).astype(np.float32)


def clipped(gradient: Vector, limit: float) -> Vector:
    out = np.empty_like(gradient)
    clip_by_global_norm(gradient, norm=global_norm(gradient), limit=limit, out=out)
    return out


@pytest.mark.parametrize("limit", [0.1, 2.0, 1000.0])
def test_both_ways_are_those_of_pytorch(limit: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the referee of clipping")
    gradient = gradient_of()
    theirs = torch.nn.Parameter(torch.zeros(1000))
    theirs.grad = torch.from_numpy(gradient.copy())
    norm = torch.nn.utils.clip_grad_norm_([theirs], limit)
    assert global_norm(gradient) == pytest.approx(norm.item(), rel=1e-6)
    np.testing.assert_allclose(clipped(gradient, limit), theirs.grad.numpy(), rtol=1e-5)

    theirs.grad = torch.from_numpy(gradient.copy())
    torch.nn.utils.clip_grad_value_([theirs], limit)
    out = np.empty_like(gradient)
    clip_by_value(gradient, limit=limit, out=out)
    assert out.tobytes() == theirs.grad.numpy().tobytes()


def test_a_clipped_gradient_keeps_its_direction_and_has_the_limit_as_norm() -> None:
    gradient = gradient_of()
    result = clipped(gradient, 1.0)
    assert global_norm(result) == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(result * global_norm(gradient), gradient, rtol=1e-5)


@pytest.mark.parametrize("gradient", [gradient_of(), np.zeros(5, np.float32)], ids=["within", "zero"])
def test_a_gradient_within_the_limit_keeps_its_bits(gradient: Vector) -> None:
    assert clipped(gradient, global_norm(gradient) or 1.0).tobytes() == gradient.tobytes()


@given(st.integers(0, 3))
def test_threads_that_share_the_blocks_find_the_same_norm(cut: int) -> None:
    gradient = gradient_of(3 * BLOCK + 5)
    sums = np.concatenate([square_sums(gradient[: cut * BLOCK]), square_sums(gradient[cut * BLOCK :])])
    assert math.sqrt(add_in_order(sums)) == global_norm(gradient)


@given(st.integers(0, 1000))
def test_any_cutting_into_ranges_gives_the_same_bits(cut: int) -> None:
    gradient = gradient_of()
    norm = global_norm(gradient)
    by_norm, by_value = np.empty_like(gradient), np.empty_like(gradient)
    for part in (slice(0, cut), slice(cut, None)):
        clip_by_global_norm(gradient[part], norm=norm, limit=2.0, out=by_norm[part])
        clip_by_value(gradient[part], limit=2.0, out=by_value[part])
    assert by_norm.tobytes() == clipped(gradient, 2.0).tobytes()
    # In place, as a whole: the same again.
    clip_by_value(gradient, limit=2.0, out=gradient)
    assert by_value.tobytes() == gradient.tobytes()


def test_clipping_by_norm_in_place_gives_the_same_bits() -> None:
    gradient = gradient_of()
    beside = clipped(gradient, 2.0)
    clip_by_global_norm(gradient, norm=global_norm(gradient), limit=2.0, out=gradient)
    assert gradient.tobytes() == beside.tobytes()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_clipping_by_norm_leaves_a_gradient_that_is_not_finite_as_it_is(wrong: float) -> None:
    gradient = np.array([1.0, wrong, 5.0], np.float32)
    assert clipped(gradient, 0.1).tobytes() == gradient.tobytes()


def test_clipping_by_value_keeps_nan_and_bounds_infinity() -> None:
    out = np.empty(3, np.float32)
    clip_by_value(np.array([np.nan, np.inf, -np.inf], np.float32), limit=2.0, out=out)
    assert math.isnan(out[0])
    assert out[1:].tolist() == [2.0, -2.0]


@pytest.mark.parametrize(("limit", "shown"), [(0.0, "0"), (-1.0, "-1"), (math.nan, "nan")])
def test_a_limit_that_is_not_above_zero_is_refused(limit: float, shown: str) -> None:
    with pytest.raises(SettingError, match=f"clip_norm: must be above 0, got {shown}"):
        check_limit(limit, setting="training.clip_norm")
