"""The file of the benchmark of large data: rows of normal numbers and a target that a network can learn, in Parquet.

python benchmarks/row_file.py FILE.parquet [--rows 10000000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = 28
ROW_GROUP_ROWS = 1 << 18
SEED = 0


def write_file(path: Path, row_count: int) -> None:
    """Write so many rows; the same bytes for the same number, of which each row group is drawn by itself."""
    direction = np.random.default_rng(SEED).normal(size=FEATURES).astype(np.float32)
    names = [f"x{number}" for number in range(FEATURES)]
    schema = pa.schema([(name, pa.float32()) for name in [*names, "target"]])
    with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=False) as writer:
        for start in range(0, row_count, ROW_GROUP_ROWS):
            count = min(ROW_GROUP_ROWS, row_count - start)
            random = np.random.Generator(np.random.Philox(key=[SEED, start]))
            x = random.standard_normal((count, FEATURES), dtype=np.float32)
            noise = random.standard_normal(count, dtype=np.float32)
            y = np.tanh(x @ direction / 4) + 0.1 * noise
            columns = [np.ascontiguousarray(column) for column in x.T]
            writer.write_table(pa.table([*columns, y], schema=schema), row_group_size=ROW_GROUP_ROWS)


def main() -> None:
    """Write the file that is named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    write_file(arguments.file, arguments.rows)


if __name__ == "__main__":
    main()
