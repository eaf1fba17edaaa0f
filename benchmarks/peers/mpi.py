"""The numpy step by hand with MPI's allreduce: `mpirun -n 2 python mpi.py …`."""

from __future__ import annotations

import time

import numpy as np
from measuring import arguments, report, rows_of
from mpi4py import MPI
from numpy_network import NumpyNetwork


def main() -> None:
    """One process of the run; rank 0 reports."""
    options = arguments(__doc__)
    world = MPI.COMM_WORLD
    if world.size != options.workers:
        raise SystemExit(f"started with {world.size} processes for {options.workers} workers; use mpirun -n")
    network = NumpyNetwork(rows=options.rows, features=options.features, hidden=options.hidden)
    batches = rows_of(world.rank, rows=options.rows, features=options.features)
    total = np.empty_like(network.gradient)
    times_s = []
    first_step_at_s = 0.0
    for step in range(options.warm_up + options.steps):
        started_s = time.perf_counter()
        world.Allreduce(network.compute(*batches[step % len(batches)]), total)
        network.apply(total, 1 / world.size)
        times_s.append(time.perf_counter() - started_s)
        first_step_at_s = first_step_at_s or time.time()
    if world.rank == 0:
        report(batch=options.batch, times_s=times_s[options.warm_up :], first_step_at_s=first_step_at_s)


if __name__ == "__main__":
    main()
