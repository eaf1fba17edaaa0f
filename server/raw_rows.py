"""Rows as a client sends them, lists of google.protobuf.Value, become what the model sees."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from google.protobuf import struct_pb2
from numpy.typing import NDArray

from server.errors import InvalidRequest
from server.preprocessing import Preprocessing

# More wrong values than this are the same mistake over and over.
MAX_VIOLATIONS = 100
KINDS = {
    "null_value": "null",
    "string_value": "a text",
    "bool_value": "a boolean",
    "struct_value": "an object",
    "list_value": "a list",
    None: "nothing",
}


def read_features(
    rows: Sequence[struct_pb2.ListValue],
    columns: Sequence[str],
    preprocessing: Preprocessing,
    *,
    paths: Sequence[str],
) -> NDArray[np.float32]:
    """Prepared features, (rows, d) float32.

    columns: the features' names in the order of the values; empty: the model's order. paths: of each row.
    Raises InvalidRequest with every wrong value."""
    order = _order_of(columns, preprocessing.feature_names)
    width = len(preprocessing.feature_names)
    raw = np.empty((len(rows), width))
    violations: list[tuple[str, str]] = []
    for number, row in enumerate(rows):
        found = _violations_of(row, width, paths[number])
        if found:
            violations += found
            if len(violations) > MAX_VIOLATIONS:
                break
        else:
            raw[number] = [value.number_value for value in row.values]
    if violations:
        raise InvalidRequest(violations)
    with np.errstate(over="ignore", invalid="ignore"):
        prepared = preprocessing.features_of(raw if order is None else raw[:, order])
    bad = np.argwhere(~np.isfinite(prepared))
    if len(bad):
        raise InvalidRequest(
            [
                (_path(paths[row], column if order is None else order[column]), "is out of the range of float32")
                for row, column in bad[:MAX_VIOLATIONS].tolist()
            ]
        )
    return prepared


def number_of(value: struct_pb2.Value) -> tuple[float, str]:
    """A finite number and '', or 0 and what is wrong with the value."""
    kind = value.WhichOneof("kind")
    if kind != "number_value":
        return 0.0, f"must be a number, got {KINDS[kind]}"
    if not math.isfinite(value.number_value):
        return 0.0, f"must be a finite number, got {value.number_value:g}"
    return value.number_value, ""


def _violations_of(row: struct_pb2.ListValue, width: int, path: str) -> Iterable[tuple[str, str]]:
    if len(row.values) != width:
        return [(f"{path}.values", f"the model has {width} features, got {len(row.values)} values")]
    problems = (number_of(value)[1] for value in row.values)
    return [(_path(path, place), problem) for place, problem in enumerate(problems) if problem]


def _path(row_path: str, place: int) -> str:
    return f"{row_path}.values[{place}]"


def _order_of(columns: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """For each feature of the model its place in the rows; None where that is the model's own order."""
    if not columns:
        return None
    violations = []
    for number, name in enumerate(columns[: MAX_VIOLATIONS + len(names)]):
        if name not in names:
            near = difflib.get_close_matches(name[:200], names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its features are {', '.join(names[:20])}"
            violations.append((f"columns[{number}]", f"the model has no feature {name[:80]!r}; {hint}"))
        elif name in columns[:number]:
            violations.append((f"columns[{number}]", f"{name!r} is there twice"))
    missing = [name for name in names if name not in columns]
    if missing and not violations:
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        violations.append(("columns", f"the model's feature is missing: {', '.join(missing[:20])}{more}"))
    if violations:
        raise InvalidRequest(violations)
    return [list(columns).index(name) for name in names]
