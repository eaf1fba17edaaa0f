"""The workers that are connected, and the link by which each is reached.

It knows nothing of jobs: whoever shares the workers among them is told of every change by `departed` and `changed`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from chainrule.holding.worker_links import WorkerLink
from chainrule.process.logs import log_event
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.workers.departure import CONNECTION_LOST, Departure
from chainrule_server.workers.hello import bounded
from chainrule_server.workers.registry import WorkerRegistry
from chainrule_server.workers.worker import Outgoing, Worker

log = logging.getLogger(__name__)


class Changed(Protocol):
    """What is called when those that can be given jobs are others."""

    def __call__(self, *, relinked: Container[str] = ()) -> None:
        """relinked: who is reached by another link from now on."""


@dataclass
class WorkerPool:
    """Workers by name, in the order in which they came. None: registered, but not joined yet."""

    links: dict[str, WorkerLink | None] = field(default_factory=dict)
    # Who they are, and when each was last heard of.
    registry: WorkerRegistry = field(default_factory=WorkerRegistry)
    # Called when those that can be given jobs are others; before that `departed`, with who is gone, and why.
    changed: Changed = lambda **_: None
    departed: Callable[[str, Departure], None] = lambda *_: None

    @property
    def joined(self) -> list[str]:
        """The workers that can be given jobs."""
        return [name for name, link in self.links.items() if link is not None]

    def register(self, hello: pb.Hello, *, address: str = "") -> Worker:
        """A worker came, with its name made unique, and what it says of itself made short."""
        hello = bounded(hello)
        name = base = hello.name
        number = 2
        while name in self.links:
            name, number = f"{base}-{number}", number + 1
        self.links[name] = None
        log.info(
            "worker %s came (process %d, numpy %s, %s)", name, hello.process_id, hello.numpy_version, hello.blas,
            extra=log_event("worker_came", worker=name, process_id=hello.process_id),
        )  # fmt: skip
        return self.registry.add(name, hello, address)

    def join(self, name: str, link: WorkerLink) -> None:
        """A registered worker can be given jobs, by this link. Nothing happens where it is gone."""
        if name not in self.links:
            return
        self.links[name] = link
        how = "sharing memory" if link.shares_memory else "over gRPC"
        log.info("worker %s joined, %s", name, how, extra=log_event("worker_joined", worker=name))
        self.changed()

    def relink(self, name: str, link: WorkerLink) -> None:
        """A worker is reached by another link from now on. Nothing happens where it hadn't joined."""
        if self.links.get(name) is not None:
            self.links[name] = link
            self.changed(relinked=(name,))

    def transport_of(self, name: str) -> str:
        """How a worker's vectors travel: 'grpc' or 'shared-memory'; empty until it has joined."""
        link = self.links.get(name)
        if link is None:
            return ""
        return "shared-memory" if link.shares_memory else "grpc"

    def leave(self, name: str, why: Departure = CONNECTION_LOST) -> None:
        """A worker is gone."""
        if name not in self.links:
            return
        self.departed(name, why)
        log.info("worker %s left: %s", name, why.details, extra=log_event("worker_left", worker=name))
        self.registry.remove(name)
        if self.links.pop(name) is not None:
            self.changed()

    def reached(self, names: Iterable[str]) -> list[Worker]:
        """Those of them that have joined, as they are reached now."""
        found = ((name, self.links.get(name)) for name in names)
        return [
            replace(self.registry.connected[name], shares_memory=link.shares_memory)
            for name, link in found
            if link is not None
        ]

    def give_up_memory(self, names: Iterable[str]) -> None:
        """There is no room to share memory with these workers: they are reached over gRPC until they join again."""
        for name in names:
            link = self.links.get(name)
            if link is not None:
                lacking = log_event("worker_without_memory", worker=name)
                message = "worker %s goes on over gRPC until it joins again: there is no room to share"
                log.warning(message, name, extra=lacking)
                self.links[name] = link.without_memory()

    def send(self, messages: Iterable[Outgoing]) -> None:
        """Send messages to those workers that are still there."""
        for message in messages:
            link = self.links.get(message.name)
            if link is not None:
                link.send(message.response, message.descriptors)

    def close(self) -> None:
        """End the streams of all workers."""
        for link in self.links.values():
            if link is not None:
                # The stream with the socket: a worker that had only lost the socket would go on with the stream.
                link.without_memory().close()
