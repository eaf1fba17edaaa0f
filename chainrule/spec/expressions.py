"""Formulas as Python expressions: `w @ sigmoid(V @ x)` of named parameters, printed as the text that is submitted.

An expression is a tree of names, numbers and operations; it knows no shapes and no values. What its text means is for
the engine to say, so there is one meaning. Brackets are written where the formula's grammar
(engine/chainrule_engine/formula.py) needs them, and nowhere else.
"""

from __future__ import annotations

import itertools
import math
import numbers
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from chainrule.errors import ExpressionError

# How strongly each form binds, as in engine/chainrule_engine/formula.py; a name, a call and a component bind strongest.
ADDITION, PRODUCT, NEGATION, POWER, ATOM = 10, 20, 30, 40, 50
# What the engine reads.
MAXIMUM_LENGTH = 10_000
# What is nested deeper or longer is written as a definition.
MAXIMUM_DEPTH, MAXIMUM_PART = 40, 1_000
_NAME = re.compile(r"[^\W\dφϕψσ⁰¹²³⁴⁵⁶⁷⁸⁹](?:[^\Wφϕψσ⁰¹²³⁴⁵⁶⁷⁸⁹]|[\u0300-\u036f])*['’′″‴]*")
_RESERVED = ("x", "y", "prediction", "phi", "psi")
# The names that formulas call operations by; tests hold them against the engine's.
FUNCTION_NAMES = (
    "abs", "absolute", "batch_norm", "concatenate", "cos", "cross_entropy", "dot", "dropout", "exp", "gelu", "hinge",
    "huber", "layer_norm", "leaky_relu", "ln", "log", "log1p", "log_softmax", "logistic", "logsumexp", "matmul", "max",
    "maximum", "mean", "min", "minimum", "negative", "norm", "power", "relu", "sigmoid", "silu", "sin", "softmax",
    "softplus", "sqrt", "square", "squared", "sum", "tanh",
)  # fmt: skip


@dataclass(frozen=True)
class Shaped:
    """A parameter as a job lists it. shape: each entry a number, or "d" or "k"."""

    name: str
    shape: tuple[int | str, ...]
    initializer: str | None = None
    frozen: bool = False

    def table(self) -> dict[str, Any]:
        """The parameter as a job file has it, without its name and what isn't set."""
        settings = {"initializer": self.initializer, "frozen": self.frozen}
        return {"shape": list(self.shape)} | {key: value for key, value in settings.items() if value}


class Expression:
    """A part of a formula. Operators and the functions of this package make larger ones; `str` is its text.

    Expressions can't be compared or asked for their truth: they have no values."""

    # numpy then leaves `array * expression` to __rmul__, which can say what is wrong.
    __array_ufunc__ = None
    __slots__ = ("_operands", "_parameter", "_precedence", "_template")

    def __init__(
        self,
        template: tuple[str, ...],
        operands: tuple[tuple[Expression, int], ...] = (),
        precedence: int = ATOM,
        parameter: Shaped | None = None,
    ) -> None:
        """template: the texts before, between and after the operands. operands: each with how strongly it must bind."""
        self._template = template
        self._operands = operands
        self._precedence = precedence
        self._parameter = parameter

    def __str__(self) -> str:
        return text_of(self)

    def __repr__(self) -> str:
        return text_of(self)

    def __add__(self, other: object) -> Expression:
        return _binary("+", ADDITION, self, other)

    def __radd__(self, other: object) -> Expression:
        return _binary("+", ADDITION, other, self)

    def __sub__(self, other: object) -> Expression:
        return _binary("-", ADDITION, self, other)

    def __rsub__(self, other: object) -> Expression:
        return _binary("-", ADDITION, other, self)

    def __mul__(self, other: object) -> Expression:
        return _binary("*", PRODUCT, self, other)

    def __rmul__(self, other: object) -> Expression:
        return _binary("*", PRODUCT, other, self)

    def __truediv__(self, other: object) -> Expression:
        return _binary("/", PRODUCT, self, other)

    def __rtruediv__(self, other: object) -> Expression:
        return _binary("/", PRODUCT, other, self)

    def __matmul__(self, other: object) -> Expression:
        return _binary("@", PRODUCT, self, other)

    def __rmatmul__(self, other: object) -> Expression:
        return _binary("@", PRODUCT, other, self)

    def __pow__(self, other: object) -> Expression:
        return _power(self, other)

    def __rpow__(self, other: object) -> Expression:
        return _power(other, self)

    def __neg__(self) -> Expression:
        return Expression(("-", ""), ((self, NEGATION),), NEGATION)

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return call("abs", self)

    def __getitem__(self, index: object) -> Expression:
        indices = [_whole(each, least=0) for each in (index if isinstance(index, tuple) else (index,))]
        if not indices or None in indices:
            raise ExpressionError(f"({_short(self)})[{index!r}]: an index is a whole number, counted from 0")
        written = ", ".join(map(str, indices))
        return Expression(("", f"[{written}]"), ((self, ATOM),))

    def __iter__(self) -> Iterator[Expression]:
        raise ExpressionError(f"{_short(self)} has no length before its job has data; take components: a[0], a[1]")

    def __len__(self) -> int:
        raise ExpressionError(f"{_short(self)} has no length before its job has data")

    def __bool__(self) -> bool:
        raise ExpressionError(
            f"{_short(self)} is a formula, neither true nor false; max(a, b), relu(a) and hinge(a, b) choose by values"
        )

    def __float__(self) -> float:
        raise ExpressionError(
            f"{_short(self)} is a formula and no number; use chainrule's own functions, such as chainrule.exp(a)"
        )

    def __eq__(self, other: object) -> NoReturn:
        raise ExpressionError("'==' of formulas has no gradient; write a loss, such as (prediction - y)**2")

    def __ne__(self, other: object) -> NoReturn:
        raise ExpressionError("'!=' of formulas has no gradient; write a loss, such as (prediction - y)**2")

    def __lt__(self, other: object) -> NoReturn:
        raise ExpressionError("formulas can't be compared; max(a, b), relu(a) and hinge(a, b) choose by values")

    __le__ = __gt__ = __ge__ = __lt__
    __hash__ = object.__hash__


