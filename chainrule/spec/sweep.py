"""The jobs of a sweep: a job file with a table [sweep] of values to try. Pure: the same file gives the same jobs.

In [sweep] a setting is written by its path: a list is a grid, { low, high } a range that `count` values are drawn from.
Every combination of the grids is trained with every draw of the ranges, and with `folds` on every fold.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

from chainrule.errors import JobFileError, Problem
from chainrule.spec.job_file import job_of_table
from chainrule.spec.settings import set_at
from chainrule.v1 import job_pb2

MAX_JOBS = 1_000
LABEL = "sweep"
# A job's name has at most 63 characters.
NAME_CHARACTERS = 48
_OWN = ("folds", "count", "seed")

Settings = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """Where values are drawn from, evenly; log: evenly in their logarithm. Whole numbers where both ends are."""

    low: float
    high: float
    log: bool

    def draw(self, randomness: random.Random) -> float:
        """One value; low and high are possible where they are whole."""
        is_whole = isinstance(self.low, int) and isinstance(self.high, int)
        # Each whole number has the same share: from half below the lowest to half above the highest.
        low, high = (self.low - 0.5, self.high + 0.5) if is_whole and not self.log else (self.low, self.high)
        share = randomness.random()
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = min(max(value, self.low), self.high)
        return round(value) if is_whole else value


@dataclass(frozen=True)
class Trial:
    """One combination. settings: by path. jobs: one, or one for each fold. final: it on the job's own training rows."""

    number: int
    settings: Settings
    jobs: tuple[job_pb2.JobSpec, ...]
    final: job_pb2.JobSpec


@dataclass(frozen=True)
class Sweep:
    """sweep_id: follows from the file alone. paths: of the settings that differ."""

    sweep_id: str
    name: str
    paths: tuple[str, ...]
    folds: int
    trials: tuple[Trial, ...]

    def request_id(self, spec: job_pb2.JobSpec, attempt: int) -> str:
        """Under which a job is asked for, so that it is made once. attempt: another one, once that was cancelled."""
        return f"sweep-{self.sweep_id}-{spec.name}-{attempt}"


def sweep_of_table(table: dict[str, Any]) -> Sweep:
    """The sweep of a job file's table. Raises JobFileError with every problem."""
    base = {key: value for key, value in table.items() if key != "sweep"}
    wanted = table.get("sweep")
    if not isinstance(wanted, dict):
        raise JobFileError([("sweep", "is missing; write a table [sweep] with the values to try")])
    problems: list[Problem] = []
    folds, count, seed = (_whole(wanted, name, problems) for name in _OWN)
    grids: dict[str, list[Any]] = {}
    ranges: dict[str, Range] = {}
    for key, value in wanted.items():
        if key not in _OWN:
            _collect(key, value, grids, ranges, problems)
    if folds == 1:
        problems.append(("sweep.folds", "must be at least 2; leave it out to validate on one part of the rows"))
    if ranges and not count:
        problems.append(("sweep.count", "is missing; say how many values are drawn from the ranges"))
    if count and not ranges:
        message = "draws from ranges such as { low = 0.001, high = 0.1, log = true }, of which there is none"
        problems.append(("sweep.count", message))
    if not grids and not ranges and not problems:
        problems.append(("sweep", "names no setting; for example training.optimizer.learning_rate = [0.01, 0.1]"))
    job_count = math.prod(len(values) for values in grids.values()) * max(count, 1) * max(folds, 1)
    if job_count > MAX_JOBS:
        problems.append(("sweep", f"makes {job_count} jobs, and {MAX_JOBS} are the most; try fewer values"))
    if problems:
        raise JobFileError(problems)
    randomness = random.Random(seed)  # noqa: S311 - to be drawn again, not to be secret
    draws = [{path: each.draw(randomness) for path, each in ranges.items()} for _ in range(max(count, 1))]
    combinations = [
        dict(zip(grids, values, strict=True)) | draw for values in itertools.product(*grids.values()) for draw in draws
    ]
    digest = hashlib.sha256(repr((base, combinations, folds)).encode()).hexdigest()[:12]
    trials = tuple(_trial(base, number, settings, folds, digest) for number, settings in enumerate(combinations, 1))
    return Sweep(digest, trials[0].final.name.rpartition("-")[0], (*grids, *ranges), folds, trials)


def _trial(base: dict[str, Any], number: int, settings: Settings, folds: int, sweep_id: str) -> Trial:
    table = copy.deepcopy(base)
    for path, value in settings.items():
        set_at(table, path.split("."), value, where=f"sweep.{path}")
    spec = job_of_table(table)
    name = f"{spec.name[:NAME_CHARACTERS]}-{number:03d}"
    spec.labels[LABEL] = sweep_id
    spec.name = name
    if not folds:
        return Trial(number, settings, (spec,), spec)
    jobs = []
    for fold in range(folds):
        job = job_pb2.JobSpec()
        job.CopyFrom(spec)
        job.name = f"{name}-fold-{fold}"
        job.data.ClearField("validation_fraction")
        job.data.fold.number, job.data.fold.count = fold, folds
        jobs.append(job)
    spec.name = f"{name}-final"
    return Trial(number, settings, tuple(jobs), spec)


def _collect(
    path: str, value: Any, grids: dict[str, list[Any]], ranges: dict[str, Range], problems: list[Problem]
) -> None:
    """Find the grids and ranges below a path."""
    where = f"sweep.{path}"
    if isinstance(value, list):
        if value:
            grids[path] = value
        else:
            problems.append((where, "is empty; give the values to try"))
    elif isinstance(value, dict) and {"low", "high"} & value.keys():
        found = _range(value, where, problems)
        if found is not None:
            ranges[path] = found
    elif isinstance(value, dict) and value:
        for key, below in value.items():
            _collect(f"{path}.{key}", below, grids, ranges, problems)
    else:
        problems.append((where, "must be a list of values, or a range { low = 0.001, high = 0.1, log = true }"))


def _range(value: dict[str, Any], where: str, problems: list[Problem]) -> Range | None:
    unknown = sorted(value.keys() - {"low", "high", "log"})
    low: Any = value.get("low")
    high: Any = value.get("high")
    log = value.get("log", False)
    if unknown:
        problems.append((f"{where}.{unknown[0]}", "unknown key; a range has low, high and log"))
    elif not _is_number(low) or not _is_number(high) or not low < high:
        problems.append((where, "needs numbers low and high, the first below the second"))
    elif not isinstance(log, bool):
        problems.append((f"{where}.log", "must be true or false"))
    elif log and low <= 0:
        problems.append((f"{where}.low", f"must be above 0 with log = true, got {low}"))
    else:
        return Range(low, high, log)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(table: dict[str, Any], name: str, problems: list[Problem]) -> int:
    value = table.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        problems.append((f"sweep.{name}", f"must be a whole number of at least 0, got {value!r:.40}"))
        return 0
    return value
