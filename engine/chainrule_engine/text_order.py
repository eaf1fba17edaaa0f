"""The nodes of a graph in the order in which a text without definitions would have made them.

Sums of gradients are added in the order of the nodes, so this order is what makes the bits of a job that is written
with definitions those of the same job written out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from chainrule_engine.graph import LEAVES, Node


def in_text_order(
    nodes: Sequence[Node], roots: Sequence[Node], *, first: Mapping[int, tuple[Node, ...]], titles: Mapping[int, str]
) -> list[Node]:
    """The roots, of new nodes: leaves as declared, then operands from left to right, each before its use.

    first: by a node's index, what its text reads before its operands: max(a, b, c) reads c before it makes max(a, b).
    titles: by index, what a definition calls the node."""
    made: dict[int, Node] = {}
    masks = 0

    def add(node: Node) -> None:
        nonlocal masks
        name = node.name
        if node.operation == "mask":
            masks += 1
            name = f"dropout {masks}"
        made[node.index] = dataclasses.replace(
            node,
            index=len(made),
            name=name,
            operands=tuple(made[operand.index] for operand in node.operands),
            title="" if node.operation in LEAVES else titles.get(node.index, ""),
        )

    for node in nodes:
        if node.operation in ("parameter", "input"):
            add(node)
    waiting = [(root, False) for root in reversed(roots)]
    while waiting:
        node, is_ready = waiting.pop()
        if node.index in made:
            continue
        if is_ready:
            add(node)
            continue
        waiting.append((node, True))
        waiting += [(each, False) for each in reversed((*first.get(node.index, ()), *node.operands))]
    return [made[root.index] for root in roots]
