"""A worker's signs of life, and its goodbye: what a thread of its own says on the stream while another computes.

The thread wakes about once a second and mostly finds nothing to say. An Alive carries how much the computing thread has
done, so that the server sees a worker whose computing hangs although its threads live.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator

from chainrule.v1 import worker_service_pb2 as pb
from chainrule_worker.server_links import ServerStreamLink
from chainrule_worker.status_file import StatusFile

GOODBYE_TIMEOUT_S = 2.0


class Heartbeat:
    """The computing thread counts `work_count` up. farewell: reasons to end the process, put there by a signal.

    status: where it is told to health checks too; None: where the environment says. Raises StatusFileError."""

    def __init__(self, farewell: queue.SimpleQueue[str], status: StatusFile | None = None) -> None:
        self.work_count = 0
        self._is_loading = False
        self._status = StatusFile.of_environment(os.environ) if status is None else status
        self._farewell = farewell
        self._stream: ServerStreamLink | None = None
        self._interval_s = 1.0
        threading.Thread(target=self._run, name="signs of life", daemon=True).start()

    def works(self) -> None:
        """Something was done."""
        self.work_count += 1

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """A stretch in which shards are read, so that something is done all the time."""
        self._is_loading = True
        try:
            yield
        finally:
            self._is_loading = False

    def begin(self, stream: ServerStreamLink, *, interval_s: float) -> None:
        """Speak on this stream, every so often, until `end`."""
        self._interval_s = max(interval_s, 0.01)
        self._stream = stream
        if self._status is not None:
            self._status.joined()

    def end(self) -> None:
        """The stream has ended."""
        self._stream = None
        if self._status is not None:
            self._status.left()

    def say_goodbye(self, reason: str) -> None:
        """Tell the server that the process ends, and wait until it has heard, for GOODBYE_TIMEOUT_S at most."""
        stream = self._stream
        if stream is not None:
            stream.say(pb.TrainRequest(goodbye=pb.Goodbye(reason=reason)))
            stream.ends_within(GOODBYE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            try:
                reason = self._farewell.get(timeout=self._interval_s)
            except queue.Empty:
                stream = self._stream
                if stream is not None:
                    stream.say(pb.TrainRequest(alive=pb.Alive(work_count=self.work_count, is_loading=self._is_loading)))
                    if self._status is not None and stream.is_active:
                        self._status.joined()
            else:
                self.say_goodbye(reason)
                os._exit(0)
