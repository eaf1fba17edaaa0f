"""Graphs compiled for one number of rows: the speed of the engine.

`trace` records the arithmetic of the operations, `lowering` follows a graph forward and backward, `products` finds the
BLAS call of a product, `memory` places the temporaries, `code` writes straight-line Python, `plans` is what others use.
"""

from __future__ import annotations

from chainrule_engine.plan.executable import BACKENDS, check_backend
from chainrule_engine.plan.plans import EvaluationPlan, PredictionPlan, TrainingPlan

__all__ = ["BACKENDS", "EvaluationPlan", "PredictionPlan", "TrainingPlan", "check_backend"]
