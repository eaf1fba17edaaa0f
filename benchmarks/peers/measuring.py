"""What the peers' programs share: their arguments, the rows, and what they print."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEARNING_RATE = 0.001
# As many batches are held in memory; the steps go through them again and again.
BATCHES = 4


def arguments(description: str | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """The options of a peer."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--batch", type=int, required=True, help="rows of a step, over all workers")
    parser.add_argument("--features", type=int, required=True)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, required=True, help="steps that are timed")
    parser.add_argument("--warm-up", type=int, default=0, help="steps before them; 0: a tenth, from 3 to 50")
    for name, settings in more:
        parser.add_argument(name, **settings)
    options = parser.parse_args()
    options.warm_up = options.warm_up or max(3, min(50, options.steps // 10))
    options.rows = options.batch // options.workers
    return options


def shapes(features: int, hidden: int) -> list[tuple[int, ...]]:
    """Of V1, V2, V3 and w."""
    return [(hidden, features), (hidden, hidden), (hidden, hidden), (hidden,)]


def first_parameters(features: int, hidden: int) -> list[NDArray[np.float32]]:
    """The same on every worker."""
    random = np.random.default_rng(0)
    return [
        random.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)
        for shape in shapes(features, hidden)
    ]


def rows_of(rank: int, *, rows: int, features: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """A worker's part of each batch: features and targets."""
    random = np.random.default_rng(rank + 1)
    return [
        (
            random.standard_normal((rows, features), dtype=np.float32),
            random.standard_normal(rows, dtype=np.float32),
        )
        for _ in range(BATCHES)
    ]


def report(*, batch: int, times_s: Sequence[float], first_step_at_s: float | None = None, **more: Any) -> None:
    """Print the answer as one line of JSON. times_s: of each step. first_step_at_s: when it had ended, time.time()."""
    step_s = statistics.median(times_s)
    started_s = os.environ.get("CHAINRULE_BENCHMARK_STARTED_S")
    answer = {
        "samples_per_second": batch / step_s,
        "samples_per_second_mean": batch * len(times_s) / sum(times_s),
        "step_ms_median": 1000 * step_s,
        "steps": len(times_s),
        **more,
    }
    if first_step_at_s is not None and started_s is not None:
        answer["first_step_s"] = first_step_at_s - float(started_s)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
