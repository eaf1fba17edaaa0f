"""The first values of the parameters.

Each parameter has a generator of its own, keyed by the seed and its name, so its values don't depend on which other
parameters there are. fan_in and fan_out of a matrix (out, in) are its columns and rows; a vector counts as (1, in).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from engine.errors import SettingError
from engine.graph import Graph
from engine.parameters import ParameterLayout, Vector
from engine.randomness import generator

Initializer = Callable[[tuple[int, ...], np.random.Generator, float], NDArray[np.float64]]


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    fan_in = shape[-1] if shape else 1
    return fan_in, math.prod(shape) // fan_in


def _uniform(bound: Callable[[int, int], float]) -> Initializer:
    def draw(shape: tuple[int, ...], random: np.random.Generator, gain: float) -> NDArray[np.float64]:
        limit = gain * bound(*_fans(shape))
        return np.asarray(random.uniform(-limit, limit, shape))

    return draw


def _normal(deviation: Callable[[int, int], float]) -> Initializer:
    def draw(shape: tuple[int, ...], random: np.random.Generator, gain: float) -> NDArray[np.float64]:
        return np.multiply(random.standard_normal(shape), gain * deviation(*_fans(shape)))

    return draw


def _orthogonal(shape: tuple[int, ...], random: np.random.Generator, gain: float) -> NDArray[np.float64]:
    """Orthonormal rows or columns. Source: Saxe, McClelland & Ganguli 2014 (arXiv:1312.6120)."""
    fan_in, fan_out = _fans(shape)
    q, r = np.linalg.qr(random.standard_normal((max(fan_in, fan_out), min(fan_in, fan_out))))
    # The signs of R's diagonal are LAPACK's choice; with them positive, Q is unique.
    q = q * np.sign(np.diagonal(r))
    return np.asarray(np.multiply(gain, q if fan_out >= fan_in else q.T).reshape(shape))


# A name, and in brackets what one number after it means: "glorot_uniform", "normal(0.01)", "glorot_uniform(4)".
INITIALIZERS: dict[str, Initializer] = {
    "zeros": lambda shape, _random, _gain: np.zeros(shape),
    # The number is the value.
    "constant": lambda shape, _random, gain: np.full(shape, gain),
    # The number is the standard deviation.
    "normal": _normal(lambda _fan_in, _fan_out: 1.0),
    # The number is the bound: from -bound to bound.
    "uniform": _uniform(lambda _fan_in, _fan_out: 1.0),
    # For all others the number is a gain that multiplies the values.
    # Glorot & Bengio 2010: variance 2 / (fan_in + fan_out).
    "glorot_uniform": _uniform(lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out))),
    "glorot_normal": _normal(lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    # He et al. 2015 (arXiv:1502.01852): variance 2 / fan_in.
    "he_uniform": _uniform(lambda fan_in, _fan_out: math.sqrt(6 / fan_in)),
    "he_normal": _normal(lambda fan_in, _fan_out: math.sqrt(2 / fan_in)),
    # LeCun et al. 1998, "Efficient BackProp": variance 1 / fan_in.
    "lecun_uniform": _uniform(lambda fan_in, _fan_out: math.sqrt(3 / fan_in)),
    "lecun_normal": _normal(lambda fan_in, _fan_out: math.sqrt(1 / fan_in)),
    "orthogonal": _orthogonal,
}

# The initializer of a parameter whose product goes into an activation; every other parameter has glorot_uniform.
DEFAULTS = {
    # Four times, because the slope of the sigmoid at 0 is a quarter of that of tanh.
    "sigmoid": "glorot_uniform(4)",
    "relu": "he_uniform",
    "leaky_relu": "he_uniform",
    "silu": "he_uniform",
    "gelu": "he_uniform",
    "softplus": "he_uniform",
}


def initialize(layout: ParameterLayout, seed: int, *, default: Mapping[str, str]) -> Vector:
    """The first parameters, (n,) float32. default: the initializer of each parameter that names none.

    Raises SettingError, with the path of the parameter, for an initializer that can't be read."""
    vector = np.empty(layout.size, dtype=np.float32)
    for parameter, view in zip(layout.parameters, layout.views(vector).values(), strict=True):
        text = parameter.initializer or default.get(parameter.name, "glorot_uniform")
        initializer, number = _read(text, setting=f"model.parameters.{parameter.name}")
        random = generator("initialize", seed=seed, words=(parameter.name,))
        view[...] = initializer(parameter.shape, random, number)
    return vector


def default_initializers(graph: Graph) -> dict[str, str]:
    """For each parameter of a graph the initializer that fits the activation which its product goes into."""
    consumers: dict[int, list[str]] = {}
    for node in graph.nodes:
        for operand in node.operands:
            consumers.setdefault(operand.index, []).append(node.operation)
    chosen: dict[str, str] = {}
    for node in graph.nodes:
        for operand in node.operands:
            if operand.operation == "parameter" and len(operand.shape) == 2:
                for activation in consumers.get(node.index, []):
                    if activation in DEFAULTS:
                        chosen.setdefault(operand.name, DEFAULTS[activation])
    return chosen


def _read(text: str, *, setting: str) -> tuple[Initializer, float]:
    match = re.fullmatch(r"\s*([a-z_]+)\s*(?:\(\s*(?:[a-z]+\s*=\s*)?([^()=]+?)\s*\))?\s*", text)
    name, number = match.groups() if match else (text, None)
    if name not in INITIALIZERS:
        near = difflib.get_close_matches(name, INITIALIZERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(INITIALIZERS)}"
        raise SettingError(setting, f"unknown initializer {text!r}; {hint}")
    try:
        value = 1.0 if number is None else float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingError(setting, f"{text!r}: the number in brackets must be finite, for example {name}(0.5)")
    return INITIALIZERS[name], value
