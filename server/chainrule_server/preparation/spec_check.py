"""A job's spec without its data: its defaults, what is wrong with it, and its hash."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re

from chainrule.v1 import job_pb2
from chainrule_engine.errors import SettingError
from chainrule_engine.plan import BACKENDS
from chainrule_engine.precision import PRECISIONS
from chainrule_engine.reduction import check_shard_count
from chainrule_server.data import column_choice
from chainrule_server.errors import InvalidSpec
from chainrule_server.preparation import labels

MAX_SHARDS = 1024
MAX_EPOCHS = 10_000_000
MAX_PRIORITY = 1_000
# Of `training.stragglers`: how many times as long as the fastest a worker may take for a row.
DEFAULT_FACTOR = 3.0
LEAST_FACTOR = 1.5


def with_defaults(spec: job_pb2.JobSpec) -> job_pb2.JobSpec:
    """A copy of a spec with the defaults that job.proto names, all but `standardize`, which depends on the data."""
    complete = job_pb2.JobSpec()
    complete.CopyFrom(spec)
    data, training = complete.data, complete.training
    if not data.HasField("validation_fraction") and not data.HasField("fold"):
        data.validation_fraction = 0.2
    if not data.HasField("missing"):
        data.missing = "refuse"
    if not training.HasField("shards"):
        training.shards = 8
    if not training.HasField("seed"):
        training.seed = 0
    if not training.HasField("min_workers"):
        training.min_workers = 1
    if not training.HasField("max_workers"):
        training.max_workers = training.shards
    if not training.HasField("require_identical_workers"):
        training.require_identical_workers = True
    if not training.stragglers.HasField("factor"):
        training.stragglers.factor = DEFAULT_FACTOR
    if not training.HasField("precision"):
        training.precision = "float32"
    if not training.HasField("backend"):
        training.backend = "numpy"
    if not training.optimizer.HasField("name"):
        training.optimizer.name = "sgd"
    if not training.optimizer.HasField("learning_rate"):
        training.optimizer.learning_rate = 0.01
    return complete


def checked(spec: job_pb2.JobSpec) -> job_pb2.JobSpec:
    """The spec with its defaults. Raises InvalidSpec with everything that can be seen to be wrong without the data."""
    complete = with_defaults(spec)
    violations = _violations(complete)
    if violations:
        raise InvalidSpec(violations)
    return complete


def _violations(spec: job_pb2.JobSpec) -> list[tuple[str, str]]:
    """What can be seen to be wrong without the data, as (path, message)."""
    found = []

    def check(holds: bool, path: str, message: str) -> None:
        if not holds:
            found.append((path, message))

    training, data = spec.training, spec.data
    check(
        re.fullmatch(r"[A-Za-z0-9._-]{1,63}", spec.name) is not None,
        "name",
        f"must be 1 to 63 letters, digits, '-', '_' or '.', got {spec.name[:80]!r}",
    )
    check(bool(spec.model.loss.strip()), "model.loss", "is missing; write the loss of one example as a formula")
    check(bool(spec.model.parameters), "model.parameters", "is missing; name at least one parameter and its shape")
    names = [parameter.name for parameter in spec.model.parameters]
    if spec.model.parameters and all(parameter.frozen for parameter in spec.model.parameters):
        check(False, "model.parameters", "every one is frozen, so nothing would be trained; leave one free")
    for name in sorted({name for name in names if names.count(name) > 1}):
        check(False, f"model.parameters.{name}", "is there twice; give each parameter its own name")
    check(bool(data.uri), "data.uri", 'is missing; for example "sklearn:diabetes"')
    fraction = data.validation_fraction
    if data.HasField("fold"):
        fold = data.fold
        check(fold.count >= 2, "data.fold.count", f"must be at least 2, got {fold.count}")
        check(
            fold.number < max(fold.count, 1),
            "data.fold.number",
            f"must be from 0 to {max(fold.count, 1) - 1}, got {fold.number}",
        )
        message = "excludes data.fold, which says what is for validation; keep one of the two"
        check(not data.HasField("validation_fraction"), "data.validation_fraction", message)
    check(0 <= fraction < 1, "data.validation_fraction", f"must be at least 0 and below 1, got {fraction:g}")
    found += column_choice.violations(data)
    check(
        1 <= training.epochs <= MAX_EPOCHS,
        "training.epochs",
        f"must be from 1 to {MAX_EPOCHS}, got {training.epochs}",
    )
    check(training.batch_size >= 1, "training.batch_size", f"must be at least 1, got {training.batch_size}")
    check(training.shards <= MAX_SHARDS, "training.shards", f"must be at most {MAX_SHARDS}, got {training.shards}")
    try:
        check_shard_count(training.shards)
    except SettingError as error:
        found.append((error.setting, error.reason))
    else:
        lower = training.batch_size // training.shards * training.shards
        check(
            training.batch_size % training.shards == 0,
            "training.batch_size",
            f"{training.batch_size} is not divisible by the {training.shards} shards; "
            f"take {f'{lower} or ' if lower else ''}{lower + training.shards}",
        )
    check(
        1 <= training.min_workers <= max(training.shards, 1),
        "training.min_workers",
        f"must be from 1 to the number of shards, {training.shards}, got {training.min_workers}",
    )
    check(
        training.min_workers <= training.max_workers <= max(training.shards, training.min_workers),
        "training.max_workers",
        f"must be from min_workers, {training.min_workers}, to the number of shards, {training.shards}, "
        f"got {training.max_workers}",
    )
    check(abs(spec.priority) <= MAX_PRIORITY, "priority", f"must be from -1000 to 1000, got {spec.priority}")
    found += labels.violations(spec.labels)
    check(
        training.precision in PRECISIONS,
        "training.precision",
        f"must be one of {', '.join(PRECISIONS)}, got {training.precision[:40]!r}",
    )
    every_steps = training.checkpoint_every_steps
    is_right = every_steps > 0 or not training.HasField("checkpoint_every_steps")
    check(is_right, "training.checkpoint_every_steps", "must be at least 1; leave it out to have only the server's")
    backend = training.backend
    check(backend in BACKENDS, "training.backend", f"must be one of {', '.join(BACKENDS)}, got {backend[:40]!r}")
    if backend == "numba":
        installed = importlib.util.find_spec("numba") is not None
        check(installed, "training.backend", "numba is not installed here; pip install 'chainrule[numba]'")
    factor = training.stragglers.factor
    is_right = factor == 0 or (math.isfinite(factor) and factor >= LEAST_FACTOR)
    message = f"must be at least {LEAST_FACTOR:g}, or 0 to let shards never move, got {factor:g}"
    check(is_right, "training.stragglers.factor", message)
    learning_rate = training.optimizer.learning_rate
    check(
        math.isfinite(learning_rate) and learning_rate > 0,
        "training.optimizer.learning_rate",
        f"must be a number above 0, got {learning_rate:g}",
    )
    return found


def spec_sha256(spec: job_pb2.JobSpec) -> str:
    """The SHA-256 of a spec; that of the complete one stands for all that decides a job's bits but the data."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()
