"""The example over a CSV file: the same bits on any number of workers, and it learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from chainrule_server.preparation.preprocessing import Preprocessing
from tests.cluster.support import EXAMPLES

pytestmark = pytest.mark.cluster
pytest.importorskip("pyarrow", reason="reads CSV files")


def test_1_and_3_workers_train_the_same_bits_and_explain_prices_better_than_their_mean(
    train: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    results = [train(EXAMPLES / "csv_table.toml", workers=workers) for workers in (1, 3)]
    assert {result["state"] for result in results} == {"SUCCEEDED"}
    assert results[0]["parameters_sha256"] == results[1]["parameters_sha256"]
    assert results[0]["metrics"] == results[1]["metrics"]
    # The mean has R² = 0.
    assert results[0]["metrics"]["validation_r2"] > 0.9
    with safe_open(tmp_path / results[0]["model_path"], framework="numpy") as file:
        metadata = file.metadata()
    learnt = Preprocessing.from_json(metadata["preprocessing"])
    assert learnt.features[3].categories == ("harbour", "hill", "mill", "old town", "station")
    # Features are categories and numbers; nothing is missing that the model needs for one row.
    row = {"area_m2": [90], "rooms": [3], "built": [None], "quarter": ["hill"], "garden": [True], "walk_min": [5]}
    assert learnt.transform(row).shape == (1, learnt.width)
    assert json.loads(metadata["spec"])["data"]["missing"] == "median"


def test_without_its_setting_the_first_empty_cell_is_named(
    train: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    text = (EXAMPLES / "csv_table.toml").read_text()
    assert 'missing = "median"\n' in text
    job_file = tmp_path / "job.toml"
    job_file.write_text(text.replace('missing = "median"\n', ""))
    (tmp_path / "data").symlink_to(EXAMPLES / "data")
    assert "leads out of the data folder" in json.dumps(train(job_file, workers=1))
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "houses.csv").write_text((EXAMPLES / "data" / "houses.csv").read_text())
    refused = train(job_file, workers=1)
    assert refused["exit_code"] == 2
    assert "data.uri: file:data/houses.csv: built has no value (or nan) in row 3" in json.dumps(refused)
