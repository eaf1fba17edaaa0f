"""The numba backend computes what the interpreter does, repeats itself, and leaves large arrays to numpy."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import TrainingPlan
from tests.engine.random_formulas import Case, cases
from tests.engine.test_random_formulas import RANDOMNESS, assert_close_in_float32, interpreted

# Looked for and not loaded: every process collects these tests, and one runs them.
pytestmark = pytest.mark.skipif(find_spec("numba") is None, reason="numba, the optional backend, is not installed")


@settings(max_examples=6, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(case=cases(normalization=True, depth=4))
def test_compiled_loops_compute_what_the_interpreter_does(case: Case, tried: Counter[str]) -> None:
    plan = TrainingPlan(case.model, case.row_count, backend="numba")
    assume("for i" in plan.source)
    gradient = np.full(case.model.layout.size, np.nan, np.float32)
    loss = plan.gradient(case.parameters, case.inputs, gradient, randomness=RANDOMNESS)
    exact, single = interpreted(case, np.float64), interpreted(case, np.float32)
    assume(np.isfinite(exact.gradient).all() and np.isfinite(single.gradient).all())
    assert_close_in_float32(case, plan.row_losses, single.row_losses, exact.row_losses, "loss", scale=exact.largest_f)
    assert_close_in_float32(case, gradient, single.gradient, exact.gradient, "gradient", scale=exact.largest_g)
    again = np.empty(case.parameters.size + 3, np.float32)[3:]
    assert plan.gradient(case.parameters, case.inputs, again, randomness=RANDOMNESS) == loss
    assert again.tobytes() == gradient.tobytes()
    tried["numba == interpreter"] += 1


def test_a_large_network_is_left_to_numpy() -> None:
    model = Model.build(
        loss="(w @ sigmoid(V @ x) - y)**2",
        parameters=[Parameter("V", (256, 256)), Parameter("w", (256,))],
        inputs=[Input("x", (256,)), Input("y", ())],
    )
    small = Model.build(
        loss="(w @ sigmoid(V @ x) - y)**2",
        parameters=[Parameter("V", (8, 4)), Parameter("w", (8,))],
        inputs=[Input("x", (4,)), Input("y", ())],
    )
    assert ".dot(" in TrainingPlan(model, 64, backend="numba").source
    assert ".dot(" not in TrainingPlan(small, 2, backend="numba").source