Operand = Expression | float


def parameter(
    name: str, *shape: int | str | tuple[int | str, ...], initializer: str | None = None, frozen: bool = False
) -> Expression:
    """A parameter of that shape, which is trained: `parameter("V", 16, "d")`; without a shape it is a number.

    "d" is the number of features, "k" that of classes. initializer: as in a job file. frozen: it keeps its first values
    to the bit. Raises ExpressionError."""
    _check_name(name)
    sizes: tuple[Any, ...] = shape
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        sizes = tuple(shape[0])
    plain: list[int | str] = []
    for size in sizes:
        known = size if size in ("d", "k") else _whole(size)
        if known is None:
            raise ExpressionError(f"parameter {name}: a shape has whole numbers from 1, 'd' and 'k', got {size!r}")
        plain.append(known)
    if not isinstance(frozen, bool):
        raise ExpressionError(f"parameter {name}: frozen is True or False, got {frozen!r:.40}")
    return Expression((name,), parameter=Shaped(name, tuple(plain), initializer, frozen))


def inputs() -> tuple[Expression, Expression]:
    """x, the features of one example, and y, its target."""
    return Expression(("x",)), Expression(("y",))


def call(function: str, *arguments: object) -> Expression:
    """The function of these arguments."""
    operands = tuple((_expression(each, function), ADDITION) for each in arguments)
    if not operands:
        raise ExpressionError(f"{function}() has no argument; give it an expression")
    return Expression((f"{function}(", *[", "] * (len(operands) - 1), ")"), operands)


def text_of(root: Expression, names: Mapping[Expression, str] | None = None) -> str:
    """The formula as text. names: what to write for certain parts. Raises ExpressionError where it gets too long."""
    known = names or {}
    written: dict[Expression, str] = {}
    for each in _operands_first(root, known):
        written[each] = known[each] if each in known else _written(each, written, known)
        if len(written[each]) > MAXIMUM_LENGTH:
            raise ExpressionError(
                f"the formula has more than {MAXIMUM_LENGTH} characters: a part is written wherever it is used; "
                "a job, which names what is used again, can have it"
            )
    return written[root]


def _written(each: Expression, written: Mapping[Expression, str], called: Mapping[Expression, str]) -> str:
    """The text of a part, from the texts of its operands or what they are called."""
    parts = [each._template[0]]
    for (operand, weakest), after in zip(each._operands, each._template[1:], strict=True):
        text = called.get(operand, written[operand])
        binds = ATOM if operand in called else operand._precedence
        parts += [text if binds >= weakest else f"({text})", after]
    return "".join(parts)


def model_table(
    *, loss: Expression | str | None, prediction: Expression | str | None = None, taken: Iterable[str] = ()
) -> dict[str, Any]:
    """The `model` of a job: the two formulas as text, their definitions, and the parameters in order of first use.

    What is used several times, or nested too deep, becomes a definition; the prediction is written as `prediction` in
    the loss. taken: names that no definition may get. Raises ExpressionError where parameters of one name differ."""
    found: dict[str, Any] = {}
    roots = [each for each in (prediction, loss) if isinstance(each, Expression)]
    names = {prediction: "prediction"} if isinstance(prediction, Expression) and prediction is not loss else {}
    parameters = _parameters(roots)
    texts, definitions = _texts(roots, names, taken={*taken, *(each.name for each in parameters)})
    for key, formula in (("prediction", prediction), ("loss", loss)):
        if isinstance(formula, Expression):
            found[key] = texts[formula]
        elif formula is not None:
            found[key] = formula
    if definitions:
        found["definitions"] = definitions
    if roots:
        found["parameters"] = {each.name: each.table() for each in parameters}
    return found


