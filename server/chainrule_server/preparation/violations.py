"""What the parts of a preparation refuse, as violations of the spec's fields: one `with` for each kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chainrule_engine.errors import EngineError, FormulaError, SettingError
from chainrule_server.data.data_set import DataError
from chainrule_server.errors import InvalidSpec
from chainrule_server.preparation.start_file import StartError
from chainrule_server.preparation.start_preprocessing import StartPreprocessing

# The engine knows the settings of an update without the `training` before them.
OF_TRAINING = ("optimizer", "schedule", "penalties", "clipping", "early_stopping")


@contextmanager
def start_violations() -> Iterator[None]:
    """Raise InvalidSpec for a start that can't be made."""
    try:
        yield
    except StartError as error:
        raise InvalidSpec([(error.field, str(error))]) from error


@contextmanager
def data_violations(taken: StartPreprocessing | None) -> Iterator[None]:
    """Raise InvalidSpec for rows that can't be used. taken: of what the job starts from; None for nothing."""
    try:
        yield
    except DataError as error:
        # Such columns are not the job's own words.
        is_taken = taken is not None and error.field == "data.features"
        hint = "; they are those of what the job starts from (model.start.preprocessing)" if is_taken else ""
        raise InvalidSpec([(error.field, f"{error}{hint}")]) from error


@contextmanager
def engine_violations() -> Iterator[None]:
    """Raise InvalidSpec for a formula, a setting or a model that the engine refuses."""
    try:
        yield
    except EngineError as error:
        raise InvalidSpec([_violation(error)]) from error


def _violation(error: EngineError) -> tuple[str, str]:
    """The path in the JobSpec, and what is wrong there."""
    match error:
        case FormulaError():
            where = "" if error.column is None else f"column {error.column}: "
            return f"model.{error.field}", where + error.reason
        case SettingError():
            is_of_training = error.setting.split(".")[0] in OF_TRAINING
            return f"training.{error.setting}" if is_of_training else error.setting, error.reason
    return "model", str(error)
