"""The layout of random graphs: nothing overlaps, and every edge goes up."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from chainrule.graph_picture.layout import layers_of, layout

Graph = tuple[list[tuple[float, float]], list[tuple[int, int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Sizes of up to 14 boxes, and edges (tail, head) with tail < head; an operand may be taken twice."""
    count = draw(st.integers(1, 14))
    sizes = [(draw(st.floats(20, 300)), draw(st.floats(20, 90))) for _ in range(count)]
    edges = [(draw(st.integers(0, head - 1)), head) for head in range(1, count) for _ in range(draw(st.integers(0, 3)))]
    return sizes, edges


@given(graphs())
def test_no_two_boxes_overlap(graph: Graph) -> None:
    sizes, edges = graph
    places = layout(sizes, edges)
    for one, two in combinations(range(len(sizes)), 2):
        (x1, y1), (x2, y2) = places.centres[one], places.centres[two]
        beside = abs(x1 - x2) >= (sizes[one][0] + sizes[two][0]) / 2 - 1e-6
        above = abs(y1 - y2) >= (sizes[one][1] + sizes[two][1]) / 2 - 1e-6
        assert beside or above


@given(graphs())
def test_every_edge_goes_from_a_lower_to_a_higher_layer(graph: Graph) -> None:
    sizes, edges = graph
    layers = layers_of(len(sizes), edges)
    assert all(layers[tail] < layers[head] for tail, head in edges)
    places = layout(sizes, edges)
    for route in places.routes:
        heights = [y for _, y in route]
        assert heights == sorted(heights)


@given(graphs())
def test_a_route_starts_and_ends_at_its_boxes_and_passes_through_no_other(graph: Graph) -> None:
    sizes, edges = graph
    places = layout(sizes, edges)
    for (tail, head), route in zip(edges, places.routes, strict=True):
        for box, (x, y), side in ((tail, route[0], 1), (head, route[-1], -1)):
            assert abs(x - places.centres[box][0]) <= sizes[box][0] / 2
            assert abs(y - (places.centres[box][1] + side * sizes[box][1] / 2)) < 1e-6
        for box in set(range(len(sizes))) - {tail, head}:
            left, right = (places.centres[box][0] + side * sizes[box][0] / 2 for side in (-1, 1))
            bottom, top = (places.centres[box][1] + side * sizes[box][1] / 2 for side in (-1, 1))
            assert not any(left < x < right and bottom < y < top for x, y in route)


@given(graphs())
def test_everything_lies_on_the_page(graph: Graph) -> None:
    sizes, edges = graph
    places = layout(sizes, edges)
    for (x, y), (width, height) in zip(places.centres, sizes, strict=True):
        assert x - width / 2 >= -1e-6
        assert x + width / 2 <= places.width + 1e-6
        assert y - height / 2 >= -1e-6
        assert y + height / 2 <= places.height + 1e-6


def test_a_leaf_lies_just_below_the_first_operation_that_takes_it() -> None:
    # x → a → b → c, and w goes into c only.
    assert layers_of(5, [(0, 1), (1, 2), (2, 4), (3, 4)]) == (0, 1, 2, 2, 3)
