"""Predict and Explain over a real socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import struct_pb2

from chainrule.v1 import job_pb2
from chainrule.v1 import model_service_pb2 as api
from chainrule_server.data import data_set
from chainrule_server.jobs.job import Job
from chainrule_server.models.trained_model import TrainedModel
from chainrule_server.preparation.prepare import prepare
from tests.server.in_process import RunningServer, classes_spec, prepared, refusal, regression_spec

TIMEOUT_S = 60.0


def row(*values: Any) -> struct_pb2.ListValue:
    found = struct_pb2.ListValue()
    found.extend(values)
    return found


def predict(server: RunningServer, job: Job, rows: list[struct_pb2.ListValue], **more: Any) -> api.PredictResponse:
    request = api.PredictRequest(job_id=job.job_id, rows=rows, **more)
    answer: api.PredictResponse = server.models.Predict(request, timeout=TIMEOUT_S)
    return answer


def explain(server: RunningServer, job: Job, **example: Any) -> api.ExplainResponse:
    request = api.ExplainRequest(job_id=job.job_id, **example)
    answer: api.ExplainResponse = server.models.Explain(request, timeout=TIMEOUT_S)
    return answer


def wide_spec() -> job_pb2.JobSpec:
    """Wide enough for kernels of BLAS that add up a block's rows in several ways."""
    spec = regression_spec()
    spec.model.prediction = "w @ tanh(V2 @ tanh(V1 @ x)) + b"
    spec.model.parameters.add(name="V1", shape=["24", "d"])
    spec.model.parameters.add(name="V2", shape=["24", "24"])
    next(each for each in spec.model.parameters if each.name == "w").shape[:] = ["24"]
    return spec


def test_raw_features_give_a_prediction_in_the_targets_own_unit(server: RunningServer) -> None:
    job = server.add_finished(prepared(regression_spec()))
    data = data_set.load("test:regression")
    answer = predict(server, job, [row(*each) for each in data.features.tolist()])
    state = job.training.state
    parameters = job.prepared.model.layout.views(state.parameters)
    expected = job.prepared.rows.in_data_order()[0] @ parameters["w"] + parameters["b"]
    preprocessing = job.prepared.preprocessing
    assert [each.outputs[0] for each in answer.predictions] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)
    in_unit = expected.astype(float) * preprocessing.target_scale + preprocessing.target_mean
    assert [each.value for each in answer.predictions] == pytest.approx(in_unit.tolist(), rel=1e-5)
    assert not any(each.HasField("class_name") for each in answer.predictions)
    assert (answer.job_id, answer.step, list(answer.classes)) == (job.job_id, state.step, [])


def test_a_row_has_one_prediction_whatever_rows_are_beside_it_and_its_explanation_has_it_too(
    server: RunningServer,
) -> None:
    job = server.add_finished(prepared(wide_spec()))
    rows = [row(*each) for each in np.random.default_rng(1).normal(size=(600, 3)).tolist()]
    together = predict(server, job, rows).predictions
    for number in (0, 6, 7, 255, 256, 599):
        assert predict(server, job, [rows[number]]).predictions == [together[number]]
        assert predict(server, job, rows[max(0, number - 2) : number + 1]).predictions[-1] == together[number]
        own = api.Example(features=rows[number], target=struct_pb2.Value(number_value=0.0))
        explained = explain(server, job, own=own)
        (output,) = explained.nodes[explained.prediction_node].forward.values
        assert [output] == list(together[number].outputs)
    backwards = predict(server, job, rows[::-1]).predictions
    assert list(backwards) == list(together)[::-1]


def test_columns_may_come_in_any_order_by_name(server: RunningServer) -> None:
    job = server.add_finished(prepared(regression_spec()))
    own = predict(server, job, [row(1.0, 2.0, 3.0)])
    assert predict(server, job, [row(3.0, 1.0, 2.0)], columns=["c", "a", "b"]) == own
    ignored = predict(server, job, [row(2.0, "a text", 3.0, None, 1.0)], columns=["b", "y", "c", "z", "a"])
    assert ignored == own
    _, violations, _ = refusal(lambda: predict(server, job, [row(1, 2, 3)], columns=["a", "bb", "a"]))
    assert violations == {
        "columns": "there is no 'b', did you mean 'bb'?; there is no 'c'; the model's features are a, b, c",
        "columns[2]": "'a' is there twice",
    }
    _, violations, _ = refusal(lambda: predict(server, job, [row(1, 2)], columns=["a", "c", "b"]))
    assert violations == {"rows[0].values": "there are 3 columns, got 2 values"}


def test_a_class_is_predicted_by_name(server: RunningServer) -> None:
    job = server.add_finished(prepared(classes_spec()))
    data = data_set.load("test:classes")
    answer = predict(server, job, [row(*each) for each in data.features.tolist()])
    assert list(answer.classes) == ["blue", "green", "red"]
    for each in answer.predictions:
        assert len(each.outputs) == 3
        assert each.class_name == answer.classes[int(np.argmax(each.outputs))]
        assert not each.HasField("value")


