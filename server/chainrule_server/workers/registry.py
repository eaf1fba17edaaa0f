"""The connected workers: who they are, and when each was last heard of.

Which shards of which job they hold is the training's to know, and how messages reach them the scheduler's.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from chainrule.holding.lease import DEFAULT_LEASE_S, Lease
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.workers.worker import Worker

# Of workers that are gone so many are remembered: for which jobs they computed, and how often they hanged.
REMEMBERED = 1000


@dataclass
class WorkerRegistry:
    """By name. lease_s: how long a worker may be silent."""

    lease_s: float = DEFAULT_LEASE_S
    connected: dict[str, Worker] = field(default_factory=dict)
    _jobs: dict[str, str] = field(default_factory=dict)
    # Of those that have a job: whether their end was reported.
    _reported: dict[str, bool] = field(default_factory=dict)
    _hangs: dict[str, int] = field(default_factory=dict)
    _names: deque[str] = field(default_factory=deque)

    def add(self, name: str, hello: pb.Hello, address: str) -> Worker:
        """A worker came, by a name that no other has now."""
        lease = Lease(self.lease_s, time.monotonic(), self._hangs.get(name, 0))
        worker = Worker(name, hello=hello, address=address, connected_at_s=time.time(), lease=lease)
        self.connected[name] = worker
        return worker

    def remove(self, name: str) -> None:
        """It is gone."""
        worker = self.connected.pop(name, None)
        if worker is not None and worker.lease.hangs:
            self._remember(name)
            self._hangs[name] = worker.lease.hang_count + 1

    def lease_of(self, name: str) -> Lease | None:
        """The lease of a connected worker."""
        worker = self.connected.get(name)
        return None if worker is None else worker.lease

    def computes_for(self, name: str, job_id: str) -> None:
        """It was given shards of a job."""
        self._remember(name)
        self._jobs[name] = job_id
        self._reported.pop(name, None)

    def last_job(self, name: str) -> str | None:
        """The job that it was given shards of last, also where it is gone."""
        return self._jobs.get(name)

    def reported(self, name: str) -> bool:
        """Note that somebody saw how it ended; whether that is new since it was given shards last."""
        is_new, self._reported[name] = not self._reported.get(name, False), True
        return is_new

    def _remember(self, name: str) -> None:
        if name in self._jobs or name in self._hangs:
            return
        self._names.append(name)
        if len(self._names) > REMEMBERED:
            oldest = self._names.popleft()
            self._jobs.pop(oldest, None)
            self._reported.pop(oldest, None)
            self._hangs.pop(oldest, None)
