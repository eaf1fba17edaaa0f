"""From a spec to a job that is ready to train: the one place where a spec is validated.

`prepare` fills in the defaults, loads the data, builds the model and draws the first parameters. It is slow (it reads
data), so the server calls it in a thread.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from google.protobuf.message import Message

from chainrule.bridge.model_of_spec import build_model
from chainrule.v1 import job_pb2
from chainrule_engine.clipping import check_limit
from chainrule_engine.early_stopping import EarlyStopping
from chainrule_engine.errors import EngineError, FormulaError, SettingError
from chainrule_engine.metrics import Measure
from chainrule_engine.optimizers import make_optimizer
from chainrule_engine.penalties import make_penalties
from chainrule_engine.schedules import make_schedule, plateau_of
from chainrule_engine.sharding import BatchSchedule, divide
from chainrule_engine.synchronous_sgd import UpdateRecipe
from chainrule_server.data import data_set
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.object_storage import ObjectStorage
from chainrule_server.errors import InvalidSpec
from chainrule_server.limits import Limits
from chainrule_server.preparation.job_memory import check_memory
from chainrule_server.preparation.prepared_job import PreparedJob
from chainrule_server.preparation.prepared_rows import lay_out
from chainrule_server.preparation.spec_check import _violations, with_defaults
from chainrule_server.preparation.start import read_start
from chainrule_server.preparation.start_file import StartError, read_start_file
from chainrule_server.preparation.start_preprocessing import learn_or_take, taken_from


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
