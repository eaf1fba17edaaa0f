"""The promise: the trained parameters are the same bits on any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.cluster.support import sha256_of_the_engine_alone

pytestmark = pytest.mark.cluster

JOBS = ["linear_hinge", "two_layer", "four_layer"]


@pytest.mark.parametrize("example", JOBS)
def test_1_2_3_and_8_workers_train_the_bits_of_the_engine_alone(
    example: str, shortened: Callable[..., Path], train: Callable[..., dict[str, Any]]
) -> None:
    job_file = shortened(example, epochs=3)
    results = {workers: train(job_file, workers=workers) for workers in (1, 2, 3, 8)}
    assert {result["state"] for result in results.values()} == {"SUCCEEDED"}
    expected = sha256_of_the_engine_alone(job_file)
    assert {workers: result["parameters_sha256"] for workers, result in results.items()} == dict.fromkeys(
        results, expected
    )
    for key in ("loss", "validation_loss", "metrics", "steps", "row_count"):
        assert all(result[key] == results[1][key] for result in results.values()), key


def test_another_seed_trains_other_bits(shortened: Callable[..., Path]) -> None:
    first, second = (sha256_of_the_engine_alone(shortened("two_layer", epochs=2, seed=seed)) for seed in (0, 1))
    assert first != second


def test_1_2_and_3_workers_fine_tune_a_model_to_the_same_bits_and_leave_what_is_frozen(
    shortened: Callable[..., Path], train: Callable[..., dict[str, Any]]
) -> None:
    job_file = shortened("four_layer", epochs=2)
    folder = job_file.parent
    source = (folder / train(job_file, workers=1)["model_path"]).rename(folder / "source.safetensors")
    start = '[model.start]\nmodel = "source.safetensors"\n\n[model.parameters]'
    text = job_file.read_text().replace("[model.parameters]", start)
    job_file.write_text(text.replace('V1 = [32, "d"]', 'V1 = { shape = [32, "d"], frozen = true }'))
    results = [train(job_file, workers=workers) for workers in (1, 2, 3)]
    assert len({result["parameters_sha256"] for result in results}) == 1, results
    before, after = load_file(source), load_file(folder / results[0]["model_path"])
    assert after["V1"].tobytes() == before["V1"].tobytes()
    assert after["V2"].tobytes() != before["V2"].tobytes()
