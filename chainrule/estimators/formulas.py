"""The `model` table of a job file for a network of fully connected layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LOSSES = {"number": "(prediction - y)**2", "class": "cross_entropy(prediction, y)"}


def layers(hidden: Sequence[int], activation: str, kind: str) -> dict[str, Any]:
    """A network with so many units in each hidden layer; without any it is linear.

    kind: 'number', for one output, or 'class', for one of each class."""
    parameters: dict[str, Any] = {}
    formula, width = "x", "d"
    for number, units in enumerate(hidden, start=1):
        parameters[f"V{number}"] = [units, width]
        parameters[f"b{number}"] = {"shape": [units], "initializer": "zeros"}
        formula, width = f"phi(V{number} @ {formula} + b{number})", str(units)
    outputs = ["k"] if kind == "class" else []
    parameters["w"] = [*outputs, width]
    parameters["b"] = {"shape": outputs, "initializer": "zeros"}
    model = {"prediction": f"w @ {formula} + b", "loss": LOSSES[kind], "parameters": parameters}
    return {**model, "phi": activation} if hidden else model


def own(formula: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A user's table, with the loss that is usual where it has none. Raises ValueError where something is missing."""
    missing = [key for key in ("prediction", "parameters") if not formula.get(key)]
    if missing:
        raise ValueError(
            f"formula has no {' and no '.join(missing)}; give it what the table [model] of a job file has: "
            '{"prediction": "w @ x", "parameters": {"w": ["d"]}}'
        )
    return {"loss": LOSSES[kind], **formula}
