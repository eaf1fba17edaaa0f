"""The first values of the parameters.

Each parameter has a generator of its own, keyed by the seed and its name, so its values don't depend on which other
parameters there are. fan_in and fan_out of a matrix (out, in), as in V @ x, are its columns and rows; a vector (in,),
as in w @ h, counts as (1, in), and a scalar as (1, 1).

An initializer is written as its name, or with its one number in brackets, named or not:
"he_normal", "normal(std=0.01)", "normal(0.01)", "constant(1)", "glorot_uniform(gain=4)".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from chainrule_engine.errors import SettingError
from chainrule_engine.graph import Graph, Node
from chainrule_engine.parameters import ParameterLayout, Vector
from chainrule_engine.randomness import generator
from chainrule_engine.settings import check_number, hint

Shape = tuple[int, ...]
Draw = Callable[[Shape, np.random.Generator, float], NDArray[np.float64]]


@dataclass(frozen=True)
class Initializer:
    """A way to draw first values: `draw(shape, random, number)` gives them in float64.

    number: the name of the number in brackets, "" where there is none. default: its value where it isn't written; None:
    it must be. least: the smallest value it can have."""

    draw: Draw
    number: str = "gain"
    default: float | None = 1.0
    least: float | None = 0.0


def fans(shape: Shape) -> tuple[int, int]:
    """fan_in and fan_out: how many inputs one output sums over, and how many outputs one input goes to."""
    fan_in = shape[-1] if shape else 1
    return fan_in, math.prod(shape[:-1])


def _uniform(bound: Callable[[int, int], float]) -> Draw:
    def draw(shape: Shape, random: np.random.Generator, number: float) -> NDArray[np.float64]:
        # 2u - 1 is exact: one rounding only, so these are the same bits everywhere.
        return np.asarray((2 * random.random(shape) - 1) * (number * bound(*fans(shape))))

    return draw


def _normal(deviation: Callable[[int, int], float]) -> Draw:
    def draw(shape: Shape, random: np.random.Generator, number: float) -> NDArray[np.float64]:
        return np.asarray(random.standard_normal(shape) * (number * deviation(*fans(shape))))

    return draw


def _orthogonal(shape: Shape, random: np.random.Generator, gain: float) -> NDArray[np.float64]:
    """gain times a random matrix whose rows are orthonormal, or its columns where it has more rows than columns."""
    fan_in, fan_out = fans(shape)
    normal = random.standard_normal((max(fan_in, fan_out), min(fan_in, fan_out)))
    # With one thread the factors' roundings don't depend on how many LAPACK would have.
    with threadpool_limits(limits=1, user_api="blas"):
        q, r = np.linalg.qr(normal)
    # The signs of R's diagonal are LAPACK's choice; with them positive, Q is unique and uniformly distributed.
    q = q * np.where(np.diagonal(r) < 0, -gain, gain)
    return (q if fan_out >= fan_in else q.T).reshape(shape)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": Initializer(lambda shape, _random, _number: np.zeros(shape), number="", default=0.0),
    "constant": Initializer(
        lambda shape, _random, value: np.full(shape, value), number="value", default=None, least=None
    ),
    "normal": Initializer(_normal(lambda _fan_in, _fan_out: 1.0), number="std"),
    # From -bound to bound.
    "uniform": Initializer(_uniform(lambda _fan_in, _fan_out: 1.0), number="bound"),
    # Variance 2 / (fan_in + fan_out). Source: Glorot & Bengio 2010.
    "glorot_uniform": Initializer(_uniform(lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out)))),
    "glorot_normal": Initializer(_normal(lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)))),
    # Variance 2 / fan_in. Source: He et al. 2015 (arXiv:1502.01852).
    "he_uniform": Initializer(_uniform(lambda fan_in, _fan_out: math.sqrt(6 / fan_in))),
    "he_normal": Initializer(_normal(lambda fan_in, _fan_out: math.sqrt(2 / fan_in))),
    # Variance 1 / fan_in. Source: LeCun et al. 1998, "Efficient BackProp".
    "lecun_uniform": Initializer(_uniform(lambda fan_in, _fan_out: math.sqrt(3 / fan_in))),
    "lecun_normal": Initializer(_normal(lambda fan_in, _fan_out: math.sqrt(1 / fan_in))),
    # Source: Saxe, McClelland & Ganguli 2014 (arXiv:1312.6120).
    "orthogonal": Initializer(_orthogonal),
}

# Four times for the sigmoid, because its slope at 0 is a quarter of that of tanh (Glorot & Bengio 2010).
_DEFAULTS = {
    "sigmoid": "glorot_uniform(gain=4)",
    **dict.fromkeys(("relu", "leaky_relu", "silu", "gelu", "softplus"), "he_normal"),
}
# Between a product and its activation these may stand.
_PASSED = ("add", "subtract", "negative", "layer_norm", "batch_norm", "dropout")


def default_for(activation: str | None) -> str:
    """The initializer of a matrix whose product goes into an activation; None: into none, as in a last layer.

    He's for the family of relu, which passes on half of what it gets; Glorot's for sigmoid, tanh and all others."""
    return _DEFAULTS.get(activation or "", "glorot_uniform")


def initialize(layout: ParameterLayout, seed: int, *, default: Mapping[str, str]) -> Vector:
    """The first parameters, (n,) float32. default: the initializer of each parameter that names none.

    Raises SettingError, with the path of the parameter, for an initializer that can't be read."""
    vector = np.empty(layout.size, dtype=np.float32)
    for parameter, view in zip(layout.parameters, layout.views(vector).values(), strict=True):
        text = parameter.initializer or default.get(parameter.name, default_for(None))
        draw, number = read_initializer(text, setting=f"model.parameters.{parameter.name}")
        view[...] = draw(parameter.shape, generator("initialize", seed=seed, words=(parameter.name,)), number)
    return vector


