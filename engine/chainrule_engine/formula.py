"""From the text of a formula to operations, each with the place where it stands.

The text is read by a precedence parser of our own, never by Python's: so nothing that is not in this file can be
written, a bracket too many costs nothing, and every error knows its column. Three ways of writing are one: `·` is `@`,
`^` is `**`, `φ(x)` is `phi(x)`; two terms side by side, as in `V φ(x)`, are their product. What the operations mean is
not known here: the parser calls a `FormulaBuilder` for each, so that no tree is built only to be walked again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Generic, NamedTuple, NoReturn, Protocol, TypeVar

from chainrule_engine.errors import FormulaError

MAXIMUM_LENGTH = 10_000
MAXIMUM_NESTING = 100
MAXIMUM_NUMBER_LENGTH = 40
MAXIMUM_NAME_LENGTH = 100

# Letters that are function names by themselves, so that `V3φ(x)` is V3 times φ(x) and not a name `V3φ`.
FUNCTION_LETTERS = {"φ": "phi", "ϕ": "phi", "ψ": "psi", "σ": "sigmoid"}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
SPELLINGS = {"·": "@", "⋅": "@", "∙": "@", "^": "**", "−": "-", "×": "*"}

_ENDS = "".join((*FUNCTION_LETTERS, *SUPERSCRIPTS))
# A letter or an underscore, then digits and accents too, and primes at its end; the letters that are functions, and
# superscripts, end it.
NAME = rf"[^\W\d{_ENDS}](?:[^\W{_ENDS}]|[\u0300-\u036f])*['’′″‴]*"

_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    rf"|(?P<letter>[{''.join(FUNCTION_LETTERS)}])"
    rf"|(?P<superscript>[⁺⁻]?[{''.join(SUPERSCRIPTS)}]+)"
    rf"|(?P<name>{NAME})"
    r"|(?P<symbol>\*\*|[-−+*×/@·⋅∙^()\[\]{},])"
)

ADDITION, PRODUCT, NEGATION, POWER = 10, 20, 30, 40
# All three are brackets; [ directly after a value is an index.
CLOSING = {"(": ")", "[": "]", "{": "}"}
PRIMES = {"'": "′", "’": "′", "″": "′′", "‴": "′′′"}
# What a lecture writes before a formula: Loss(x, y, V) =
_HEAD = re.compile(rf"\s*{NAME}\s*(?:\((?P<arguments>[^()=]*)\)\s*)?=(?!=)")
PRECEDENCE = {"+": ADDITION, "-": ADDITION, "*": PRODUCT, "/": PRODUCT, "@": PRODUCT, "**": POWER}

N = TypeVar("N")


class Token(NamedTuple):
    """kind: 'number', 'name', 'symbol' or 'end'. start and end count characters from 0."""

    kind: str
    text: str
    start: int
    end: int


class Term(NamedTuple, Generic[N]):
    """A part of the text that has been read, and what the builder made of it."""

    node: N
    start: int
    end: int


class FormulaBuilder(Protocol[N]):
    """What the parser calls. `start` and `end` span the whole term in the text; `column` counts from 1."""

    def number(self, value: float, start: int, end: int) -> N: ...
    def name(self, name: str, start: int) -> N: ...
    def is_function(self, name: str) -> bool: ...
    def negation(self, operand: Term[N], start: int) -> N: ...
    def operator(self, symbol: str, left: Term[N], right: Term[N], column: int) -> N: ...
    def juxtaposition(self, left: Term[N], right: Term[N], column: int) -> N: ...
    def call(self, function: str, arguments: list[Term[N]], start: int, end: int, nesting: int) -> N: ...
    def component(self, operand: Term[N], indices: list[int], end: int) -> N: ...


def same_name(name: str) -> str:
    """A name as it is looked up: equal for names that look alike, as é however it is coded, µ and μ, V' and V′.

    Nothing more (no NFKC): V₃ and V3 look different, and are."""
    name = unicodedata.normalize("NFC", name).replace("µ", "μ")
    for written, prime in PRIMES.items():
        name = name.replace(written, prime)
    return name


def tokens_of(text: str, *, field: str, start: int = 0, stop: int | None = None) -> Iterator[Token]:
    """The tokens of a formula in order, one of kind 'end' at its end. Raises FormulaError at a foreign character.

    start, stop: the part of the text to read; places are those in the whole text.

    They are read as they are asked for: of a formula that is refused early, the rest is never looked at."""
    if len(text) > MAXIMUM_LENGTH:
        raise FormulaError(
            f"the formula has {len(text)} characters; at most {MAXIMUM_LENGTH} are read", field=field, column=1
        )
    position, stop = start, len(text) if stop is None else stop
    while position < stop:
        match = _TOKEN.match(text, position, stop)
        if match is None:
            raise FormulaError(
                f"unexpected character {text[position]!r}; a formula has names, numbers, + - * / ** @ and brackets",
                field=field,
                column=position + 1,
            )
        kind, found, start, position = str(match.lastgroup), match.group(), position, match.end()
        if kind == "letter":
            yield Token("name", FUNCTION_LETTERS[found], start, position)
        elif kind == "superscript":
            yield Token("symbol", "**", start, position)
            digits = found.lstrip("⁺⁻")
            if found.startswith("⁻"):
                yield Token("symbol", "-", start, position)
            yield Token("number", "".join(SUPERSCRIPTS[digit] for digit in digits), start, position)
        elif kind == "name":
            yield Token("name", same_name(found), start, position)
        elif kind != "space":
            yield Token(kind, SPELLINGS.get(found, found), start, position)
    yield Token("end", "the end", stop, stop)


def parse(
    text: str, builder: FormulaBuilder[N], *, field: str, nesting: int = 0, may_have_head: bool = False
) -> Term[N]:
    """Read a whole formula and return what the builder made of it. Raises FormulaError with `field` and the column.

    nesting: how deep the formula stands in others already. may_have_head: 'Loss(x, y, V) =' may stand before it."""
    start = _end_of_head(text, builder, field) if may_have_head else 0
    return _Parser(text, builder, field, nesting, start).formula()


def _end_of_head(text: str, builder: FormulaBuilder[N], field: str) -> int:
    """Where the formula begins after 'Loss(x, y, V) =', or 0. Each name in the brackets must be known."""
    match = _HEAD.match(text[: MAXIMUM_LENGTH + 1])
    if match is None:
        return 0
    if match["arguments"] is not None:
        *tokens, end = tokens_of(text, field=field, start=match.start("arguments"), stop=match.end("arguments"))
        for place, token in enumerate([*tokens, end]):
            if place % 2 == 0 and token.kind == "name":
                builder.name(token.text, token.start)
            elif place % 2 == 0 or token.text not in (",", "the end"):
                found = "a name is missing" if token.kind == "end" else f"unexpected '{token.text}'"
                raise FormulaError(
                    f"{found}; before '=' stand a name and the names that the formula depends on: Loss(x, y, V1)",
                    field=field,
                    column=token.start + 1,
                )
    return match.end()


class _Parser(Generic[N]):
    def __init__(self, text: str, builder: FormulaBuilder[N], field: str, nesting: int, start: int) -> None:
        self._builder = builder
        self._field = field
        self._tokens = tokens_of(text, field=field, start=start)
        self._next = next(self._tokens)
        self._nesting = nesting

    def formula(self) -> Term[N]:
        if self._next.kind == "end":
            self._fail("the formula is empty", self._next)
        term = self._expression(ADDITION)
        if self._next.kind != "end":
            self._fail(f"unexpected '{self._next.text}' after a complete formula", self._next)
        return term

    def _expression(self, weakest: int) -> Term[N]:
        """Read operators that bind at least as strongly as `weakest`. Only brackets, signs and powers recurse."""
        self._nesting += 1
        if self._nesting > MAXIMUM_NESTING:
            self._fail(f"nested more than {MAXIMUM_NESTING} deep", self._next)
        left = self._signed()
        while True:
            token = self._next
            if token.kind == "symbol" and PRECEDENCE.get(token.text, 0) >= weakest:
                self._advance()
                precedence = PRECEDENCE[token.text]
                # A power binds to the right: a**b**c is a**(b**c), and its exponent may have a sign.
                right = self._expression(NEGATION if precedence == POWER else precedence + 1)
                node = self._builder.operator(token.text, left, right, token.start + 1)
            elif weakest <= PRODUCT and (token.kind == "name" or token.text in CLOSING):
                right = self._expression(PRODUCT + 1)
                node = self._builder.juxtaposition(left, right, token.start + 1)
            else:
                self._nesting -= 1
                return left
            left = Term(node, left.start, right.end)

    def _signed(self) -> Term[N]:
        token = self._next
        if token.text not in ("-", "+"):
            return self._primary()
        self._advance()
        operand = self._expression(NEGATION)
        if token.text == "+":
            return operand
        return Term(self._builder.negation(operand, token.start), token.start, operand.end)

    def _primary(self) -> Term[N]:
        token = self._next
        self._advance()
        if token.kind == "number":
            if len(token.text) > MAXIMUM_NUMBER_LENGTH:
                self._fail(f"a number of {len(token.text)} characters", token)
            term = Term(self._builder.number(float(token.text), token.start, token.end), token.start, token.end)
            if self._next.kind == "number":
                self._fail(f"an operator is missing before '{self._next.text}'", self._next)
            return term
        if token.kind == "name":
            if len(token.text) > MAXIMUM_NAME_LENGTH:
                self._fail(f"a name of {len(token.text)} characters", token)
            term = self._named(token)
        elif token.text in CLOSING:
            inner = self._expression(ADDITION)
            term = Term(inner.node, token.start, self._close(token).end)
        elif token.kind == "end":
            self._fail("the formula ends where a term is expected", token)
        else:
            self._fail(f"unexpected '{token.text}' where a term is expected", token)
        while self._next.text == "[":
            term = self._component(term)
        if self._next.kind == "number":
            self._fail(f"an operator is missing before '{self._next.text}'", self._next)
        return term

    def _named(self, name: Token) -> Term[N]:
        opening = self._next
        # A name that is no function is multiplied by the bracket after it: V(x + b) is V @ (x + b).
        is_function = self._builder.is_function(name.text)
        is_call = opening.text in CLOSING and (is_function or (opening.text != "[" and not self._is_value(name)))
        if not is_call:
            return Term(self._builder.name(name.text, name.start), name.start, name.end)
        self._advance()
        arguments = []
        if self._next.text != CLOSING[opening.text]:
            arguments.append(self._expression(ADDITION))
            while self._next.text == ",":
                self._advance()
                arguments.append(self._expression(ADDITION))
        end = self._close(opening).end
        return Term(self._builder.call(name.text, arguments, name.start, end, self._nesting), name.start, end)

    def _is_value(self, name: Token) -> bool:
        try:
            self._builder.name(name.text, name.start)
        except FormulaError:
            return False
        return True

    def _component(self, operand: Term[N]) -> Term[N]:
        opening = self._next
        self._advance()
        indices = [self._index()]
        while self._next.text == ",":
            self._advance()
            indices.append(self._index())
        end = self._close(opening).end
        return Term(self._builder.component(operand, indices, end), operand.start, end)

    def _index(self) -> int:
        token = self._next
        if token.kind != "number" or not token.text.isdigit() or len(token.text) > MAXIMUM_NUMBER_LENGTH:
            self._fail(
                f"unexpected '{token.text}': an index is a whole number, counted from 0; for a product write ( in "
                "place of [",
                token,
            )
        self._advance()
        return int(token.text)

    def _close(self, opening: Token) -> Token:
        token, symbol = self._next, CLOSING[opening.text]
        if token.text != symbol:
            found = "the formula ends" if token.kind == "end" else f"found '{token.text}'"
            self._fail(f"'{opening.text}' of column {opening.start + 1} needs a '{symbol}', but {found}", token)
        self._advance()
        return token

    def _advance(self) -> None:
        self._next = next(self._tokens, self._next)

    def _fail(self, message: str, token: Token) -> NoReturn:
        raise FormulaError(message, field=self._field, column=token.start + 1)
