"""Ray's parameter server as its documentation shows it, synchronous, with numpy workers.

https://docs.ray.io/en/latest/ray-core/examples/plot_parameter_server.html
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from measuring import LEARNING_RATE, arguments, report, rows_of
from numpy_network import NumpyNetwork, descend


@ray.remote
class ParameterServer:
    """Holds the parameters."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = np.array(parameters)
        self.scratch = np.empty(1 << 16, np.float32)

    def apply_gradients(self, *gradients: Any) -> Any:
        """Make the step of the mean gradient; the new parameters."""
        total = gradients[0] + gradients[1] if len(gradients) == 2 else np.sum(gradients, axis=0)
        descend(self.parameters, total, LEARNING_RATE / len(gradients), self.scratch)
        return self.parameters


@ray.remote
class Worker:
    """Computes gradients of its rows."""

    def __init__(self, rank: int, rows: int, features: int, hidden: int) -> None:
        self.network = NumpyNetwork(rows=rows, features=features, hidden=hidden)
        self.batches = rows_of(rank, rows=rows, features=features)
        self.step = 0

    def compute_gradients(self, parameters: Any) -> Any:
        """The gradient of the next batch's mean loss."""
        self.network.parameters[:] = parameters
        self.step += 1
        return self.network.compute(*self.batches[self.step % len(self.batches)])


def main() -> None:
    """Run and report."""
    options = arguments(__doc__)
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    ray.init(
        num_cpus=options.workers + 1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
        object_store_memory=1 << 30,
    )  # fmt: skip
    first = NumpyNetwork(rows=1, features=options.features, hidden=options.hidden).parameters
    server = ParameterServer.remote(first)
    workers = [Worker.remote(rank, options.rows, options.features, options.hidden) for rank in range(options.workers)]
    parameters = ray.put(first)
    times_s = []
    first_step_at_s = 0.0
    for _ in range(options.warm_up + options.steps):
        started_s = time.perf_counter()
        gradients = [worker.compute_gradients.remote(parameters) for worker in workers]
        parameters = server.apply_gradients.remote(*gradients)
        ray.wait([parameters])
        times_s.append(time.perf_counter() - started_s)
        first_step_at_s = first_step_at_s or time.time()
    report(batch=options.batch, times_s=times_s[options.warm_up :], first_step_at_s=first_step_at_s)
    ray.shutdown()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
