"""The four-layer network's step written by hand in numpy: loss, gradient in one flat vector, plain SGD."""

from __future__ import annotations

import numpy as np
from measuring import LEARNING_RATE, first_parameters, shapes
from numpy.typing import NDArray

Array = NDArray[np.float32]
# Elements of the vector that stay in the cache between the product and the difference of an update.
BLOCK = 1 << 16
ONE = np.float32(1)


class NumpyNetwork:
    """The network over `rows` rows at a time; all arrays are there from the start, the step allocates none."""

    def __init__(self, *, rows: int, features: int, hidden: int) -> None:
        sizes = [int(np.prod(shape)) for shape in shapes(features, hidden)]
        self.parameters = np.concatenate([value.ravel() for value in first_parameters(features, hidden)])
        self.gradient = np.empty_like(self.parameters)
        self._scratch = np.empty(BLOCK, np.float32)
        ends = np.cumsum(sizes)
        bounds = list(zip(ends - sizes, ends, shapes(features, hidden), strict=True))
        self._values = [self.parameters[start:end].reshape(shape) for start, end, shape in bounds]
        self._gradients = [self.gradient[start:end].reshape(shape) for start, end, shape in bounds]
        self._activations = [np.empty((rows, width), np.float32) for width in (features, hidden, hidden, hidden)]
        self._deltas = [np.empty((rows, hidden), np.float32) for _ in range(3)]
        self._slope = np.empty((rows, hidden), np.float32)
        self._difference = np.empty(rows, np.float32)

    def compute(self, x: Array, y: Array) -> Array:
        """The gradient of the mean loss over the rows, in `self.gradient`."""
        *matrices, w = self._values
        *matrix_gradients, w_gradient = self._gradients
        a, delta = self._activations, self._deltas
        _sigmoid(x, a[0])
        for layer, v in enumerate(matrices):
            a[layer].dot(v.T, a[layer + 1])
            _sigmoid(a[layer + 1], a[layer + 1])
        difference = a[3].dot(w, self._difference)
        difference -= y
        difference *= np.float32(2 / len(y))
        difference.dot(a[3], w_gradient)
        np.multiply(difference[:, None], w, out=delta[2])
        for layer in (2, 1, 0):
            np.subtract(ONE, a[layer + 1], out=self._slope)
            self._slope *= a[layer + 1]
            delta[layer] *= self._slope
            delta[layer].T.dot(a[layer], matrix_gradients[layer])
            if layer:
                delta[layer].dot(matrices[layer], delta[layer - 1])
        return self.gradient

    def apply(self, gradient: Array, scale: float = 1.0) -> None:
        """θ ← θ - rate · scale · gradient."""
        descend(self.parameters, gradient, LEARNING_RATE * scale, self._scratch)


def descend(parameters: Array, gradient: Array, rate: float, scratch: Array) -> None:
    """θ ← θ - rate · g, in blocks as large as `scratch`."""
    factor = np.float32(rate)
    block = len(scratch)
    for start in range(0, len(parameters), block):
        part = parameters[start : start + block]
        np.multiply(gradient[start : start + block], factor, out=scratch[: len(part)])
        np.subtract(part, scratch[: len(part)], out=part)


def _sigmoid(x: Array, out: Array) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += ONE
    np.divide(ONE, out, out=out)
