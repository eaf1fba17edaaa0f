"""How soon, and with how much memory, hostile formulas and shapes are refused.

    python benchmarks/hostile_formulas.py [--json]

Each must be refused in less than 100 ms and 50 MB; the exit code is 1 where one is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chainrule_engine.definitions import Definition
from chainrule_engine.errors import FormulaError
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter

LIMIT_MS, LIMIT_MB = 100.0, 50.0
FORMULAS = {
    "a million nested brackets": "(" * 1_000_000 + "y" + ")" * 1_000_000,
    "brackets up to the length": "(" * 5_000 + ")" * 5_000,
    "calls in calls": "exp(" * 2_500,
    "nine thousand signs": "-" * 9_000 + "y",
    "huge powers": "9**9**9**9",
    "a tower of powers": "**".join(["9"] * 3_000),
    "a number of 9,000 digits": "9" * 9_000,
    "an import": "__import__('os').system('true')",
    "an attribute": "y.__class__.__mro__",
    "a lambda": "(lambda: y)()",
}
# Thirty functions: the first, and how each of the others calls the one before it.
DEFINITIONS = {
    "2^30 calls alike": ("a", "{0}(a) + {0}(a)"),
    "2^30 calls, no two alike": ("a", "{0}(a + 1) * {0}(a * 2)"),
    "2^30 dropouts": ("dropout(a, 0.5)", "{0}(a) + {0}(a)"),
    "calls in calls in calls": ("a", "{0}({0}({0}({0}(a))))"),
    "large bodies": ("a" + " + a" * 200, "{0}(a + 1) * {0}(a * 2)"),
    "itself": ("a", "f29(a)"),
}
SHAPES = {"a shape of 10^12": (10**6, 10**6), "a shape of 10^300": (10**100, 10**100, 10**100)}


def thirty(first: str, body: str) -> list[Definition]:
    """f0(a) = first, and f1 … f29, each with the one before it in its body."""
    bodies = [first, *(body.format(f"f{number}") for number in range(29))]
    return [Definition(f"f{number}(a)", each) for number, each in enumerate(bodies)]


def refusal(loss: str, shape: tuple[int, ...], definitions: Sequence[Definition] = ()) -> str:
    """The message; raises AssertionError where the model is accepted."""
    try:
        Model.build(
            loss=loss,
            definitions=definitions,
            parameters=[Parameter("V", shape)],
            inputs=[Input("x", (3,)), Input("y", ())],
        )
    except FormulaError as error:
        return str(error)
    raise AssertionError(f"accepted: {loss[:40]}")


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    as_json = parser.parse_args().json
    cases: dict[str, tuple[str, tuple[int, ...], list[Definition]]] = {}
    cases |= {name: (loss, (3, 3), []) for name, loss in FORMULAS.items()}
    cases |= {name: ("sum(V @ x)", shape, []) for name, shape in SHAPES.items()}
    # x is no number, so that also what is small enough to be read is refused.
    cases |= {name: ("f29(x)", (3, 3), thirty(*bodies)) for name, bodies in DEFINITIONS.items()}
    worst = 0.0
    for name, case in cases.items():
        start_s = time.perf_counter()
        message = refusal(*case)
        took_ms = (time.perf_counter() - start_s) * 1e3
        tracemalloc.start()
        refusal(*case)
        peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        worst = max(worst, took_ms / LIMIT_MS, peak_mb / LIMIT_MB)
        if as_json:
            print(json.dumps({"case": name, "took_ms": took_ms, "peak_mb": peak_mb, "message": message[:200]}))
        else:
            print(f"{name:28}{took_ms:8.2f} ms {peak_mb:7.2f} MB  {message[:90]}")
    return 0 if worst < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
