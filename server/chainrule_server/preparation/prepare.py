"""From a spec to a job that is ready to train: the one place where a spec is validated.

`prepare` goes through its stages in order: the spec alone, what it starts from, the rows, the steps, the model, the
first parameters. Each raises InvalidSpec with the fields that it found wrong. It is slow (it reads data), so the
server calls it in a thread.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import Message

from chainrule.bridge.model_of_spec import build_model
from chainrule.v1 import job_pb2
from chainrule_engine.clipping import check_limit
from chainrule_engine.early_stopping import EarlyStopping
from chainrule_engine.metrics import Measure
from chainrule_engine.model import Model
from chainrule_engine.optimizers import make_optimizer
from chainrule_engine.penalties import make_penalties
from chainrule_engine.schedules import make_schedule, plateau_of
from chainrule_engine.sharding import BatchSchedule, divide
from chainrule_engine.synchronous_sgd import UpdateRecipe
from chainrule_server.data import data_set
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.memory_budget import MemoryBudget
from chainrule_server.data.object_storage import ObjectStorage
from chainrule_server.errors import InvalidSpec
from chainrule_server.limits import Limits
from chainrule_server.preparation.job_memory import check_memory
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.prepared_rows import PreparedRows, lay_out
from chainrule_server.preparation.preprocessing import Preprocessing
from chainrule_server.preparation.row_file import RowFolder
from chainrule_server.preparation.sense_check import check_sense
from chainrule_server.preparation.spec_check import checked
from chainrule_server.preparation.start import Start, read_start
from chainrule_server.preparation.start_file import StartFile, read_start_file
from chainrule_server.preparation.start_preprocessing import StartPreprocessing, learn_or_take, taken_from
from chainrule_server.preparation.violations import data_violations, engine_violations, start_violations


def prepare(
    spec: job_pb2.JobSpec,
    *,
    data_root: Path | None = None,
    data_sets: DataSetStore | None = None,
    object_storage: ObjectStorage | None = None,
    start_path: Path | None = None,
    limits: Limits | None = None,
    row_folder: RowFolder | None = None,
    memory: MemoryBudget | None = None,
) -> PreparedJob:
    """The prepared job of a spec. data_root, data_sets, object_storage: see `data_set.load`.

    start_path: the file of `model.start`, where it is known; else `model.start.model` is looked up as data are.
    limits: of a new job; None: it was accepted before. row_folder: where its rows go; None: into memory.
    memory: where a new job reserves what reading its data takes; one that was accepted before waits for nobody.
    Raises InvalidSpec with every field that is wrong, LimitExceeded and OutOfMemory before the memory is spent."""
    complete = checked(spec)
    sources = Sources(data_root, data_sets, object_storage, None if limits is None else memory)
    start_file, taken = _start_file(complete, spec, sources, start_path)
    rows, preprocessing = _rows(complete, spec, sources, taken, limits, row_folder)
    batches, recipe, early_stopping = _steps(complete.training, rows.training_sizes)
    model = _model(complete, preprocessing, limits)
    prepared = PreparedJob(
        spec=complete,
        model=model,
        measure=_measure(model, complete, preprocessing),
        recipe=replace(recipe, frozen=model.layout.frozen_ranges),
        early_stopping=early_stopping,
        schedule=batches,
        preprocessing=preprocessing,
        rows=rows,
        class_count=preprocessing.class_count,
        start=_start(complete, model, start_file),
    )
    if limits is not None:
        check_sense(prepared)
        check_memory(prepared)
    _check_first_state(prepared)
    _check_validation(prepared)
    return prepared


class Sources(NamedTuple):
    """Where rows and files may come from; see `data_set.load`."""

    data_root: Path | None
    data_sets: DataSetStore | None
    object_storage: ObjectStorage | None
    memory: MemoryBudget | None


def _start_file(
    complete: job_pb2.JobSpec, given: job_pb2.JobSpec, sources: Sources, path: Path | None
) -> tuple[StartFile | None, StartPreprocessing | None]:
    """What the job starts from, and what it takes over of its preprocessing, which completes `data`."""
    if not complete.model.HasField("start"):
        return None, None
    start = complete.model.start
    with start_violations():
        file = read_start_file(start, data_root=sources.data_root, data_sets=sources.data_sets, path=path)
        taken = taken_from(start, file)
        if taken is not None:
            taken.put_into(complete.data, given.data)
    return file, taken


def _rows(
    complete: job_pb2.JobSpec,
    given: job_pb2.JobSpec,
    sources: Sources,
    taken: StartPreprocessing | None,
    limits: Limits | None,
    row_folder: RowFolder | None,
) -> tuple[PreparedRows, Preprocessing]:
    """The rows in their shards, preprocessed; `data.standardize` is completed, whose default depends on them."""
    with (
        engine_violations(),
        start_violations(),
        data_violations(taken),
        data_set.load(complete.data, **sources._asdict()) as data,
    ):
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
            taken.put_standardization_into(complete.data, given.data)
        with_classes, preprocessing = learn_or_take(data, complete.data, division.training_rows, taken)
        if limits is not None:
            limits.check_data(row_count=len(data.target), place_count=preprocessing.width)
        return lay_out(with_classes, preprocessing, division, folder=row_folder), preprocessing


def _steps(
    training: job_pb2.TrainingSpec, shard_sizes: tuple[int, ...]
) -> tuple[BatchSchedule, UpdateRecipe, EarlyStopping | None]:
    """Which rows each step takes, what it does with their gradient, and when the steps end."""
    with engine_violations():
        batches = BatchSchedule(
            seed=training.seed,
            shard_sizes=shard_sizes,
            microbatch_size=training.batch_size // training.shards,
        )
        recipe = _recipe(training, total_steps=training.epochs * batches.steps_per_epoch)
        return batches, recipe, _early_stopping(training)


def _model(complete: job_pb2.JobSpec, preprocessing: Preprocessing, limits: Limits | None) -> Model:
    """The model, for as many features and classes as the rows have."""
    with engine_violations():
        model = build_model(complete, feature_count=preprocessing.width, class_count=preprocessing.class_count)
    if limits is not None:
        limits.check_parameters(model.layout.size)
    return model


def _measure(model: Model, complete: job_pb2.JobSpec, preprocessing: Preprocessing) -> Measure:
    """What evaluations measure of the predictions."""
    shape = None if model.prediction is None else model.prediction.root.shape
    return Measure.of(shape, class_count=preprocessing.class_count, labels=complete.data.labels)


def _start(complete: job_pb2.JobSpec, model: Model, file: StartFile | None) -> Start | None:
    """What the model takes of the parameters that the job starts from."""
    if file is None:
        return None
    with start_violations():
        return read_start(complete.model.start, model, file)


def _check_first_state(prepared: PreparedJob) -> None:
    """Try whether the first parameters can be drawn."""
    with engine_violations():
        prepared.first_state()


def _check_validation(prepared: PreparedJob) -> None:
    """Refuse what watches the loss over the validation rows where there are none."""
    needs_validation = []
    if prepared.early_stopping is not None:
        needs_validation.append("training.early_stopping")
    if plateau_of(prepared.recipe.schedule) is not None:
        needs_validation.append("training.schedule.name")
    if needs_validation and not prepared.has_validation:
        message = "needs validation rows; give data.validation_fraction a value above 0"
        raise InvalidSpec([(path, message) for path in needs_validation])


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
