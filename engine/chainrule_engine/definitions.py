"""Parts of a model with names: `hidden = relu(V @ x)`, and functions: `layer(V, h) = relu(V @ h) + h`.

A definition may use those before it, so nothing recurs. A value is one node, wherever it is used; a function is written
out where it is called, and calls with the same arguments are one node, as equal subexpressions are everywhere. What all
calls together may read is bounded here, so that definitions that would grow exponentially cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from chainrule_engine.builder import DefinedFunction, GraphBuilder
from chainrule_engine.errors import FormulaError
from chainrule_engine.formula import Term, Token, parse, tokens_of

# A network of some hundred layers fits.
MAXIMUM_DEFINITIONS = 1_000
MAXIMUM_ARGUMENTS = 100
MAXIMUM_READ = 50_000


@dataclass(frozen=True)
class Definition:
    """name: 'hidden', or a function with its arguments, 'layer(V, h)'. formula: what it stands for."""

    name: str
    formula: str


@dataclass(frozen=True)
class _Head:
    name: str
    arguments: tuple[str, ...] | None
    field: str
    formula: str


class Definitions:
    """Gives a builder the definitions of a model: those that need the prediction after it, the others before.

    taken: the names that no definition may have. Raises FormulaError with the field 'definitions.NAME'."""

    def __init__(
        self, definitions: Sequence[Definition], builder: GraphBuilder, *, taken: set[str], has_prediction: bool
    ) -> None:
        if len(definitions) > MAXIMUM_DEFINITIONS:
            raise FormulaError(
                f"there are {len(definitions)} definitions; at most {MAXIMUM_DEFINITIONS} are read", field="definitions"
            )
        length = sum(len(definition.formula) for definition in definitions)
        if length > MAXIMUM_READ:
            raise FormulaError(
                f"the definitions have {length} characters; at most {MAXIMUM_READ} are read", field="definitions"
            )
        self._builder = builder
        self._waiting: list[_Head] = []
        self._has_prediction = has_prediction
        self._heads = _checked_heads(definitions, builder, taken)

    def before_prediction(self) -> None:
        """Define what doesn't need the prediction, and check the others."""
        unavailable = self._builder.unavailable
        for head in self._heads:
            unavailable[head.name] = "is defined below; a definition may use those before it, so move it up"
        after_prediction = {"prediction"} if self._has_prediction else set()
        if self._has_prediction:
            unavailable["prediction"] = "is not known yet; only the loss, and what the loss uses, can have it"
        for head in self._heads:
            unavailable[head.name] = "is used in its own definition; a definition may use those before it"
            names = _names_used(head, self._builder, after_prediction)
            del unavailable[head.name]
            if names & after_prediction:
                after_prediction.add(head.name)
            if head.arguments is not None:
                self._builder.define(DefinedFunction(head.name, head.arguments, head.field, head.formula))
            elif names & after_prediction:
                self._waiting.append(head)
                unavailable[head.name] = "is defined with prediction, so only the loss can use it"
            else:
                self._evaluate(head)

    def after_prediction(self) -> None:
        """Define the others."""
        self._builder.unavailable.pop("prediction", None)
        for head in self._waiting:
            self._evaluate(head)
            del self._builder.unavailable[head.name]

    def _evaluate(self, head: _Head) -> None:
        self._builder.begin(head.field, head.formula)
        node = parse(head.formula, self._builder, field=head.field).node
        self._builder.declare(head.name, node)
        self._builder.entitle(node, head.name)


def _checked_heads(definitions: Sequence[Definition], builder: GraphBuilder, taken: set[str]) -> list[_Head]:
    """What stands on the left, read. Raises FormulaError."""
    heads: list[_Head] = []
    names: set[str] = set()
    for definition in definitions:
        head = _head(definition)
        if head.name in names:
            raise FormulaError(
                f"'{head.name}' is defined twice; give each definition a name of its own", field=head.field
            )
        if head.name in taken or builder.is_function(head.name):
            kind = "a function" if builder.is_function(head.name) else "a parameter, an input or the prediction"
            raise FormulaError(f"the name '{head.name}' is taken: it is {kind}", field=head.field)
        for argument in head.arguments or ():
            if argument == head.name or argument in names or builder.is_function(argument):
                raise FormulaError(
                    f"the argument '{argument}' has the name of a function or a definition; give it another",
                    field=head.field,
                )
        names.add(head.name)
        heads.append(head)
    return heads