def test_the_class_of_labels_is_the_one_with_the_nearest_number(server: RunningServer) -> None:
    spec = classes_spec()
    spec.data.labels.extend([-1, 0, 1])
    spec.model.prediction = "w @ x"
    spec.model.loss = "(prediction - y)**2"
    del spec.model.parameters[:]
    spec.model.parameters.add(name="w", shape=["d"])
    job = server.add_finished(prepared(spec))
    data = data_set.load("test:classes")
    for each in predict(server, job, [row(*values) for values in data.features.tolist()]).predictions:
        nearest = min((-1, 0, 1), key=lambda label: abs(label - each.outputs[0]))
        assert each.class_name == ["blue", "green", "red"][nearest + 1]


def test_every_wrong_value_is_named_by_its_path(server: RunningServer) -> None:
    job = server.add_finished(prepared(regression_spec()))
    rows = [row(1, 2, 3), row(1, float("nan"), "x"), row(1, 2), row(None, True, float("-inf")), row(1, 2, 1e300)]
    code, violations, reason = refusal(lambda: predict(server, job, rows))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert violations == {
        "rows[1].values[1]": "must be a finite number, got nan",
        "rows[1].values[2]": "must be a number, got a text",
        "rows[2].values": "there are 3 features, got 2 values",
        "rows[3].values[0]": "must be a number, got null",
        "rows[3].values[1]": "must be a number, got a boolean",
        "rows[3].values[2]": "must be a finite number, got -inf",
        "rows[4].values[2]": "is out of the range of float32",
    }
    _, violations, _ = refusal(lambda: predict(server, job, [rows[0], rows[4]], columns=["c", "a", "b"]))
    assert violations == {"rows[1].values[2]": "is out of the range of float32"}


def test_categories_are_predicted_from_texts_and_null_is_what_the_job_says(
    server: RunningServer, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="reads CSV files")
    lines = [f"{size},{'Bern' if size % 3 else 'Zug'},{size % 2 == 0},{2 * size}" for size in range(20)]
    (tmp_path / "rows.csv").write_text("\n".join(["size,city,garden,price", *lines, "7,,true,14"]))
    spec = regression_spec()
    spec.data.CopyFrom(job_pb2.DataSpec(uri="file:rows.csv", target="price", missing="median"))
    prepared_job = prepare(spec, data_root=tmp_path)
    job = server.add_finished(prepared_job)
    rows = [row(3.0, "Zug", False), row(4.0, "Bern", True), row(7.0, None, True)]
    answer = predict(server, job, rows)
    parameters = job.prepared.model.layout.views(job.training.state.parameters)
    expected = prepared_job.rows.in_data_order()[0][[3, 4, 20]] @ parameters["w"] + parameters["b"]
    assert [each.outputs[0] for each in answer.predictions] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)
    own = api.Example(features=rows[0], target=struct_pb2.Value(number_value=6.0))
    assert explain(server, job, own=own) == explain(server, job, row=3)
    in_another_order = predict(server, job, [row("Zug", False, 3.0)], columns=["city", "garden", "size"])
    assert in_another_order.predictions[0].value == pytest.approx(answer.predictions[0].value)
    _, violations, _ = refusal(lambda: predict(server, job, [row("big", 1.5, row(1))]))
    assert violations == {
        "rows[0].values[0]": "must be a number, got a text",
        "rows[0].values[1]": "must be a text, a whole number, true or false, got 1.5",
        "rows[0].values[2]": "must be a text, a whole number, true or false, got a list",
    }


def test_a_thousand_wrong_values_are_an_answer_that_arrives(server: RunningServer) -> None:
    job = server.add_finished(prepared(regression_spec()))
    code, violations, _ = refusal(lambda: predict(server, job, [row("ü" * 1000, 1, 2)] * 1000))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "rows[0].values[0]" in violations
    assert any("more" in description for description in violations.values())


@pytest.mark.parametrize(
    ("count", "what"),
    [
        (0, "is missing; give at least one row"),
        (10_001, "must be at most 10000, got 10001; send the others in more calls"),
    ],
)
def test_too_few_and_too_many_rows_are_refused(server: RunningServer, count: int, what: str) -> None:
    job = server.add_finished(prepared(regression_spec()))
    code, violations, _ = refusal(lambda: predict(server, job, [row(1, 2, 3)] * count))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert violations == {"rows": what}


def test_a_job_without_prediction_says_so(server: RunningServer) -> None:
    spec = regression_spec()
    spec.model.prediction, spec.model.loss = "", "(w @ x + b - y)**2"
    job = server.add_finished(prepared(spec))
    code, _, reason = refusal(lambda: predict(server, job, [row(1, 2, 3)]))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
    assert len(explain(server, job, row=0).nodes) > 0


