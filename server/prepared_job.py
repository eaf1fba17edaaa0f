"""A job that was checked whole and is ready to train: the one place where a spec is validated.

`prepare` fills in the defaults, loads the data, builds the model and draws the first parameters. It is slow (it reads
data), so the server calls it in a thread.
"""

from __future__ import annotations

import importlib.util
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf.message import Message

from chainrule.modeling import build_model
from chainrule.v1 import job_pb2
from engine.clipping import check_limit
from engine.early_stopping import EarlyStopping
from engine.errors import EngineError, FormulaError, SettingError
from engine.evaluation import initial_statistics
from engine.initializers import default_initializers, initialize
from engine.metrics import Measure
from engine.microbatch import ShardRows
from engine.model import Model
from engine.optimizers import make_optimizer
from engine.parameters import Vector
from engine.penalties import make_penalties
from engine.plan import BACKENDS
from engine.precision import PRECISIONS, Precision
from engine.reduction import check_shard_count
from engine.schedules import make_schedule, plateau_of
from engine.sharding import BatchSchedule, Division, divide
from engine.synchronous_sgd import ParameterState, UpdateRecipe
from server import column_choice, data_set, labels
from server.data_set_store import DataSetStore
from server.errors import InvalidSpec
from server.job_memory import check_memory
from server.limits import Limits
from server.object_storage import ObjectStorage
from server.prepared_rows import PreparedRows, lay_out
from server.preprocessing import Preprocessing
from server.start import Start, read_start
from server.start_file import StartError, read_start_file
from server.stragglers import DEFAULT_FACTOR, LEAST_FACTOR
from server.taken_preprocessing import learn_or_take, taken_from

MAX_SHARDS = 1024
MAX_EPOCHS = 10_000_000
MAX_PRIORITY = 1_000


@dataclass(frozen=True)
class PreparedJob:
    """Everything that decides a job's result."""

    spec: job_pb2.JobSpec
    model: Model
    measure: Measure
    recipe: UpdateRecipe
    early_stopping: EarlyStopping | None
    schedule: BatchSchedule
    preprocessing: Preprocessing
    rows: PreparedRows
    class_count: int

    @property
    def division(self) -> Division:
        """Which rows are in which shard."""
        return self.rows.division

    @property
    def row_count(self) -> int:
        """The number of rows, those for validation among them."""
        return len(self.rows.targets)

    @property
    def feature_count(self) -> int:
        """The number of places in x."""
        return self.preprocessing.width

    # None: every first value is drawn.
    start: Start | None = None

    @property
    def total_steps(self) -> int:
        """The number of steps of the whole job."""
        return self.recipe.total_steps

    @property
    def precision(self) -> Precision:
        """What gradients and parameters are rounded to on their way."""
        return PRECISIONS[self.spec.training.precision]

    @property
    def has_validation(self) -> bool:
        """Whether any row is kept for validation."""
        return any(len(rows) for rows in self.division.validation)

    def shard(self, number: int, *, validation: bool) -> ShardRows:
        """The rows of one shard."""
        return self.rows.shard(number, validation=validation)

    def first_state(self, memory: tuple[Vector, Vector] | None = None) -> ParameterState:
        """The parameters before the first step. memory: the two vectors to keep them in, or None for new ones."""
        default = default_initializers(self.model.loss)
        parameters = initialize(self.model.layout, self.spec.training.seed, default=default)
        statistics = initial_statistics(self.model.statistics)
        if self.start is not None:
            self.start.fill(self.model, parameters, statistics)
        following = None
        if memory is not None:
            memory[0][...] = parameters
            parameters, following = memory
        state = ParameterState(
            self.recipe,
            parameters,
            next_parameters=following,
            precision=self.precision,
            statistics_layout=self.model.statistics,
        )
        state.statistics = statistics
        return state