def _head(definition: Definition) -> _Head:
    """'layer(V, h)' as a name and its arguments, ('layer', ('V', 'h')). Raises FormulaError."""
    text = definition.name
    field = f"definitions.{text[:80]}"
    tokens = list(tokens_of(text[:4_000], field=field))

    def fail(token: Token) -> NoReturn:
        raise FormulaError(
            f"unexpected '{token.text[:40]}' at column {token.start + 1} of the name; a definition is called by a "
            "name, such as hidden, or by a name and arguments, such as layer(V, h)",
            field=field,
        )

    if tokens[0].kind != "name" or len(tokens[0].text) > 100:
        fail(tokens[0])
    name = tokens[0].text
    if len(tokens) == 2:
        return _Head(name, None, f"definitions.{name}", definition.formula)
    arguments: list[str] = []
    for place, token in enumerate(tokens[1:-1]):
        is_last = place == len(tokens) - 3
        wanted = ")" if is_last else "(" if place == 0 else "," if place % 2 == 0 else ""
        if (token.kind != "name" if not wanted else token.text != wanted) or (is_last and place % 2 == 1):
            fail(token)
        if not wanted:
            if token.text in arguments:
                raise FormulaError(f"the argument '{token.text}' is there twice", field=field)
            arguments.append(token.text)
    if not arguments or tokens[-2].text != ")":
        fail(tokens[-1])
    if len(arguments) > MAXIMUM_ARGUMENTS:
        raise FormulaError(f"{len(arguments)} arguments; at most {MAXIMUM_ARGUMENTS} are read", field=field)
    return _Head(name, tuple(arguments), f"definitions.{name}", definition.formula)


def _names_used(head: _Head, builder: GraphBuilder, after_prediction: set[str]) -> set[str]:
    """The names in a formula, each of them known. Raises FormulaError, also where an argument isn't used."""
    reader = _NameReader(head, builder, after_prediction)
    builder.begin(head.field, head.formula)
    parse(head.formula, reader, field=head.field)
    for argument in head.arguments or ():
        if argument not in reader.used:
            raise FormulaError(f"the argument '{argument}' is not used; leave it out", field=head.field, column=1)
    return reader.used


class _NameReader:
    """The FormulaBuilder that makes nothing, and collects names. What it doesn't know the builder's errors name."""

    def __init__(self, head: _Head, builder: GraphBuilder, after_prediction: set[str]) -> None:
        self.used: set[str] = set()
        self._arguments = head.arguments or ()
        self._builder = builder
        self._later = after_prediction

    def number(self, value: float, start: int, end: int) -> None:
        self._builder.number(value, start, end)

    def name(self, name: str, start: int) -> None:
        if (name not in self._arguments and name not in self._later) or self._builder.is_function(name):
            self._builder.name(name, start)
        self.used.add(name)

    def is_function(self, name: str) -> bool:
        return name not in self._arguments and self._builder.is_function(name)

    def call(self, function: str, _arguments: list[Term[None]], start: int, end: int, nesting: int) -> None:
        if not self.is_function(function):
            self._builder.call(function, [], start, end, nesting)
        self.used.add(function)

    def negation(self, operand: Term[None], start: int) -> None:
        """Nothing."""

    def operator(self, symbol: str, left: Term[None], right: Term[None], column: int) -> None:
        """Nothing."""

    def juxtaposition(self, left: Term[None], right: Term[None], column: int) -> None:
        """Nothing."""

    def component(self, operand: Term[None], indices: list[int], end: int) -> None:
        """Nothing."""
