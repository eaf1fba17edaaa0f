"""Builds the nodes of a graph, checks that their shapes fit, and keeps equal subexpressions as one node."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, NoReturn

from chainrule_engine.errors import FormulaError, ShapeMismatch
from chainrule_engine.formula import FUNCTION_LETTERS, Term, parse, same_name
from chainrule_engine.graph import Node
from chainrule_engine.lookalikes import lookalike
from chainrule_engine.operations import FUNCTIONS, OPERATIONS, Misfit, Operation

MAXIMUM_ELEMENTS = 2**31
OPERATORS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "@": "matmul", "**": "power"}
_FOLDED: dict[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "negative": lambda a, _: -a,
    "square": lambda a, _: a * a,
}
_TEXT_LENGTH = 60
# Of what all calls of defined functions read and make together: a network of some hundred layers fits.
MAXIMUM_CALLS = 500
MAXIMUM_READ = 20_000
MAXIMUM_NODES = 20_000


class DefinedFunction(NamedTuple):
    """A function of a model's own: layer(V, h) = relu(V @ h) + h. field: what errors call its formula."""

    name: str
    arguments: tuple[str, ...]
    field: str
    formula: str


class GraphBuilder:
    """The FormulaBuilder that makes nodes.

    functions: names that stand for an operation with one operand, such as {"phi": "sigmoid"}."""

    def __init__(self, functions: Mapping[str, str]) -> None:
        self.nodes: list[Node] = []
        self._named: dict[str, Node] = {}
        self._known: dict[tuple[object, ...], Node] = {}
        self._functions = dict(functions)
        self._masks = 0
        self._field = ""
        self._formula = ""
        # Names that have a meaning, but not here, and why.
        self.unavailable: dict[str, str] = {}
        # By a node's index: what a definition calls it, which call made it, what is read before its operands.
        self.titles: dict[int, str] = {}
        self.call_titles: dict[int, str] = {}
        self.first: dict[int, tuple[Node, ...]] = {}
        self._defined: dict[str, DefinedFunction] = {}
        self._arguments: dict[str, Node] = {}
        self._called: dict[tuple[object, ...], Node] = {}
        self._call_count = 0
        self._read_length = 0
        self._within = ""

    def begin(self, field: str, formula: str) -> None:
        """Say which formula the next calls come from."""
        self._field, self._formula = field, formula

    def declare(self, name: str, node: Node) -> None:
        """Let `name` stand for `node`."""
        self._named[same_name(name)] = node

    def define(self, function: DefinedFunction) -> None:
        """Let formulas call a function whose formula has been checked."""
        self._defined[function.name] = function

    def entitle(self, node: Node, title: str) -> None:
        """Let pictures call a node by a definition's name; the first counts."""
        self.titles.setdefault(node.index, title)

    def leaf(
        self, operation: str, name: str, shape: tuple[int, ...], *, batched: bool, class_count: int | None = None
    ) -> Node:
        """Add a parameter, an input or another leaf with a name."""
        return self._add(Node(0, operation, (), shape, batched, name=name, class_count=class_count))

    # What the parser calls.

    def number(self, value: float, start: int, end: int) -> Node:
        if not math.isfinite(value):
            self._fail("the number is too large", start + 1)
        return self._constant(value, start, end)

    def name(self, name: str, start: int) -> Node:
        node = self._arguments.get(name) or self._named.get(name)
        if node is not None:
            return node
        if name in self.unavailable:
            self._fail(f"'{name}' {self.unavailable[name]}", start + 1)
        if self.is_function(name):
            written = self._formula[start : start + 1]
            if FUNCTION_LETTERS.get(written) == name:
                self._fail(
                    f"'{written}' is the function {name}; write {written}(…), or another name for a parameter, such as "
                    f"{'sigma' if written == 'σ' else name + '1'}",
                    start + 1,
                )
            self._fail(f"'{name}' is a function; write {name}(…)", start + 1)
        return self._fail(
            f"unknown name '{name}'{self._suggestion(name, [*self._arguments, *self._named])}; {self._vocabulary()}",
            start + 1,
        )

    def is_function(self, name: str) -> bool:
        if name in self._named or name in self._arguments:
            return False
        return name in self._functions or name in FUNCTIONS or name in self._defined

    def negation(self, operand: Term[Node], start: int) -> Node:
        return self._apply("negative", [operand], (), start, operand.end, start + 1)

    def operator(self, symbol: str, left: Term[Node], right: Term[Node], column: int) -> Node:
        name = OPERATORS[symbol]
        if name == "power" and right.node.operation == "constant" and right.node.value == 2.0:
            return self._apply("square", [left], (), left.start, right.end, column)
        return self._apply(name, [left, right], (), left.start, right.end, column)

    def juxtaposition(self, left: Term[Node], right: Term[Node], column: int) -> Node:
        scalar = not left.node.shape or not right.node.shape
        return self._apply("multiply" if scalar else "matmul", [left, right], (), left.start, right.end, column)

    def call(self, function: str, arguments: list[Term[Node]], start: int, end: int, nesting: int) -> Node:
        name = self._functions.get(function, function)
        if not self.is_function(function):
            if function in self.unavailable:
                self._fail(f"'{function}' {self.unavailable[function]}", start + 1)
            known = [*FUNCTIONS, *self._functions, *self._defined]
            hint = self._suggestion(function, known) or f"; the functions are {', '.join(sorted(known))}"
            if function in ("phi", "psi"):
                hint = f'; say what it is in the model, for example {function} = "sigmoid"'
            self._fail(f"unknown function '{function}'{hint}", start + 1)
        if function in self._defined:
            return self._call_defined(self._defined[function], arguments, start, end, nesting)
        operation = OPERATIONS[FUNCTIONS[name]]
        if operation.name == "dropout":
            return self._dropout(function, arguments, start, end)
        operands, options = self._options(function, operation, operation.operand_count, arguments, start)
        if operation.name == "power" and operands[1].node.value == 2.0 and operands[1].node.operation == "constant":
            return self._apply("square", operands[:1], (), start, end, start + 1)
        made = len(self.nodes)
        node = self._apply(operation.name, operands, options, start, end, start + 1)
        if len(operands) < len(arguments) and node.index >= made:
            self.first[node.index] = tuple(argument.node for argument in arguments)
        return node

    def component(self, operand: Term[Node], indices: list[int], end: int) -> Node:
        return self._apply("component", [operand], tuple(indices), operand.start, end, operand.end + 1)

    # How functions of a model's own are called.

    def _call_defined(
        self, function: DefinedFunction, arguments: list[Term[Node]], start: int, end: int, nesting: int
    ) -> Node:
        if len(arguments) != len(function.arguments):
            takes = f"{len(function.arguments)} argument{'s' * (len(function.arguments) != 1)}"
            written = f"{function.name}({', '.join(function.arguments)})"
            self._fail(f"{written} takes {takes}, but has {len(arguments)}", start + 1)
        key = (function.name, *(argument.node.index for argument in arguments))
        if key in self._called:
            return self._called[key]
        self._count_call(function, start)
        masks = self._masks
        outer = self._field, self._formula, self._arguments, self._within
        call = self._text(Term(arguments[0].node, start, end))
        self.begin(function.field, function.formula)
        self._arguments = {name: each.node for name, each in zip(function.arguments, arguments, strict=True)}
        self._within = call
        try:
            node = parse(function.formula, self, field=function.field, nesting=nesting + 1).node
        except FormulaError as error:
            if error.field != function.field or "; called as '" in error.reason:
                raise
            reason = f"{error.reason}; called as '{call}' at column {start + 1} of {outer[0]}"
            raise type(error)(reason, field=error.field, column=error.column) from None
        finally:
            self._field, self._formula, self._arguments, self._within = outer
        self.call_titles.setdefault(node.index, call)
        # What draws a dropout draws anew in each call, as it would if it were written out.
        if self._masks == masks:
            self._called[key] = node
        return node

    def _count_call(self, function: DefinedFunction, start: int) -> None:
        self._call_count += 1
        self._read_length += len(function.formula)
        if self._call_count > MAXIMUM_CALLS or self._read_length > MAXIMUM_READ:
            self._fail(
                f"there are more than {MAXIMUM_CALLS} different calls of defined functions, or {MAXIMUM_READ} "
                "characters in them; give what is used again a name of its own",
                start + 1,
            )

    # How nodes are made.

    def _dropout(self, function: str, arguments: list[Term[Node]], start: int, end: int) -> Node:
        operation = OPERATIONS["dropout"]
        operands, options = self._options(function, operation, 1, arguments, start)
        node = operands[0].node
        self._masks += 1
        # A new leaf each time: two dropouts of the same value are drawn independently.
        mask = self._add(
            Node(0, "mask", (), node.shape, node.batched, options, name=f"dropout {self._masks}"), shared=False
        )
        return self._add(self._operation("dropout", (node, mask), node.shape, options, start, end))

    def _options(
        self, function: str, operation: Operation, count: int | None, arguments: list[Term[Node]], start: int
    ) -> tuple[list[Term[Node]], tuple[float, ...]]:
        """Divide a call's arguments into operands and options."""
        if count is None:
            if not arguments:
                self._fail(f"{function} takes at least 1 argument, but has none", start + 1)
            return arguments, ()
        required = count + sum(rule.default is None for rule in operation.options)
        most = count + len(operation.options)
        if operation.name in ("maximum", "minimum"):
            most = max(most, len(arguments))
        if not required <= len(arguments) <= most:
            takes = f"{required}" if required == most else f"{required} to {most}"
            self._fail(f"{function} takes {takes} arguments, but has {len(arguments)}", start + 1)
        options = []
        for rule, argument in zip(operation.options, arguments[count:], strict=False):
            if argument.node.operation != "constant" or not rule.low <= argument.node.value < rule.high:
                self._fail(
                    f"'{self._text(argument)}' cannot be the {rule.name} of {function}; "
                    f"it is a number from {rule.low:g} to below {rule.high:g}",
                    argument.start + 1,
                )
            options.append(argument.node.value)
        options += [rule.default for rule in operation.options[len(options) :] if rule.default is not None]
        operands = arguments[:count] if operation.options else arguments
        while len(operands) > count:  # max(a, b, c) is max(max(a, b), c)
            left, right = operands[:2]
            node = self._apply(operation.name, [left, right], (), left.start, right.end, start + 1)
            operands = [Term(node, left.start, right.end), *operands[2:]]
        return operands, tuple(options)

    def _apply(
        self, name: str, terms: list[Term[Node]], options: tuple[float, ...], start: int, end: int, column: int
    ) -> Node:
        operands = tuple(term.node for term in terms)
        operation = OPERATIONS[name]
        if name in ("maximum", "minimum") and operands[0] is operands[1]:
            return operands[0]  # the larger of u and u is u: no tie, whose derivative would be 0
        for term in terms:
            if term.node.class_count is not None and (name != "cross_entropy" or term is terms[0]):
                self._fail(
                    f"'{term.node.name}' holds classes, which are no numbers; only the second operand of cross_entropy "
                    "takes classes",
                    column,
                )
        if name in _FOLDED and all(operand.operation == "constant" for operand in operands):
            return self._constant(self._folded(operation, operands, column), start, end)
        try:
            shape = operation.shape(*operands, options=options)
        except Misfit as misfit:
            described = " and ".join(f"'{self._text(term)}' has shape {_shape_text(term.node.shape)}" for term in terms)
            raise ShapeMismatch(
                f"{operation.symbol or name}: {described}: {misfit}", field=self._field, column=column
            ) from None
        self.check_size(shape, column)
        return self._add(self._operation(name, operands, shape, options, start, end))

    def _operation(
        self,
        name: str,
        operands: tuple[Node, ...],
        shape: tuple[int, ...],
        options: tuple[float, ...],
        start: int,
        end: int,
    ) -> Node:
        batched = any(operand.batched for operand in operands)
        return Node(
            0, name, operands, shape, batched, options, "", 0.0, None, self._formula, start, end, "", self._within
        )

    def check_size(self, shape: tuple[int, ...], column: int | None) -> None:
        """Raise ShapeMismatch if one example alone would not fit in memory."""
        if math.prod(shape) > MAXIMUM_ELEMENTS:
            raise ShapeMismatch(
                f"shape {_shape_text(shape)} has {math.prod(shape)} elements; at most {MAXIMUM_ELEMENTS} are possible",
                field=self._field,
                column=column,
            )

    def _folded(self, operation: Operation, operands: tuple[Node, ...], column: int) -> float:
        """An operation on constants alone, done now and in Python floats, which never grow."""
        a, b = (*(operand.value for operand in operands), 0.0)[:2]
        try:
            value = _FOLDED[operation.name](a, b)
        except (OverflowError, ZeroDivisionError):
            value = math.inf
        if isinstance(value, complex) or not math.isfinite(value):
            self._fail(f"{operation.formula} of the constants {a:g} and {b:g} is not a finite number", column)
        return float(value)

    def _constant(self, value: float, start: int, end: int) -> Node:
        return self._add(Node(0, "constant", (), (), False, (), "", value, None, self._formula, start, end))

    def _add(self, node: Node, *, shared: bool = True) -> Node:
        # repr keeps 0.0 and -0.0 apart.
        key = (node.operation, tuple(o.index for o in node.operands), node.options, node.name, repr(node.value))
        known = self._known.get(key) if shared else None
        if known is not None:
            return known
        if len(self.nodes) >= MAXIMUM_NODES:
            self._fail(f"the formulas have more than {MAXIMUM_NODES} different parts", node.start + 1)
        numbered = Node(
            len(self.nodes), node.operation, node.operands, node.shape, node.batched, node.options, node.name,
            node.value, node.class_count, node.formula, node.start, node.end, "", node.within,
        )  # fmt: skip
        self.nodes.append(numbered)
        self._known[key] = numbered
        return numbered

    # How errors are worded.

    def _text(self, term: Term[Node]) -> str:
        text = re.sub(r"\s+", " ", self._formula[term.start : term.end])
        return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"

    def _vocabulary(self) -> str:
        parameters = ", ".join(name for name, node in self._named.items() if node.operation == "parameter")
        inputs = ", ".join(name for name, node in self._named.items() if node.operation == "input")
        kinds = f"the parameters are {parameters or '(none)'} and the inputs {inputs or '(none)'}"
        defined = [name for name, node in self._named.items() if node.operation not in ("parameter", "input")]
        return kinds + (f"; defined are {', '.join(defined)}" if defined else "")

    def _suggestion(self, name: str, names: Iterable[str]) -> str:
        known = list(names)
        if alike := lookalike(name[:100], known):
            return alike
        close = difflib.get_close_matches(name[:100], known, n=2, cutoff=0.7) if len(name) > 2 else []
        return f"; did you mean '{close[0]}'?" if close else ""

    def _fail(self, message: str, column: int) -> NoReturn:
        raise FormulaError(message, field=self._field, column=column)


def _shape_text(shape: tuple[int, ...]) -> str:
    return str(shape) if shape else "() (a scalar)"
