"""What a process computes of a step: the same bits as by definition, in place, and announced while more is to come."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from itertools import pairwise, permutations

import numpy as np
import pytest

from chainrule_engine.blocks import BLOCK
from chainrule_engine.errors import SettingError, ValueMismatch
from chainrule_engine.finite import NotFinite
from chainrule_engine.metrics import Measure
from chainrule_engine.microbatch import MicrobatchComputer, ShardRows
from chainrule_engine.model import Input, Model
from chainrule_engine.optimizers import make_optimizer
from chainrule_engine.parameters import Parameter, Vector
from chainrule_engine.plan import EvaluationPlan, TrainingPlan, final_ranges
from chainrule_engine.reduction import PartialSum, Subtree, finish, maximal_subtrees, reduce_subtree, turns
from chainrule_engine.sharding import BatchSchedule, Rows
from chainrule_engine.synchronous_sgd import ParameterState, UpdateRecipe, train_in_one_process

FEATURES, HIDDEN = 5, 7
# Shards that run out at different steps, one of them before the others have begun their last two.
UNEVEN = (9, 9, 4, 9, 8, 9, 9, 9)
FORMULAS = {
    "layers": "w @ tanh(V2 @ tanh(V1 @ x))",
    "dropout": "w @ dropout(tanh(V2 @ tanh(V1 @ x)), 0.25)",
    "batch_norm": "w @ batch_norm(tanh(V2 @ tanh(V1 @ x)))",
}


def model_of(name: str = "layers", *, hidden: int = HIDDEN, loss: str = "(prediction - y)**2") -> Model:
    return Model.build(
        prediction=FORMULAS[name],
        loss=loss,
        parameters=[Parameter("V1", (hidden, FEATURES)), Parameter("V2", (hidden, hidden)), Parameter("w", (hidden,))],
        inputs=[Input("x", (FEATURES,)), Input("y", ())],
    )


def computer_of(
    model: Model, *, shard_sizes: Sequence[int] = UNEVEN, microbatch_size: int = 4, backend: str = "numpy"
) -> MicrobatchComputer:
    generator = np.random.default_rng(3)
    training = {}
    for shard, size in enumerate(shard_sizes):
        features = generator.standard_normal((size, FEATURES), dtype=np.float32)
        targets = generator.standard_normal(size, dtype=np.float32)
        training[shard] = ShardRows(features, targets, 1000 * shard + np.arange(size))
    return MicrobatchComputer(
        model,
        BatchSchedule(seed=5, shard_sizes=tuple(shard_sizes), microbatch_size=microbatch_size),
        Measure.of((), class_count=None, labels=[]),
        training=training,
        validation={},
        backend=backend,
    )


def parameters_of(model: Model, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).standard_normal(model.layout.size, dtype=np.float32) * np.float32(0.3)


def unheard(start: int, stop: int) -> None:
    """Take an announcement and do nothing."""


def by_definition(computer: MicrobatchComputer, subtree: Subtree, step: int, parameters: Vector) -> PartialSum | None:
    """A new plan and a new vector for each microbatch, added up by `reduce_subtree`."""
    schedule = computer.schedule
    epoch, step_in_epoch = schedule.position(step)

    def leaf(shard: int) -> PartialSum | None:
        chosen = schedule.order(shard, epoch)[schedule.rows(step_in_epoch)]
        if len(chosen) == 0:
            return None
        held = computer.training[shard]
        plan = TrainingPlan(computer.model, len(chosen))
        gradient = np.empty_like(parameters)
        rows = {"x": held.features[chosen], "y": held.targets[chosen]}
        loss = plan.gradient(parameters, rows, gradient, randomness=(schedule.seed, step, shard))
        return PartialSum(len(chosen), np.array([loss, *plan.statistics_sums]), gradient)

    return reduce_subtree(subtree, leaf)


def assert_same(got: PartialSum | None, expected: PartialSum | None) -> None:
    if expected is None or got is None:
        assert got is None
        assert expected is None
        return
    assert got.gradient is not None
    assert expected.gradient is not None
    assert got.row_count == expected.row_count
    assert got.sums.tobytes() == expected.sums.tobytes()
    assert got.gradient.tobytes() == expected.gradient.tobytes()


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("subtree", [Subtree(0, 8), Subtree(0, 4), Subtree(2, 2), Subtree(2, 1), Subtree(7, 1)])
@pytest.mark.parametrize("announced", [False, True])
def test_every_step_has_the_bits_of_its_definition(name: str, subtree: Subtree, announced: bool) -> None:
    model = model_of(name)
    computer = computer_of(model)
    both = [parameters_of(model, seed) for seed in (0, 1)]
    places = [np.empty(model.layout.size, np.float32) for _ in range(3)]
    for step in range(1, 2 * computer.schedule.steps_per_epoch + 1):
        parameters, out = both[step % 2], places[step % 3]
        ranges: list[tuple[int, int]] = []
        got = computer.gradient(
            subtree,
            step=step,
            parameters=parameters,
            out=out,
            final=(lambda start, stop, into=ranges: into.append((start, stop))) if announced else None,
        )
        assert_same(got, by_definition(computer, subtree, step, parameters))
        assert got is None or got.gradient is out
        assert ranges == ([(0, model.layout.size)] if announced and got is not None else [])


def test_a_sum_without_a_place_gets_a_new_one_each_time() -> None:
    model = model_of()
    computer, parameters = computer_of(model), parameters_of(model)
    first = computer.gradient(Subtree(0, 8), step=1, parameters=parameters)
    expected = by_definition(computer, Subtree(0, 8), 1, parameters)
    computer.gradient(Subtree(0, 8), step=2, parameters=parameters)
    assert_same(first, expected)


def test_rows_that_are_loaded_later_are_those_computed_with() -> None:
    model = model_of()
    computer, parameters = computer_of(model), parameters_of(model)
    before = computer.gradient(Subtree(0, 2), step=1, parameters=parameters)
    computer.training = {0: computer.training[1], 1: computer.training[0]}
    after = computer.gradient(Subtree(0, 2), step=1, parameters=parameters)
    assert_same(after, by_definition(computer, Subtree(0, 2), 1, parameters))
    assert before is not None
    assert after is not None
    assert before.sums[0] != after.sums[0]


class TestMemory:
    """Checks how much is held, and that nothing as large as a gradient is allocated after the first step."""

    @pytest.mark.parametrize("shard_count", [1, 2, 8, 32])
    def test_at_most_log2_of_the_shards_gradients_and_the_callers_are_held(self, shard_count: int) -> None:
        model = model_of()
        computer = computer_of(model, shard_sizes=(8,) * shard_count)
        out, parameters = np.empty(model.layout.size, np.float32), parameters_of(model)
        for step in (1, 2, 3):
            computer.gradient(Subtree(0, shard_count), step=step, parameters=parameters, out=out)
        assert len(computer._waiting) == shard_count.bit_length() - 1

    def test_a_step_after_the_first_allocates_no_gradient_and_no_shard(self) -> None:
        model = model_of(hidden=300)
        computer = computer_of(model, shard_sizes=(4096,) * 4, microbatch_size=16)
        out, parameters = np.empty(model.layout.size, np.float32), parameters_of(model)
        steps = range(computer.schedule.steps_per_epoch, computer.schedule.steps_per_epoch + 3)
        for final in (None, unheard):
            computer.gradient(Subtree(0, 4), step=1, parameters=parameters, out=out, final=final)
        tracemalloc.start()
        try:
            for step in steps:  # an epoch ends among them
                for final in (None, unheard):
                    computer.gradient(Subtree(0, 4), step=step, parameters=parameters, out=out, final=final)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # The order of the rows of an epoch is 8 bytes a row of each shard, and drawn anew when it ends.
        assert peak < out.nbytes / 2
        assert peak > 4096 * 8

    @pytest.mark.parametrize("empty", [(), (0,), (7,), (2, 3), (4, 5, 6, 7), (0, 1, 2, 3, 4, 5, 6, 7)])
    @pytest.mark.parametrize("subtree", [Subtree(0, 8), Subtree(4, 4), Subtree(6, 2), Subtree(3, 1)])
    def test_turns_add_as_the_tree_does(self, empty: tuple[int, ...], subtree: Subtree) -> None:
        def leaf(shard: int) -> PartialSum | None:
            value = np.float32(10.0 ** (shard - 3)) / np.float32(3)
            return None if shard in empty else PartialSum(1, np.zeros(1), np.array([value], np.float32))

        expected = reduce_subtree(subtree, leaf)
        vectors = [np.full(1, np.nan, np.float32) for _ in range(subtree.count.bit_length())]
        order = turns(subtree, lambda shard: shard not in empty)
        for turn in order:
            own = leaf(turn.shard)
            assert own is not None
            assert own.gradient is not None
            vectors[turn.place][:] = own.gradient
            for place in range(turn.place, turn.place - turn.additions, -1):
                vectors[place - 1] += vectors[place]
        if expected is None:
            assert order == []
        else:
            assert expected.gradient is not None
            assert vectors[0].tobytes() == expected.gradient.tobytes()


class TestAnnouncements:
    """Checks that what is announced is final, and that it comes while the rest is being computed."""

    @pytest.fixture(autouse=True)
    def _announce_every_parameter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(final_ranges, "WORTH_ANNOUNCING", 1)

    def test_the_last_layer_is_announced_first_while_the_first_is_not_yet_computed(self) -> None:
        model = model_of()
        computer, parameters = computer_of(model), parameters_of(model)
        out = np.full(model.layout.size, np.nan, np.float32)
        seen: list[tuple[tuple[int, int], Vector]] = []
        computer.gradient(
            Subtree(2, 1),
            step=1,
            parameters=parameters,
            out=out,
            final=lambda start, stop: seen.append(((start, stop), out.copy())),
        )
        starts = [*model.layout.offsets, model.layout.size]
        assert [extent for extent, _ in seen] == list(pairwise(starts))[::-1]
        first = model.layout.parameters[0].size
        assert [bool(np.isnan(then[:first]).all()) for _, then in seen] == [True, True, False]

    @pytest.mark.parametrize("name", FORMULAS)
    @pytest.mark.parametrize("subtree", [Subtree(0, 8), Subtree(4, 4), Subtree(0, 2), Subtree(5, 1)])
    @pytest.mark.parametrize("hidden", [HIDDEN, 280])
    def test_every_element_is_announced_once_with_its_last_value(
        self, name: str, subtree: Subtree, hidden: int
    ) -> None:
        model = model_of(name, hidden=hidden)
        computer, parameters = computer_of(model), parameters_of(model)
        for step in (1, 2, 3):
            out = np.empty(model.layout.size, np.float32)
            announced = np.full(model.layout.size, np.nan, np.float32)
            count = np.zeros(model.layout.size, int)

            def final(start: int, stop: int, out: Vector = out, then: Vector = announced, count: Rows = count) -> None:
                then[start:stop] = out[start:stop]
                count[start:stop] += 1

            got = computer.gradient(subtree, step=step, parameters=parameters, out=out, final=final)
            assert_same(got, by_definition(computer, subtree, step, parameters))
            assert (count == 1).all()
            assert announced.tobytes() == out.tobytes()

    def test_small_parameters_are_announced_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(final_ranges, "WORTH_ANNOUNCING", BLOCK)
        model = model_of(hidden=280)
        computer, parameters = computer_of(model), parameters_of(model)
        ranges: list[tuple[int, int]] = []
        computer.gradient(
            Subtree(0, 1), step=1, parameters=parameters, final=lambda start, stop: ranges.append((start, stop))
        )
        second = model.layout.offsets[1]
        assert ranges == [(second, model.layout.size), (0, second)]

    def test_what_is_not_finite_is_not_announced(self) -> None:
        model = model_of()
        computer, parameters = computer_of(model), parameters_of(model)
        views = model.layout.views(parameters)
        views["V1"][...] = 0.0
        views["V2"][0, 0] = 1e38  # what comes out of the first layer is finite, its gradient is not
        views["w"][...] = 1e38
        ranges: list[tuple[int, int]] = []
        with pytest.raises(NotFinite, match=r"shard 2"):
            computer.gradient(
                Subtree(2, 1), step=1, parameters=parameters, final=lambda start, stop: ranges.append((start, stop))
            )
        assert ranges == [(model.layout.offsets[2], model.layout.size)]

    def test_an_error_of_the_listener_is_its_own(self) -> None:
        model = model_of()
        computer, parameters = computer_of(model), parameters_of(model)

        def final(start: int, stop: int) -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            computer.gradient(Subtree(0, 1), step=1, parameters=parameters, final=final)
        # And the computer is none the worse for it.
        got = computer.gradient(Subtree(0, 1), step=1, parameters=parameters)
        assert_same(got, by_definition(computer, Subtree(0, 1), 1, parameters))


class TestNotFinite:
    """Checks that a bad number is refused with its place, and without a warning."""

    @pytest.mark.parametrize("announced", [False, True])
    def test_a_loss_is_refused_with_the_number_of_its_row(self, announced: bool) -> None:
        model = model_of()
        computer = computer_of(model)
        row = int(computer.schedule.order(5, 0)[2])
        computer.training[5].targets[row] = np.inf
        with pytest.raises(NotFinite) as caught:
            computer.gradient(
                Subtree(4, 4),
                step=1,
                parameters=parameters_of(model),
                final=unheard if announced else None,
            )
        assert (caught.value.shard, caught.value.row) == (5, 5000 + row)

    @pytest.mark.parametrize("announced", [False, True])
    def test_a_sum_that_overflows_is_refused(self, announced: bool) -> None:
        model = Model.build(
            loss="p * y", parameters=[Parameter("p", ())], inputs=[Input("x", (FEATURES,)), Input("y", ())]
        )
        computer = computer_of(model, shard_sizes=(1, 1), microbatch_size=1)
        for shard in (0, 1):
            computer.training[shard].targets[:] = 3e38
        with pytest.raises(NotFinite) as caught:
            computer.gradient(
                Subtree(0, 2),
                step=1,
                parameters=np.zeros(1, np.float32),
                final=unheard if announced else None,
            )
        assert (caught.value.shard, caught.value.row) == (1, None)


class TestBatchNorm:
    """Checks batch_norm's running statistics through training."""

    @staticmethod
    def state_of(model: Model) -> ParameterState:
        recipe = UpdateRecipe(make_optimizer("sgd", {}), learning_rate=0.05, total_steps=100)
        return ParameterState(recipe, parameters_of(model), statistics_layout=model.statistics)

    def test_the_bits_do_not_depend_on_how_or_when_the_subtrees_are_computed(self) -> None:
        model = model_of("batch_norm")
        states = [self.state_of(model)]
        train_in_one_process(computer_of(model), states[0], steps=4)
        for cuts in ([0, 4, 8], [0, 3, 6, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8]):
            subtrees = [s for first, stop in pairwise(cuts) for s in maximal_subtrees(first=first, stop=stop)]
            for order in list(permutations(subtrees))[:3]:
                state, computer = self.state_of(model), computer_of(model)
                for step in range(1, 5):
                    sums = {s: computer.gradient(s, step=step, parameters=state.parameters) for s in order}
                    total = finish(Subtree(0, 8), sums)
                    assert total is not None
                    state.apply(total)
                states.append(state)
        assert len({state.sha256 for state in states}) == 1
        assert len({state.statistics.tobytes() for state in states}) == 1

    def test_they_are_those_of_pytorch_with_the_variance_over_n(self) -> None:
        torch = pytest.importorskip("torch", reason="PyTorch is the referee; 'make test' runs without it")
        model = model_of("batch_norm")
        # One shard with all rows of a step: PyTorch's batch is our microbatch.
        computer = computer_of(model, shard_sizes=(24,), microbatch_size=6)
        state = self.state_of(model)
        layer = torch.nn.BatchNorm1d(HIDDEN, affine=False, momentum=0.1).double()
        for step in range(1, 9):
            epoch, step_in_epoch = computer.schedule.position(step)
            chosen = computer.schedule.order(0, epoch)[computer.schedule.rows(step_in_epoch)]
            views = model.layout.views(state.parameters.astype(np.float64))
            x = computer.training[0].features[chosen].astype(np.float64)
            layer(torch.tensor(np.tanh(np.tanh(x @ views["V1"].T) @ views["V2"].T)))
            train_in_one_process(computer, state, steps=1)
        mean, variance = state.statistics[:HIDDEN], state.statistics[HIDDEN:]
        np.testing.assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-4, atol=1e-6)
        # PyTorch's is over n - 1: what it adds up is 6 / 5 of ours, the start (1, fading with 0.9 a step) is the same.
        start = 0.9**8
        np.testing.assert_allclose((variance - start) * 6 / 5 + start, layer.running_var.numpy(), rtol=1e-4)

    def test_an_evaluation_takes_them(self) -> None:
        model = model_of("batch_norm")
        computer, state = computer_of(model), self.state_of(model)
        train_in_one_process(computer, state, steps=3)
        total = computer.evaluate(
            Subtree(3, 1), parameters=state.parameters, validation=False, statistics=state.statistics
        )
        held = computer.training[3]
        plan = EvaluationPlan(model, len(held.targets))
        loss, _ = plan.evaluate(state.parameters, {"x": held.features, "y": held.targets}, state.statistics)
        assert total is not None
        assert total.sums[0] == loss
        with pytest.raises(ValueMismatch, match="running statistics"):
            computer.evaluate(Subtree(3, 1), parameters=state.parameters, validation=False)


class TestBackend:
    """Checks that the job's backend reaches the plans."""

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(SettingError, match="unknown backend 'fortran'"):
            computer_of(model_of(), backend="fortran")

    @pytest.mark.parametrize("announced", [False, True])
    def test_numba_computes_the_same_up_to_rounding(self, announced: bool) -> None:
        pytest.importorskip("numba", reason="numba, the optional backend, is not installed")
        model = model_of()
        parameters, ranges = parameters_of(model), []
        expected = computer_of(model).gradient(Subtree(0, 8), step=1, parameters=parameters)
        got = computer_of(model, backend="numba").gradient(
            Subtree(0, 8),
            step=1,
            parameters=parameters,
            final=(lambda start, stop: ranges.append((start, stop))) if announced else None,
        )
        assert got is not None
        assert expected is not None
        np.testing.assert_allclose(got.gradient, expected.gradient, rtol=1e-4, atol=1e-5)
        assert ranges == ([(0, model.layout.size)] if announced else [])
