"""Graphs compiled for one number of rows: the speed of the engine.

`trace` records the arithmetic of the operations, `lowering` follows a graph forward and backward, `products` finds the
BLAS call of a product, `memory` places the temporaries, `numpy_program` writes straight-line Python. `plans` is what
others use for training, `row_plans` for what a model says of a row.
"""

from __future__ import annotations

from chainrule_engine.plan.executable import BACKENDS, check_backend
from chainrule_engine.plan.plans import EvaluationPlan, TrainingPlan
from chainrule_engine.plan.row_plans import PredictionPlan, row_values

__all__ = ["BACKENDS", "EvaluationPlan", "PredictionPlan", "TrainingPlan", "check_backend", "row_values"]
