"""What can be wrong with the mathematics that a user wrote.

EngineError
├── FormulaError        a formula that cannot be read; says at which column
│   └── ShapeMismatch   operands that do not fit; names both shapes
├── ValueMismatch       arrays that do not fit the graph they are given to
└── SettingError        a hyperparameter out of its range; names the setting
"""

from __future__ import annotations


class EngineError(ValueError):
    """Something the user wrote is wrong; the message says what, where and what to do."""


class FormulaError(EngineError):
    """A formula that cannot be read. `field` names the formula, `column` counts characters from 1."""

    def __init__(self, message: str, *, field: str = "formula", column: int | None = None) -> None:
        self.field = field
        self.column = column
        self.reason = message
        where = "" if column is None else f" at column {column}"
        super().__init__(f"{field}{where}: {message}")


class ShapeMismatch(FormulaError):
    """Operands whose per-example shapes do not fit; the message names both shapes."""


class ValueMismatch(EngineError):
    """An array whose name, shape or type is not what the graph expects."""


class SettingError(EngineError):
    """A hyperparameter out of its range. `setting` is its name in the job file."""

    def __init__(self, setting: str, message: str) -> None:
        self.setting = setting
        self.reason = message
        super().__init__(f"{setting}: {message}")
