"""`chainrule predict`, `explain`, `health`, `list` and `submit --validate-only` against a server in this process."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chainrule.cli.app import run
from chainrule.v1 import job_pb2
from chainrule_server.data import data_set
from chainrule_server.jobs.job import Job
from chainrule_server.preparation.prepare import prepare
from tests.server.in_process import (
    RunningServer,
    add_data_sets,
    classes_spec,
    prepared,
    regression_spec,
    running_server,
)

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    add_data_sets(monkeypatch)
    with running_server(tmp_path) as running:
        monkeypatch.setenv("CHAINRULE_SERVER", running.address)
        yield running


def call(*arguments: str | Path) -> int:
    return run([str(each) for each in arguments])


def finished(server: RunningServer, spec: Any) -> Job:
    return server.add_finished(prepared(spec))


def piped(content: bytes) -> io.TextIOWrapper:
    """Standard input in the encoding of an old locale."""
    return io.TextIOWrapper(io.BytesIO(content), encoding="latin-1")


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_gets_a_prediction_for_each_line(server: RunningServer, tmp_path: Path, capsys: Any) -> None:
    job = finished(server, regression_spec())
    rows = data_set.load("test:regression").features.tolist()
    # In another order, and with a column that the model doesn't use.
    text = "c,b,name,a\n" + "".join(f"{c!r},{b!r},n{a:.0f},{a!r}\n" for a, b, c in rows)
    assert call("predict", job.job_id, csv_file(tmp_path, text)) == 0
    lines = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert lines[0] == ["prediction"]
    from chainrule import Client

    with Client(server.address) as client:
        expected = [each.value for each in client.predict(job.job_id, rows).predictions]
    assert [float(line[0]) for line in lines[1:]] == expected


def test_a_csv_file_of_categories_is_predicted_as_it_was_trained(
    server: RunningServer, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("pyarrow", reason="reads CSV files")
    cells = [(size, "0123" if size % 3 else "123", "TRUE" if size % 2 else "false") for size in range(20)]
    text = "size,code,garden,price\n" + "".join(f"{a},{b},{c},{a + len(b)}\n" for a, b, c in cells) + "7,,true,10\n"
    spec = regression_spec()
    spec.data.CopyFrom(
        job_pb2.DataSpec(
            uri=f"file:{csv_file(tmp_path, text).name}", target="price", categories=["code"], missing="median"
        )
    )
    job = server.add_finished(prepare(spec, data_root=tmp_path))
    assert call("predict", job.job_id, tmp_path / "rows.csv") == 0
    found = [float(line) for line in capsys.readouterr().out.splitlines()[1:]]
    learnt = job.prepared.preprocessing
    parameters = job.prepared.model.layout.views(job.training.state.parameters)
    outputs = job.prepared.rows.in_data_order()[0] @ parameters["w"] + parameters["b"]
    assert found == pytest.approx(learnt.target_of(outputs).tolist(), rel=1e-4)
    assert learnt.features[1].categories == ("0123", "123")


@pytest.fixture
def semicolons(server: RunningServer, tmp_path: Path) -> Job:
    """A job whose CSV file has semicolons and decimal commas; its rows are rows.csv."""
    pytest.importorskip("pyarrow", reason="reads CSV files")
    lines = [f"{size},5;{'red' if size % 3 else 'blue'};{2 * size},25" for size in range(20)]
    csv_file(tmp_path, "\ufeffsize;colour;price\n" + "\n".join(lines) + "\n")
    spec = regression_spec()
    form = job_pb2.CsvFormat(delimiter=";", decimal_point=",")
    spec.data.CopyFrom(job_pb2.DataSpec(uri="file:rows.csv", target="price", csv=form))
    return server.add_finished(prepare(spec, data_root=tmp_path))


def test_a_table_is_predicted_in_the_form_that_it_was_trained_in(
    semicolons: Job, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("predict", semicolons.job_id, tmp_path / "rows.csv") == 0
    by_server = capfd.readouterr().out
    assert len(set(by_server.splitlines())) == 21
    assert semicolons.model_path is not None
    assert call("predict", semicolons.model_path, tmp_path / "rows.csv") == 0
    assert capfd.readouterr().out == by_server
    monkeypatch.setattr("sys.stdin", piped((tmp_path / "rows.csv").read_bytes()))
    assert call("predict", semicolons.job_id, "-") == 0
    assert capfd.readouterr().out == by_server
    # Another form is no number, and no column, by mistake.
    assert call("predict", semicolons.job_id, csv_file(tmp_path, "size;colour\n1.5;red\n")) == 2
    assert "line 2, column size: '1.5': must be a number, got a text" in capfd.readouterr().err
    assert call("predict", semicolons.job_id, csv_file(tmp_path, "size,colour\n1,red\n")) == 2
    assert "commas divide its columns, but the model's data have ';'" in capfd.readouterr().err


@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather"])
def test_a_parquet_or_arrow_file_is_predicted_as_the_csv_file_with_its_rows(
    ending: str, semicolons: Job, tmp_path: Path, capsys: Any
) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    assert call("predict", semicolons.job_id, tmp_path / "rows.csv") == 0
    by_csv = capsys.readouterr().out
    colours = ["red" if size % 3 else "blue" for size in range(20)]
    table = pa.table({"colour": pa.array(colours).dictionary_encode(), "size": [size + 0.5 for size in range(20)]})
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        parquet.write_table(table, path, row_group_size=7)
    elif ending == "arrow":
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table, max_chunksize=7)
    else:
        feather.write_feather(table, path, compression="uncompressed")
    assert call("predict", semicolons.job_id, path) == 0
    assert capsys.readouterr().out == by_csv
    wrong = pa.table({"colour": ["red", "red"], "size": [1.0, None]})
    parquet.write_table(wrong, tmp_path / "wrong.parquet")
    assert call("predict", semicolons.job_id, tmp_path / "wrong.parquet") == 2
    assert "wrong.parquet row 1, column size: must be a number, got null" in capsys.readouterr().err
    path.write_bytes(b"nothing of the kind")
    assert call("predict", semicolons.job_id, path) == 2
    message = "can't be read: " if ending == "parquet" else "is no Arrow IPC"
    assert f"rows.{ending}: {message}" in capsys.readouterr().err
    assert call("predict", semicolons.job_id, tmp_path / "none.parquet") == 2
    assert "none.parquet: can't be read: No such file" in capsys.readouterr().err


def test_categories_that_no_training_row_had_are_told_once_and_refused_on_demand(
    semicolons: Job, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainrule.client.rows.CALL_ROWS", 2)
    rows = csv_file(tmp_path, "size;colour\n1,5;red\n2,5;rde\n3,5;Blue\n4,5;pink\n")
    warning = (
        "warning: 3 rows with a category in column 'colour' that no training row had, such as 'rde', where training "
        "had 'red': predicted as having none of the known ones\n"
    )
    assert semicolons.model_path is not None
    for model in (semicolons.job_id, semicolons.model_path):
        assert call("predict", model, rows) == 0
        told = capfd.readouterr()
        assert (len(told.out.splitlines()), told.err) == (5, warning)
        assert call("predict", model, rows, "--strict") == 2
        error = capfd.readouterr().err
        assert "rows.csv line 3, column colour: 'rde': is a category that no training row had, 'rde'" in error


@pytest.mark.parametrize("delimiter", [";", ","])
def test_rows_come_through_a_named_pipe(semicolons: Job, tmp_path: Path, capfd: Any, delimiter: str) -> None:
    rows = tmp_path / "rows.csv"
    assert call("predict", semicolons.job_id, rows) == 0
    expected = capfd.readouterr().out
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = rows.read_bytes() if delimiter == ";" else b"size,colour\n1,red\n"
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    code = call("predict", semicolons.job_id, pipe)
    writer.join(30)
    told = capfd.readouterr()
    if delimiter == ";":
        assert (code, told.out) == (0, expected)
    else:
        assert code == 2
        assert "commas divide its columns, but the model's data have ';'; write it in the same form" in told.err


def test_a_model_file_has_no_data_to_explain(server: RunningServer, capsys: Any) -> None:
    assert call("explain", "model.safetensors", "--row", "3") == 2
    assert "explain looks at the job's data, which a model file hasn't got" in capsys.readouterr().err


def test_many_lines_go_in_several_calls(
    server: RunningServer, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainrule.client.rows.CALL_ROWS", 4)
    job = finished(server, regression_spec())
    text = "a,b,c\n" + "".join(f"{number},1,2\n" for number in range(10))
    assert call("predict", job.job_id, csv_file(tmp_path, text)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prediction"
    assert len(set(lines)) == 11
    assert call("predict", job.job_id, csv_file(tmp_path, text + "1,x,2\n")) == 2
    assert "rows.csv line 12, column b: 'x': must be a number, got a text" in capsys.readouterr().err


def test_classes_come_by_name_with_their_scores(
    server: RunningServer, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(server, classes_spec())
    monkeypatch.setattr("sys.stdin", piped(b"5,5\n1,9\n"))
    assert call("predict", job.job_id, "-", "--no-header") == 0
    lines = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert lines[0] == ["prediction", "blue", "green", "red"]
    for name, *scores in lines[1:]:
        assert scores.index(max(scores, key=float)) == ["blue", "green", "red"].index(name)
    monkeypatch.setattr("sys.stdin", piped(b"5,5\n1,9\n"))
    assert call("predict", job.job_id, "-", "--no-header", "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["class_name"] for each in objects] == [line[0] for line in lines[1:]]


def test_a_model_file_predicts_without_a_server(
    server: RunningServer, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(server, regression_spec())
    rows = csv_file(tmp_path, "b,a,c\n1,2,3\n4,5,6\n")
    assert call("predict", job.job_id, rows) == 0
    by_server = capfd.readouterr().out
    monkeypatch.setenv("CHAINRULE_SERVER", "127.0.0.1:1")
    assert job.model_path is not None
    assert call("predict", job.model_path, rows) == 0
    assert capfd.readouterr().out == by_server
    assert call("predict", job.model_path, csv_file(tmp_path, "a,b,c\n1,x,2\n")) == 2
    assert "rows.csv line 2, column b: 'x': must be a number, got a text" in capfd.readouterr().err
    assert call("predict", tmp_path / "none.safetensors", rows) == 2
    assert "none.safetensors: there is no such file" in capfd.readouterr().err
    job.model_path.write_bytes(b"nothing of the kind")
    assert call("predict", job.model_path, rows) == 2
    assert "can't be read" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n", "holds no rows below its line of names"),
        ("a,b\n1,2\n", "there is no 'c'; the model's features are a, b, c"),
        ("a,b,c\n1,2\n", "Row #2: Expected 3 columns, got 2: 1,2"),
        ("a,b,c\n1,,2\n", "line 2, column b: must be a number, got null"),
        ('a,b,c\n1,"2,3\n', 'Row #2: Expected 3 columns, got 2: 1,"2,3'),
    ],
)
def test_a_wrong_file_is_told_by_its_lines(
    server: RunningServer, tmp_path: Path, capsys: Any, text: str, message: str
) -> None:
    job = finished(server, regression_spec())
    assert call("predict", job.job_id, csv_file(tmp_path, text)) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_missing_or_no_text_is_said(server: RunningServer, tmp_path: Path, capsys: Any) -> None:
    job = finished(server, regression_spec())
    assert call("predict", job.job_id, tmp_path / "none.csv") == 2
    assert "none.csv: can't be read: No such file or directory" in capsys.readouterr().err
    (tmp_path / "latin.csv").write_bytes("a,b,c\n1,2,\xe9\n".encode("latin-1"))
    assert call("predict", job.job_id, tmp_path / "latin.csv") == 2
    assert "is not UTF-8" in capsys.readouterr().err


def test_an_explanation_is_drawn_or_printed(server: RunningServer, tmp_path: Path, capsys: Any) -> None:
    job = finished(server, regression_spec())
    path = tmp_path / "graph.svg"
    assert call("explain", job.job_id, "--row", "3", "-o", path) == 0
    assert f"regression ({job.job_id}): row 3, parameters of step 8" in path.read_text()
    capsys.readouterr()
    assert call("explain", job.job_id, "--row", "3") == 0
    shown = capsys.readouterr().out
    assert "w @ x + b" in shown
    assert call("explain", job.job_id, "--row", "3", "--json") == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert nodes[-1]["backward"]["values"] == [1.0]
    assert call("explain", job.job_id, "--row", "40") == 2
    assert "row: there is no row 40; the job's data has rows 0 to 39" in capsys.readouterr().err
    assert call("explain", job.job_id, "--row", "-1") == 2
    assert call("explain", job.job_id, "-o", tmp_path / "graph.jpg") == 2


def test_health_is_an_exit_code(server: RunningServer, capsys: Any) -> None:
    assert call("health", "--json") == 0
    services = {f"chainrule.v1.{name}Service": "SERVING" for name in ("Job", "Data", "Model", "Cluster", "Worker")}
    assert json.loads(capsys.readouterr().out) == {"status": "SERVING", "services": services}
    asyncio.run_coroutine_threadsafe(server.health.enter_graceful_shutdown(), server.loop).result(30)
    assert call("health") == 1
    assert "is not serving" in capsys.readouterr().err
    assert call("health", "--server", "127.0.0.1:1") == 1


def test_a_health_check_loads_little(server: RunningServer) -> None:
    """Containers ask every few seconds: what is loaded is what it costs."""
    program = f"import sys; from chainrule.cli.app import run; code = run(['health', '--server', {server.address!r}]); "
    command = [sys.executable, "-P", "-c", program + "print(*sys.modules); sys.exit(code)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "grpc" in loaded
    dear = {
        "numpy",
        "rich.console",
        "cryptography",
        "chainrule.client.blocking.client",
        "chainrule.client.progress",
        "chainrule.client.grpc_errors",
    }
    assert not dear & loaded


def test_a_list_is_of_the_states_and_names_asked_for(server: RunningServer, capsys: Any) -> None:
    job = finished(server, regression_spec())
    finished(server, classes_spec())

    def listed(*options: str) -> list[str]:
        assert call("list", "--json", *options) == 0
        return [each["spec"]["name"] for each in json.loads(capsys.readouterr().out)["jobs"]]

    assert sorted(listed()) == ["classes", "regression"]
    assert listed("--state", "succeeded", "--name", "reg") == ["regression"]
    assert listed("--state", "running") == []
    assert call("list", "--state", "asleep") == 2
    assert "must be one of queued, running" in capsys.readouterr().err
    assert job.is_final


def test_a_job_file_is_checked_without_a_job(server: RunningServer, capsys: Any) -> None:
    assert call("submit", EXAMPLES / "two_layer.toml", "--validate-only", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["spec"]["training"]["shards"] == 8
    assert answer["estimate"]["parameter_count"] == 176
    assert call("submit", EXAMPLES / "two_layer.toml", "--validate-only") == 0
    assert "valid; nothing was started" in capsys.readouterr().out
    assert server.run(server.scheduler.jobs.all) == []


def test_a_version_of_a_model_is_downloaded_predicted_and_explained_by_its_step(
    server: RunningServer, tmp_path: Path, capsys: Any
) -> None:
    job = finished(server, regression_spec())
    step = job.training.state.step
    job.progress.step = step
    path = tmp_path / "model.safetensors"
    assert call("checkpoints", job.job_id) == 0
    assert f"{step}" in capsys.readouterr().out.splitlines()[-1]
    for option in (["--step", str(step)], ["--last"]):
        assert call("download", job.job_id, "-o", path, *option) == 0
        assert call("predict", job.job_id, csv_file(tmp_path, "a,b,c\n1,2,3\n"), *option) == 0
        assert call("explain", job.job_id, *option) == 0
    assert f"parameters of step {step}" in capsys.readouterr().out
    assert call("download", job.job_id, "-o", path, "--step", "77") == 2
    assert f"no parameters of step 77; there are those of {step}" in capsys.readouterr().err
    assert call("download", job.job_id, "-o", path, "--step", "7", "--best") == 2
    assert "excludes --best" in capsys.readouterr().err
    assert call("predict", path, csv_file(tmp_path, "a,b,c\n1,2,3\n"), "--best") == 2
    assert "are for jobs" in capsys.readouterr().err


def test_a_shards_microbatch_and_the_reduced_gradient_are_explained(
    server: RunningServer, tmp_path: Path, capsys: Any
) -> None:
    job = finished(server, regression_spec())
    step = job.training.state.step
    assert call("explain", job.job_id, "--shard", "1", "-o", tmp_path / "graph.svg") == 0
    assert f"4 rows of shard 1 in step {step + 1}" in (tmp_path / "graph.svg").read_text()
    capsys.readouterr()
    assert call("explain", job.job_id, "--reduced") == 0
    out = capsys.readouterr().out
    assert f"the gradient of step {step + 1}, 8 rows" in out
    assert [line.split("  ")[0] for line in out.splitlines()[3:6]] == ["0", "1", "0 to 1"]
    assert call("explain", job.job_id, "--reduced", "--shard", "0") == 2
    assert call("explain", job.job_id, "--row", "1", "--shard", "0") == 2
    assert "excludes --row" in capsys.readouterr().err
