"""The update of a step by ranges: the bits of the formulas on whole vectors, and nothing changes before it is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule_engine.blocks import BLOCK, GRAIN
from chainrule_engine.clipping import clip_by_global_norm, clip_by_value, global_norm
from chainrule_engine.errors import ValueMismatch
from chainrule_engine.evaluation import updated_statistics
from chainrule_engine.finite import NotFinite, is_finite
from chainrule_engine.optimizers import OPTIMIZERS, Step, make_optimizer
from chainrule_engine.parameters import Parameter, ParameterLayout, Vector, sha256_of
from chainrule_engine.penalties import make_penalties
from chainrule_engine.reduction import PartialSum, Subtree, TreeSum, finish, maximal_subtrees
from chainrule_engine.synchronous_sgd import ParameterState, UpdateRecipe

HALVES = (Subtree(0, 4), Subtree(4, 4))
# Smaller than a block, a whole one, and more than two of them with an odd rest.
SIZES = [1, 1000, BLOCK, 2 * BLOCK + 77]
LARGE = 5 * BLOCK + 5
LIMITS: list[dict[str, Any]] = [
    {},
    {"penalties": make_penalties({"l1": 0.01, "l2": 0.1})},
    {"clip_value": 0.01},
    {"clip_norm": 0.5},
    {"penalties": make_penalties({"l2": 0.1}), "clip_value": 0.02, "clip_norm": 0.3},
]


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as running:
        yield running


def drawn(size: int, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)


def recipe_of(rule: str = "adamw", **limits: Any) -> UpdateRecipe:
    return UpdateRecipe(make_optimizer(rule, {}), learning_rate=0.01, total_steps=100, **limits)


def on_whole_vectors(
    recipe: UpdateRecipe, parameters: Vector, state: dict[str, Vector], gradient: Vector, rows: int, step: int
) -> tuple[Vector, dict[str, Vector]]:
    """One step as its definition reads, without blocks."""
    gradient = gradient / np.float32(rows)
    scratch = np.empty((max(1, recipe.rule.scratch_rows), gradient.size), np.float32)
    for penalty in recipe.penalties:
        penalty.add_gradient(gradient, parameters, out=gradient, scratch=scratch[0])
    if recipe.clip_value is not None:
        clip_by_value(gradient, limit=recipe.clip_value, out=gradient)
    if recipe.clip_norm is not None:
        clip_by_global_norm(gradient, norm=global_norm(gradient), limit=recipe.clip_norm, out=gradient)
    out, out_state = np.empty_like(parameters), {name: np.empty_like(parameters) for name in state}
    recipe.rule.update(Step(step, recipe.learning_rate, parameters, gradient, state, out, out_state, scratch))
    return out, out_state


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "+".join(limits) or "plain")
def test_a_step_has_the_bits_of_its_definition(size: int, limits: dict[str, Any]) -> None:
    recipe = recipe_of(**limits)
    state = ParameterState(recipe, drawn(size))
    expected = drawn(size)
    moments = {name: np.zeros(size, np.float32) for name in recipe.rule.state_names}
    for step in (1, 2, 3):
        sums = [drawn(size, seed=10 * step), drawn(size, seed=10 * step + 1)]
        update = state.begin(64, HALVES)
        update.prepare_all(sums)
        state.commit(update)
        expected, moments = on_whole_vectors(recipe, expected, moments, sums[0] + sums[1], 64, step)
    assert state.parameters.tobytes() == expected.tobytes()
    for name, moment in moments.items():
        assert state.state[name].tobytes() == moment.tobytes()


@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_ranges_in_any_order_and_on_two_threads_give_the_same_bits(
    rule: str, clip_norm: float | None, executor: ThreadPoolExecutor
) -> None:
    recipe = recipe_of(rule, clip_norm=clip_norm)
    sums = [drawn(LARGE, seed=1), drawn(LARGE, seed=2)]
    ranges = [(0, 2 * BLOCK), (2 * BLOCK, 4 * BLOCK), (4 * BLOCK, LARGE)]
    results = set()
    for order in permutations(ranges):
        state = ParameterState(recipe, drawn(LARGE))
        update = state.begin(7, HALVES)
        for start, stop in order:
            update.prepare(start, stop, sums)
        state.commit(update)
        results.add(state.parameters.tobytes())
    for thread_count in (1, 2, 3):
        state = ParameterState(recipe, drawn(LARGE))
        update = state.begin(7, HALVES)
        update.prepare_all(sums, executor=executor, thread_count=thread_count)
        update.complete(executor=executor, thread_count=thread_count)
        state.commit(update)
        results.add(state.parameters.tobytes())
    state = ParameterState(recipe, drawn(LARGE))
    state.apply(PartialSum(7, np.zeros(1), sums[0] + sums[1]))
    results.add(state.parameters.tobytes())
    assert len(results) == 1


@settings(max_examples=20)
@given(data=st.data())
@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "+".join(limits) or "plain")
def test_ranges_that_begin_anywhere_in_a_block_give_the_same_bits(limits: dict[str, Any], data: st.DataObject) -> None:
    size = 2 * BLOCK + 77
    cuts = data.draw(st.sets(st.integers(1, size // GRAIN), max_size=6))
    ranges = data.draw(st.permutations(list(pairwise([0, *(GRAIN * cut for cut in sorted(cuts)), size]))))
    recipe, sums = recipe_of(**limits), [drawn(size, seed=1), drawn(size, seed=2)]
    whole, cut = ParameterState(recipe, drawn(size)), ParameterState(recipe, drawn(size))
    update = cut.begin(7, HALVES)
    for start, stop in ranges:
        update.prepare(start, stop, sums)
    cut.commit(update)
    whole.apply(PartialSum(7, np.zeros(1), sums[0] + sums[1]))
    assert cut.parameters.tobytes() == whole.parameters.tobytes()
    for name, vector in whole.state.items():
        assert cut.state[name].tobytes() == vector.tobytes()


def test_an_executor_that_is_busy_is_not_waited_for() -> None:
    state = ParameterState(recipe_of("sgd", clip_norm=1.0), drawn(LARGE))
    update = state.begin(4, HALVES)
    with ThreadPoolExecutor(1) as busy:
        release = threading.Event()
        blocker = busy.submit(release.wait, 60)
        try:
            update.prepare_all([drawn(LARGE), drawn(LARGE)], executor=busy, thread_count=3)
            update.complete(executor=busy, thread_count=3)
            assert not blocker.done()
        finally:
            release.set()
    state.commit(update)


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "+".join(limits) or "plain")
def test_partial_sums_are_only_read(limits: dict[str, Any]) -> None:
    sums = [drawn(LARGE, seed=seed) for seed in range(3)]
    for vector in sums:
        vector.flags.writeable = False
    state = ParameterState(recipe_of(**limits), drawn(LARGE))
    update = state.begin(64, (Subtree(0, 4), Subtree(4, 2), Subtree(6, 2)))
    update.prepare_all(sums)
    state.commit(update)
    assert state.step == 1


def test_nothing_readable_changes_before_the_commit() -> None:
    state = ParameterState(recipe_of(clip_norm=1.0), drawn(LARGE))
    parameters, moment = state.parameters, state.state["first_moment"]
    before = parameters.tobytes(), moment.tobytes()
    update = state.begin(64, HALVES)
    update.prepare_all([drawn(LARGE, seed=1), drawn(LARGE, seed=2)])
    update.complete()
    assert (state.parameters.tobytes(), state.state["first_moment"].tobytes(), state.step) == (*before, 0)
    state.commit(update)
    assert (parameters.tobytes(), moment.tobytes(), state.step) == (*before, 1)
    assert state.parameters is not parameters


def test_the_two_buffers_can_be_those_of_the_caller() -> None:
    memory = np.empty((2, 500), np.float32)
    memory[0] = drawn(500)
    state = ParameterState(recipe_of("sgd"), memory[0], next_parameters=memory[1])
    for expected in (memory[1], memory[0], memory[1]):
        state.apply(PartialSum(2, np.zeros(1), drawn(500, seed=3)))
        assert np.shares_memory(state.parameters, expected)
    with pytest.raises(ValueMismatch, match="second buffer"):
        ParameterState(recipe_of("sgd"), memory[0], next_parameters=memory[1, :10])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "+".join(limits) or "plain")
@pytest.mark.parametrize("place", [0, BLOCK, 3 * BLOCK + 11, LARGE - 1])
def test_a_step_that_is_not_finite_changes_nothing(bad: float, limits: dict[str, Any], place: int) -> None:
    state = ParameterState(recipe_of(**limits), drawn(LARGE))
    before = state.parameters.tobytes()
    sums = [drawn(LARGE, seed=1), drawn(LARGE, seed=2)]
    update = state.begin(64, HALVES)
    good = sums[1][place]
    sums[1][place] = bad
    update.prepare_all(sums)
    for _ in range(2):
        with pytest.raises(NotFinite):
            state.commit(update)
    assert (state.parameters.tobytes(), state.step) == (before, 0)
    assert not any(vector.any() for vector in state.state.values())
    # And the same step can be taken again.
    sums[1][place] = good
    update = state.begin(64, HALVES)
    update.prepare_all(sums)
    state.commit(update)
    other = ParameterState(recipe_of(**limits), drawn(LARGE))
    other.apply(PartialSum(64, np.zeros(1), sums[0] + sums[1]))
    assert state.parameters.tobytes() == other.parameters.tobytes()


def test_a_second_moment_that_overflows_is_refused() -> None:
    state = ParameterState(recipe_of("adam"), np.zeros(3, np.float32))
    with pytest.raises(NotFinite):
        state.apply(PartialSum(1, np.zeros(1), np.array([0.0, 1e30, 0.0], np.float32)))
    assert state.step == 0


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([], "from 0 on were not prepared"),
        ([(BLOCK, 2 * BLOCK)], "from 0 on were prepared twice or not at all"),
        ([(0, BLOCK)], f"from {BLOCK} on were not prepared"),
        ([(0, BLOCK), (0, BLOCK)], "from 0 on were prepared twice"),
        ([(0, 2 * BLOCK), (BLOCK, 2 * BLOCK)], f"from {BLOCK} on were prepared twice"),
    ],
)
def test_a_step_with_a_range_missing_or_twice_is_refused(ranges: list[tuple[int, int]], message: str) -> None:
    state = ParameterState(recipe_of("sgd"), drawn(2 * BLOCK))
    update = state.begin(4, HALVES)
    for start, stop in ranges:
        update.prepare(start, stop, [drawn(2 * BLOCK), drawn(2 * BLOCK)])
    with pytest.raises(RuntimeError, match=message):
        state.commit(update)
    assert state.step == 0


@pytest.mark.parametrize(("start", "stop"), [(1, BLOCK), (0, 10), (GRAIN // 2, GRAIN)])
def test_a_range_that_cuts_a_grain_is_refused(start: int, stop: int) -> None:
    update = ParameterState(recipe_of("sgd"), drawn(BLOCK + 1)).begin(4, HALVES)
    with pytest.raises(ValueError, match="does not start and end at a multiple of 1024"):
        update.prepare(start, stop, [drawn(BLOCK + 1), drawn(BLOCK + 1)])


def test_an_update_of_another_step_is_refused() -> None:
    state = ParameterState(recipe_of("sgd"), drawn(5))
    late = state.begin(1, HALVES)
    late.prepare_all([drawn(5), drawn(5)])
    state.commit(late)
    with pytest.raises(RuntimeError, match="of step 1, but step 2 is next"):
        state.commit(late)


def test_memory_is_the_vectors_twice_and_blocks_for_each_thread(executor: ThreadPoolExecutor) -> None:
    state = ParameterState(recipe_of("adam", clip_norm=1.0), drawn(LARGE))
    for _ in range(3):
        update = state.begin(4, HALVES)
        sums = [drawn(LARGE, seed=1), drawn(LARGE, seed=2)]
        update.prepare_all(sums, executor=executor, thread_count=2)
        update.complete(executor=executor, thread_count=2)
        state.commit(update)
    assert 1 <= len(state._workspaces) <= 2
    for workspace in state._workspaces:
        assert workspace.scratch.nbytes + workspace.sums.nbytes <= 4 * BLOCK * (2 + 1)


class TestTreeSum:
    """Checks that the sum by ranges has the bits of the sum of the tree."""

    @pytest.mark.parametrize("cuts", [[0, 8], [0, 4, 8], [0, 3, 6, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 2, 3, 7, 8]])
    @pytest.mark.parametrize("empty", [(), (7,), (0, 5, 6, 7)])
    def test_it_has_the_bits_of_the_tree(self, cuts: list[int], empty: tuple[int, ...]) -> None:
        subtrees = [subtree for first, stop in pairwise(cuts) for subtree in maximal_subtrees(first=first, stop=stop)]
        empty_subtrees = {s for s in subtrees if set(range(s.first, s.first + s.count)) <= set(empty)}
        present = [subtree for subtree in subtrees if subtree not in empty_subtrees]
        vectors = {subtree: drawn(100, seed=subtree.first) for subtree in present}
        expected = finish(
            Subtree(0, 8),
            {s: PartialSum(1, np.zeros(1), vectors[s].copy()) if s in vectors else None for s in subtrees},
        )
        assert expected is not None
        assert expected.gradient is not None
        for order in (present, present[::-1]):
            tree = TreeSum(order)
            rows = np.full((tree.row_count, 60), np.nan, np.float32)
            result = tree.add_up([vectors[subtree] for subtree in order], 30, 90, rows)
            assert result.tobytes() == expected.gradient[30:90].tobytes()

    @pytest.mark.parametrize("shard_count", [1, 2, 8, 64])
    def test_it_works_in_at_most_log2_of_the_shards_rows(self, shard_count: int) -> None:
        tree = TreeSum([Subtree(shard, 1) for shard in range(shard_count)])
        assert tree.row_count <= max(1, shard_count.bit_length() - 1)

    @pytest.mark.parametrize(
        "subtrees", [[], [Subtree(0, 4), Subtree(0, 2)], [Subtree(1, 2)], [Subtree(0, 1), Subtree(0, 1)]]
    )
    def test_what_is_no_division_of_a_tree_is_refused(self, subtrees: list[Subtree]) -> None:
        with pytest.raises(ValueError, match="subtree"):
            TreeSum(subtrees)


class TestIsFinite:
    """Checks the test for numbers that are not finite, where numpy's warnings of invalid values are off."""

    @pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
    @pytest.mark.parametrize("size", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
    def test_one_bad_element_anywhere_is_found(self, bad: float, size: int) -> None:
        for place in sorted({0, size // 2, size - 1}):
            vector = drawn(size)
            assert is_finite(vector)
            vector[place] = bad
            with np.errstate(invalid="ignore"):
                assert not is_finite(vector)

    def test_infinities_of_both_signs_do_not_cancel(self) -> None:
        with np.errstate(invalid="ignore"):
            assert not is_finite(np.array([np.inf, -np.inf], np.float32))

    def test_the_largest_the_smallest_and_zeros_are_finite(self) -> None:
        limits = np.finfo(np.float32)
        values = [limits.max, limits.min, limits.smallest_subnormal, -limits.smallest_subnormal, 0.0, -0.0]
        assert is_finite(np.tile(np.array(values, np.float32), 10_000))
        assert is_finite(np.empty(0, np.float32))


LAYOUT = ParameterLayout.of([Parameter("batch_norm 1 mean", (2,)), Parameter("batch_norm 1 variance", (2,))])


class TestStatistics:
    """Checks that the running statistics move with the step that they belong to."""

    def test_they_are_part_of_the_committed_step_and_of_the_hash(self) -> None:
        state = ParameterState(recipe_of("sgd"), drawn(5), statistics_layout=LAYOUT)
        assert state.statistics.tolist() == [0.0, 0.0, 1.0, 1.0]
        sums = np.array([3.0, 4.0, 8.0, 10.0, 40.0])
        expected = updated_statistics(state.statistics, sums[1:], layout=LAYOUT, row_count=4)
        state.apply(PartialSum(4, sums, drawn(5, seed=1)))
        assert state.statistics.tolist() == expected.tolist()
        assert state.sha256 == sha256_of(state.parameters, expected) != sha256_of(state.parameters)

    def test_without_them_the_hash_is_of_the_parameters(self) -> None:
        state = ParameterState(recipe_of("sgd"), drawn(5))
        assert state.sha256 == sha256_of(state.parameters)

    @pytest.mark.parametrize("sums", [None, np.zeros(1), np.zeros(6)])
    def test_a_step_without_its_sums_is_refused(self, sums: Any) -> None:
        state = ParameterState(recipe_of("sgd"), drawn(5), statistics_layout=LAYOUT)
        update = state.begin(4, (Subtree(0, 8),))
        update.prepare_all([drawn(5)])
        with pytest.raises(ValueMismatch, match="4 statistics"):
            state.commit(update, sums)
        assert state.step == 0

    @pytest.mark.filterwarnings("ignore:invalid value")
    def test_statistics_that_are_not_finite_change_nothing(self) -> None:
        state = ParameterState(recipe_of("sgd"), drawn(5), statistics_layout=LAYOUT)
        before = state.sha256
        with pytest.raises(NotFinite):
            state.apply(PartialSum(4, np.array([0.0, np.inf, 0.0, 0.0, 0.0]), drawn(5, seed=1)))
        assert (state.sha256, state.step) == (before, 0)
