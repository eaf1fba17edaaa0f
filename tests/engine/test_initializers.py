"""First values: their statistics, their bits, and which initializer a place in the graph gets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from chainrule_engine.errors import SettingError
from chainrule_engine.initializers import INITIALIZERS, default_for, default_initializers, fans, initialize
from chainrule_engine.model import Input, Model
from chainrule_engine.parameters import Parameter, ParameterLayout, Vector, sha256_of

OUT, IN = 300, 500


def drawn(text: str, shape: tuple[int, ...] = (OUT, IN), *, name: str = "V", seed: int = 0) -> Vector:
    layout = ParameterLayout.of([Parameter(name, shape, text)])
    return layout.views(initialize(layout, seed, default={}))[name]


@pytest.mark.parametrize(
    ("text", "variance"),
    [
        ("normal", 1),
        ("normal(std=0.01)", 1e-4),
        ("normal(0.01)", 1e-4),
        ("uniform", 1 / 3),
        ("uniform(bound=0.3)", 0.03),
        ("glorot_uniform", 2 / (IN + OUT)),
        ("glorot_uniform(gain=4)", 16 * 2 / (IN + OUT)),
        ("glorot_normal", 2 / (IN + OUT)),
        ("he_uniform", 2 / IN),
        ("he_normal", 2 / IN),
        ("lecun_uniform", 1 / IN),
        ("lecun_normal", 1 / IN),
        ("orthogonal", 1 / IN),
        ("orthogonal(gain=2)", 4 / IN),
    ],
)
def test_the_values_have_mean_zero_and_the_variance_of_the_formula(text: str, variance: float) -> None:
    values = drawn(text).astype(np.float64)
    assert values.var() == pytest.approx(variance, rel=0.02)
    assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)


@pytest.mark.parametrize("text", ["uniform(0.25)", "glorot_uniform", "he_uniform", "lecun_uniform"])
def test_uniform_values_fill_their_interval_and_stay_in_it(text: str) -> None:
    values = drawn(text)
    bound = math.sqrt(3 * values.astype(np.float64).var())
    assert 0.98 * bound < abs(values).max() < 1.02 * bound


def test_zeros_and_constants_are_what_they_say() -> None:
    assert not drawn("zeros").any()
    assert (drawn("constant(-1.5)") == -1.5).all()
    assert (drawn("constant(value=1)", ()) == 1).all()


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30), (7,), (), (4, 5, 6)])
def test_orthogonal_gives_orthonormal_rows_or_columns(shape: tuple[int, ...]) -> None:
    fan_in, fan_out = fans(shape)
    matrix = drawn("orthogonal", shape).reshape(fan_out, fan_in).astype(np.float64)
    product = matrix @ matrix.T if fan_out <= fan_in else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(min(fan_in, fan_out)), atol=1e-6)


def test_orthogonal_does_not_depend_on_the_number_of_threads() -> None:
    digests = set()
    for threads in (1, 2):
        with threadpool_limits(limits=threads, user_api="blas"):
            # In float64: rounding to float32 would hide most differences.
            digests.add(sha256_of(INITIALIZERS["orthogonal"].draw((400, 300), np.random.default_rng(0), 1.0)))
    assert len(digests) == 1


@pytest.mark.parametrize("name", sorted(INITIALIZERS))
@pytest.mark.parametrize("shape", [(), (5,), (3, 5), (2, 3, 5)])
def test_every_initializer_gives_finite_values_of_any_shape(name: str, shape: tuple[int, ...]) -> None:
    values = drawn("constant(1)" if name == "constant" else name, shape)
    assert values.shape == shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()


def test_fan_in_is_what_one_output_sums_over() -> None:
    assert fans((7, 3)) == (3, 7)
    assert fans((3,)) == (3, 1)
    assert fans(()) == (1, 1)


def test_the_values_of_a_parameter_depend_on_the_seed_and_its_own_name_alone() -> None:
    one = ParameterLayout.of([Parameter("V", (4, 3))])
    both = ParameterLayout.of([Parameter("U", (9,)), Parameter("V", (4, 3))])
    alone = one.views(initialize(one, 5, default={}))["V"]
    beside = both.views(initialize(both, 5, default={}))["V"]
    assert alone.tobytes() == beside.tobytes()
    assert drawn("glorot_uniform", (4, 3), seed=5).tobytes() == alone.tobytes()
    assert drawn("glorot_uniform", (4, 3), seed=6).tobytes() != alone.tobytes()
    assert drawn("glorot_uniform", (4, 3), seed=5, name="W").tobytes() != alone.tobytes()


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("normal", "b9a15d8b26882e6a4d383a5008aeb1159ecf818a4b8e08e54fa6501bc039319a"),
        ("uniform", "92c85f92428da6739a0c04f6ca8a44a1761de466d185e2b8ca6bbf069702a74d"),
        ("glorot_uniform(gain=4)", "f2642b472af8dd9967c7274816b0fe56c610e3dc8be395665443a81cb7a3b06e"),
        ("he_normal", "62b5dbea63de1cec52a01c685821887dec16a85c1d33c9060a7c4c6768c321a1"),
    ],
)
def test_the_values_of_a_seed_are_these_for_ever(text: str, digest: str) -> None:
    assert sha256_of(drawn(text, (16, 10), seed=7)) == digest


def build(loss: str, **shapes: tuple[int, ...]) -> Model:
    return Model.build(
        loss=loss,
        functions={"phi": "sigmoid"},
        parameters=[Parameter(name, shape) for name, shape in shapes.items()],
        inputs=[Input("x", (3,)), Input("y", ())],
    )


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("(w @ phi(V @ x) - y)**2", "glorot_uniform(gain=4)"),
        ("(w @ tanh(V @ x) - y)**2", "glorot_uniform"),
        ("(w @ (V @ x) - y)**2", "glorot_uniform"),
        ("(w @ relu(V @ x) - y)**2", "he_normal"),
        ("(w @ max(V @ x, 0) - y)**2", "he_normal"),
        ("(w @ max(0, V @ x) - y)**2", "he_normal"),
        ("(w @ gelu(V @ x + b) - y)**2", "he_normal"),
        ("(w @ relu(layer_norm(V @ x - b)) - y)**2", "he_normal"),
        ("(w @ dropout(relu(b + V @ x), 0.5) - y)**2 + 0.01 * (b @ b)", "he_normal"),
    ],
)
def test_a_matrix_is_drawn_for_the_activation_that_its_product_goes_into(loss: str, expected: str) -> None:
    defaults = default_initializers(build(loss, V=(4, 3), w=(4,), **({"b": (4,)} if "b" in loss else {})).loss)
    assert defaults == {"V": expected, "w": "glorot_uniform", **({"b": "zeros"} if "b" in loss else {})}


def test_the_scale_and_the_shift_of_a_normalization_start_at_one_and_zero() -> None:
    model = build("(w @ relu(s * layer_norm(V @ x) + b) - y)**2", V=(4, 3), w=(4,), s=(4,), b=(4,))
    assert default_initializers(model.loss) == {
        "V": default_for(None), "w": "glorot_uniform", "s": "constant(1)", "b": "zeros"
    }  # fmt: skip


def test_a_scalar_added_at_the_end_starts_at_zero() -> None:
    assert default_initializers(build("(w @ x + b - y)**2", w=(3,), b=()).loss)["b"] == "zeros"


def test_an_initializer_that_the_user_names_comes_before_the_default() -> None:
    layout = ParameterLayout.of([Parameter("V", (2,), "constant(3)"), Parameter("w", (2,))])
    assert initialize(layout, 0, default={"V": "zeros", "w": "zeros"}).tolist() == [3, 3, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("glorot_unifrom", "unknown initializer 'glorot_unifrom'; did you mean 'glorot_uniform'?"),
        ("xyz", "unknown initializer 'xyz'; there is zeros, constant, normal"),
        ("", "unknown initializer ''; there is zeros"),
        ("normal(", "cannot read 'normal('; write normal or normal(std=0.5)"),
        ("normal(0.1, 2)", "cannot read 'normal(0.1, 2)'; write normal or normal(std=0.5)"),
        ("normal(gain=2)", "cannot read 'normal(gain=2)'; write normal or normal(std=0.5)"),
        ("normal(one)", "cannot read 'normal(one)'; write normal or normal(std=0.5)"),
        ("zeros(1)", "cannot read 'zeros(1)'; write zeros"),
        ("constant", "cannot read 'constant'; write constant(value=0.5)"),
        ("normal(-1)", "'normal(-1)': std must be at least 0, got -1"),
        ("constant(inf)", "'constant(inf)': value must be at most 1e+30, got inf"),
        ("uniform(nan)", "'uniform(nan)': bound must be at least 0, got nan"),
        ("z" * 100_000, "unknown initializer 'zzz"),
    ],
)
def test_wrong_text_is_refused_with_the_path_of_the_parameter(text: str, message: str) -> None:
    layout = ParameterLayout.of([Parameter("V2", (2,))])
    with pytest.raises(SettingError) as caught:
        initialize(layout, 0, default={"V2": text or " "})
    assert caught.value.setting == "model.parameters.V2"
    assert caught.value.reason.replace("' '", "''").startswith(message)
