"""PyTorch's RPC parameter server with batched updates, as its tutorial shows it.

https://docs.pytorch.org/tutorials/intermediate/rpc_async_execution.html
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time

import torch
import torch.distributed.rpc as rpc
from ddp import FourLayers
from measuring import LEARNING_RATE, arguments, report, rows_of
from torch import nn

TIMEOUT_S = 120.0


class ParameterServer:
    """Holds the network; the step is made when the last worker's gradients are there, and all fetch its result."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.model = FourLayers(options.features, options.hidden)
        self.worker_count = options.workers
        self.lock = threading.Lock()
        self.future: torch.futures.Future[nn.Module] = torch.futures.Future()
        self.arrived = 0
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def get_model(self) -> nn.Module:
        """The network as it is."""
        return self.model

    @staticmethod
    @rpc.functions.async_execution
    def update_and_fetch_model(
        server: rpc.RRef[ParameterServer], gradients: list[torch.Tensor]
    ) -> torch.futures.Future[nn.Module]:
        """Add a worker's gradients; the future is the network after the step."""
        self = server.local_value()
        with self.lock:
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.grad += gradient
            self.arrived += 1
            future = self.future
            if self.arrived >= self.worker_count:
                for parameter in self.model.parameters():
                    parameter.grad /= self.worker_count
                self.arrived = 0
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=False)
                future.set_result(self.model)
                self.future = torch.futures.Future()
        return future


def train(server: rpc.RRef[ParameterServer], rank: int, options: argparse.Namespace) -> tuple[list[float], float]:
    """A worker's steps: the times of those after the warm-up, and when the first had ended."""
    torch.set_num_threads(1)
    batches = [
        (torch.from_numpy(x), torch.from_numpy(y))
        for x, y in rows_of(rank, rows=options.rows, features=options.features)
    ]
    model = server.rpc_sync().get_model()
    times_s = []
    first_step_at_s = 0.0
    for step in range(options.warm_up + options.steps):
        x, y = batches[step % len(batches)]
        started_s = time.perf_counter()
        ((model(x) - y) ** 2).mean().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        model = rpc.rpc_sync(server.owner(), ParameterServer.update_and_fetch_model, args=(server, gradients))
        times_s.append(time.perf_counter() - started_s)
        first_step_at_s = first_step_at_s or time.time()
    return times_s[options.warm_up :], first_step_at_s


def work(rank: int, options: argparse.Namespace) -> None:
    """One process: the server is rank 0."""
    torch.set_num_threads(1)
    backend = rpc.TensorPipeRpcBackendOptions(num_worker_threads=16, rpc_timeout=TIMEOUT_S)
    name = f"worker{rank}" if rank else "server"
    rpc.init_rpc(name, rank=rank, world_size=options.workers + 1, rpc_backend_options=backend)
    if rank == 0:
        server = rpc.RRef(ParameterServer(options))
        futures = [
            rpc.rpc_async(f"worker{worker}", train, args=(server, worker, options), timeout=0)
            for worker in range(1, options.workers + 1)
        ]
        times_s, first_step_at_s = futures[0].wait()
        for future in futures:
            future.wait()
        report(batch=options.batch, times_s=times_s, first_step_at_s=first_step_at_s)
    rpc.shutdown()


def main() -> None:
    """Run the server and the workers."""
    options = arguments(__doc__)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    torch.multiprocessing.spawn(work, args=(options,), nprocs=options.workers + 1)


if __name__ == "__main__":
    main()
