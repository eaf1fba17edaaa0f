"""Learning-rate schedules against PyTorch's, at their ends, and with a state that JSON holds."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.errors import SettingError
from chainrule_engine.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    OneCycle,
    PlateauState,
    ReduceOnPlateau,
    Schedule,
    WarmUp,
    make_schedule,
    plateau_of,
)

BASE = 0.3
TOTAL = 40
NEEDED: dict[str, dict[str, float]] = {"step": {"every_steps": 7}, "exponential": {"factor": 0.9}}
# For each schedule the settings that are tried, and what PyTorch calls the same.
SAME_IN_TORCH: list[tuple[str, dict[str, float], str, dict[str, Any]]] = [
    ("constant", {}, "ConstantLR", {"factor": 1.0}),
    ("step", {"every_steps": 7, "factor": 0.5}, "StepLR", {"step_size": 7, "gamma": 0.5}),
    ("exponential", {"factor": 0.9}, "ExponentialLR", {"gamma": 0.9}),
    ("cosine", {"minimum_factor": 0.1}, "CosineAnnealingLR", {"T_max": TOTAL, "eta_min": 0.1 * BASE}),
    ("one_cycle", {}, "OneCycleLR", {"max_lr": BASE, "total_steps": TOTAL}),
    (
        "one_cycle",
        {"peak_fraction": 0.5, "start_factor": 0.1, "end_factor": 0.001},
        "OneCycleLR",
        {"max_lr": BASE, "total_steps": TOTAL, "pct_start": 0.5, "div_factor": 10, "final_div_factor": 100},
    ),
    ("constant", {"warmup_steps": 9}, "LinearLR", {"start_factor": 0.1, "total_iters": 9}),
]


def rates(schedule: Schedule, total: int = TOTAL) -> list[float]:
    return [schedule.learning_rate(BASE, step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize(("name", "settings", "torch_name", "torch_settings"), SAME_IN_TORCH)
def test_the_rate_of_every_step_is_that_of_pytorch(
    name: str, settings: dict[str, float], torch_name: str, torch_settings: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the referee of the schedules")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = getattr(torch.optim.lr_scheduler, torch_name)(optimizer, **torch_settings)
    theirs = []
    for _ in range(TOTAL):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(theirs) < TOTAL:
            scheduler.step()
    np.testing.assert_allclose(rates(make_schedule(name, settings)), theirs, rtol=1e-9)


@given(st.lists(st.floats(0, 1), max_size=60), st.integers(1, 4), st.sampled_from([0.0, 0.1]))
def test_a_plateau_reduces_where_pytorch_does(losses: list[float], patience: int, min_delta: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the referee of the schedules")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    # Its patience is the number of epochs that are still forgiven.
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=min_delta, threshold_mode="abs", min_lr=0.01, eps=0.0
    )
    plateau = ReduceOnPlateau(factor=0.5, patience_epochs=patience, min_delta=min_delta, minimum_factor=0.01 / BASE)
    state = PlateauState()
    for loss in losses:
        scheduler.step(loss)
        state = plateau.observe(state, loss)
        assert BASE * state.factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("warmup_steps", [0, 1, 3, 10])
@pytest.mark.parametrize("total", [1, 2, 3, 5, 100])
def test_every_rate_is_finite_not_negative_and_never_above_the_base(name: str, warmup_steps: int, total: int) -> None:
    schedule = make_schedule(name, {**NEEDED.get(name, {}), "warmup_steps": warmup_steps})
    found = rates(schedule, total)
    assert all(math.isfinite(rate) and 0 <= rate <= BASE * (1 + 1e-12) for rate in found)
    assert all(isinstance(rate, float) for rate in found)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_steps_after_the_last_have_its_rate(name: str) -> None:
    schedule = make_schedule(name, NEEDED.get(name, {}))
    assert schedule.learning_rate(BASE, TOTAL + 5, TOTAL) == schedule.learning_rate(BASE, TOTAL, TOTAL)


def test_a_warm_up_rises_evenly_to_the_first_rate_of_what_follows() -> None:
    schedule = make_schedule("one_cycle", {"warmup_steps": 4})
    first = OneCycle().learning_rate(BASE, 1, TOTAL - 4)
    np.testing.assert_allclose(rates(schedule)[:5], [first * part / 5 for part in range(1, 6)])
    assert rates(schedule)[4:] == rates(OneCycle(), TOTAL - 4)


def test_a_cycle_of_one_or_two_steps_begins_at_its_peak() -> None:
    assert rates(OneCycle(), 1) == [BASE]
    assert rates(OneCycle(), 2) == pytest.approx([BASE, BASE * 4e-6])


def test_a_plateau_state_survives_json_to_the_bit_at_any_epoch() -> None:
    plateau = ReduceOnPlateau(factor=0.3, patience_epochs=2)
    state = PlateauState()
    for loss in (1 / 3, 0.5, math.nan, 0.1, math.inf, 0.2):
        state = plateau.observe(PlateauState(**json.loads(json.dumps(asdict(state), allow_nan=False))), loss)
    assert state == PlateauState(factor=0.3 * 0.3, best_loss=0.1, waited_epochs=0)


def test_a_loss_that_is_not_finite_is_no_improvement() -> None:
    plateau = ReduceOnPlateau(patience_epochs=5)
    state = plateau.observe(plateau.observe(PlateauState(), math.nan), -math.inf)
    assert state == PlateauState(waited_epochs=2)


def test_a_plateau_is_found_behind_a_warm_up() -> None:
    plateau = ReduceOnPlateau(patience_epochs=3)
    made = make_schedule("reduce_on_plateau", {"patience_epochs": 3.0, "warmup_steps": 2.0})
    assert made == WarmUp(2, plateau)
    assert plateau_of(made) == plateau
    assert plateau_of(WarmUp(2, Cosine())) is None


def test_no_warm_up_steps_mean_no_warm_up() -> None:
    assert make_schedule("constant", {"warmup_steps": 0}) == Constant()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cosinus", {}, "schedule.name: unknown schedule 'cosinus'; did you mean 'cosine'?"),
        ("step", {}, "schedule.every_steps: is missing; step needs it"),
        ("exponential", {}, "schedule.factor: is missing; exponential needs it"),
        ("step", {"every_step": 3}, "schedule.every_step: is no setting of step; did you mean 'every_steps'?"),
        ("step", {"every_steps": 2.5}, "schedule.every_steps: must be a whole number of at least 1, got 2.5"),
        ("step", {"every_steps": 0}, "schedule.every_steps: must be a whole number of at least 1, got 0"),
        ("step", {"every_steps": 3, "factor": 1.1}, "schedule.factor: must be above 0 and at most 1, got 1.1"),
        ("exponential", {"factor": 0}, "schedule.factor: must be above 0 and at most 1, got 0"),
        ("cosine", {"minimum_factor": -1}, "schedule.minimum_factor: must be at least 0 and at most 1, got -1"),
        ("one_cycle", {"peak_fraction": 2}, "schedule.peak_fraction: must be at least 0 and at most 1, got 2"),
        ("reduce_on_plateau", {"factor": 1}, "schedule.factor: must be above 0 and below 1, got 1"),
        ("reduce_on_plateau", {"patience_epochs": 0}, "schedule.patience_epochs: must be a whole number of at least 1"),
        ("cosine", {"warmup_steps": -1}, "schedule.warmup_steps: must be a whole number of at least 0, got -1"),
        ("constant", {"warmup": 3}, "schedule.warmup: is no setting of constant; did you mean 'warmup_steps'?"),
        ("constant", {"speed": 3}, "schedule.speed: is no setting of constant; there is warmup_steps"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        make_schedule(name, settings)
    assert str(caught.value).startswith(message)
