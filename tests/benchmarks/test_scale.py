"""benchmarks/scale.py: its arithmetic, its table, and one tiny run over real links where namespaces can be had."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from namespaces import LinkBytes, NotPossible, counters_of, machines, why_not
from scale_table import (
    DDP_PROCESSES,
    LAYOUTS,
    OURS,
    Layout,
    Run,
    hash_sentence,
    layout_of,
    row_of,
    table,
    wire_limit_bytes,
    wire_limit_ms,
    with_ratios,
)

REPOSITORY = Path(__file__).resolve().parents[2]
VECTOR_BYTES = 1_000_000


def _run(steps: int, *, step_ms: float = 50.0, sha256: str | None = None) -> Run:
    """A run whose start costs 1,000 bytes and 3 s of a processor, and whose step 10 bytes and 0.5 s."""
    return Run(
        steps=steps,
        step_ms=step_ms,
        sent_bytes=(1000 + 10 * steps, 1000 + 5 * steps),
        received_bytes=(1000 + 20 * steps, 1000 + 30 * steps),
        server_sent_bytes=1000 + 50 * steps,
        server_received_bytes=1000 + 15 * steps,
        processor_s=3 + 0.5 * steps,
        memory_mb=80.0,
        sha256=sha256,
    )


def _rows(**sha256: str) -> list[dict[str, Any]]:
    return [row_of(layout_of(name), OURS, [_run(8, sha256=digest)], _run(2)) for name, digest in sha256.items()]


def test_what_the_kernel_counts_is_read() -> None:
    text = '[{"ifname": "link0", "stats64": {"rx": {"bytes": 7, "packets": 1}, "tx": {"bytes": 5}}}]'
    assert counters_of(text) == LinkBytes(sent=5, received=7)
    assert counters_of(text).since(LinkBytes(1, 2)) == LinkBytes(4, 5)


@pytest.mark.parametrize("text", ["", "[]", "[{}]", "{", '[{"stats64": {"rx": {}}}]'])
def test_an_answer_without_counters_is_told(text: str) -> None:
    with pytest.raises(NotPossible, match="no counters of one link"):
        counters_of(text)


def test_the_wires_limit_is_that_of_a_ring() -> None:
    assert wire_limit_bytes(1, VECTOR_BYTES) == 0
    assert wire_limit_bytes(2, VECTOR_BYTES) == 1_000_000
    assert wire_limit_bytes(4, VECTOR_BYTES) == 1_500_000
    assert wire_limit_ms(2, VECTOR_BYTES, "100mbit") == pytest.approx(80)
    assert wire_limit_ms(2, VECTOR_BYTES, "1gbit") == pytest.approx(8)


def test_a_layout_is_read_as_it_is_written() -> None:
    assert [layout_of(str(layout)) for layout in LAYOUTS] == list(LAYOUTS)
    assert layout_of("2×4") == Layout(2, 4)
    assert Layout(2, 4).workers == 8
    with pytest.raises(ValueError, match="no layout '3x3'; there are 1x4, 2x1"):
        layout_of("3x3")


def test_a_step_is_charged_neither_start_nor_end_and_the_fullest_link_counts() -> None:
    row = row_of(Layout(2, 1), OURS, [_run(8, step_ms=40), _run(8, step_ms=60), _run(8, step_ms=50)], _run(2))
    assert (row["step_ms_median"], row["step_ms_min"], row["step_ms_max"]) == (50, 40, 60)
    assert (row["sent_bytes"], row["received_bytes"]) == (10, 30)
    assert (row["server_sent_bytes"], row["server_received_bytes"]) == (50, 15)
    assert row["processor_ms"] == pytest.approx(500)


def test_ratios_are_to_ddp_of_the_same_layout() -> None:
    rows = [
        row_of(layout_of(name), system, [_run(8, step_ms=step_ms)], _run(2))
        for name, system, step_ms in (("2x1", OURS, 50), ("2x1", DDP_PROCESSES, 25), ("4x1", OURS, 80))
    ]
    ours, ddp, alone = with_ratios(rows, vector_bytes=VECTOR_BYTES, rate="1gbit")
    assert (ours["ratio_to_ddp_processes"], ddp["ratio_to_ddp_processes"]) == (0.5, 1.0)
    assert ours["ratio_to_ddp_threads"] is alone["ratio_to_ddp_processes"] is None


def test_the_table_has_every_row_and_tells_what_failed() -> None:
    rows = [*_rows(**{"2x1": "ab" * 32}), {"layout": "4x4", "system": DDP_PROCESSES, "problem": "no | answer"}]
    lines = table(with_ratios(rows, vector_bytes=VECTOR_BYTES, rate="1gbit")).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "2 × 1 | ours | 50 (50-50)" in lines[2]
    assert "abababab" in lines[2]
    assert "no / answer" in lines[3]


def test_one_hash_is_said_to_be_one_and_two_are_shouted() -> None:
    one = hash_sentence(_rows(**{"2x1": "a" * 64, "4x4": "a" * 64}), is_promised=True)
    assert one == f"one SHA-256 for 2x1, 4x4: {'a' * 64}"
    two = _rows(**{"2x1": "a" * 64, "4x4": "b" * 64})
    assert hash_sentence(two, is_promised=True).startswith("DIFFERENT HASHES: 2x1 aaaa")
    assert hash_sentence(two, is_promised=False).startswith("hashes differ, as int8 may")


def _scale(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "scale.py"), *options]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layouts=3x3"], "there is no layout '3x3'"),
        (["--systems=horovod"], "there is no system 'horovod'"),
        (["--rounds=0"], "--rounds must be at least 1"),
        (["--steps=2"], "--steps more than 2"),
    ],
)
def test_a_wrong_option_is_told(options: list[str], said: str) -> None:
    done = _scale(*options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_two_machines_train_over_their_links_and_leave_nothing_behind(tmp_path: Path) -> None:
    reason = why_not() or (None if shutil.which("setpriv") else "there is no setpriv")
    if reason is None:
        try:
            with machines(1, rate="1gbit"):
                pass
        except NotPossible as error:
            reason = str(error)
    if reason is not None:
        pytest.skip(f"namespaces can't be made here: {reason}")
    file = tmp_path / "scale.json"
    done = _scale(
        "--layouts=2x1", "--systems=ours", "--rate=1gbit", "--rounds=1", "--steps=4", f"--json={file}"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    (row,) = json.loads(file.read_text())["rows"]
    assert len(row["sha256"]) == 1
    # Memory that is shared across machines would leave the links empty. 0.9: what a step is charged is a difference.
    assert min(row["sent_bytes"], row["received_bytes"]) > 0.9 * row["limit_bytes"] > 2e6
    assert "one SHA-256 for 2x1" in done.stdout
