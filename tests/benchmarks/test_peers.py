"""The step written by hand computes what the engine computes: otherwise its time would be no comparison."""

from __future__ import annotations

import numpy as np
import pytest
from measuring import rows_of, shapes
from numpy_network import LEARNING_RATE, NumpyNetwork, descend

from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import TrainingPlan

ROWS, FEATURES, HIDDEN = 8, 5, 7


def test_the_numpy_step_has_the_engines_gradient() -> None:
    model = Model.build(
        loss="(w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x)))) - y)**2",
        functions={"phi": "sigmoid"},
        parameters=[
            Parameter(name, shape)
            for name, shape in zip(("V1", "V2", "V3", "w"), shapes(FEATURES, HIDDEN), strict=True)
        ],
        inputs=[Input("x", (FEATURES,)), Input("y", ())],
    )
    x, y = rows_of(0, rows=ROWS, features=FEATURES)[0]
    network = NumpyNetwork(rows=ROWS, features=FEATURES, hidden=HIDDEN)
    expected = np.empty_like(network.parameters)
    TrainingPlan(model, ROWS).gradient(network.parameters, {"x": x, "y": y}, expected)
    np.testing.assert_allclose(network.compute(x, y), expected / ROWS, rtol=1e-4, atol=1e-6)


def test_the_step_in_blocks_is_plain_sgd() -> None:
    network = NumpyNetwork(rows=ROWS, features=FEATURES, hidden=HIDDEN)
    before = network.parameters.copy()
    gradient = np.arange(len(before), dtype=np.float32)
    network.apply(gradient, 0.5)
    np.testing.assert_allclose(network.parameters, before - LEARNING_RATE * 0.5 * gradient, rtol=1e-6)
    parameters = before.copy()
    descend(parameters, gradient, LEARNING_RATE * 0.5, np.empty(10, np.float32))
    assert np.array_equal(parameters, network.parameters)


def test_torchs_network_predicts_the_same() -> None:
    torch = pytest.importorskip("torch", reason="DDP's network is compared where PyTorch is installed")
    from ddp import FourLayers

    x, y = rows_of(0, rows=ROWS, features=FEATURES)[0]
    network = FourLayers(FEATURES, HIDDEN)
    ((network(torch.from_numpy(x)) - torch.from_numpy(y)) ** 2).mean().backward()
    found = np.concatenate([parameter.grad.numpy().ravel() for parameter in network.parameters()])
    ours = NumpyNetwork(rows=ROWS, features=FEATURES, hidden=HIDDEN).compute(x, y)
    np.testing.assert_allclose(found, ours, rtol=1e-4, atol=1e-6)
