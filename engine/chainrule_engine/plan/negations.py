"""Saves negations: an array may hold the negative of what it stands for.

σ(z) = 1 / (1 + e^−z) asks for −z. If the layer below is stored as −σ, at no cost because its last step is a division of
a constant, then the product with V gives −z by itself; and what follows undoes the sign where it does no harm. Each
buffer has an unknown sign, a bit; products add bits, a step with a constant has a free one. What must be positive is a
linear equation over the bits, and costs one pass over its array where it is not met: the equations are met as far as
they agree, the most expensive first. Negation is exact, so this changes no bit of the results.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chainrule_engine.plan.trace import Buffer, Instruction, Trace, Traced

# f of the signs: a product has the sum of the operands' bits, an odd function the operand's.
PRODUCTS = ("dot", "vecdot", "matmul", "einsum", "multiply", "divide", "copy", "add_reduce")
ODD = ("tanh", "sin", "sign")
EVEN = ("absolute", "cos")

# A sign is a sum of unknown bits, as the bits of an int; bit 0 is the constant 1.
Sign = int


@dataclass
class _Equations:
    """Sums of unknown bits that are to be 0, taken in as long as they do not contradict each other."""

    pivots: dict[int, Sign] = field(default_factory=dict)

    def reduced(self, sign: Sign) -> Sign:
        """The sum with everything put in that is known."""
        remaining, result = sign, sign & 1
        while remaining > 1:
            bit = remaining.bit_length() - 1
            known = self.pivots.get(bit)
            if known is None:
                result |= 1 << bit
                remaining ^= 1 << bit
            else:
                remaining ^= known
            result = (result & ~1) | (remaining & 1)
        return result

    def add(self, sign: Sign) -> None:
        left = self.reduced(sign)
        if left > 1:
            self.pivots[left.bit_length() - 1] = left


def without_negations(trace: Trace) -> list[Instruction]:
    """The instructions with as few negations as can be."""
    return _Signs(trace).rewritten()


class _Signs:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._signs: dict[Buffer, Sign] = {}
        self._wishes: list[tuple[int, Sign]] = []
        self._unknowns = 0
        # What a negation gave, as the array it was taken of: the same memory, the other sign.
        self._negated: dict[Buffer, Traced] = {}
        self._instructions = [self._renamed(instruction) for instruction in trace.instructions]
        self._instructions = [
            instruction for instruction in self._instructions if instruction.out.buffer not in self._negated
        ]
        for instruction in self._instructions:
            self._sign_of_result(instruction)
        equations = _Equations()
        for _, wish in sorted(self._wishes, key=lambda wish: -wish[0]):
            equations.add(wish)
        # Unknowns that no equation settles are 0.
        self._bits = {buffer: equations.reduced(sign) & 1 for buffer, sign in self._signs.items()}

    def _renamed(self, instruction: Instruction) -> Instruction:
        """With every result of a negation replaced by what it was taken of."""
        operands = [self._original(value) for value in instruction.operands]
        out = instruction.out
        if instruction.operation == "negative" and out.buffer is not None and out.buffer.kind == "temporary":
            (value,) = operands
            if value.buffer is not None and value.contiguous and value.buffer.kind in ("temporary", "input"):
                self._negated[out.buffer] = value
        return Instruction(instruction.operation, operands, out, instruction.elementwise, instruction.detail)

    def _original(self, value: Traced) -> Traced:
        below = None if value.buffer is None else self._negated.get(value.buffer)
        if below is None:
            return value
        original = Traced(
            self._trace, below.buffer, value.shape, kept=value.kept, view=below.view + value.view,
            contiguous=value.contiguous, whole=value.whole and below.whole,
        )  # fmt: skip
        original.negated = value.negated ^ True ^ below.negated
        return original

    def _new(self) -> Sign:
        self._unknowns += 1
        return 1 << self._unknowns

    def _sign(self, value: Traced) -> Sign:
        """The sign of an operand."""
        buffer = value.buffer
        if buffer is None:
            return 0
        if buffer not in self._signs:
            self._signs[buffer] = 0
            if buffer.kind == "input" and buffer.dtype == "float32":
                self._signs[buffer] = self._new()
                self._wishes.append((buffer.size, self._signs[buffer]))
        return self._signs[buffer] ^ value.negated

    def _wish(self, value: Traced) -> None:
        self._wishes.append((value.size, self._sign(value)))

    def _sign_of_result(self, instruction: Instruction) -> None:
        operands, out = instruction.operands, instruction.out
        free = any(value.buffer is None for value in operands)
        operation = instruction.operation
        if operation in ("add", "subtract"):
            sign = self._new() if free else self._sign(operands[0])
            self._sign(operands[1])
        elif operation in PRODUCTS and not (free and operation == "copy"):
            sign = self._new() if free else 0
            for value in operands:
                sign ^= 0 if free else self._sign(value)
                self._sign(value)
        elif operation in ODD:
            sign = self._sign(operands[0])
        else:
            sign = 0
            for value in operands:
                if operation not in EVEN:
                    self._wish(value)
                self._sign(value)
        buffer = out.buffer
        if buffer is None:
            raise TypeError("an instruction must write to memory")
        if buffer in self._signs:  # written in parts: all of one sign
            self._wishes.append((out.size, self._signs[buffer] ^ sign))
        elif buffer.kind == "temporary":
            self._signs[buffer] = sign
        else:
            self._signs[buffer] = 0
            self._wishes.append((out.size, sign))

    # With the bits known, the instructions are written again.

    def _bit(self, value: Traced) -> bool:
        return value.buffer is not None and bool(self._bits.get(value.buffer, 0) ^ value.negated)

    def rewritten(self) -> list[Instruction]:
        done: list[Instruction] = []
        flipped: dict[Buffer, Buffer] = {}
        for buffer, bit in self._bits.items():
            if bit and buffer.kind == "input":
                flipped[buffer] = Buffer("temporary", buffer.shape)
                whole = Traced(self._trace, buffer, buffer.shape)
                out = Traced(self._trace, flipped[buffer], buffer.shape)
                done.append(Instruction("negative", [whole], out, elementwise=True))
        for instruction in self._instructions:
            self._rewrite(instruction, done)
        for instruction in done[len(flipped) :]:
            for value in instruction.operands:
                if value.buffer in flipped:
                    value.buffer = flipped[value.buffer]
        return done

    def _rewrite(self, instruction: Instruction, done: list[Instruction]) -> None:
        operation, operands, out = instruction.operation, list(instruction.operands), instruction.out
        target = bool(self._bits[out.buffer]) if out.buffer is not None else False
        bits = [self._bit(value) for value in operands]
        number = next((index for index, value in enumerate(operands) if value.buffer is None), None)
        sign = target
        if operation in ("add", "subtract"):
            minus = [False, operation == "subtract"]
            if number is None:
                sign = bits[0]
                operation = "subtract" if bits[1] ^ minus[1] ^ sign else "add"
            else:
                # k ± v, each with the sign that the result is to have.
                other = 1 - number
                constant = operands[number]
                negative = minus[number] ^ target
                constant = self._trace.number(-constant.number if negative else constant.number, constant.shape)
                operation = "subtract" if bits[other] ^ minus[other] ^ target else "add"
                operands = [constant, operands[other]]
        elif operation in PRODUCTS and number is not None and operation != "copy":
            if sum(value.buffer is None for value in operands) == 1 and bits[1 - number] ^ target:
                constant = operands[number]
                operands[number] = self._trace.number(-constant.number, constant.shape)
        elif operation in PRODUCTS or operation in ODD:
            sign = bool(sum(bits) % 2)
        else:
            sign = False
            if operation not in EVEN:
                operands = [self._positive(v, bit, done) for v, bit in zip(operands, bits, strict=True)]
        done.append(Instruction(operation, operands, out, instruction.elementwise, instruction.detail))
        if sign != target:
            # Not `negative`: numpy 2.4 gives wrong results where it works in place on every fourth element.
            done.append(Instruction("multiply", [out, self._trace.number(-1.0)], out, elementwise=True))

    def _positive(self, value: Traced, bit: bool, done: list[Instruction]) -> Traced:
        if not bit:
            return value
        out = Traced(self._trace, Buffer("temporary", value.kept), value.kept)
        done.append(Instruction("negative", [value], out, elementwise=True))
        return out.broadcast_to(value.shape) if out.shape != value.shape else out
