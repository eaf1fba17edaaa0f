"""`chainrule.LocalCluster`: a server and workers on this machine, and a connection to them, for notebooks and tests."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

from chainrule.client.blocking.connection import Connection
from chainrule.errors import ArgumentError
from chainrule.local.processes import LocalProcesses
from chainrule.process.available_memory import available_memory_bytes
from chainrule.v1 import job_service_pb2 as api


class LocalCluster(Connection):
    """`with LocalCluster(workers=4) as client:` a connection to a server of its own, with that many workers.

    It starts when it is made. The end of the block, `close`, or the end of this process, even by kill -9, ends it; what
    the server kept is gone then. data_root: the folder whose files jobs may read; default: the current one. In a block
    in the main thread, SIGTERM and SIGHUP end it too, as SystemExit. Raises ArgumentError, and ClusterError where the
    server doesn't start. `submit` warns (RuntimeWarning) of a job that may take more memory than was free before."""

    def __init__(
        self,
        workers: int = 2,
        data_root: str | os.PathLike[str] | None = None,
        transport: str = "auto",
        *,
        timeout_s: float = 20.0,
    ) -> None:
        self.data_root = Path(os.curdir if data_root is None else data_root)
        if not self.data_root.is_dir():
            raise ArgumentError(f"data_root: there is no folder {self.data_root}; make it or name another")
        self._available_bytes = available_memory_bytes()
        self._processes = LocalProcesses(workers, self.data_root, transport)
        self._processes.start()
        super().__init__(self._processes.address, timeout_s=timeout_s, credentials=self._processes.credentials)

    def __enter__(self) -> Self:
        self._processes.catch_signals()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and every process within about 3 s. A second call does nothing."""
        super().close()
        self._processes.stop()

    def scale(self, workers: int) -> None:
        """Start workers, or end those that were started last, until there are so many.

        A job that runs goes on with those that there are, up to its number of shards; its result has the same bits.
        Raises ArgumentError for less than one."""
        self._processes.scale(workers)

    def _look_at_estimate(self, estimate: api.JobEstimate) -> None:
        # Only here: it loads more than a connection needs.
        from chainrule.local import preflight

        found = preflight.job_memory(estimate, worker_count=self.living_workers, available_bytes=self._available_bytes)
        if found.state != "ok":
            warnings.warn(f"{found.found}; {found.mend}", RuntimeWarning, stacklevel=3)

    def check_server(self) -> None:
        """Raise ClusterError where the server has ended."""
        self._processes.check_server()

    @property
    def living_workers(self) -> int:
        """The number of worker processes that run."""
        return self._processes.living_workers

    @property
    def process_ids(self) -> list[int]:
        """The server's process, then the workers'."""
        return self._processes.process_ids

    def new_deaths(self) -> list[str]:
        """How workers ended, each told once."""
        return [str(death) for death in self._processes.new_deaths()]
