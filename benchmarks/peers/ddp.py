"""PyTorch DistributedDataParallel with gloo, as its documentation shows it.

Without --rank it starts one process for each worker here; with --rank it is one of them (see network.py).
"""

# No `from __future__ import annotations`: DDP compares the annotations of its hooks with its classes.

import argparse
import os
import socket
import time
from typing import Any

import torch
import torch.distributed as dist
from measuring import LEARNING_RATE, arguments, first_parameters, report, rows_of
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel


class FourLayers(nn.Module):
    """w · σ(V3 σ(V2 σ(V1 σ(x)))), a row of x for each example."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        v1, v2, v3, w = (nn.Parameter(torch.from_numpy(value)) for value in first_parameters(features, hidden))
        self.v1, self.v2, self.v3, self.w = v1, v2, v3, w

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predictions, (rows,)."""
        hidden = torch.sigmoid(x)
        for v in (self.v1, self.v2, self.v3):
            hidden = torch.sigmoid(hidden @ v.T)
        return hidden @ self.w


def compressed(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's own bfloat16 hook. Under its own name DDP refuses it beside gloo, which can add bfloat16 by now."""
    return bf16_compress_hook(state, bucket)


def work(rank: int, options: argparse.Namespace) -> None:
    """One worker's steps; rank 0 reports, and each that was started by --rank. processor_s: of the timed steps."""
    torch.set_num_threads(options.threads)
    dist.init_process_group("gloo", rank=rank, world_size=options.workers)
    network = DistributedDataParallel(
        FourLayers(options.features, options.hidden), gradient_as_bucket_view=True, bucket_cap_mb=options.bucket_mb
    )
    if options.bfloat16:
        network.register_comm_hook(None, compressed)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    batches = [
        (torch.from_numpy(x), torch.from_numpy(y))
        for x, y in rows_of(rank, rows=options.rows, features=options.features)
    ]
    times_s = []
    first_step_at_s = used_before_s = 0.0
    for step in range(options.warm_up + options.steps):
        x, y = batches[step % len(batches)]
        if step == options.warm_up:
            used_before_s = time.process_time()
        started_s = time.perf_counter()
        optimizer.zero_grad()
        loss = ((network(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        times_s.append(time.perf_counter() - started_s)
        first_step_at_s = first_step_at_s or time.time()
    if rank == 0 or options.rank is not None:
        report(
            batch=options.batch,
            times_s=times_s[options.warm_up :],
            first_step_at_s=first_step_at_s,
            processor_s=time.process_time() - used_before_s,
        )
    # Without these, a process now and then aborts at its end, while gloo's threads still run.
    dist.barrier()
    del network, optimizer, loss
    dist.destroy_process_group()


def main() -> None:
    """Run one worker, or all."""
    options = arguments(
        __doc__,
        (
            "--rank",
            {"type": int, "help": "be this one of the workers; MASTER_ADDR and MASTER_PORT say where rank 0 is"},
        ),
        ("--threads", {"type": int, "default": 1, "help": "that each worker computes with"}),
        ("--bucket-mb", {"type": float, "help": "gradients that travel together; default: PyTorch's own"}),
        ("--bfloat16", {"action": "store_true", "help": "with the hook that compresses gradients to bfloat16"}),
    )
    if options.rank is not None:
        work(options.rank, options)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    torch.multiprocessing.spawn(work, args=(options,), nprocs=options.workers)


if __name__ == "__main__":
    main()
