"""Whatever a program describes a job with becomes a JobSpec: a path, a dict, keywords, or a JobSpec itself.

Keywords are the keys of a job file without its tables: `epochs=30` stands for `training.epochs`. Formulas may be
expressions; a model whose parameters aren't listed then has those of its expressions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chainrule.errors import JobFileError, Problem
from chainrule.spec.expressions import Expression, model_table
from chainrule.spec.job_file import fields_of_message, job_of_table, load_job_file, load_table, suggestion
from chainrule.v1 import job_pb2

Spec = str | os.PathLike[str] | Mapping[str, Any] | job_pb2.JobSpec
DEFAULT_NAME = "job"
# The tables of a job file, in the order in which a keyword is looked for.
_TABLES = ("model", "data", "training")


def job_spec(spec: Spec | None = None, **keywords: Any) -> job_pb2.JobSpec:
    """The job that is described. Raises JobFileError with every problem, and ExpressionError.

    spec: the path of a job file, a dict with the keys of one, or a JobSpec. keywords: override single keys of it, or
    describe the whole job: `job_spec(loss=…, prediction=…, data="sklearn:diabetes", epochs=30, batch_size=64)`."""
    found = job_pb2.JobSpec()
    if isinstance(spec, job_pb2.JobSpec):
        found.CopyFrom(spec)
    elif isinstance(spec, Mapping):
        found = job_of_table(_plain_job(spec))
    elif spec is not None:
        found = load_job_file(_path(spec))
    if keywords:
        found = job_of_table(_plain_job(_in_tables(keywords)), onto=found)
    if not found.name:
        found.name = DEFAULT_NAME
    return found


def job_table(spec: Spec) -> dict[str, Any]:
    """The table of a job file, or of a dict with the keys of one. Raises JobFileError, ExpressionError."""
    return _plain_job(spec) if isinstance(spec, Mapping) else load_table(_path(spec))


def _path(spec: object) -> Path:
    if isinstance(spec, str | os.PathLike):
        return Path(spec)
    kind = type(spec).__name__
    raise JobFileError([("", f"a job is the path of a job file, a dict or a JobSpec, got a value of type {kind}")])


def _in_tables(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords as a job file has them."""
    top = fields_of_message(job_pb2.JobSpec())
    known = {table: fields_of_message(getattr(job_pb2.JobSpec(), table)) for table in _TABLES}
    tables: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in keywords.items():
        home = next((table for table, fields in known.items() if key in fields), None)
        if key == "data" and isinstance(value, str):
            tables.setdefault("data", {})["uri"] = value
        elif key in _TABLES and isinstance(value, Mapping):
            tables[key] = {**tables.get(key, {}), **value}
        elif key in top:
            tables[key] = value
        elif home is not None:
            table = tables.setdefault(home, {})
            if isinstance(table, dict):
                table[key] = value
        else:
            names = [*top, *(name for fields in known.values() for name in fields)]
            problems.append((key, f"unknown keyword; {suggestion(key, names)}"))
    if problems:
        raise JobFileError(problems)
    return tables


def _plain_job(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a job file: only what TOML could hold."""
    model = table.get("model")
    if isinstance(model, Mapping) and any(isinstance(model.get(key), Expression) for key in ("loss", "prediction")):
        own = model.get("definitions", {})
        taken = [str(name).partition("(")[0].strip() for name in own] if isinstance(own, Mapping) else []
        written = model_table(loss=model.get("loss"), prediction=model.get("prediction"), taken=taken)
        if "definitions" in written and isinstance(own, Mapping):
            model = {**model, "definitions": {**own, **written["definitions"]}}
        table = {
            **table,
            "model": {**written, **model, **{key: written[key] for key in ("loss", "prediction") if key in written}},
        }
    return {str(key): _plain(value) for key, value in table.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Expression | Path):
        return str(value)
    # A number of numpy's, known by its method: numpy itself isn't loaded for this.
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    return value