def _texts(
    roots: list[Expression], names: Mapping[Expression, str], *, taken: set[str]
) -> tuple[dict[Expression, str], dict[str, str]]:
    """The text of each root, and the definitions of both. names: what later roots call an earlier one."""
    ends = set(roots)
    in_order = (each for root in roots for each in _operands_first(root, set(names) - {root}))
    parts = list(dict.fromkeys(in_order))
    use_count = Counter(operand for each in parts for operand, _ in each._operands)
    written: dict[Expression, str] = {}
    depths: dict[Expression, int] = {}
    called: dict[Expression, str] = {}
    definitions: dict[str, str] = {}
    free = (name for number in itertools.count(1) if (name := f"part{number}") not in taken)
    for each in parts:
        text = _written(each, written, called)
        depth = 1 + max((depths[operand] for operand, _ in each._operands), default=0)
        is_part = use_count[each] > 1 or depth > MAXIMUM_DEPTH or len(text) > MAXIMUM_PART
        if each in names:
            called[each] = names[each]
        elif each._operands and is_part and each not in ends:
            called[each] = next(free)
            definitions[called[each]] = text
        written[each] = text
        depths[each] = 0 if each in called else depth
    return {root: written[root] for root in roots}, definitions


def _binary(symbol: str, precedence: int, left: object, right: object) -> Expression:
    # The operators of one level are read from the left: only a right operand of the same level needs brackets.
    operands = (_expression(left, symbol), precedence), (_expression(right, symbol), precedence + 1)
    return Expression(("", f" {symbol} ", ""), operands, precedence)


def _power(base: object, exponent: object) -> Expression:
    # A power is read from the right, and its exponent may have a sign.
    return Expression(("", "**", ""), ((_expression(base, "**"), ATOM), (_expression(exponent, "**"), NEGATION)), POWER)


def _expression(value: object, where: str) -> Expression:
    if isinstance(value, Expression):
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # an array that is a number
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        return _number(float(value), is_whole=isinstance(value, numbers.Integral), where=where)
    kind = type(value).__name__
    if hasattr(value, "__array__") or isinstance(value, list | tuple):
        raise ExpressionError(
            f"'{where}' with a {kind}: a formula holds names and numbers, no arrays; make it a parameter "
            "with chainrule.parameter(name, *shape), or a column of the data"
        )
    raise ExpressionError(f"'{where}' takes expressions and numbers, got a {kind}")


def _number(number: float, *, is_whole: bool, where: str) -> Expression:
    if not math.isfinite(number):
        raise ExpressionError(f"'{where}' with {number}: a formula's numbers are finite")
    text = str(int(number)) if is_whole and abs(number) < 2**53 else repr(number)
    return Expression((text,), precedence=NEGATION if text.startswith("-") else ATOM)


def _whole(value: Any, *, least: int = 1) -> int | None:
    """The whole number of at least `least`, or None."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    number = int(value.__index__())
    return number if number >= least else None


def _operands_first(root: Expression, known: Iterable[Expression] = ()) -> Iterator[Expression]:
    """Every part once, operands before what they are operands of. No recursion: a long sum is a deep tree."""
    stop = set(known)
    seen: set[Expression] = set()
    waiting = [(root, False)]
    while waiting:
        each, is_ready = waiting.pop()
        if is_ready:
            yield each
        elif each not in seen:
            seen.add(each)
            waiting.append((each, True))
            if each not in stop:
                waiting += [(operand, False) for operand, _ in reversed(each._operands)]


def _parameters(roots: Iterable[Expression]) -> list[Shaped]:
    found: dict[str, Shaped] = {}
    for root in roots:
        for each in _operands_first(root):
            shaped = each._parameter
            if shaped is not None and found.setdefault(shaped.name, shaped) != shaped:
                raise ExpressionError(
                    f"two parameters are called {shaped.name} and differ; give each a name of its own"
                )
    return list(found.values())


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 100:
        raise ExpressionError(
            f"{name!r:.120} is no name of a parameter; a name has letters, digits and _, and starts with a letter"
        )
    if name in _RESERVED or name in FUNCTION_NAMES:
        raise ExpressionError(f"the name {name!r} is taken in formulas; give the parameter another")


def _short(expression: Expression) -> str:
    text = text_of(expression)
    return text if len(text) <= 60 else text[:59] + "…"
