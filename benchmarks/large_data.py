"""One epoch over ten million rows of a Parquet file, beside PyTorch's DataLoader with DDP on the same file.

    python benchmarks/large_data.py [--rows 10000000] [--folder DIR] [--peer-python PYTHON] [--json]

A seeded generator writes the file (row_file.py), 28 features and a target, where it isn't there yet. Then a four-
layer network with 64 hidden units is trained, batch 8192, plain SGD, two workers. Ours is `chainrule train`, which
learns means and scales from the rows, standardizes them, and evaluates the trained network over all rows at the end;
DDP does neither. First step: from the command to the first step's end. Rows per second: of the epoch, from the first
step to the last. Memory: the largest sum of the proportional set sizes of all processes, looked at every 0.1 s.
PyTorch is that of --peer-python; without it ours is measured alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from first_step import server_address, steps_of
from harness import PEERS, MemoryPeak, ProgramFailed, answer_of, chainrule, end_cleanly, environment, run, started
from job_files import FORMULA
from row_file import FEATURES, write_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chainrule import Client

BATCH, HIDDEN, WORKERS = 8192, 64, 2
TIMEOUT_S = 900.0
POLL_INTERVAL_S = 0.02
MEMORY_INTERVAL_S = 0.1


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the file is kept; a temporary folder where none is given")
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has torch and pyarrow")
    parser.add_argument("--loaders", type=int, default=0, help="loading processes of each of DDP's processes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    end_cleanly()
    with tempfile.TemporaryDirectory(prefix="large-data-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"rows-{options.rows}.parquet"
        if not file.exists():
            write_file(file, options.rows)
        found = {"chainrule": measure_ours(file, options.rows, Path(temporary))}
        try:
            found["PyTorch DDP"] = measure_ddp(file, options.peer_python, options.loaders)
        except ProgramFailed as error:
            sys.stderr.write(f"DDP is left out: {error}\n")
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"{options.rows} rows x {FEATURES} features, {file.stat().st_size / 1e9:.2f} GB\n" if file.exists() else ""
        )
        print("| | first step, s | rows/s | whole run, s | memory, MB |\n|---|---|---|---|---|")
        for name, each in found.items():
            rows_per_second = each["rows"] / each["epoch_s"]
            cells = (f"{each['first_step_s']:.1f}", f"{rows_per_second:,.0f}", f"{each['wall_s']:.1f}")
            print(f"| {name} | {' | '.join(cells)} | {each['memory_mb']:,.0f} |")
    return 0


def measure_ours(file: Path, row_count: int, temporary: Path) -> dict[str, Any]:
    """first_step_s, epoch_s, rows, wall_s and memory_mb of a `chainrule train`. Raises ProgramFailed."""
    job_file = temporary / "large.toml"
    job_file.write_text(
        f"""name = "large"
[model]
prediction = "{FORMULA}"
loss = "(prediction - y)**2"
phi = "sigmoid"
[model.parameters]
V1 = [{HIDDEN}, {FEATURES}]
V2 = [{HIDDEN}, {HIDDEN}]
V3 = [{HIDDEN}, {HIDDEN}]
w = [{HIDDEN}]
[data]
uri = "file:{file.name}"
target = "target"
validation_fraction = 0
[training]
epochs = 1
batch_size = {BATCH}
min_workers = {WORKERS}
optimizer = {{ name = "sgd", learning_rate = 0.1 }}
"""
    )
    command = chainrule(
        "train", str(job_file), "--workers", str(WORKERS), "--data-root", str(file.parent), "--json",
        "--output", str(temporary / "model.safetensors"),
    )  # fmt: skip
    started_s = time.monotonic()
    with (
        started(command, env=environment(TMPDIR=str(temporary))) as process,
        MemoryPeak(process.pid, interval_s=MEMORY_INTERVAL_S) as peak,
        Client(server_address(process, temporary, deadline_s=started_s + TIMEOUT_S)) as client,
    ):
        first_step_s = last_step_s = 0.0
        total = -(-row_count // BATCH)
        while process.poll() is None and time.monotonic() < started_s + TIMEOUT_S:
            step, now_s = steps_of(client), time.monotonic() - started_s
            if step and not first_step_s:
                first_step_s, first_step = now_s, step
            if step >= total:
                last_step_s = now_s
                break
            time.sleep(POLL_INTERVAL_S)
        answer = answer_of(process, timeout_s=TIMEOUT_S)
        wall_s = time.monotonic() - started_s
    if not first_step_s or not last_step_s:
        raise ProgramFailed("chainrule train made no step that could be seen; is the run too short?")
    return {
        "first_step_s": first_step_s,
        "epoch_s": last_step_s - first_step_s,
        "rows": row_count - first_step * BATCH,
        "wall_s": wall_s,
        "memory_mb": peak.memory_mb,
        "loss": answer["loss"],
        "parameters_sha256": answer["parameters_sha256"],
    }


def measure_ddp(file: Path, python: str, loaders: int) -> dict[str, Any]:
    """The same of DDP. Raises ProgramFailed."""
    run([python, "-c", "import torch, pyarrow; print('{}')"], timeout_s=120)
    command = [
        python, str(PEERS / "ddp_file.py"), str(file), f"--batch={BATCH}", f"--features={FEATURES}",
        f"--hidden={HIDDEN}", f"--workers={WORKERS}", f"--loaders={loaders}",
    ]  # fmt: skip
    started_s = time.monotonic()
    with started(command) as process, MemoryPeak(process.pid, interval_s=MEMORY_INTERVAL_S) as peak:
        answer = answer_of(process, timeout_s=TIMEOUT_S)
        return answer | {"wall_s": time.monotonic() - started_s, "memory_mb": peak.memory_mb}


if __name__ == "__main__":
    sys.exit(main())