def prepare(
    spec: job_pb2.JobSpec,
    *,
    data_root: Path | None = None,
    data_sets: DataSetStore | None = None,
    object_storage: ObjectStorage | None = None,
    start_path: Path | None = None,
    limits: Limits | None = None,
) -> PreparedJob:
    """The prepared job of a spec. data_root, data_sets, object_storage: see `data_set.load`.

    start_path: the file of `model.start`, where it is known; else `model.start.model` is looked up as data are.
    limits: of a new job; None: it was accepted before.
    Raises InvalidSpec with every field that is wrong, LimitExceeded and OutOfMemory before the memory is spent."""
    complete = with_defaults(spec)
    violations = _violations(complete)
    if violations:
        raise InvalidSpec(violations)
    start_file = taken = None
    try:
        if complete.model.HasField("start"):
            source = complete.model.start
            start_file = read_start_file(source, data_root=data_root, data_sets=data_sets, path=start_path)
            taken = taken_from(source, start_file)
            if taken is not None:
                taken.put_into(complete.data, spec.data)
        with data_set.load(
            complete.data, data_root=data_root, data_sets=data_sets, object_storage=object_storage
        ) as data:
            division = divide(
                row_count=len(data.target),
                shard_count=complete.training.shards,
                validation_fraction=complete.data.validation_fraction,
                seed=complete.training.seed,
                fold=(complete.data.fold.number, complete.data.fold.count) if complete.data.HasField("fold") else None,
            )
            if not complete.data.HasField("standardize"):
                is_number = data.classes is None
                complete.data.standardize.CopyFrom(job_pb2.Standardization(features=True, target=is_number))
            if taken is not None:
                taken.put_standardization_into(complete.data, spec.data)
            data, preprocessing = learn_or_take(data, complete.data, division.training_rows, taken)
            if limits is not None:
                limits.check_data(row_count=len(data.target), place_count=preprocessing.width)
            rows = lay_out(data, preprocessing, division)
        batches = BatchSchedule(
            seed=complete.training.seed,
            shard_sizes=tuple(len(rows) for rows in division.training),
            microbatch_size=complete.training.batch_size // complete.training.shards,
        )
        recipe = _recipe(complete.training, total_steps=complete.training.epochs * batches.steps_per_epoch)
        early_stopping = _early_stopping(complete.training)
        class_count = preprocessing.class_count
        model = build_model(complete, feature_count=preprocessing.width, class_count=class_count)
        if limits is not None:
            limits.check_parameters(model.layout.size)
        recipe = replace(recipe, frozen=model.layout.frozen_ranges)
        start = None if start_file is None else read_start(complete.model.start, model, start_file)
    except StartError as error:
        raise InvalidSpec([(error.field, str(error))]) from error
    except data_set.DataError as error:
        # Such columns are not the job's own words.
        is_taken = taken is not None and error.field == "data.features"
        hint = "; they are those of what the job starts from (model.start.preprocessing)" if is_taken else ""
        raise InvalidSpec([(error.field, f"{error}{hint}")]) from error
    except FormulaError as error:
        where = "" if error.column is None else f"column {error.column}: "
        raise InvalidSpec([(f"model.{error.field}", where + error.reason)]) from error
    except SettingError as error:
        raise InvalidSpec([(_path(error.setting), error.reason)]) from error
    except EngineError as error:
        raise InvalidSpec([("model", str(error))]) from error
    prediction_shape = None if model.prediction is None else model.prediction.root.shape
    prepared = PreparedJob(
        spec=complete,
        model=model,
        measure=Measure.of(prediction_shape, class_count=class_count, labels=complete.data.labels),
        recipe=recipe,
        early_stopping=early_stopping,
        schedule=batches,
        preprocessing=preprocessing,
        rows=rows,
        class_count=class_count,
        start=start,
    )
    if limits is not None:
        check_memory(prepared)
    try:
        prepared.first_state()
    except SettingError as error:
        raise InvalidSpec([(_path(error.setting), error.reason)]) from error
    needs_validation = []
    if early_stopping is not None:
        needs_validation.append("training.early_stopping")
    if plateau_of(recipe.schedule) is not None:
        needs_validation.append("training.schedule.name")
    if needs_validation and not prepared.has_validation:
        message = "needs validation rows; give data.validation_fraction a value above 0"
        raise InvalidSpec([(path, message) for path in needs_validation])
    return prepared


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


def _recipe(training: job_pb2.TrainingSpec, *, total_steps: int) -> UpdateRecipe:
    """How the job makes a step. Raises SettingError, with a path below `training`."""
    clipping = training.clipping
    for name in ("value", "global_norm"):
        if clipping.HasField(name):
            check_limit(getattr(clipping, name), setting=f"clipping.{name}")
    return UpdateRecipe(
        rule=make_optimizer(training.optimizer.name, _settings(training.optimizer)),
        learning_rate=training.optimizer.learning_rate,
        total_steps=total_steps,
        schedule=make_schedule(training.schedule.name or "constant", _settings(training.schedule)),
        penalties=make_penalties(_settings(training.penalties)),
        clip_value=clipping.value if clipping.HasField("value") else None,
        clip_norm=clipping.global_norm if clipping.HasField("global_norm") else None,
    )


def _early_stopping(training: job_pb2.TrainingSpec) -> EarlyStopping | None:
    if not training.HasField("early_stopping"):
        return None
    return EarlyStopping(training.early_stopping.patience_epochs, training.early_stopping.min_delta)


def _settings(message: Message) -> dict[str, float]:
    """What is set of a rule's own settings."""
    return {field.name: value for field, value in message.ListFields() if field.name not in ("name", "learning_rate")}


def _path(setting: str) -> str:
    """The path of a setting in the JobSpec; the engine knows those of an update without their `training`."""
    known = ("optimizer", "schedule", "penalties", "clipping", "early_stopping")
    return f"training.{setting}" if setting.split(".")[0] in known else setting
