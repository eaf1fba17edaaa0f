"""Graphs compiled for one number of rows: the speed of the engine.

`trace` records the arithmetic of the operations, `lowering` follows a graph forward and backward, `products` finds the
BLAS call of a product, `memory` places the temporaries, `code` writes straight-line Python, `plans` is what others use.
"""

from __future__ import annotations

from engine.plan.plans import BACKENDS, EvaluationPlan, PredictionPlan, TrainingPlan, check_backend

__all__ = ["BACKENDS", "EvaluationPlan", "PredictionPlan", "TrainingPlan", "check_backend"]
