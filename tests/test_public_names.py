"""What is public is said once, and the reference has all of it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import chainrule
from chainrule import errors
from chainrule.spec import functions

ROOT = Path(__file__).resolve().parents[1]


def test_the_reference_has_every_public_name_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    shown = {name.removeprefix("chainrule.") for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    groups = {"errors", "spec.functions", "estimators.ChainruleRegressor", "estimators.ChainruleClassifier"}
    of_errors = {name for name, each in vars(errors).items() if isinstance(each, type) and not name.startswith("_")}
    assert shown - groups == {*chainrule.__all__} - of_errors
    assert groups <= shown


def test_the_reference_shows_a_method_wherever_its_class_has_it_from() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    found = re.findall(r"^::: chainrule\.(\w+)$(\n    options:\n      inherited_members: true)?", page, re.MULTILINE)
    options = {name: bool(has_inherited) for name, has_inherited in found}
    assert options["aio"]
    classes = {name: each for name in options if isinstance(each := getattr(chainrule, name), type)}
    shown = {base for name, each in classes.items() for base in (each.__mro__ if options[name] else [each])}
    hidden = {
        f"{each.__name__}.{name}"
        for each in classes.values()
        for base in each.__mro__
        if base.__module__.startswith("chainrule.") and base not in shown
        for name in vars(base)
        if not name.startswith("_")
    }
    assert hidden == set()


def test_type_checkers_are_told_every_name_that_is_there_and_where_it_is_from() -> None:
    stub = (ROOT / "chainrule" / "__init__.pyi").read_text(encoding="utf-8")
    told = re.findall(r"^from (\S+) import (\w+) as \2$", stub, re.MULTILINE)
    assert len(told) == len(stub.splitlines())
    own = (name for name, each in vars(functions).items() if getattr(each, "__module__", "") == functions.__name__)
    public = [name for name in own if not name.startswith("_")]
    assert sorted(name for _, name in told) == sorted([*chainrule.__all__, *public])
    for module, name in told:
        each = getattr(chainrule, name)
        assert each is importlib.import_module("chainrule.aio") if name == "aio" else each.__module__ == module
