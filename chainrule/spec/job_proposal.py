"""A job file to begin with, proposed from what the columns of a data file are: a pure function from facts to text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chainrule.text import one_line

# A text column with more values than that says who a row is, and not what it is like; and so does one of which most
# rows have a value of their own, where there are rows enough to tell.
MOST_CATEGORIES = 100
OWN_SHARE = 0.5
FEWEST_ROWS = 20
# Of fewer rows none is kept for validation.
FEWEST_TO_VALIDATE = 10
# Whole numbers with so few values may be names of classes.
FEW_VALUES = 10
HIDDEN_UNITS = 16
SHARDS = 8
BATCH_SIZE = 64

Kind = Literal["number", "category", "unusable"]


@dataclass(frozen=True)
class ColumnFacts:
    """What is known of a column, from all rows. distinct: how many values. names: the first categories. why: it can't
    be used. is_counter: it numbers the rows, one after the other. is_code: its numbers are written like 007."""

    name: str
    kind: Kind
    missing: int = 0
    distinct: int = 0
    is_whole: bool = False
    is_counter: bool = False
    is_code: bool = False
    names: tuple[str, ...] = ()
    why: str = ""

    @classmethod
    def of(cls, fields: dict[str, Any]) -> ColumnFacts:
        """The facts as `chainrule_server.offline.column_facts` tells them."""
        return cls(**{**fields, "names": tuple(fields.get("names", ()))})


class NoTarget(ValueError):
    """No column can be the target; the message says why and what to do."""


def chosen_target(columns: Sequence[ColumnFacts], wanted: str | None, *, row_count: int) -> ColumnFacts:
    """The column to predict: the wanted one, else one that is called target, label or y, else the last that can be one.

    What is the same in every row, numbers the rows or holds too many texts is none, unless it is wanted by name.
    Raises NoTarget."""
    by_name = {column.name: column for column in columns}
    if wanted is not None:
        if wanted not in by_name:
            raise NoTarget(f"there is no column {wanted!r}; there are {', '.join(list(by_name)[:20])}")
        if by_name[wanted].kind == "unusable":
            raise NoTarget(f"{wanted!r} can't be the target: {by_name[wanted].why}")
        return by_name[wanted]
    usable = [column for column in columns if not _why_left_out(column, row_count)]
    if not usable:
        raise NoTarget("no column holds different numbers or categories; name one with --target")
    # Not "class": as often it is a feature, such as that of a ticket.
    named = [column for column in usable if column.name.lower() in ("target", "label", "y")]
    return (named or usable)[-1]


def proposal(
    columns: Sequence[ColumnFacts],
    *,
    uri: str,
    name: str,
    target: ColumnFacts,
    row_count: int,
    file_name: str,
    csv_format: Mapping[str, Any] | None = None,
    has_own_target: bool = False,
) -> str:
    """The text of a job file. uri: of the data. file_name: what the job file will be called, for its first comment.

    csv_format: what `data.csv` must say, where the file isn't the usual CSV. has_own_target: the job doesn't name it.

    Raises NoTarget where no feature is left."""
    if target.distinct <= 1:
        raise NoTarget(f"{target.name!r} is the same in every row, so there is nothing to learn; choose another column")
    left_out = {column.name: _why_left_out(column, row_count) for column in columns if column is not target}
    excluded = {column: why for column, why in left_out.items() if why}
    if len(excluded) == len(left_out):
        # A number of each row is a poor feature, but better than none.
        numbers = {column.name for column in columns if column.kind == "number" and column.distinct > 1}
        excluded = {column: why for column, why in excluded.items() if column not in numbers}
    features = [column for column in columns if column is not target and column.name not in excluded]
    if not features:
        raise NoTarget(f"no column but {target.name!r} can be used, so there is nothing to predict it from")
    # What is written with a sign is a quantity.
    written = (csv_format or {}).get("numbers", ())
    is_class = target.kind == "category" or target.is_code or (_may_be_class(target) and target.name not in written)
    # Without a target a row is left out.
    used_count = row_count - target.missing
    shards = _shards(used_count)
    is_validated = used_count >= FEWEST_TO_VALIDATE
    lines = [
        f"# {row_count} rows of {uri}, all looked at; predicts {_quoted(target.name)} from {len(features)} columns.",
        "#",
        f"#     chainrule train {file_name} --workers 2",
        "#",
        f"# Proposed by 'chainrule init'. Change whatever you like, and check it with 'chainrule check {file_name}'.",
        "",
        f"name = {_quoted(name)}",
        "",
        "[model]",
        *_model_lines(is_class=is_class, classes=target),
        "",
        "[data]",
        f"uri = {_quoted(uri)}",
        *(["# The file has a target of its own."] if has_own_target else [f"target = {_quoted(target.name)}"]),
    ]
    if csv_format:
        if written:
            is_are = f"{_listed(written)} {'is' if len(written) == 1 else 'are'} written for people"
            lines.append(f"# {is_are}: signs and what parts thousands don't count.")
        lines.append(f"csv = {{ {', '.join(f'{key} = {_quoted(value)}' for key, value in csv_format.items())} }}")
    if target.missing:
        rows = "row has no target, and is" if target.missing == 1 else "rows have no target, and are"
        lines += [f"# {target.missing} {rows} left out.", 'missing_target = "leave_out"']
    if excluded:
        lines += [f"# {_quoted(column)}: {why}." for column, why in excluded.items()]
        lines.append(f"exclude = [{', '.join(map(_quoted, excluded))}]")
    names = [column for column in features if column.name not in written]
    lines += _category_lines(names, target, is_class=is_class)
    gaps = [column.name for column in features if column.missing]
    if gaps:
        lines += [f"# Values are missing in {_listed(gaps)}.", 'missing = "median"']
    lines += [
        "validation_fraction = 0.2" if is_validated else "validation_fraction = 0.0  # too few rows to keep some back",
        "",
        "[training]",
        "epochs = 50",
        f"batch_size = {max(shards, min(BATCH_SIZE, _power_below(used_count // 4)))}",
        f"shards = {shards}  # fixed parts of the data, and the greatest number of workers",
        "seed = 0",
        'optimizer = { name = "adam", learning_rate = 0.01 }',
    ]
    if is_validated:
        lines += [
            "# Stop when the validation loss has not become better for so many epochs, and keep the best parameters.",
            "early_stopping = { patience_epochs = 10 }",
        ]
    lines.append("")
    # A comment takes no control characters, which names and what is said of them may hold.
    return "\n".join(one_line(line) if line.startswith("#") else line for line in lines)


def job_name(stem: str) -> str:
    """A file's name as the name of a job: letters, digits, '-', '_' and '.'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-")[:63] or "job"


