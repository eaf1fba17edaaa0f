"""What the benchmarks measure with: programs that end, memory of a whole tree, ratios."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import harness
import namespaces
import pytest
from harness import CONFIGURATIONS, ProgramFailed, answer_of, median, process_tree, ratio, run, spread, started

from chainrule import load_job_file
from chainrule_server.preparation.prepare import prepare

CHILD = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {code!r}]); print(child.pid, flush=True)"
)


def lives(process: int) -> bool:
    # A child that nobody has reaped yet is a zombie, which has ended.
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_configuration_knows_the_size_of_its_parameter_vector() -> None:
    assert CONFIGURATIONS["A"].parameter_count == 64 * 16 + 2 * 64 * 64 + 64


def test_the_answer_is_the_json_of_the_last_line() -> None:
    assert run([sys.executable, "-c", "print('hello'); print('{\"step_ms\": 2}')"]) == {"step_ms": 2}


def test_a_program_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(ProgramFailed, match=r"exit status 3: no such port"):
        run([sys.executable, "-c", "import sys; print('no such port', file=sys.stderr); sys.exit(3)"])


def test_a_program_that_hangs_is_ended_at_the_deadline() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with started(command) as process, pytest.raises(ProgramFailed, match="no answer within"):
        answer_of(process, timeout_s=0.2)
    assert process.poll() is not None


def test_children_of_a_program_end_with_the_block_even_where_it_raises() -> None:
    code = CHILD.format(code="import time; time.sleep(60)") + "; child.wait()"
    with contextlib.suppress(KeyboardInterrupt), started([sys.executable, "-c", code]) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert lives(child)
        raise KeyboardInterrupt
    deadline_s = time.monotonic() + 60
    while lives(child) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not lives(child)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells proportional set sizes")
def test_the_memory_of_a_tree_holds_that_of_its_children() -> None:
    code = CHILD.format(code="held = bytearray(100 << 20); print('held', flush=True); import time; time.sleep(60)")
    with started([sys.executable, "-c", code + "; child.wait()"]) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
        assert "held" in lines
        assert len(process_tree(process.pid)) == 2
        assert harness.tree_memory_mb(process.pid) > 100


def test_what_decides_the_kernels_of_the_blas_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    environment = harness.environment()
    assert "OPENBLAS_CORETYPE" not in environment
    assert environment["OPENBLAS_NUM_THREADS"] == "1"


def test_figures_of_nothing_are_missing_and_not_zero() -> None:
    assert (median([]), spread([]), ratio(None, 2), ratio(2, None)) == (None, None, None, None)
    assert (median([3, 1, 2]), spread([2, 1]), ratio(3, 2)) == (2, 1, 1.5)


def test_a_benchmarks_job_is_one_that_the_server_takes(tmp_path: Path) -> None:
    from job_files import write_network_job

    configuration = CONFIGURATIONS["A"]
    path = write_network_job(tmp_path, configuration, steps=40, batches=4, shards=2, min_workers=2)
    job = prepare(load_job_file(path), data_root=tmp_path)
    assert job.total_steps == 40
    assert job.model.layout.size == configuration.parameter_count
    assert (job.spec.training.shards, job.spec.training.min_workers) == (2, 2)
    assert not job.has_validation


def test_without_root_there_is_a_reason_and_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces.shutil, "which", lambda tool: f"/sbin/{tool}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert namespaces.why_not() == "namespaces need root"
    monkeypatch.setattr(namespaces.shutil, "which", lambda _: None)
    assert "apt-get install iproute2" in str(namespaces.why_not())
