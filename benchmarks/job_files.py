"""Jobs that the benchmarks give to `chainrule`: seeded rows in an .npz file and the job file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness import Configuration

FORMULA = "w @ phi(V3 @ phi(V2 @ phi(V1 @ phi(x))))"


def write_rows(folder: Path, name: str, *, row_count: int, features: int) -> Path:
    """Rows of standard normal numbers, float32, in folder/name.npz."""
    random = np.random.default_rng(0)
    path = folder / f"{name}.npz"
    np.savez(
        path,
        features=random.standard_normal((row_count, features), dtype=np.float32),
        target=random.standard_normal(row_count, dtype=np.float32),
    )
    return path


def write_network_job(
    folder: Path, configuration: Configuration, *, steps: int, batches: int, shards: int,
    precision: str | None = None, backend: str | None = None, min_workers: int = 1,
) -> Path:  # fmt: skip
    """A job file of the four-layer network that makes about so many steps, over `batches` batches of rows.

    The rows are written where they aren't there yet."""
    data = f"network-{configuration.name}-{batches}"
    if not (folder / f"{data}.npz").exists():
        write_rows(folder, data, row_count=batches * configuration.batch, features=configuration.features)
    hidden = configuration.hidden
    return write_job(
        folder / f"{configuration.name}-{shards}-{steps}-{precision or 'float32'}.toml",
        model=f'prediction = "{FORMULA}"\nloss = "(prediction - y)**2"\nphi = "sigmoid"',
        parameters={
            "V1": f"[{hidden}, {configuration.features}]",
            "V2": f"[{hidden}, {hidden}]",
            "V3": f"[{hidden}, {hidden}]",
            "w": f"[{hidden}]",
        },
        data=data,
        epochs=max(1, round(steps / batches)),
        batch_size=configuration.batch,
        shards=shards,
        precision=precision,
        backend=backend,
        min_workers=min_workers,
    )


def write_job(
    path: Path, *, model: str, parameters: dict[str, str], data: str, epochs: int, batch_size: int, shards: int,
    precision: str | None = None, backend: str | None = None, min_workers: int = 1,
) -> Path:  # fmt: skip
    """A job file with plain SGD, all rows for training and no standardization. precision, backend: left out if None."""
    lines = [
        'name = "benchmark"', "", "[model]", model, "", "[model.parameters]",
        *(f"{name} = {shape}" for name, shape in parameters.items()), "",
        "[data]", f'uri = "file:{data}.npz"', "validation_fraction = 0", "standardize = []", "",
        "[training]", f"epochs = {epochs}", f"batch_size = {batch_size}", f"shards = {shards}",
        f"min_workers = {min_workers}",
    ]  # fmt: skip
    if precision is not None:
        lines.append(f'precision = "{precision}"')
    if backend is not None:
        lines.append(f'backend = "{backend}"')
    lines.append('optimizer = { name = "sgd", learning_rate = 0.001 }')
    path.write_text("\n".join(lines) + "\n")
    return path
