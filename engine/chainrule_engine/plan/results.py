"""Where gradients end: written straight into the caller's flat vector, without a temporary of their own."""

from __future__ import annotations

from chainrule_engine.graph import Node
from chainrule_engine.parameters import ParameterLayout
from chainrule_engine.plan.trace import Buffer, Trace, Traced


def is_own(value: Traced) -> bool:
    """Whether the array is a temporary, and all of it."""
    own = value.buffer is not None and value.buffer.kind == "temporary"
    return own and value.whole and value.contiguous and value.kept == value.shape


def write_directly(trace: Trace, gradients: dict[Node, Traced], layout: ParameterLayout) -> None:
    """Let the instructions that make a parameter's gradient write to its place in the gradient vector."""
    by_name = {node.name: gradient for node, gradient in gradients.items()}
    # The same array may be the gradient of several parameters, or a part of another's sum.
    results = {gradient.buffer for gradient in gradients.values()}
    first: dict[Buffer | None, int] = {}
    last: dict[Buffer | None, int] = {}
    for position, instruction in enumerate(trace.instructions):
        first.setdefault(instruction.out.buffer, position)
        for value in (*instruction.operands, instruction.out):
            last[value.buffer] = position
    for parameter, start in zip(layout.parameters, layout.offsets, strict=True):
        target = Buffer("gradient", parameter.shape, name=parameter.name, start=start)
        gradient = by_name.get(parameter.name)
        if gradient is None:
            trace.write(Traced(trace, target, target.shape), trace.number(0.0))
            continue
        if not is_own(gradient):
            trace.write(Traced(trace, target, target.shape), gradient)
            continue
        following = gradient.buffer
        while following is not None:
            following.kind, following.name, following.start = "gradient", target.name, target.start
            # What a sum adds to, read here for the last time, can be in that place already.
            position = first[following]
            made = trace.instructions[position]
            following = next(
                (
                    value.buffer
                    for value in made.operands
                    if made.operation == "add" and is_own(value) and value.kept == target.shape
                    and last[value.buffer] == position and value.buffer not in results
                ),
                None,
            )  # fmt: skip
