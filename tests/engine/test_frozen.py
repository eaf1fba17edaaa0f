"""Parameters that keep their first values, whatever would move them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule_engine.blocks import BLOCK
from chainrule_engine.clipping import global_norm
from chainrule_engine.model import Input, Model
from chainrule_engine.optimizers import OPTIMIZERS, make_optimizer
from chainrule_engine.parameters import Parameter, ParameterLayout, Vector
from chainrule_engine.penalties import make_penalties
from chainrule_engine.plan import TrainingPlan
from chainrule_engine.reduction import Subtree
from chainrule_engine.synchronous_sgd import ParameterState, UpdateRecipe

ALL_LIMITS: dict[str, Any] = {
    "penalties": make_penalties({"l1": 0.01, "l2": 0.1}),
    "clip_value": 0.5,
    "clip_norm": 0.3,
}


def drawn(size: int, seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)


def trained(size: int, *, steps: int = 4, gradient_scale: float = 1.0, **settings: Any) -> ParameterState:
    """Some steps with gradients that are the same for the same size; frozen elements get `gradient_scale` of them."""
    rule = make_optimizer(settings.pop("rule", "adamw"), {})
    recipe = UpdateRecipe(rule, learning_rate=0.1, total_steps=10, **settings)
    state = ParameterState(recipe, drawn(size, seed=1))
    for step in range(steps):
        gradient = drawn(size, seed=10 + step)
        for start, stop in recipe.frozen:
            gradient[start:stop] *= np.float32(gradient_scale)
        update = state.begin(8, (Subtree(0, 1),))
        update.prepare_all((gradient,))
        state.commit(update)
    return state


@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
@pytest.mark.parametrize("limits", [{}, ALL_LIMITS], ids=["plain", "penalties and clipping"])
def test_a_frozen_element_never_moves_by_a_bit_under_any_rule(rule: str, limits: dict[str, Any]) -> None:
    size, frozen = 2 * BLOCK + 77, ((5, 9), (BLOCK - 3, BLOCK + 40), (2 * BLOCK + 70, 2 * BLOCK + 77))
    state = trained(size, rule=rule, frozen=frozen, **limits)
    first = drawn(size, seed=1)
    moved = state.parameters.view(np.uint32) != first.view(np.uint32)
    for start, stop in frozen:
        assert not moved[start:stop].any()
        moved[start:stop] = True
        assert not any(vector[start:stop].any() for vector in state.state.values())
    assert moved.mean() > 0.99


def test_frozen_elements_do_not_count_in_the_norm_that_clipping_limits() -> None:
    """Free elements go where they would go in a model that has only them."""
    size, free = 1000, 600
    settings: dict[str, Any] = {"rule": "sgd", "clip_norm": 0.01}
    together = trained(size, frozen=((free, size),), gradient_scale=100.0, **settings)
    recipe = UpdateRecipe(make_optimizer("sgd", {}), learning_rate=0.1, total_steps=10, clip_norm=0.01)
    alone = ParameterState(recipe, drawn(size, seed=1)[:free].copy())
    for step in range(4):
        update = alone.begin(8, (Subtree(0, 1),))
        update.prepare_all((np.ascontiguousarray(drawn(size, seed=10 + step)[:free]),))
        alone.commit(update)
    np.testing.assert_allclose(together.parameters[:free], alone.parameters, rtol=1e-6)
    assert global_norm(together.parameters[:free] - drawn(size, seed=1)[:free]) <= 4 * 0.1 * 0.01 * 1.001


def test_a_gradient_that_is_not_finite_does_no_harm_where_it_is_frozen() -> None:
    state = trained(50, frozen=((10, 20),), gradient_scale=float("inf"), **ALL_LIMITS)
    assert np.isfinite(state.parameters).all()


def test_the_plan_spares_what_only_frozen_parameters_need() -> None:
    def model(*frozen: str) -> Model:
        shapes = {"V": (16, 3), "W": (16, 16), "w": (16,)}
        return Model.build(
            loss="(w @ tanh(W @ tanh(V @ x)) - y)**2",
            parameters=[Parameter(name, shape, None, name in frozen) for name, shape in shapes.items()],
            inputs=[Input("x", (3,)), Input("y", ())],
        )

    free, frozen = TrainingPlan(model(), 8), TrainingPlan(model("V", "W"), 8)
    assert frozen.source.count(".dot(") < free.source.count(".dot(")
    inputs = {"x": drawn(24, 2).reshape(8, 3), "y": drawn(8, 3)}
    size = free.model.layout.size
    parameters, expected, found = drawn(size, 4), np.empty(size, np.float32), np.full(size, np.nan, np.float32)
    assert free.gradient(parameters, inputs, expected) == frozen.gradient(parameters, inputs, found)
    views, wanted = frozen.model.layout.views(found), free.model.layout.views(expected)
    assert not views["V"].any()
    assert not views["W"].any()
    np.testing.assert_allclose(views["w"], wanted["w"], rtol=1e-6)


def test_the_ranges_are_those_of_the_frozen_parameters() -> None:
    layout = ParameterLayout.of(
        [Parameter("a", (2, 3), None, True), Parameter("b", ()), Parameter("c", (4,), None, True)]
    )
    assert layout.frozen_ranges == ((0, 6), (7, 11))