def default_initializers(graph: Graph) -> dict[str, str]:
    """For each parameter of a graph the initializer that fits its place.

    A matrix: by the activation that its product goes into. A vector or scalar that is only added to something: zeros.
    One that only multiplies a normalization: ones. Any other: glorot_uniform."""
    consumers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for operand in node.operands:
            consumers.setdefault(operand.index, []).append(node)
    return {parameter.name: _default(parameter, consumers) for parameter in graph.parameters}


def _default(parameter: Node, consumers: Mapping[int, list[Node]]) -> str:
    direct = consumers.get(parameter.index, [])
    if len(parameter.shape) >= 2:
        return default_for(_activation(direct, consumers))
    # A penalty written into the loss, such as 0.01 * (b @ b), is not batched and says nothing of a parameter's place.
    direct = [node for node in direct if node.batched]
    others = [operand.operation for node in direct for operand in node.operands if operand is not parameter]
    if others and all(node.operation in ("add", "subtract") for node in direct) and "parameter" not in others:
        return "zeros"
    if others and all(node.operation == "multiply" for node in direct) and set(others) <= {"layer_norm", "batch_norm"}:
        return "constant(1)"
    return default_for(None)


def _activation(products: list[Node], consumers: Mapping[int, list[Node]]) -> str | None:
    """The first activation that one of the products goes into."""
    waiting = [consumer for product in products for consumer in consumers.get(product.index, [])]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop(0)
        if node.operation in _DEFAULTS:
            return node.operation
        if node.operation == "maximum" and any(
            operand.operation == "constant" and operand.value == 0 for operand in node.operands
        ):
            return "relu"
        if node.operation in _PASSED and node.index not in seen:
            seen.add(node.index)
            waiting += consumers.get(node.index, [])
    return None


_TEXT = re.compile(r"\s*(\w+)\s*(?:\(\s*(?:(\w+)\s*=\s*)?([-+.\w]+)\s*\)\s*)?")


def read_initializer(text: str, *, setting: str) -> tuple[Draw, float]:
    """How to draw, and the number to draw with. setting: where the text is in the job, for the messages.

    Raises SettingError for text that can't be read, an unknown name, or a number that is missing or out of range."""
    match = _TEXT.fullmatch(text)
    name, key, written = match.groups() if match else (text, None, None)
    initializer = INITIALIZERS.get(name)
    shown = repr(text if len(text) <= 60 else text[:60] + "…")
    if initializer is None:
        words = re.split(r"[^\w]", text.strip(), maxsplit=1)[0]
        if words in INITIALIZERS:
            raise SettingError(setting, f"cannot read {shown}; {_ways(words)}")
        raise SettingError(setting, f"unknown initializer {shown}; {hint(words, INITIALIZERS)}")
    if written is None and initializer.default is not None:
        return initializer.draw, initializer.default
    if written is None or not initializer.number or key not in (None, initializer.number):
        raise SettingError(setting, f"cannot read {shown}; {_ways(name)}")
    try:
        number = float(written)
    except ValueError:
        raise SettingError(setting, f"cannot read {shown}; {_ways(name)}") from None
    try:
        check_number(number, setting=setting, at_least=initializer.least)
    except SettingError as error:
        raise SettingError(setting, f"{shown}: {initializer.number} {error.reason}") from None
    return initializer.draw, number


def _ways(name: str) -> str:
    """How an initializer can be written."""
    initializer = INITIALIZERS[name]
    ways = [name] if initializer.default is not None else []
    ways += [f"{name}({initializer.number}=0.5)"] if initializer.number else []
    return f"write {' or '.join(ways)}"