def test_a_job_that_made_no_step_answers_nothing_yet(server: RunningServer) -> None:
    job = server.submit(prepared(regression_spec()))
    assert refusal(lambda: predict(server, job, [row(1, 2, 3)]))[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert refusal(lambda: explain(server, job, row=0))[0] == grpc.StatusCode.FAILED_PRECONDITION


def test_an_unknown_job_is_not_found(server: RunningServer) -> None:
    call = server.models.Predict
    refused = refusal(lambda: call(api.PredictRequest(job_id="nosuch", rows=[row(1)]), timeout=TIMEOUT_S))
    assert (refused[0], refused[2]) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


def test_a_damaged_model_file_is_told_and_not_computed(server: RunningServer) -> None:
    job = server.add_finished(prepared(regression_spec()))
    assert job.model_path is not None
    content = bytearray(job.model_path.read_bytes())
    content[-1] ^= 1
    job.model_path.write_bytes(content)
    code, _, reason = refusal(lambda: predict(server, job, [row(1, 2, 3)]))
    assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "DAMAGED_FILE")
    job.model_path.write_bytes(b"nothing of the kind")
    assert refusal(lambda: predict(server, job, [row(1, 2, 3)]))[0] == grpc.StatusCode.DATA_LOSS


def test_an_explanation_has_every_nodes_forward_and_backward_value(server: RunningServer) -> None:
    from chainrule_engine.backpropagation import backward, forward

    job = server.add_finished(prepared(regression_spec()))
    answer = explain(server, job, row=7)
    graph = job.prepared.model.evaluation_loss
    x, y = job.prepared.rows.row(7)
    values = {"x": x[None], "y": y[None]}
    f = forward(graph, values | job.prepared.model.layout.views(job.training.state.parameters))
    g = backward(graph, f)
    assert len(answer.nodes) == len(graph.nodes)
    for node, shown in zip(graph.nodes, answer.nodes, strict=True):
        assert (shown.operation, tuple(shown.shape)) == (node.operation, node.shape)
        assert [each.node for each in shown.operands] == [graph.nodes.index(each) for each in node.operands]
        assert list(shown.forward.values) == np.ravel(f[node][0] if node.batched else f[node]).tolist()
        assert shown.HasField("backward") == (node in g)
        if node in g:
            assert list(shown.backward.values) == np.ravel(g[node][0] if node.batched else g[node]).tolist()
    assert answer.nodes[answer.prediction_node].text == "w @ x + b"
    assert answer.nodes[-1].backward.values[0] == 1.0


def test_an_example_of_your_own_is_explained_as_the_same_row_of_the_data(server: RunningServer) -> None:
    for spec in (regression_spec(), classes_spec()):
        job = server.add_finished(prepared(spec))
        data = data_set.load(spec.data.uri)
        target = float(data.target[3]) if data.classes is None else data.classes[data.target[3]]
        kind = "number_value" if data.classes is None else "string_value"
        own = api.Example(features=row(*data.features[3].tolist()), target=struct_pb2.Value(**{kind: target}))
        assert explain(server, job, own=own) == explain(server, job, row=3)


def test_an_example_that_is_wrong_is_told_by_its_fields(server: RunningServer) -> None:
    job = server.add_finished(prepared(classes_spec()))
    own = api.Example(features=row(1, "x"), target=struct_pb2.Value(string_value="purple"))
    code, violations, _ = refusal(lambda: explain(server, job, own=own))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert violations == {
        "own.features.values[1]": "must be a number, got a text",
        "own.target": "must be the name of a class, one of blue, green, red; got 'purple'",
    }
    assert "example" in refusal(lambda: explain(server, job))[1]
    _, violations, _ = refusal(lambda: explain(server, job, row=40))
    assert violations == {"row": "there is no row 40; the job's data has rows 0 to 39"}


def test_a_large_tensor_is_summarised_unless_more_is_asked_for(server: RunningServer) -> None:
    spec = regression_spec()
    spec.model.prediction = "w @ tanh(V @ x) + b"
    spec.model.parameters[0].CopyFrom(job_pb2.Parameter(name="w", shape=["50"]))
    spec.model.parameters.add(name="V", shape=["50", "d"])
    job = server.add_finished(prepared(spec))
    (short,) = (node for node in explain(server, job, row=0).nodes if node.name == "V")
    assert (short.forward.value_count, len(short.forward.values), list(short.shape)) == (150, 16, [50, 3])
    (whole,) = (node for node in explain(server, job, row=0, max_values=150).nodes if node.name == "V")
    trained = job.prepared.model.layout.views(job.training.state.parameters)["V"]
    assert list(whole.forward.values) == trained.ravel().tolist()
    assert (whole.forward.minimum, whole.forward.maximum) == (trained.min(), trained.max())
    assert whole.forward.mean == trained.mean(dtype=np.float64)
    assert "max_values" in refusal(lambda: explain(server, job, row=0, max_values=100_001))[1]


def test_a_running_jobs_current_parameters_answer(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    done = server.add_finished(prepared(regression_spec()))

    def running() -> Job:
        job = Job("running", done.spec, 1.0, done.prepared)
        server.scheduler.jobs.add(job)
        job.training = done.training
        job.become(job_pb2.JOB_STATE_RUNNING)
        return job

    job = server.run(running)
    assert predict(server, job, [row(1, 2, 3)]).predictions == predict(server, done, [row(1, 2, 3)]).predictions
    copied = TrainedModel.of(job.prepared, job.training.state)
    assert not np.shares_memory(copied.parameters, job.training.state.parameters)
