"""Which columns of a data set are the features and which is the target: what `data` in a job says by name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.cells.texts import CellRules
from chainrule.v1 import job_pb2
from chainrule_server.data.columns import ColumnError, is_number

# Within float32, with room for a standardization.
MAX_FILL = 1e30
MISSING = ("refuse", "mean", "median", "most_frequent")
MISSING_TARGET = ("refuse", "leave_out")
MAX_MARKERS = 100
MAX_MARKER = 100


@dataclass(frozen=True)
class Choice:
    """Columns by name. categories: those among them whose whole numbers are names."""

    features: tuple[str, ...]
    target: str
    categories: tuple[str, ...]


def cell_rules(spec: job_pb2.DataSpec) -> CellRules:
    """How the cells of a job's data are read."""
    return CellRules(tuple(spec.missing_markers), spec.csv.decimal_point or ".", tuple(spec.csv.numbers))


def violations(spec: job_pb2.DataSpec) -> list[tuple[str, str]]:
    """What can be seen to be wrong without the data, as (path, message)."""
    found = []
    for path, names in (
        ("data.features", spec.features),
        ("data.exclude", spec.exclude),
        ("data.categories", spec.categories),
    ):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        found += [(path, f"names {name!r} twice; name it once") for name in twice]
    if spec.features and spec.exclude:
        found.append(("data.exclude", "excludes 'features'; name the columns that you want, or those that you don't"))
    if spec.target and spec.target in spec.features:
        message = f"names {spec.target!r}, which is the target: a model that is given its answer learns nothing"
        found.append(("data.features", message))
    if spec.target and spec.target in spec.exclude:
        found.append(("data.exclude", f"names {spec.target!r}, which is the target; it is no feature anyway"))
    is_fill = is_number(spec.missing) and abs(float(spec.missing)) <= MAX_FILL
    if spec.HasField("missing") and spec.missing not in MISSING and not is_fill:
        allowed = ", ".join(f'"{name}"' for name in MISSING)
        found.append(("data.missing", f'must be {allowed} or a number such as "0", got {spec.missing[:40]!r}'))
    if spec.HasField("missing_target") and spec.missing_target not in MISSING_TARGET:
        allowed = " or ".join(f'"{name}"' for name in MISSING_TARGET)
        found.append(("data.missing_target", f"must be {allowed}, got {spec.missing_target[:40]!r}"))
    both = sorted({*spec.csv.numbers} & {*spec.categories})
    if both:
        found.append(("data.csv.numbers", f"names {both[0]!r}, which is among data.categories; it is one or the other"))
    if len(spec.missing_markers) > MAX_MARKERS:
        found.append(("data.missing_markers", f"must be at most {MAX_MARKERS}, got {len(spec.missing_markers)}"))
    long = [marker for marker in spec.missing_markers if len(marker) > MAX_MARKER]
    if long:
        found.append(("data.missing_markers", f"must be at most {MAX_MARKER} characters each, got {long[0][:40]!r}…"))
    if spec.HasField("csv"):
        delimiter, point = spec.csv.delimiter or ",", spec.csv.decimal_point or "."
        for path, value in (("data.csv.delimiter", delimiter), ("data.csv.decimal_point", point)):
            if len(value.encode()) != 1 or value in '"\r\n\0':
                found.append(
                    (path, f"must be one ASCII character that is no quote and no line end, got {value[:10]!r}")
                )
        if delimiter == point:
            found.append(
                ("data.csv.decimal_point", f"is the delimiter too, {point!r}; say which delimiter the file has")
            )
    return found


def choose(names: Sequence[str], spec: job_pb2.DataSpec) -> Choice:
    """The columns that a job takes of those there are. Raises ColumnError."""
    if not spec.target:
        raise ColumnError(
            f"name the column that is to be predicted; the columns are {listed(names)}",
            field="data.target",
        )
    _check_known([spec.target], names, field="data.target")
    _check_known(spec.csv.numbers, names, field="data.csv.numbers")
    return Choice(
        choose_features([name for name in names if name != spec.target], spec, all_names=names),
        spec.target,
        tuple(spec.categories),
    )


def choose_features(
    names: Sequence[str], spec: job_pb2.DataSpec, *, all_names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The features that a job takes of those there are, in the job's order or else the data's. Raises ColumnError.

    all_names: those that `data.categories` may name too, the target's among them."""
    known = names if all_names is None else all_names
    _check_known(spec.features, names, field="data.features")
    _check_known(spec.exclude, names, field="data.exclude")
    _check_known(spec.categories, known, field="data.categories")
    chosen = tuple(spec.features) or tuple(name for name in names if name not in set(spec.exclude))
    unnamed = [name for name in chosen if not name.strip()]
    if unnamed:
        raise ColumnError(
            f"column {list(known).index(unnamed[0]) + 1} of {len(known)} has no name (pandas and R write row numbers "
            f"so); leave it out with data.exclude = [{json.dumps(unnamed[0])}], or give it a name in the file",
            field="data.exclude",
        )
    if not chosen:
        raise ColumnError("no column is left to learn from", field="data.exclude" if spec.exclude else "data.uri")
    unused = [name for name in spec.categories if name in names and name not in chosen]
    if unused:
        raise ColumnError(f"names {unused[0]!r}, which is no feature of this job", field="data.categories")
    return chosen


def check_names(names: Sequence[str]) -> None:
    """Refuse several columns without a name, and two with the same. One without a name, such as that of the row numbers
    which pandas and R write, is there as long as nobody learns from it: see `choose_features`. Raises ColumnError."""
    if not names:
        raise ColumnError("the file has no column")
    unnamed = [place for place, name in enumerate(names, start=1) if not name.strip()]
    if len(unnamed) > 1 or len(unnamed) == len(names):
        raise ColumnError(
            f"columns {listed([str(place) for place in unnamed])} of {len(names)} have no name; give each one in the "
            "file, or take them out"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ColumnError(f"two columns are named {twice!r}; give each its own name")


def listed(names: Sequence[str]) -> str:
    """The first of the names, for a message."""
    return ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")


def _check_known(asked: Sequence[str], names: Sequence[str], *, field: str) -> None:
    known = set(names)
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, names, n=1) or [
                each for each in names if each.lower() == name.lower()
            ]
            hint = f"did you mean {near[0]!r}?" if near else f"the columns are {listed(names)}"
            raise ColumnError(f"there is no column {name[:80]!r}; {hint}", field=field)
