"""Update rules against PyTorch's, in any cutting into ranges, in place and beside."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.errors import SettingError
from chainrule_engine.optimizers import OPTIMIZERS, Adam, Step, UpdateRule, make_optimizer
from chainrule_engine.parameters import Vector

NAMES = sorted(OPTIMIZERS)
# For each rule the settings that are tried, and what PyTorch calls the same.
SAME_IN_TORCH = [
    ("sgd", {}, "SGD", {}),
    ("momentum", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    ("nesterov", {"momentum": 0.8}, "SGD", {"momentum": 0.8, "nesterov": True}),
    ("adagrad", {"epsilon": 1e-7}, "Adagrad", {"eps": 1e-7}),
    ("rmsprop", {"decay": 0.97, "epsilon": 1e-6}, "RMSprop", {"alpha": 0.97, "eps": 1e-6}),
    ("adam", {}, "Adam", {}),
    ("adam", {"beta1": 0.7, "beta2": 0.9, "epsilon": 1e-3}, "Adam", {"betas": (0.7, 0.9), "eps": 1e-3}),
    ("adam", {"beta1": 0.0}, "Adam", {"betas": (0.0, 0.999)}),
    ("adamw", {"weight_decay": 0.1}, "AdamW", {"weight_decay": 0.1}),
    ("adamw", {"weight_decay": 0.0}, "Adam", {}),
]


def gradients(count: int, *, size: int, seed: int = 0) -> list[Vector]:
    """Gradients of very different sizes, some elements zero."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.uniform(-3, 2, size)
    scale[::7] = 0
    return [(random.standard_normal(size) * scale).astype(np.float32) for _ in range(count)]


def first_parameters(size: int) -> Vector:
    return np.random.default_rng(1).standard_normal(size).astype(np.float32)


def trained(
    rule: UpdateRule,
    steps: list[Vector],
    *,
    cuts: tuple[int, ...] = (),
    in_place: bool = False,
    learning_rate: float = 0.05,
) -> tuple[Vector, dict[str, Vector]]:
    """The parameters and the state after the steps, each step done range by range."""
    size = steps[0].size
    parameters = first_parameters(size)
    state = {name: np.zeros(size, np.float32) for name in rule.state_names}
    for step, gradient in enumerate(steps, start=1):
        out = parameters if in_place else np.full(size, np.nan, np.float32)
        out_state = state if in_place else {name: np.full(size, np.nan, np.float32) for name in rule.state_names}
        scratch = np.full((rule.scratch_rows, size), np.nan, np.float32)
        for first, stop in itertools.pairwise((0, *sorted(cuts), size)):
            part = slice(first, stop)
            rule.update(
                Step(
                    step,
                    learning_rate,
                    parameters[part],
                    gradient[part],
                    {name: vector[part] for name, vector in state.items()},
                    out[part],
                    {name: vector[part] for name, vector in out_state.items()},
                    scratch[:, part],
                )
            )
        parameters, state = out, out_state
    return parameters, state


def bits(result: tuple[Vector, dict[str, Vector]]) -> list[bytes]:
    return [vector.tobytes() for vector in (result[0], *result[1].values())]


@pytest.mark.parametrize(("name", "settings", "torch_name", "torch_settings"), SAME_IN_TORCH)
def test_thirty_steps_are_those_of_pytorch(
    name: str, settings: dict[str, float], torch_name: str, torch_settings: dict[str, object]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the referee of the update rules")
    steps = gradients(30, size=200)
    parameters, _ = trained(make_optimizer(name, settings), steps, learning_rate=0.01)
    theirs = torch.nn.Parameter(torch.from_numpy(first_parameters(200)))
    optimizer = getattr(torch.optim, torch_name)([theirs], lr=0.01, **torch_settings)
    for gradient in steps:
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    np.testing.assert_allclose(parameters, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_sgd_is_exactly_parameters_minus_learning_rate_times_gradient() -> None:
    [gradient] = gradients(1, size=1000)
    parameters, _ = trained(make_optimizer("sgd", {}), [gradient], learning_rate=0.1)
    assert parameters.tobytes() == (first_parameters(1000) - np.float32(0.1) * gradient).tobytes()


@pytest.mark.parametrize("name", NAMES)
@given(cuts=st.sets(st.integers(0, 100), max_size=8), seed=st.integers(0, 1000))
def test_any_cutting_into_ranges_gives_the_same_bits(name: str, cuts: set[int], seed: int) -> None:
    rule, steps = make_optimizer(name, {}), gradients(3, size=100, seed=seed)
    assert bits(trained(rule, steps, cuts=tuple(cuts))) == bits(trained(rule, steps))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_place_gives_the_same_bits_as_into_a_second_buffer(name: str) -> None:
    rule, steps = make_optimizer(name, {}), gradients(20, size=333)
    assert bits(trained(rule, steps, in_place=True)) == bits(trained(rule, steps))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_into_a_second_buffer_changes_nothing_that_it_reads(name: str) -> None:
    rule = make_optimizer(name, {})
    read = [first_parameters(50), gradients(1, size=50)[0]]
    state = {kept: np.full(50, 0.5, np.float32) for kept in rule.state_names}
    for vector in (*read, *state.values()):
        vector.setflags(write=False)
    out, scratch = np.empty(50, np.float32), np.empty((rule.scratch_rows, 50), np.float32)
    out_state = {kept: np.empty(50, np.float32) for kept in rule.state_names}
    rule.update(Step(1, 0.1, *read, state, out, out_state, scratch))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_allocates_no_vector(name: str) -> None:
    size = 200_000
    rule, vectors = make_optimizer(name, {}), gradients(2, size=size)
    state = {kept: np.zeros(size, np.float32) for kept in rule.state_names}
    scratch = np.empty((rule.scratch_rows, size), np.float32)
    tracemalloc.start()
    rule.update(Step(1, 0.1, *vectors, state, vectors[0], state, scratch))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"adamw"}))
