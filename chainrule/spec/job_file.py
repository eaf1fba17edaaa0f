"""From a job file (TOML) to a JobSpec.

The proto's descriptors are the one schema: this module knows no field by name but for the short forms below. It checks
that keys exist and values have the field's type; whether a job makes sense is for the server to say.

Short forms:
- A list of messages whose first field is `name` may be a table from names to values; a value that is a list is the
  `shape`: `[model.parameters]  V1 = [32, "d"]`.
  A value that is a text is the `formula`: `[model.definitions]  hidden = "relu(V @ x)"`.
- Whole numbers in a `shape` stand for their digits.
- A message of switches may be the list of those that are on: `standardize = ["features", "target"]`.
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from chainrule.cells.endings import ENDINGS
from chainrule.errors import JobFileError, Problem
from chainrule.spec.settings import with_settings
from chainrule.text import enum_names
from chainrule.v1 import job_pb2

MAX_FILE_BYTES = 1 << 20

_INTEGER_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def load_job_file(path: str | Path, settings: Sequence[str] = ()) -> job_pb2.JobSpec:
    """The job of a file. settings: 'KEY=VALUE' that replace keys of it. Raises JobFileError with every problem."""
    table = with_settings(load_table(path), settings)
    if "sweep" in table:
        raise JobFileError([("sweep", "is for 'chainrule sweep', which trains many jobs; take it out to train one")])
    return job_of_table(table)


def load_table(path: str | Path) -> dict[str, Any]:
    """The table that a file is. Raises JobFileError."""
    path = Path(path)
    # The data of a job, named for it by mistake.
    if path.suffix.lower() in ENDINGS:
        message = f"{path}: is a table by its name, and no job file; 'chainrule init {path}' writes one for it"
        raise JobFileError([("", message)])
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise JobFileError([("", f"{path}: there is no such file; give the path of a job file")]) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise JobFileError([("", f"{path}: can't be read: {why}")]) from None
    if len(content) > MAX_FILE_BYTES:
        raise JobFileError([("", f"{path}: is larger than {MAX_FILE_BYTES} bytes, so it is no job file")])
    return _table(content, source=str(path))


def parse_job(content: str | bytes, *, source: str = "job file") -> job_pb2.JobSpec:
    """The job of a TOML text. source: how messages name the text. Raises JobFileError with every problem."""
    return job_of_table(_table(content, source=source))


def _table(content: str | bytes, *, source: str) -> dict[str, Any]:
    try:
        text = content.decode() if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise JobFileError([("", f"{source}: line {line}: not UTF-8; save the file as UTF-8")]) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise JobFileError([("", f"{source}: {_toml_message(str(error), text)}")]) from None
    except RecursionError:
        raise JobFileError([("", f"{source}: nested too deep to be a job file")]) from None


def job_of_table(table: dict[str, Any], *, onto: job_pb2.JobSpec | None = None) -> job_pb2.JobSpec:
    """The job of the table that a file is. Raises JobFileError with every problem.

    onto: a job that the table's keys are put on; a list or a table from names replaces what is there."""
    spec = job_pb2.JobSpec()
    if onto is not None:
        spec.CopyFrom(onto)
    reader = _Reader()
    reader.fill(spec, table, "")
    if reader.problems:
        raise JobFileError(reader.problems)
    return spec


