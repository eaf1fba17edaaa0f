"""Where boxes and edges go: a layered layout in pure functions.

An operation's layer is the longest path from the leaves; a leaf lies just below the first operation that takes it.
Edges that cross layers get a bend in each; the order within a layer comes from barycentre sweeps (Sugiyama, Tagawa &
Toda 1981), the x coordinates from the mean of the neighbours, projected so that the gaps are kept. y grows upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]
SWEEPS = 12
BEND_WIDTH = 24.0
LEAF_WEIGHT = 0.01
STRAIGHTENED = 20.0


@dataclass(frozen=True)
class Layout:
    """centres: (x, y) of each box. layers: of each box, 0 the lowest. routes: points of each edge, from tail to head.

    A route leaves the tail at its top and enters the head at its bottom; within a layer it runs straight up."""

    centres: tuple[Point, ...]
    layers: tuple[int, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def layers_of(box_count: int, edges: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The layer of each box; every edge goes to a higher one. Edges (tail, head) have tail < head."""
    layers = [0] * box_count
    for tail, head in sorted(edges, key=lambda edge: edge[1]):
        layers[head] = max(layers[head], layers[tail] + 1)
    heads: dict[int, list[int]] = {}
    with_operands = {head for _, head in edges}
    for tail, head in edges:
        heads.setdefault(tail, []).append(layers[head])
    for box, above in heads.items():
        if box not in with_operands:
            layers[box] = min(above) - 1
    return tuple(layers)


def layout(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    *,
    gap: tuple[float, float] = (28.0, 54.0),
) -> Layout:
    """The layout of boxes of (width, height). gap: the least distance of boxes beside and above each other."""
    layers = layers_of(len(sizes), edges)
    rows, chains = _with_bends(layers, edges)
    widths = [width for width, _ in sizes]
    widths += [BEND_WIDTH] * (sum(map(len, rows)) - len(sizes))
    links = [link for chain in chains for link in pairwise(chain)]
    below: list[list[int]] = [[] for _ in widths]
    above: list[list[int]] = [[] for _ in widths]
    for low, high in links:
        below[high].append(low)
        above[low].append(high)
    _order(rows, below, above)
    x = _places(rows, widths, below, above, gap[0])
    heights = [max((sizes[item][1] for item in row if item < len(sizes)), default=0.0) for row in rows]
    bottoms, y = [], 0.0
    for height in heights:
        bottoms.append(y)
        y += height + gap[1]
    left = min((x[item] - widths[item] / 2 for item in range(len(x))), default=0.0)
    x = [each - left for each in x]
    right = max((x[item] + widths[item] / 2 for item in range(len(x))), default=0.0)
    centres = tuple((x[box], bottoms[layers[box]] + heights[layers[box]] / 2) for box in range(len(sizes)))
    ports = _ports(sizes, edges, x)
    routes = []
    for number, ((tail, head), chain) in enumerate(zip(edges, chains, strict=True)):
        points = [(x[tail], centres[tail][1] + sizes[tail][1] / 2)]
        if sizes[tail][1] < heights[layers[tail]]:
            points.append((x[tail], bottoms[layers[tail]] + heights[layers[tail]]))
        for layer, item in enumerate(chain[1:-1], start=layers[tail] + 1):
            points += [(x[item], bottoms[layer]), (x[item], bottoms[layer] + heights[layer])]
        if sizes[head][1] < heights[layers[head]]:
            points.append((ports[number], bottoms[layers[head]]))
        points.append((ports[number], centres[head][1] - sizes[head][1] / 2))
        routes.append(tuple(points))
    return Layout(centres, layers, tuple(routes), right, max(y - gap[1], 0.0))


def _with_bends(layers: Sequence[int], edges: Sequence[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    """The items of each layer (boxes, then bends), and for each edge its items from tail to head."""
    rows: list[list[int]] = [[] for _ in range(max(layers, default=-1) + 1)]
    for box, layer in enumerate(layers):
        rows[layer].append(box)
    following = len(layers)
    chains = []
    for tail, head in edges:
        chain = [tail]
        for layer in range(layers[tail] + 1, layers[head]):
            rows[layer].append(following)
            chain.append(following)
            following += 1
        chains.append([*chain, head])
    return rows, chains


def _order(rows: list[list[int]], below: list[list[int]], above: list[list[int]]) -> None:
    """Order each row by the mean place of its neighbours, upwards and downwards in turn."""
    place = {item: float(number) for row in rows for number, item in enumerate(row)}
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        for row in rows[::-1] if sweep % 2 == 0 else rows:
            centre = {
                item: sum(place[each] for each in neighbours[item]) / len(neighbours[item])
                if neighbours[item]
                else place[item]
                for item in row
            }
            row.sort(key=lambda item: centre[item])
            place.update({item: float(number) for number, item in enumerate(row)})


def _places(
    rows: list[list[int]], widths: list[float], below: list[list[int]], above: list[list[int]], gap: float
) -> list[float]:
    """x of each item: near the mean of its neighbours, in the row's order, never closer than `gap`."""
    x = [0.0] * len(widths)
    # Leaves make way, so that the chain of operations runs straight.
    weights = [LEAF_WEIGHT if not each else 1.0 for each in below]
    for sweep in range(2 * SWEEPS):
        for row in rows if sweep % 2 else rows[::-1]:
            wished = []
            for item in row:
                near = below[item] + above[item]
                total = sum(weights[each] for each in near)
                wished.append(sum(x[each] * weights[each] for each in near) / total if near else x[item])
            places = _apart(wished, [widths[item] for item in row], [weights[item] for item in row], gap)
            for item, place in zip(row, places, strict=True):
                x[item] = place
    return x


def _apart(wished: Sequence[float], widths: Sequence[float], weights: Sequence[float], gap: float) -> list[float]:
    """The places nearest to the wished ones that keep order and gap: least squares, by pooling adjacent violators."""
    offsets, total = [], 0.0
    for number, width in enumerate(widths):
        total += (widths[number - 1] + width) / 2 + gap if number else 0.0
        offsets.append(total)
    blocks: list[tuple[float, float, int]] = []
    for wish, offset, own in zip(wished, offsets, weights, strict=True):
        mean, weight, count = wish - offset, own, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_weight, other_count = blocks.pop()
            mean = (other_mean * other_weight + mean * weight) / (other_weight + weight)
            weight, count = other_weight + weight, other_count + count
        blocks.append((mean, weight, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _ports(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], x: Sequence[float]) -> list[float]:
    """Where each edge enters its head: spread over the bottom, in the order of where the edges come from."""
    entering: dict[int, list[int]] = {}
    for number, (_, head) in enumerate(edges):
        entering.setdefault(head, []).append(number)
    ports = [0.0] * len(edges)
    for head, numbers in entering.items():
        width = sizes[head][0]
        for place, number in enumerate(sorted(numbers, key=lambda each: x[edges[each][0]])):
            ports[number] = x[head] - width / 2 + width * (place + 0.5) / len(numbers)
        below = x[edges[numbers[0]][0]]
        # An edge alone that is nearly straight becomes straight.
        if len(numbers) == 1 and abs(below - x[head]) <= min(STRAIGHTENED, width / 4):
            ports[numbers[0]] = below
    return ports
