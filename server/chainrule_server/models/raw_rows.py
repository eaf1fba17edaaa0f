"""Rows as a client sends them, lists of google.protobuf.Value, become what the model sees."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf import struct_pb2
from numpy.typing import NDArray

from chainrule.cells.texts import CellRules
from chainrule.cells.values import UNUSABLE
from chainrule.text import shortened_list
from chainrule.v1 import model_service_pb2 as api
from chainrule_server.errors import InvalidRequest
from chainrule_server.preparation.encodings import CategoryEncoding, Unusable, kind_of
from chainrule_server.preparation.preprocessing import Preprocessing

# More wrong values than this are the same mistake over and over.
MAX_VIOLATIONS = 100
MAX_TOLD = 20
MAX_EXAMPLE = 200
# An unknown text is compared with so many categories.
MAX_COMPARED = 200


@dataclass(frozen=True)
class RawRows:
    """features: (rows, d) float32, prepared. unknown: the categories among them that no training row had."""

    features: NDArray[np.float32]
    unknown: tuple[api.UnknownCategories, ...]


def read_features(
    rows: Sequence[struct_pb2.ListValue],
    columns: Sequence[str],
    preprocessing: Preprocessing,
    rules: CellRules,
    *,
    paths: Sequence[str],
    strict: bool = False,
) -> RawRows:
    """The rows as the model sees them.

    columns: the names of the values; empty: the features in the model's order. rules: of the model's data. paths: of
    each row. strict: whether an unknown category is wrong. Raises InvalidRequest with every wrong value."""
    names = preprocessing.feature_names
    places = _places_of(names, columns) if columns else list(range(len(names)))
    width = len(columns) or len(names)
    raw: list[list[object]] = [[] for _ in names]
    readers = [encoding.reader(rules) for encoding in preprocessing.features]
    violations: list[tuple[str, str]] = []
    for number, row in enumerate(rows):
        if len(row.values) != width:
            what = "columns" if columns else "features"
            violations.append((f"{paths[number]}.values", f"there are {width} {what}, got {len(row.values)} values"))
        else:
            for index, place in enumerate(places):
                value = readers[index](_plain(row.values[place]))
                raw[index].append(value)
                encoding = preprocessing.features[index]
                problem = encoding.problem_of(value)
                if strict and not problem and isinstance(encoding, CategoryEncoding) and encoding.is_unknown(value):
                    problem = _unknown_problem(encoding, str(value))
                if problem:
                    violations.append((f"{paths[number]}.values[{place}]", problem))
        if len(violations) > MAX_VIOLATIONS:
            break
    if violations:
        raise InvalidRequest(violations)
    return RawRows(preprocessing.encode(raw), tuple(_unknown(preprocessing, raw)))


def _unknown(preprocessing: Preprocessing, raw: Sequence[Sequence[object]]) -> Iterator[api.UnknownCategories]:
    """The columns with categories that no training row had."""
    for encoding, values in zip(preprocessing.features, raw, strict=True):
        if isinstance(encoding, CategoryEncoding):
            found = [str(value) for value in values if encoding.is_unknown(value)]
            if found:
                example, similar = found[0][:MAX_EXAMPLE], _similar(encoding, found[0])
                yield api.UnknownCategories(
                    column=encoding.name, row_count=len(found), example=example, similar=similar
                )


def _unknown_problem(encoding: CategoryEncoding, value: str) -> str:
    similar = _similar(encoding, value)
    hint = f"did you mean {similar!r}?" if similar else f"the categories are {shortened_list(encoding.categories)}"
    return f"is a category that no training row had, {value[:MAX_EXAMPLE]!r}; {hint}"


def _similar(encoding: CategoryEncoding, value: str) -> str:
    """The known category that is most like another text; '' where none is."""
    folded = value.strip().casefold()
    for category in encoding.categories:
        if category.strip().casefold() == folded:
            return category
    near = difflib.get_close_matches(value[:MAX_EXAMPLE], encoding.categories[:MAX_COMPARED], n=1)
    return near[0] if near else ""


def number_of(value: struct_pb2.Value) -> tuple[float, str]:
    """A finite number and '', or 0 and what is wrong with the value."""
    if value.WhichOneof("kind") != "number_value":
        return 0.0, f"must be a number, got {kind_of_value(value)}"
    if not math.isfinite(value.number_value):
        return 0.0, f"must be a finite number, got {value.number_value:g}"
    return value.number_value, ""


def kind_of_value(value: struct_pb2.Value) -> str:
    """What a value is, in words."""
    plain = _plain(value)
    return "a number" if isinstance(plain, float) else kind_of(plain)


def _plain(value: struct_pb2.Value) -> object:
    """The value as Python has it; of a list or an object only that it is one, and ... where there is none."""
    match value.WhichOneof("kind"):
        case "number_value":
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "null_value":
            return None
        case "struct_value":
            # What a client or a file holds that is no value says so itself.
            what = value.struct_value.fields[UNUSABLE].string_value if UNUSABLE in value.struct_value.fields else ""
            return Unusable(what) if what else {}
        case "list_value":
            return []
        case _:
            return ...


def _places_of(names: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Where each feature of the model is in a row. Raises InvalidRequest."""
    place_of = {name: place for place, name in reversed(list(enumerate(columns)))}
    violations = []
    missing = [name for name in names if name not in place_of]
    if missing:
        told = [_no_column(name, columns) for name in missing[:MAX_TOLD]]
        violations.append(("columns", f"{'; '.join(told)}; the model's features are {', '.join(names[:MAX_TOLD])}"))
    wanted = set(names)
    for place, name in enumerate(columns):
        if name in wanted and place_of[name] != place:
            violations.append((f"columns[{place}]", f"{name[:80]!r} is there twice"))
    if violations:
        raise InvalidRequest(violations[:MAX_VIOLATIONS])
    return [place_of[name] for name in names]


def _no_column(name: str, columns: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, [column[:80] for column in columns[:MAX_VIOLATIONS]], n=1)
    return f"there is no {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
