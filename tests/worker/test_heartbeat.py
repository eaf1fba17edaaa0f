"""What a worker's own thread says while another computes."""

from __future__ import annotations

import queue
from typing import Any

from chainrule.v1 import worker_service_pb2 as pb
from chainrule_worker.heartbeat import Heartbeat

TIMEOUT_S = 60.0


class Said:
    """A stream that keeps what is said on it."""

    def __init__(self) -> None:
        self.alive: queue.Queue[pb.Alive] = queue.Queue()

    def say(self, request: pb.TrainRequest) -> None:
        self.alive.put(request.alive)


def test_it_says_how_much_was_done_and_whether_shards_are_being_read() -> None:
    said: Any = Said()
    signs = Heartbeat(queue.SimpleQueue())
    signs.works()
    signs.begin(said, interval_s=0.01)
    assert said.alive.get(timeout=TIMEOUT_S) == pb.Alive(work_count=1)
    with signs.loading():
        signs.works()
        while said.alive.get(timeout=TIMEOUT_S) != pb.Alive(work_count=2, is_loading=True):
            pass
    while said.alive.get(timeout=TIMEOUT_S).is_loading:
        pass
    signs.end()
