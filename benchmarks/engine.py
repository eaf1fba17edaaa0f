"""One training step of the four-layer network, forward and all gradients, beside its peers on one core.

    python benchmarks/engine.py [--quick] [--json] [--rounds N] [--activation sigmoid|relu]

Each round times every system once, one after the other, so that a busy moment of the machine meets all of them; a
ratio is the median over the rounds of (their time / our time), with the interval that holds the true median with 95 %.
A peer that is not installed is left out, with the reason. `limit` is only the matrix products of the step, into
arrays that are there already.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything loads a BLAS: one thread for everyone, and one core for the whole process.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_variable] = "1"
# The BLAS picks the kernels of this processor, whatever a shell says.
for _variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_variable, None)
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from chainrule_engine.errors import SettingError  # noqa: E402
from chainrule_engine.model import Input, Model  # noqa: E402
from chainrule_engine.parameters import Parameter  # noqa: E402
from chainrule_engine.plan import BACKENDS, TrainingPlan  # noqa: E402

SIZES = [(1, 8, 16), (32, 16, 64), (256, 64, 256), (256, 256, 1024), (1024, 512, 1024), (1024, 1024, 2048)]
FORMULA = "(w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x)))) - y)**2"
Step = Callable[[], Any]
Arrays = dict[str, np.ndarray]


def parameters_of(features: int, hidden: int) -> list[Parameter]:
    """V1, V2, V3 and w."""
    shapes = {"V1": (hidden, features), "V2": (hidden, hidden), "V3": (hidden, hidden), "w": (hidden,)}
    return [Parameter(name, shape) for name, shape in shapes.items()]


def model_of(features: int, hidden: int, activation: str) -> Model:
    """The four-layer network."""
    return Model.build(
        loss=FORMULA,
        functions={"phi": activation},
        parameters=parameters_of(features, hidden),
        inputs=[Input("x", (features,)), Input("y", ())],
    )


def ours(backend: str) -> Callable[[Model, np.ndarray, Arrays, str], tuple[Step, Callable[[], np.ndarray]]]:
    """A plan of this engine."""

    def build(model: Model, parameters: np.ndarray, inputs: Arrays, _: str) -> tuple[Step, Callable[[], np.ndarray]]:
        plan = TrainingPlan(model, len(inputs["y"]), backend=backend)
        out = np.empty_like(parameters)
        return lambda: plan.gradient(parameters, inputs, out), lambda: out

    return build


def torch_eager(model: Model, parameters: np.ndarray, inputs: Arrays, activation: str) -> Any:
    """PyTorch, eager, one thread."""
    import torch

    torch.set_num_threads(1)
    v1, v2, v3, w = leaves = [torch.tensor(v, requires_grad=True) for v in model.layout.views(parameters).values()]
    x, y = torch.tensor(inputs["x"]), torch.tensor(inputs["y"])
    phi = getattr(torch, activation)

    def step() -> Any:
        loss = ((phi(phi(phi(phi(x) @ v1.T) @ v2.T) @ v3.T) @ w - y) ** 2).sum()
        return torch.autograd.grad(loss, leaves)

    return step, lambda: np.concatenate([gradient.numpy().ravel() for gradient in step()])


def jax_jit(model: Model, parameters: np.ndarray, inputs: Arrays, activation: str) -> Any:
    """JAX, the whole gradient under jit; the process is held to one core."""
    import jax
    import jax.numpy as jnp

    phi = jax.nn.sigmoid if activation == "sigmoid" else jax.nn.relu
    leaves = [jnp.asarray(view) for view in model.layout.views(parameters).values()]
    x, y = jnp.asarray(inputs["x"]), jnp.asarray(inputs["y"])

    def loss(v1: Any, v2: Any, v3: Any, w: Any, x: Any, y: Any) -> Any:
        return ((phi(phi(phi(phi(x) @ v1.T) @ v2.T) @ v3.T) @ w - y) ** 2).sum()

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))

    def step() -> Any:
        return jax.block_until_ready(compiled(*leaves, x, y))

    return step, lambda: np.concatenate([np.asarray(gradient).ravel() for gradient in step()[1]])


def hips_autograd(model: Model, parameters: np.ndarray, inputs: Arrays, activation: str) -> Any:
    """HIPS autograd, in float32."""
    import autograd
    import autograd.numpy as anp

    leaves = tuple(model.layout.views(parameters).values())
    x, y = inputs["x"], inputs["y"]
    one = np.float32(1)

    def phi(a: Any) -> Any:
        return one / (one + anp.exp(-a)) if activation == "sigmoid" else anp.maximum(a, np.float32(0))

    def loss(leaves: Any) -> Any:
        v1, v2, v3, w = leaves
        difference = anp.dot(phi(anp.dot(phi(anp.dot(phi(anp.dot(phi(x), v1.T)), v2.T)), v3.T)), w) - y
        return anp.sum(difference * difference)

    gradient = autograd.grad(loss)
    return lambda: gradient(leaves), lambda: np.concatenate([g.ravel() for g in gradient(leaves)])


def gemm_limit(model: Model, parameters: np.ndarray, inputs: Arrays, _: str) -> Any:
    """Only the matrix products of the step."""
    v1, v2, v3, w = model.layout.views(parameters).values()
    x, rows, hidden = inputs["x"], len(inputs["y"]), len(w)
    h1, h2, h3, g1, g2, g3 = (np.ones((rows, hidden), np.float32) for _ in range(6))
    p, gp = np.ones(rows, np.float32), np.ones(rows, np.float32)
    outs = [np.empty_like(v) for v in (v1, v2, v3, w)]
    calls: list[tuple[Any, ...]] = [
        (x.dot, v1.T, h1), (h1.dot, v2.T, h2), (h2.dot, v3.T, h3), (h3.dot, w, p),
        (gp.dot, h3, outs[3]), (g3.T.dot, h2, outs[2]), (g3.dot, v3, g2),
        (g2.T.dot, h1, outs[1]), (g2.dot, v2, g1), (g1.T.dot, x, outs[0]),
    ]  # fmt: skip
    functions = {f"f{i}": call[0] for i, call in enumerate(calls)}
    arrays = {f"a{i}": call[1] for i, call in enumerate(calls)} | {f"o{i}": call[2] for i, call in enumerate(calls)}
    body = "\n    ".join(f"f{i}(a{i}, o{i})" for i in range(len(calls)))
    namespace: dict[str, Any] = functions | arrays
    exec(f"def step():\n    {body}", namespace)  # noqa: S102  (straight-line, as the plan's code)
    return namespace["step"], None


SYSTEMS: dict[str, Callable[..., Any]] = {
    **{f"ours ({backend})": ours(backend) for backend in BACKENDS},
    "torch": torch_eager,
    "jax": jax_jit,
    "autograd": hips_autograd,
    "limit": gemm_limit,
}


def measured(sizes: tuple[int, int, int], activation: str, *, rounds: int, budget_s: float) -> dict[str, Any]:
    """Time every system on one configuration."""
    rows, features, hidden = sizes
    model = model_of(features, hidden, activation)
    rng = np.random.default_rng(0)
    parameters = np.concatenate(
        [rng.normal(0, p.shape[-1] ** -0.5, p.size) for p in model.layout.parameters],
        dtype=np.float32,
        casting="same_kind",
    )
    inputs = {
        "x": rng.normal(size=(rows, features)).astype(np.float32), "y": rng.normal(size=rows).astype(np.float32)
    }  # fmt: skip
    steps: dict[str, Step] = {}
    absent: dict[str, str] = {}
    reference = None
    for name, build in SYSTEMS.items():
        try:
            step, gradient = build(model, parameters, inputs, activation)
        except ImportError as error:
            absent[name] = f"not installed ({error.name})"
            continue
        except SettingError as error:
            absent[name] = error.reason
            continue
        step()
        if gradient is not None:
            found = gradient().copy()
            reference = found if reference is None else reference
            error = np.abs(found - reference).max() / np.abs(reference).max()
            if error > 1e-4:
                raise ArithmeticError(f"{name} computes another gradient: {error:.2e}")
        steps[name] = step
    times_us: dict[str, list[float]] = {name: [] for name in steps}
    repeats = {name: _repeats(step) for name, step in steps.items()}
    round_s = sum(_timed(step, repeats[name]) * repeats[name] for name, step in steps.items()) * 1e-6
    for _ in range(max(20, min(rounds, int(budget_s / round_s)))):
        for name, step in steps.items():
            times_us[name].append(_timed(step, repeats[name]))
    return {
        "rows": rows, "features": features, "hidden": hidden, "activation": activation, "threads": 1,
        "rounds": len(times_us["limit"]), "absent": absent, "times_us": times_us,
    }  # fmt: skip


def _repeats(step: Step) -> int:
    """How many steps make about 5 ms."""
    for _ in range(3):
        step()
    return max(1, int(5_000 / _timed(step, 3)))


def _timed(step: Step, repeats: int) -> float:
    """µs for each of `repeats` steps."""
    start_s = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start_s) / repeats * 1e6


def median_with_interval(values: list[float]) -> tuple[float, float, float]:
    """The median, and order statistics that hold the true one with 95 %."""
    ordered = np.sort(values)
    half = 0.98 * np.sqrt(len(ordered))
    low = max(0, int(np.floor(len(ordered) / 2 - half)))
    high = min(len(ordered) - 1, int(np.ceil(len(ordered) / 2 + half)))
    return float(np.median(ordered)), float(ordered[low]), float(ordered[high])


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """A row for the table: medians, and ratios to ours."""
    times = row.pop("times_us")
    base = times["ours (numpy)"]
    row["median_us"] = {name: float(np.median(values)) for name, values in times.items()}
    row["ratios"] = {
        name: dict(
            zip(("median", "low", "high"), median_with_interval(list(np.divide(values, base))), strict=True)
        )
        for name, values in times.items()
        if name != "ours (numpy)"
    }  # fmt: skip
    return row


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less than a minute: 20 rounds, the first four sizes")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    parser.add_argument("--rounds", type=int, default=200, help="at most so many rounds (20 at least)")
    parser.add_argument("--activation", choices=("sigmoid", "relu"), action="append")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="only the first so many sizes")
    options = parser.parse_args()
    sizes = SIZES[: min(options.sizes, 4 if options.quick else len(SIZES))]
    header_printed = False
    for activation in options.activation or ("sigmoid", "relu"):
        for size in sizes:
            row = summary(
                measured(
                    size,
                    activation,
                    rounds=20 if options.quick else options.rounds,
                    budget_s=2 if options.quick else 30,
                )
            )
            if options.json:
                print(json.dumps(row), flush=True)
                continue
            if not header_printed:
                for name, reason in row["absent"].items():
                    print(f"{name} is left out: {reason}")
                print("µs a step on one core, and in brackets how many times ours (numpy), with its interval")
                header_printed = True
            print(_line(size, activation, row), flush=True)


def _line(size: tuple[int, int, int], activation: str, row: dict[str, Any]) -> str:
    parts = [f"{activation:8}{size!s:18}ours {row['median_us']['ours (numpy)']:10.1f}"]
    for name, ratio in row["ratios"].items():
        time_us = row["median_us"][name]
        parts.append(f"{name} {time_us:.1f} ({ratio['median']:.2f}; {ratio['low']:.2f}–{ratio['high']:.2f})")
    return " | ".join(parts)


if __name__ == "__main__":
    main()
