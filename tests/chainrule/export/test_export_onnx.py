"""ONNX files compute what a server predicts: with onnxruntime, for every example and for formulas of all operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import struct_pb2
from hypothesis import given, settings

from chainrule.errors import ModelFileError
from chainrule.spec.job_file import load_job_file
from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api
from chainrule_engine.backpropagation import forward
from chainrule_engine.graph import Graph
from chainrule_engine.operations import OPERATIONS
from chainrule_server.data import data_set
from chainrule_server.models import model_file
from chainrule_server.models.cancellation import Stop
from chainrule_server.models.prediction import predict
from chainrule_server.models.trained_model import TrainedModel, read_model
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from tests.engine.random_formulas import Case, cases
from tests.server.in_process import add_data_sets, classes_spec, regression_spec

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from chainrule.export.model import ModelFile, read_model_file  # noqa: E402 - needs onnx
from chainrule.export.onnx import OPSET, computed, onnx_model  # noqa: E402
from chainrule.export.onnx_operations import RULES  # noqa: E402
from chainrule.export.onnx_writer import Writer  # noqa: E402

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").glob("*.toml"))
# Only for what a prediction can't be: it needs y, or rows that aren't its own.
WITHOUT_RULE = {"cross_entropy", "batch_norm", "dropout"}


def written(job: PreparedJob, folder: Path) -> Path:
    """A model file of the job with parameters that are not 0."""
    state = job.first_state()
    random = np.random.default_rng(5)
    state.parameters += random.normal(0, 0.3, state.parameters.shape).astype(np.float32)
    state.statistics += np.abs(random.normal(0, 0.3, state.statistics.shape))
    state.step = 7
    path = folder / "model.safetensors"
    path.write_bytes(model_file.encode(TrainedModel.of(job, state), model_file.Provenance("job", "", 0.0)))
    return path


def session_of(model: ModelFile) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(onnx_model(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def results(session: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def predicted(path: Path, columns: list[Any]) -> api.PredictResponse:
    request = api.PredictRequest()
    for row in zip(*columns, strict=True):
        values = struct_pb2.ListValue()
        values.extend([each.item() if hasattr(each, "item") else each for each in row])
        request.rows.append(values)
    return predict(read_model(path), request, Stop())


def check(job: PreparedJob, folder: Path, columns: list[Any], inputs: dict[str, Any]) -> None:
    """The file's predictions are those of the server, to 1e-5 of the largest."""
    path = written(job, folder)
    found = results(session_of(read_model_file(path)), inputs)
    expected = predicted(path, columns).predictions
    outputs = np.array([list(each.outputs) for each in expected]).reshape(found["outputs"].shape)
    np.testing.assert_allclose(found["outputs"], outputs, rtol=1e-5, atol=1e-5 * np.abs(outputs).max())
    assert ("prediction" in found) == expected[0].HasField("value")
    assert ("class_name" in found) == expected[0].HasField("class_name")
    if "prediction" in found:
        values = np.array([each.value for each in expected])
        np.testing.assert_allclose(found["prediction"], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    if "class_name" in found:
        assert list(found["class_name"]) == [each.class_name for each in expected]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_job_predicts_the_same_with_onnxruntime(example: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("pyarrow")
    spec = load_job_file(example)
    job = prepare(spec, data_root=example.parent)
    with data_set.load(job.spec.data, data_root=example.parent) as rows:
        columns = [values_of(rows.feature(index)) for index in range(len(rows.feature_names))]
    if all(isinstance(column, np.ndarray) for column in columns):
        inputs: dict[str, Any] = {"features": np.stack(columns, axis=1).astype(np.float64)}
    else:
        inputs = {
            name: column.astype(np.float64)[:, None]
            if isinstance(column, np.ndarray)
            else np.array([text or "" for text in column], object)[:, None]
            for name, column in zip(job.preprocessing.feature_names, columns, strict=True)
        }
    check(job, tmp_path, columns, inputs)


def values_of(column: Any) -> Any:
    """An array of numbers, or a list of texts and None."""
    if hasattr(column, "values"):
        return np.asarray(column.values)
    return [None if code < 0 else column.names[code] for code in column.codes]


def features(uri: str) -> list[Any]:
    data = data_set.LOADERS[uri]()
    return [data.feature(index).values for index in range(len(data.feature_names))]


def test_classes_come_out_by_name_and_labels_by_the_nearest_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_data_sets(monkeypatch)
    columns = features("test:classes")
    inputs = {"features": np.stack(columns, axis=1)}
    spec = classes_spec()
    check(prepare(spec), tmp_path, columns, inputs)
    spec.data.labels.extend([3, -1, 0.5])
    spec.model.prediction, spec.model.loss = "w @ x", "(prediction - y)**2"
    del spec.model.parameters[:]
    spec.model.parameters.add(name="w", shape=["d"])
    check(prepare(spec), tmp_path, columns, inputs)


def test_running_statistics_are_those_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_data_sets(monkeypatch)
    spec = regression_spec()
    spec.model.prediction = "w @ dropout(tanh(batch_norm(V @ x)), 0.3) + b"
    spec.model.parameters.add(name="V", shape=["3", "d"])
    columns = features("test:regression")
    check(prepare(spec), tmp_path, columns, {"features": np.stack(columns, axis=1)})


def test_a_prediction_that_is_the_same_for_every_row_has_one_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_data_sets(monkeypatch)
    spec = regression_spec()
    spec.model.prediction = "sum(w) + b"
    columns = features("test:regression")
    check(prepare(spec), tmp_path, columns, {"features": np.stack(columns, axis=1)})


def test_categories_and_missing_values_are_what_they_are_to_the_server(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="reads CSV files")
    lines = [f"{size},{'Bern' if size % 3 else 'Zug'},{size % 2 == 0},{2 * size}" for size in range(20)]
    (tmp_path / "rows.csv").write_text("\n".join(["size,city,garden,price", *lines, "7,,true,14", ",Zug,true,3"]))
    spec = regression_spec()
    spec.data.CopyFrom(job_pb2.DataSpec(uri="file:rows.csv", target="price", missing="median"))
    columns: list[Any] = [[7.0, None, 3.0], ["Bern", "Basel", None], ["true", "false", "true"]]
    inputs = {
        "size": np.array([[7.0], [np.nan], [3.0]]),
        "city": np.array([["Bern"], ["Basel"], [""]], object),
        "garden": np.array([["true"], ["false"], ["true"]], object),
    }
    check(prepare(spec, data_root=tmp_path), tmp_path, columns, inputs)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(cases(normalization=True, depth=5))
def test_random_formulas_of_all_operations_compute_the_same(case: Case) -> None:
    graph = case.model.evaluation_loss
    if any(node.operation in WITHOUT_RULE for node in graph.nodes):
        return
    _compare(graph, case)


def _compare(graph: Graph, case: Case) -> None:
    from onnx import TensorProto, checker, helper

    statistics = {each.name: np.full(each.shape, 0.7) for each in case.model.statistics.parameters}
    arrays = {**case.values, **statistics}
    writer = Writer()
    root = computed(writer, graph, arrays, {node.name: node.name for node in graph.inputs})
    writer.nodes.append(helper.make_node("Identity", [root], ["out"]))
    inputs = [
        helper.make_tensor_value_info(node.name, TensorProto.FLOAT, ["rows", *node.shape]) for node in graph.inputs
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows"] if graph.root.batched else [])
    made = helper.make_model(
        helper.make_graph(writer.nodes, "case", inputs, [out], writer.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    checker.check_model(made)
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["out"], {node.name: case.inputs[node.name] for node in graph.inputs})
    exact = forward(graph, {name: np.asarray(value, np.float64) for name, value in arrays.items()})
    narrow = forward(graph, arrays | {name: value.astype(np.float32) for name, value in statistics.items()})[graph.root]
    wanted = exact[graph.root]
    assert found.shape == wanted.shape
    # Where float32 itself loses digits, ONNX may lose as many; and where ours happens to lose none, a rounding of the
    # largest value on the way, as in the difference of two that are equal.
    largest = max(float(np.abs(value).max(initial=0.0)) for value in exact.values() if np.isfinite(value).all())
    lost = 8 * np.abs(narrow - wanted).max(initial=0.0) + float(np.finfo(np.float32).eps) * largest
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=lost + 1e-5 * np.abs(wanted).max(initial=0.0))


def test_every_operation_that_a_prediction_can_use_has_a_rule() -> None:
    assert set(OPERATIONS) - set(RULES) == WITHOUT_RULE
    assert set(RULES) <= set(OPERATIONS)


def test_an_operation_without_a_rule_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_data_sets(monkeypatch)
    spec = regression_spec()
    spec.model.prediction = "w @ tanh(x) + b"
    model = read_model_file(written(prepare(spec), tmp_path))
    monkeypatch.delitem(RULES, "tanh")
    with pytest.raises(ModelFileError, match="'tanh' has no form in ONNX"):
        onnx_model(model)


def test_a_loss_alone_and_a_prediction_from_the_target_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_data_sets(monkeypatch)
    spec = regression_spec()
    spec.model.prediction = "w @ x + b + 0 * y"
    with pytest.raises(ModelFileError, match="uses y"):
        onnx_model(read_model_file(written(prepare(spec), tmp_path)))
    spec.model.ClearField("prediction")
    spec.model.loss = "(w @ x + b - y)**2"
    with pytest.raises(ModelFileError, match="no prediction"):
        onnx_model(read_model_file(written(prepare(spec), tmp_path)))