class _Reader:
    """Copies TOML values into messages and collects what doesn't fit."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def fill(self, message: Message, table: dict[str, Any], path: str) -> None:
        """Set the fields of a message from a table."""
        fields = fields_of_message(message)
        for key, value in table.items():
            where = _join(path, key)
            if key not in fields:
                self._problem(where, f"unknown key; {suggestion(key, fields)}")
                continue
            field = fields[key]
            rival = next((name for name in _rivals(field) if name in table), None)
            if rival is not None and list(table).index(rival) < list(table).index(key):
                self._problem(where, f"excludes {rival!r}; keep one of the two")
            elif field.message_type is not None and field.message_type.GetOptions().map_entry:
                self._fill_map(getattr(message, key), field.message_type.fields_by_name["value"], value, where)
            elif field.is_repeated:
                self._fill_repeated(message, field, value, where)
            elif field.message_type is not None:
                self._fill_message(getattr(message, key), value, where)
            elif (scalar := self._scalar(field, value, where)) is not None:
                setattr(message, key, scalar)

    def _fill_message(self, message: Message, value: object, path: str) -> None:
        message.SetInParent()
        switches = _switches(message)
        if isinstance(value, dict):
            self.fill(message, value, path)
        elif switches and isinstance(value, list):
            message.Clear()
            message.SetInParent()
            for number, entry in enumerate(value):
                if isinstance(entry, str) and entry in switches:
                    setattr(message, entry, True)
                elif isinstance(entry, str):
                    self._problem(f"{path}[{number}]", f"unknown entry {entry!r}; {suggestion(entry, switches)}")
                else:
                    self._problem(f"{path}[{number}]", f"must be a string, got {_shown(entry)}")
        else:
            expected = f"a list of {_listed(switches)}" if switches else "a table"
            self._problem(path, f"must be {expected}, got {_shown(value)}")

    def _fill_repeated(self, message: Message, field: FieldDescriptor, value: object, path: str) -> None:
        message.ClearField(field.name)
        target = getattr(message, field.name)
        named = field.message_type is not None and field.message_type.fields[0].name == "name"
        if named and isinstance(value, dict):
            for name, element in value.items():
                self._fill_named(target.add(), name, element, _join(path, name))
        elif not isinstance(value, list):
            expected = "a table from names to values" if named else "a list"
            self._problem(path, f"must be {expected}, got {_shown(value)}")
        elif field.message_type is not None:
            for number, element in enumerate(value):
                self._fill_message(target.add(), element, f"{path}[{number}]")
        else:
            for number, element in enumerate(value):
                is_size = field.name == "shape" and isinstance(element, int) and not isinstance(element, bool)
                scalar = self._scalar(field, str(element) if is_size else element, f"{path}[{number}]")
                if scalar is not None:
                    target.append(scalar)

    def _fill_map(self, target: dict[str, Any], kind: FieldDescriptor, value: object, path: str) -> None:
        if not isinstance(value, dict):
            self._problem(path, f"must be a table, got {_shown(value)}")
            return
        for key, element in value.items():
            if (scalar := self._scalar(kind, element, _join(path, key))) is not None:
                target[key] = scalar

    def _fill_named(self, message: Message, name: str, value: object, path: str) -> None:
        fields = fields_of_message(message)
        shape, formula = fields.get("shape"), fields.get("formula")
        if isinstance(value, dict) and "name" in value:
            self._problem(_join(path, "name"), f"the name is {name!r} already; remove this key")
        elif isinstance(value, dict):
            self.fill(message, value, path)
        elif shape is not None and isinstance(value, list):
            self._fill_repeated(message, shape, value, path)
        elif shape is not None:
            self._problem(path, f'must be a shape such as [32, "d"] or a table, got {_shown(value)}')
        elif formula is not None:
            if (text := self._scalar(formula, value, path)) is not None:
                setattr(message, formula.name, text)
        else:
            self._problem(path, f"must be a table, got {_shown(value)}")
        setattr(message, message.DESCRIPTOR.fields[0].name, name)

    def _scalar(self, field: FieldDescriptor, value: object, path: str) -> Any:
        """The value as the field takes it, or None after a problem."""
        kind = field.cpp_type
        if field.enum_type is not None:
            return self._enum(field.enum_type, value, path)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            if isinstance(value, bool):
                return value
            return self._problem(path, f"must be true or false, got {_shown(value)}")
        if kind in _INTEGER_BITS:
            if not isinstance(value, int) or isinstance(value, bool):
                return self._problem(path, f"must be a whole number, got {_shown(value)}")
            least, most = _INTEGER_BITS[kind]
            if not least <= value <= most:
                return self._problem(path, f"must be from {least} to {most}, got {_shown(value)}")
            return value
        if kind in _FLOATS:
            if not isinstance(value, int | float) or isinstance(value, bool):
                return self._problem(path, f"must be a number, got {_shown(value)}")
            try:
                return float(value)
            except OverflowError:
                return self._problem(path, f"must be a number that fits into 64 bits, got {_shown(value)}")
        if field.type == FieldDescriptor.TYPE_STRING:
            if isinstance(value, str):
                return value
            return self._problem(path, f"must be a string, got {_shown(value)}")
        return self._problem(path, "can't be set in a job file")

    def _enum(self, enum: EnumDescriptor, value: object, path: str) -> Any:
        names = {name.lower(): number for number, name in enum_names(enum).items() if number}
        if not isinstance(value, str):
            return self._problem(path, f"must be a string, got {_shown(value)}")
        if value not in names:
            return self._problem(path, f"unknown value {value!r}; {suggestion(value, names)}")
        return names[value]

    def _problem(self, path: str, message: str) -> None:
        self.problems.append((path, message))


def fields_of_message(message: Message) -> dict[str, FieldDescriptor]:
    """The fields of a message by name."""
    # A cast: the stubs name two classes, of which every one has the same attributes.
    return cast(dict[str, FieldDescriptor], dict(message.DESCRIPTOR.fields_by_name))


def _switches(message: Message) -> list[str]:
    """The fields of a message that consists of bools alone; otherwise none."""
    fields = fields_of_message(message)
    if all(each.type == FieldDescriptor.TYPE_BOOL and not each.is_repeated for each in fields.values()):
        return list(fields)
    return []


def _rivals(field: FieldDescriptor) -> list[str]:
    """The other fields of the oneof that holds the field."""
    oneof = field.containing_oneof
    return [] if oneof is None else [each.name for each in oneof.fields if each.name != field.name]


def suggestion(key: str, known: Iterable[str]) -> str:
    """What to write in place of an unknown key: the nearest name that there is, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(key.lower(), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"


def _listed(names: list[str]) -> str:
    return " and ".join(f'"{name}"' for name in names)


def _join(path: str, key: str) -> str:
    # Quoted where TOML would quote it: a problem stays one readable line.
    written = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key[:80], ensure_ascii=False)
    return f"{path}.{written}" if path else written


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return "a date or time"
    if isinstance(value, str):
        return f"the string {json.dumps(value if len(value) <= 40 else value[:40] + '…', ensure_ascii=False)}"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 128 bits"
    # Whatever else a program gave, such as an array, may be long.
    return str(value) if isinstance(value, int | float) else f"a value of type {type(value).__name__}"


def _toml_message(message: str, text: str) -> str:
    """tomllib's message with the place in front; it leaves out the line where the text's end is the place."""
    what, _, place = message.rpartition(" (at ")
    found = re.fullmatch(r"line (\d+), column (\d+)\)", place)
    if found:
        line, column = int(found[1]), int(found[2])
    else:
        what = what or message
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    return f"line {line}, column {column}: not TOML: {what}"
