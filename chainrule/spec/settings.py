"""Keys of a job file that are given apart from it, as `--set KEY=VALUE`, put into the table that the file is."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from chainrule.errors import JobFileError, Problem
from chainrule.v1 import job_pb2

OPTION = "--set"


def with_settings(table: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The table with each 'KEY=VALUE' in it, in this order: a key by its path, a value as TOML has it, or a bare text.

    Raises JobFileError with every setting that is none."""
    problems: list[Problem] = []
    for setting in settings:
        try:
            path, value = _parsed(setting)
            set_at(table, path, value, where=OPTION)
        except JobFileError as error:
            problems += error.problems
    if problems:
        raise JobFileError(problems)
    return table


def set_at(table: dict[str, Any], path: Sequence[str], value: Any, *, where: str) -> None:
    """Set what a path names. Raises JobFileError, for `where`, where something on the way is no table."""
    *above, last = path
    for key in above:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise JobFileError([(where, f"{'.'.join(path)!r} goes through {key!r}, which is no table in this job")])
    table[last] = value


def _parsed(setting: str) -> tuple[list[str], Any]:
    """The key's parts, and the value. Raises JobFileError."""
    key, equals, text = setting.partition("=")
    path = _path(key.strip())
    if not equals or not path or "\n" in setting:
        what = f"must be KEY=VALUE, such as training.epochs=50, got {setting!r:.80}"
        raise JobFileError([(OPTION, what)])
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        # A bare text needs no quotes: training.optimizer.name=adam.
        return path, text.strip()
    is_text = isinstance(value, str)
    return path, text.strip() if not is_text and _takes_text(path) else value


def _path(key: str) -> list[str]:
    """The parts of a dotted TOML key; none where it is no key."""
    try:
        table = tomllib.loads(f"{key} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return []
    path = []
    below: Any = table
    while isinstance(below, dict) and len(below) == 1:
        ((part, below),) = below.items()
        path.append(part)
    return path if below == 0 else []


def _takes_text(path: Sequence[str]) -> bool:
    """Whether the key holds one text, so that 5 means "5", such as data.missing."""
    message: Any = job_pb2.JobSpec.DESCRIPTOR
    field: FieldDescriptor | None = None
    for part in path:
        field = (
            None if message is None or (field is not None and field.is_repeated) else message.fields_by_name.get(part)
        )
        if field is None:
            return False
        message = field.message_type
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
