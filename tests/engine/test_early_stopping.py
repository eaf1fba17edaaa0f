"""Early stopping: when it stops, what it calls best, and a state that JSON holds."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule_engine.early_stopping import EarlyStopping, EarlyStoppingState
from chainrule_engine.errors import SettingError


def after(losses: list[float], rule: EarlyStopping) -> EarlyStoppingState:
    """The state once it says stop, or after all losses; through JSON at every epoch."""
    state = EarlyStoppingState()
    for epoch, loss in enumerate(losses, start=1):
        state = rule.observe(state, loss, epoch)
        state = EarlyStoppingState(**json.loads(json.dumps(asdict(state), allow_nan=False)))
        if state.should_stop:
            break
    return state


def test_it_stops_patience_epochs_after_the_best() -> None:
    rule = EarlyStopping(patience_epochs=2)
    assert after([3.0, 2.0, 2.5], rule) == EarlyStoppingState(2.0, 2, should_stop=False)
    assert after([3.0, 2.0, 2.5, 2.0], rule) == EarlyStoppingState(2.0, 2, should_stop=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5))
def test_the_best_is_the_first_lowest_loss_seen(losses: list[float], patience: int) -> None:
    state = EarlyStoppingState()
    for epoch, loss in enumerate(losses, start=1):
        state = EarlyStopping(patience_epochs=patience).observe(state, loss, epoch)
    assert state.best_loss == min(losses)
    assert state.best_epoch == losses.index(min(losses)) + 1


@given(st.integers(1, 5), st.integers(0, 20))
def test_a_loss_that_falls_every_epoch_never_stops(patience: int, epochs: int) -> None:
    assert not after([1 / (epoch + 1) for epoch in range(epochs)], EarlyStopping(patience)).should_stop


def test_an_improvement_of_no_more_than_min_delta_does_not_count() -> None:
    rule = EarlyStopping(patience_epochs=2, min_delta=0.5)
    assert after([2.0, 1.75, 1.5], rule) == EarlyStoppingState(2.0, 1, should_stop=True)
    assert after([2.0, 1.75, 1.25], rule) == EarlyStoppingState(1.25, 3, should_stop=False)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_no_improvement(wrong: float) -> None:
    rule = EarlyStopping(patience_epochs=2)
    assert after([1.0, wrong, wrong], rule) == EarlyStoppingState(1.0, 1, should_stop=True)
    assert after([wrong, 1.0, wrong], rule) == EarlyStoppingState(1.0, 2, should_stop=False)
    assert after([wrong, wrong], rule) == EarlyStoppingState(None, None, should_stop=True)


def test_epochs_without_a_validation_still_pass() -> None:
    rule = EarlyStopping(patience_epochs=10)
    state = rule.observe(EarlyStoppingState(), 1.0, 5)
    assert not rule.observe(state, 2.0, 10).should_stop
    assert rule.observe(state, 2.0, 15).should_stop


@pytest.mark.parametrize(
    ("patience", "min_delta", "message"),
    [
        (0, 0.0, "early_stopping.patience_epochs: must be a whole number of at least 1, got 0"),
        (1.5, 0.0, "early_stopping.patience_epochs: must be a whole number of at least 1, got 1.5"),
        (3, -1.0, "early_stopping.min_delta: must be at least 0, got -1"),
        (3, math.nan, "early_stopping.min_delta: must be at least 0, got nan"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(patience: int, min_delta: float, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        EarlyStopping(patience, min_delta)
    assert str(caught.value) == message
