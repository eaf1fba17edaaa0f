"""Jobs with definitions: the bits of the same job written out, and all that is done with a model, for a deep one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chainrule.errors import JobFileError
from chainrule.graph_picture.svg import svg
from chainrule.graph_picture.values import picture_of
from chainrule.spec.job_description import job_spec
from chainrule.spec.job_file import parse_job
from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api
from chainrule_server.errors import InvalidSpec
from chainrule_server.models import model_file
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.explanation import explain
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.offline import gradient_check
from chainrule_server.preparation.prepare import prepare
from tests.cluster.support import sha256_of_the_engine_alone
from tests.server.in_process import add_data_sets

REST = """
[data]
uri = "test:regression"
standardize = ["features", "target"]

[training]
epochs = 2
batch_size = 8
shards = 2
optimizer = { name = "sgd", learning_rate = 0.01 }
"""
NAMED = """
name = "job"

[model]
prediction = "w @ layer(V2, layer(V1, start))"
loss = "residual^2 + 0.001 * sum(start * start)"
phi = "tanh"

[model.definitions]
start = "dropout(phi(V0 @ x), 0.2)"
"layer(V, h)" = "phi(V @ h) + h"
residual = "prediction - y"

[model.parameters]
V0 = [4, "d"]
V1 = [4, 4]
V2 = [4, 4]
w = [4]
"""


@pytest.fixture(autouse=True)
def _data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    add_data_sets(monkeypatch)


def residual_network(layer_count: int) -> job_pb2.JobSpec:
    layers = [f'h{n} = "layer(A{n}, B{n}, h{n - 1})"' for n in range(1, layer_count + 1)]
    shapes = [f"{letter}{n} = [4, 4]" for n in range(1, layer_count + 1) for letter in "AB"]
    return parse_job(
        f"""
name = "job"

[model]
prediction = "w @ h{layer_count}"
loss = "(prediction - y)^2"

[model.definitions]
"layer(A, B, h)" = "relu(h + B @ relu(A @ h))"
h0 = "relu(V @ x)"
{chr(10).join(layers)}

[model.parameters]
V = [4, "d"]
w = [4]
{chr(10).join(shapes)}
{REST}"""
    )


def test_a_job_with_definitions_trains_the_bits_of_the_same_job_written_out(tmp_path: Path) -> None:
    start = "phi(V0 @ x)"
    named = NAMED.replace("dropout(phi(V0 @ x), 0.2)", start)
    first = f"(phi(V1 @ {start}) + {start})"
    plain = named[: named.index("[model.definitions]")] + named[named.index("[model.parameters]") :]
    plain = plain.replace("layer(V2, layer(V1, start))", f"(phi(V2 @ {first}) + {first})")
    plain = plain.replace("residual^2", "(prediction - y)^2").replace("start * start", f"{start} * {start}")
    assert trained(tmp_path, named) == trained(tmp_path, plain)
    assert trained(tmp_path, named) != trained(tmp_path, NAMED)


def test_a_dropout_in_a_function_is_drawn_as_if_it_were_written_out(tmp_path: Path) -> None:
    named = NAMED.replace("phi(V @ h) + h", "dropout(V @ h, 0.5)").replace(" + 0.001 * sum(start * start)", "")
    plain = named[: named.index("[model.definitions]")] + named[named.index("[model.parameters]") :]
    first = "dropout(V1 @ dropout(phi(V0 @ x), 0.2), 0.5)"
    plain = plain.replace("layer(V2, layer(V1, start))", f"dropout(V2 @ {first}, 0.5)")
    assert trained(tmp_path, named) == trained(tmp_path, plain.replace("residual^2", "(prediction - y)^2"))


def trained(folder: Path, model: str) -> str:
    """The SHA-256 of the parameters after two epochs."""
    path = folder / "job.toml"
    path.write_text(model + REST)
    return sha256_of_the_engine_alone(path)


def test_a_network_of_fifty_layers_is_prepared_drawn_and_explained() -> None:
    job = prepare(residual_network(50))
    assert len(job.model.loss.nodes) > 250
    values = dict(job.model.layout.views(job.first_state().parameters)) | {
        "x": np.ones((1, 3), np.float32),
        "y": np.ones(1, np.float32),
    }
    picture = picture_of(job.model.loss, values, title="deep")
    assert sum(box.title.startswith("h") and box.title.endswith(": relu") for box in picture.boxes) == 51
    assert "h50: relu" in svg(picture)


def test_a_network_of_fifty_layers_is_an_onnx_graph_of_the_same_outputs(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from chainrule.export.model import read_model_file
    from chainrule.export.onnx import onnx_model

    job = prepare(residual_network(50))
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_file.encode(TrainedModel.of(job, job.first_state()), model_file.Provenance("job", "", 0.0)))
    model = read_model_file(path)
    assert [each.name for each in model.spec.model.definitions][:2] == ["layer(A, B, h)", "h0"]
    session = runtime.InferenceSession(onnx_model(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(["outputs"], {"features": np.ones((2, 3))})
    assert np.isfinite(outputs).all()


def test_a_network_of_fifty_layers_is_explained_row_by_row_and_by_shard() -> None:
    job = prepare(residual_network(50))
    trained = TrainedModel.of(job, job.first_state())
    for request in (api.ExplainRequest(row=3), api.ExplainRequest(shard=1)):
        response = explain(trained, request, job, Stop())
        titles = [node.title for node in response.nodes if node.title]
        assert titles == [f"h{number}" for number in range(51)]
        assert all(node.forward.value_count for node in response.nodes)


def test_the_gradient_of_a_network_of_fifty_layers_is_checked() -> None:
    job = prepare(residual_network(50))
    assert gradient_check._elements_for_each(job, 8, most=gradient_check.MOST_ELEMENTS) <= 60
    assert [row["problems"] for row in gradient_check.check_microbatch(job, row_count=1)["parameters"]] == [[]] * 102


def test_a_wrong_definition_is_named_by_its_key_and_column() -> None:
    text = NAMED.replace("phi(V @ h) + h", "phi(V @ h) + g") + REST
    with pytest.raises(InvalidSpec) as caught:
        prepare(parse_job(text))
    ((path, message),) = caught.value.violations
    assert path == "model.definitions.layer"
    assert message.startswith("column 14: unknown name 'g'")
    with pytest.raises(JobFileError) as refused:
        parse_job("[model.definitions]\nhidden = 3\n")
    assert refused.value.problems == [("model.definitions.hidden", "must be a string, got 3")]


def test_expressions_that_share_parts_are_prepared_as_definitions() -> None:
    import chainrule

    x, y = chainrule.inputs()
    deep = chainrule.parameter("V", 4, "d") @ x
    for number in range(50):
        deep = chainrule.relu(chainrule.parameter(f"A{number}", 4, 4) @ deep) + deep
    prediction = chainrule.parameter("w", 4) @ deep
    residual = prediction - y
    spec = job_spec(loss=residual * residual, prediction=prediction, data="test:regression", epochs=1, batch_size=8)
    assert len(spec.model.definitions) == 51
    model = prepare(spec).model
    assert [node.operation for node in model.loss.nodes].count("relu") == 50