def _model_lines(*, is_class: bool, classes: ColumnFacts) -> list[str]:
    shape = f'V = [{HIDDEN_UNITS}, "d"]  # d: the places in x, one for each number and each category'
    if not is_class:
        return [
            "# A hidden layer of tanh units, and the squared error.",
            'prediction = "w @ tanh(V @ x + c) + b"',
            'loss = "(prediction - y)**2"',
            "",
            "[model.parameters]",
            shape,
            f"c = [{HIDDEN_UNITS}]",
            f"w = [{HIDDEN_UNITS}]",
            "b = []",
        ]
    return [
        f"# A hidden layer of tanh units, and a score for each of the {classes.distinct} classes;",
        "# their softmax are the probabilities.",
        'prediction = "W @ tanh(V @ x + c) + b"',
        'loss = "cross_entropy(prediction, y)"',
        "",
        "[model.parameters]",
        shape,
        f"c = [{HIDDEN_UNITS}]",
        f'W = ["k", {HIDDEN_UNITS}]  # k: the number of classes',
        'b = ["k"]',
    ]


def _category_lines(features: Sequence[ColumnFacts], target: ColumnFacts, *, is_class: bool) -> list[str]:
    """Whole numbers that are names: the target's for certain where it is a class, others as a hint."""
    lines = []
    perhaps = [column.name for column in features if _may_be_class(column) and not column.is_code]
    if perhaps:
        lines.append(
            f"# Whole numbers with few values: {_listed(perhaps)}. If they are names, put them into categories."
        )
    codes = [column.name for column in features if column.is_code]
    if codes:
        lines.append(f"# Numbers that are written like 007 are names: {_listed(codes)}.")
    if is_class and target.kind == "number":
        lines.append(f"# {_quoted(target.name)} has {target.distinct} whole numbers; without this it is a quantity.")
        codes.append(target.name)
    if codes:
        lines.append(f"categories = [{', '.join(map(_quoted, codes))}]")
    return lines


def _may_be_class(column: ColumnFacts) -> bool:
    return column.kind == "number" and column.is_whole and 2 <= column.distinct <= FEW_VALUES


def _why_left_out(column: ColumnFacts, row_count: int) -> str:
    """Why a column is no feature; empty where it is one."""
    if column.kind == "unusable":
        return _without_advice(column).rstrip(".")
    if column.distinct <= 1:
        return "it is the same in every row"
    own = column.distinct > OWN_SHARE * row_count and row_count >= FEWEST_ROWS
    if (column.kind == "category" or column.is_code) and (column.distinct > MOST_CATEGORIES or own):
        return f"{column.distinct} different texts in {row_count} rows, so it is a name or a remark"
    if column.is_counter and column.is_whole and row_count >= FEWEST_ROWS:
        return "it counts the rows, and says nothing of them"
    if column.kind == "number" and column.is_whole and column.distinct == row_count and _is_identifier(column.name):
        return "a number of its own for each row, so it says which row it is"
    return ""


def _without_advice(column: ColumnFacts) -> str:
    """Why a column can't be used, without its name and without the advice to leave it out, which the proposal does."""
    why = column.why.removeprefix(f"{column.name!r} ")
    return re.sub(r"[,;] (?:or )?leave it out\b.*", "", why, flags=re.DOTALL)


def _is_identifier(name: str) -> bool:
    """Whether a name is one of what tells rows apart, such as "PassengerId", "Unnamed: 0" or "row_names"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    ends = r"(?:^|[_\s.-])(?:id|ids|uid|uuid|guid|index|idx|number|num|nr|no|key|rowid|row)$"
    whole = r"unnamed(?:: \d+)?|row[_ .]?names?|__index_level_\d+__|x\.?1?|id.*"
    return re.search(ends, words) is not None or re.fullmatch(whole, words) is not None


def _shards(row_count: int) -> int:
    """At most 8, and at least 8 rows in each."""
    return max(1, min(SHARDS, _power_below(row_count // 8)))


def _power_below(number: int) -> int:
    """The largest power of two that is not larger; 1 where there is none."""
    return 1 << max(number, 1).bit_length() - 1


def _quoted(value: str | Sequence[str]) -> str:
    """A text, or a list of texts, as TOML has it."""
    # DEL is the one character that JSON leaves as it is and TOML doesn't take.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(_quoted, names[:8]))
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
