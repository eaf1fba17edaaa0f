"""What the parts of a preparation refuse arrives as a violation of the field that is wrong."""

from __future__ import annotations

import pytest

from chainrule_engine.errors import EngineError, FormulaError, SettingError
from chainrule_server.data.data_set import DataError
from chainrule_server.errors import InvalidSpec
from chainrule_server.preparation.start_file import StartError
from chainrule_server.preparation.violations import data_violations, engine_violations, start_violations


@pytest.mark.parametrize(
    ("error", "path", "message"),
    [
        (FormulaError("unknown name", field="loss", column=3), "model.loss", "column 3: unknown name"),
        (FormulaError("is no number", field="loss"), "model.loss", "is no number"),
        (SettingError("optimizer.momentum", "must be below 1"), "training.optimizer.momentum", "must be below 1"),
        (SettingError("data.fold.count", "is too large"), "data.fold.count", "is too large"),
        (EngineError("has no parameters"), "model", "has no parameters"),
    ],
)
def test_what_the_engine_refuses_names_the_field_of_the_spec(error: EngineError, path: str, message: str) -> None:
    with pytest.raises(InvalidSpec) as caught, engine_violations():
        raise error
    assert caught.value.violations == [(path, message)]


def test_a_start_and_data_that_cannot_be_used_name_their_fields() -> None:
    with pytest.raises(InvalidSpec) as caught, start_violations():
        raise StartError("is no file", field="model.start.model")
    assert caught.value.violations == [("model.start.model", "is no file")]
    with pytest.raises(InvalidSpec) as caught, data_violations(None):
        raise DataError("there is no column 'a'", field="data.features")
    assert caught.value.violations == [("data.features", "there is no column 'a'")]


def test_no_other_error_is_taken_for_a_violation() -> None:
    with pytest.raises(ZeroDivisionError), start_violations(), data_violations(None), engine_violations():
        raise ZeroDivisionError
