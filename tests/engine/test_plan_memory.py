"""A plan's memory is free as soon as nobody holds the plan: no part of it waits for a full collection."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from chainrule_engine.plan import BACKENDS, EvaluationPlan, PredictionPlan, TrainingPlan
from chainrule_engine.reduction import Subtree
from tests.engine.random_formulas import Case, cases
from tests.engine.test_microbatch import computer_of, model_of
from tests.garbage import left_behind

RANDOMNESS = (1, 2, 3)


@settings(max_examples=20, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(case=cases(normalization=True, depth=4))
def test_no_plan_of_any_formula_holds_itself(case: Case) -> None:
    def compute() -> None:
        gradient = np.empty(case.model.layout.size, np.float32)
        plan = TrainingPlan(case.model, case.row_count)
        plan.gradient(case.parameters, case.inputs, gradient, randomness=RANDOMNESS)
        announced: list[tuple[int, int]] = []
        final = lambda *found: announced.append(found)  # noqa: E731
        plan.gradient(case.parameters, case.inputs, gradient, randomness=RANDOMNESS, final=final)
        statistics = np.ones(case.model.statistics.size)
        EvaluationPlan(case.model, case.row_count).evaluate(case.parameters, case.inputs, statistics)
        if case.model.prediction is not None:
            PredictionPlan(case.model, case.row_count).predict(case.parameters, case.inputs, statistics)

    assert left_behind(compute) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_computes_a_job_holds_nothing_of_itself(backend: str) -> None:
    if backend == "numba" and find_spec("numba") is None:
        pytest.skip("numba, the optional backend, is not installed")

    def compute() -> None:
        computer = computer_of(model_of(), backend=backend)
        computer.gradient(Subtree(0, 8), step=1, parameters=np.ones(computer.model.layout.size, np.float32))

    assert left_behind(compute) == []
