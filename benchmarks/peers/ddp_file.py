"""PyTorch DistributedDataParallel over a Parquet file: a DataLoader that reads row groups, one epoch, gloo.

Each process reads every so many row groups, permutes the rows of each, and gives whole batches of tensors on.
"""

# No `from __future__ import annotations`: DDP compares the annotations of its hooks with its classes.

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from ddp import FourLayers
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset

LEARNING_RATE = 0.1


class RowGroups(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of `rows` rows of this process's row groups; what is left of one comes before the next one's rows."""

    def __init__(self, path: Path, *, rows: int, rank: int, world: int) -> None:
        self.path, self.rows, self.rank, self.world = path, rows, rank, world

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        file = pq.ParquetFile(self.path, memory_map=True)
        random = np.random.default_rng(self.rank)
        left = torch.empty((0, file.metadata.num_columns))
        for group in range(self.rank, file.num_row_groups, self.world):
            table = file.read_row_group(group)
            block = np.stack([column.to_numpy() for column in table.columns], axis=1)
            rows = torch.cat([left, torch.from_numpy(block[random.permutation(len(block))])])
            whole = len(rows) // self.rows * self.rows
            for start in range(0, whole, self.rows):
                batch = rows[start : start + self.rows]
                yield batch[:, :-1], batch[:, -1]
            left = rows[whole:].clone()


def work(rank: int, options: argparse.Namespace) -> None:
    """One process's epoch; rank 0 reports."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=options.workers)
    network = DistributedDataParallel(FourLayers(options.features, options.hidden), gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    dataset = RowGroups(options.file, rows=options.batch // options.workers, rank=rank, world=options.workers)
    loader = DataLoader(dataset, batch_size=None, num_workers=options.loaders)
    # Every process makes as many steps: those that the one with the fewest rows can make.
    groups = pq.ParquetFile(options.file).metadata
    sizes = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    steps = min(sum(sizes[each :: options.workers]) // dataset.rows for each in range(options.workers))
    first_step_at_s = 0.0
    loss = torch.zeros(())
    for step, (x, y) in enumerate(loader):
        if step == steps:
            break
        optimizer.zero_grad()
        loss = ((network(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        first_step_at_s = first_step_at_s or time.time()
    ended_at_s = time.time()
    if rank == 0:
        answer = {
            "first_step_s": first_step_at_s - float(os.environ["CHAINRULE_BENCHMARK_STARTED_S"]),
            "epoch_s": ended_at_s - first_step_at_s,
            "rows": steps * dataset.rows * options.workers,
            "loss": loss.item(),
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    dist.barrier()
    del network, optimizer, loss
    dist.destroy_process_group()


def main() -> None:
    """Run all processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    for name in ("batch", "features", "hidden", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--loaders", type=int, default=0, help="processes that load, for each that trains")
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    torch.multiprocessing.spawn(work, args=(options,), nprocs=options.workers)


if __name__ == "__main__":
    main()
