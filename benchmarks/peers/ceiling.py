"""The ceiling: this engine's plan in worker processes that exchange nothing.

Each computes its part of the batch and makes the step with its own gradient.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from measuring import LEARNING_RATE, arguments, first_parameters, report, rows_of
from numpy_network import BLOCK, descend

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter
from chainrule_engine.plan import TrainingPlan

START_TIMEOUT_S = 60.0


def work(rank: int, options: argparse.Namespace, barrier: Barrier, answer: Connection) -> None:
    """One worker: sends the times of its steps after the warm-up, and when the first had ended."""
    features, hidden = options.features, options.hidden
    shapes = {"V1": (hidden, features), "V2": (hidden, hidden), "V3": (hidden, hidden), "w": (hidden,)}
    model = Model.build(
        loss="(w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x)))) - y)**2",
        functions={"phi": "sigmoid"},
        parameters=[Parameter(name, shape) for name, shape in shapes.items()],
        inputs=[Input("x", (features,)), Input("y", ())],
    )
    plan = TrainingPlan(model, options.rows, backend=options.backend)
    parameters = np.concatenate([value.ravel() for value in first_parameters(features, hidden)])
    gradient = np.empty_like(parameters)
    scratch = np.empty(BLOCK, np.float32)
    batches = [{"x": x, "y": y} for x, y in rows_of(rank, rows=options.rows, features=features)]
    times_s = []
    first_step_at_s = 0.0
    barrier.wait(START_TIMEOUT_S)
    for step in range(options.warm_up + options.steps):
        started_s = time.perf_counter()
        plan.gradient(parameters, batches[step % len(batches)], gradient)
        descend(parameters, gradient, LEARNING_RATE / options.rows, scratch)
        times_s.append(time.perf_counter() - started_s)
        first_step_at_s = first_step_at_s or time.time()
    answer.send((times_s[options.warm_up :], first_step_at_s))


def main() -> None:
    """Run the workers and report the mean of their median steps."""
    options = arguments(__doc__, ("--backend", {"default": "numpy", "help": "of the plan; numpy or numba"}))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(options.workers)
    pipes = [context.Pipe(duplex=False) for _ in range(options.workers)]
    processes = [
        context.Process(target=work, args=(rank, options, barrier, sender), daemon=True)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    answers = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join(START_TIMEOUT_S)
    # Nobody waits for anybody, so each worker has a rate of its own.
    rate = sum(options.rows / statistics.median(times_s) for times_s, _ in answers)
    report(
        batch=options.batch,
        times_s=[options.batch / rate] * options.steps,
        first_step_at_s=max(at_s for _, at_s in answers),
    )


if __name__ == "__main__":
    main()
