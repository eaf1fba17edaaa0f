"""How a job's hyperparameters become a frozen dataclass: numbers in their range, names that exist.

Each rule (an optimizer, a schedule) is a dataclass whose fields are its settings and which checks them itself; a table
gives it its name. What is wrong is a SettingError that names the setting as the job file does.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from chainrule_engine.errors import SettingError

Rule = TypeVar("Rule")

# Hyperparameters are rounded to float32 where they meet a vector, and must still be finite there.
LARGEST = 1e30


def check_number(
    value: float,
    *,
    setting: str,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise SettingError unless `value` is a number of at most LARGEST in size, within the bounds that are given."""
    holds = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= LARGEST
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (below is None or value < below)
        and (at_most is None or value <= at_most)
    )
    if not holds:
        if isinstance(value, int | float) and abs(value) > LARGEST and at_most is None:
            at_most = LARGEST if below is None else None
        bounds = {"at least": at_least, "above": above, "below": below, "at most": at_most}
        wanted = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
        raise SettingError(setting, f"must be {wanted or 'a finite number'}, got {_shown(value)}")


def check_count(value: float, *, setting: str, at_least: int) -> None:
    """Raise SettingError unless `value` is a whole number of at least `at_least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise SettingError(setting, f"must be a whole number of at least {at_least}, got {_shown(value)}")


def whole(value: float) -> float:
    """A float such as 5.0 as the int 5; anything else as it is, for check_count to judge."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def hint(word: str, known: Iterable[str]) -> str:
    """Words after an unknown name: "did you mean 'adam'?", or everything that there is."""
    known = list(known)
    near = difflib.get_close_matches(str(word)[:100].lower(), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known)}"


def check_known(names: Iterable[str], known: Iterable[str], *, kind: str, what: str) -> None:
    """Raise SettingError ("kind.name") for a name that is not among those known. what: one of them, in words."""
    known = list(known)
    for name in names:
        if name not in known:
            raise SettingError(f"{kind}.{name}", f"unknown {what} {name!r}; {hint(name, known)}")


def make(
    kind: str,
    table: Mapping[str, type[Rule]],
    name: str,
    settings: Mapping[str, float],
    *,
    elsewhere: tuple[str, ...] = (),
) -> Rule:
    """The rule of a name, with its settings; settings that are left out have their defaults.

    kind: what the table holds, for the messages: "optimizer". A whole number may come as a float, as from a protobuf.
    elsewhere: settings that the caller takes itself, for the messages.
    Raises SettingError for an unknown name ("optimizer.name"), an unknown setting ("optimizer.beta3") or one that is
    missing."""
    rule = table.get(name)
    if rule is None:
        raise SettingError(f"{kind}.name", f"unknown {kind} {name!r}; {hint(name, table)}")
    fields = {field.name: field for field in dataclasses.fields(cast("Any", rule)) if field.init}
    values: dict[str, float] = {}
    for setting, value in settings.items():
        if setting not in fields:
            there = hint(setting, (*fields, *elsewhere)) if fields or elsewhere else f"{name} has none of its own"
            raise SettingError(f"{kind}.{setting}", f"is no setting of {name}; {there}")
        values[setting] = whole(value) if fields[setting].type == "int" else value
    for field in fields.values():
        if field.default is dataclasses.MISSING and field.name not in values:
            raise SettingError(f"{kind}.{field.name}", f"is missing; {name} needs it")
    return cast("Any", rule)(**values)  # type: ignore[no-any-return]


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)[:80]