def test_a_gradient_that_is_always_zero_moves_nothing(name: str) -> None:
    parameters, _ = trained(make_optimizer(name, {}), [np.zeros(10, np.float32)] * 20)
    assert parameters.tobytes() == first_parameters(10).tobytes()


def test_weight_decay_alone_shrinks_the_parameters_by_the_learning_rate_times_it() -> None:
    rule = make_optimizer("adamw", {"weight_decay": 0.5})
    parameters, _ = trained(rule, [np.zeros(10, np.float32)] * 2, learning_rate=0.1)
    np.testing.assert_allclose(parameters, first_parameters(10) * 0.95**2, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_that_is_not_finite_shows_in_the_parameters_or_the_state(name: str) -> None:
    with np.errstate(all="ignore"):
        parameters, state = trained(make_optimizer(name, {}), [np.array([np.inf, np.nan, 1], np.float32)])
    seen = np.isfinite(parameters) & np.all([np.isfinite(vector) for vector in state.values()] or True, axis=0)
    assert seen.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adma", {}, "optimizer.name: unknown optimizer 'adma'; did you mean 'adam'?"),
        ("Adam", {}, "optimizer.name: unknown optimizer 'Adam'; did you mean 'adam'?"),
        ("?", {}, "optimizer.name: unknown optimizer '?'; there is sgd, momentum, nesterov, adagrad, rmsprop"),
        ("adam", {"beta_1": 0.9}, "optimizer.beta_1: is no setting of adam; did you mean 'beta1'?"),
        ("adam", {"name": 1}, "optimizer.name: is no setting of adam; there is beta1, beta2, epsilon"),
        ("adam", {"weight_decay": 0.1}, "optimizer.weight_decay: is no setting of adam"),
        ("sgd", {"momentum": 0.9}, "optimizer.momentum: is no setting of sgd; sgd has none of its own"),
        ("adam", {"beta1": 1.5}, "optimizer.beta1: must be at least 0 and below 1, got 1.5"),
        ("adamw", {"beta2": 1}, "optimizer.beta2: must be at least 0 and below 1, got 1"),
        ("momentum", {"momentum": -0.1}, "optimizer.momentum: must be at least 0 and below 1, got -0.1"),
        ("nesterov", {"momentum": float("nan")}, "optimizer.momentum: must be at least 0 and below 1, got nan"),
        ("rmsprop", {"decay": 1.0}, "optimizer.decay: must be at least 0 and below 1, got 1"),
        ("adagrad", {"epsilon": 0.0}, "optimizer.epsilon: must be at least 1e-30, got 0"),
        (
            "adamw",
            {"weight_decay": float("inf")},
            "optimizer.weight_decay: must be at least 0 and at most 1e+30, got inf",
        ),
        ("adam", {"beta1": True}, "optimizer.beta1: must be at least 0 and below 1, got True"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        make_optimizer(name, settings)
    assert str(caught.value).startswith(message)


def test_a_rule_cannot_be_changed_once_it_is_made() -> None:
    rule = Adam(beta1=0.8)
    with pytest.raises(FrozenInstanceError):
        rule.beta1 = 0.9  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_every_docstring_gives_a_formula_and_a_source(name: str) -> None:
    text = OPTIMIZERS[name].__doc__ or ""
    assert "θ ← " in text
    assert "Source: " in text
    assert OPTIMIZERS[name].name == name
