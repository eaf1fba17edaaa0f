"""Tables as people have them, from `init` to predictions: each of these files failed once, in one way or another."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.support import COMMAND

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.cluster
TABLES = Path(__file__).with_name("files") / "tables"
TIMEOUT_S = 120
# The target, which follows from the other columns, and what a model that sees them explains of it.
SEEN = {
    "blank-after-comma": ("y", 0.98),
    "floats-as-categories": ("y", 0.98),
    "leading-zeros": ("y", 0.98),
    "money": ("price", 0.98),
    "two-digit-numbers": ("rides", 0.98),
    "unnamed-index": ("price", 0.98),
    "wavelength-headers": ("y", 0.98),
    # What is missing has an effect of its own here, which no value in its place can have.
    "missing-markers": ("y", 0.7),
}


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number_of(cell: str) -> float:
    return float(cell.strip().lstrip("$").replace(",", ""))


@pytest.mark.parametrize("name", SEEN)
def test_a_table_trains_as_init_proposes_and_predicts_what_it_has_seen(name: str, tmp_path: Path) -> None:
    shutil.copy(TABLES / f"{name}.csv", tmp_path)
    target, least = SEEN[name]
    run(tmp_path, "init", f"{name}.csv", "-o", "job.toml")
    assert f'target = "{target}"' in (tmp_path / "job.toml").read_text()
    settings = ["--set", "training.epochs=300", "--set", "training.early_stopping.patience_epochs=60"]
    trained = json.loads(run(tmp_path, "train", "job.toml", "--workers", "1", "--json", *settings).splitlines()[-1])
    predicted = run(tmp_path, "predict", trained["model_path"], f"{name}.csv")
    predictions = np.array([float(line.split(",")[0]) for line in predicted.splitlines() if line[0] in "-0123456789"])
    with (TABLES / f"{name}.csv").open(newline="") as file:
        targets = np.array([number_of(row[target]) for row in csv.DictReader(file)])
    r2 = 1 - np.sum((targets - predictions) ** 2) / np.sum((targets - targets.mean()) ** 2)
    assert r2 > least


def test_a_column_called_class_is_no_target_where_another_comes_after_it(tmp_path: Path) -> None:
    shutil.copy(TABLES / "class-is-not-the-target.csv", tmp_path)
    run(tmp_path, "init", "class-is-not-the-target.csv", "-o", "job.toml")
    assert 'target = "survived"' in (tmp_path / "job.toml").read_text()


def test_every_table_of_the_folder_is_tried() -> None:
    assert {path.stem for path in TABLES.glob("*.csv")} == SEEN.keys() | {"class-is-not-the-target"}
