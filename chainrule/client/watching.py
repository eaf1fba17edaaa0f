"""How a job is watched through lost connections: what to ask, and whether and when to ask again.

The blocking client and the asyncio client share it; it knows neither channels nor threads.
"""

from __future__ import annotations

import numbers
import time
from collections.abc import Callable, Iterator

from chainrule.client.job_text import FINAL_STATES, state_name
from chainrule.client.patience import RECONNECT_TIMEOUT_S, Patience
from chainrule.errors import ArgumentError, JobNotEnded, ServerError, ServerTimeout, ServerUnavailable
from chainrule.v1 import job_pb2
from chainrule.v1 import job_service_pb2 as api

# After so long a call ends and the next one goes on, so that every call has a deadline.
CALL_TIMEOUT_S = 600.0
Lost = Callable[[ServerError], None]


class Watch:
    """One watch of a job, made of one call after the other.

    after_event: tell the events after this number too; None: those from now on. reconnect_timeout_s: how long in a row
    there may be no connection; `lost` is called as it is lost. timeout_s: for the whole watch; None: none.
    Raises ArgumentError."""

    def __init__(
        self,
        job_id: str,
        *,
        after_event: int | None = None,
        reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
        timeout_s: float | None = None,
        lost: Lost | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_timeout(timeout_s)
        self.request = api.WatchJobRequest(job_id=job_id)
        if after_event is not None:
            self.request.after_event = after_event
        # A first call that fails may have the wrong address; who names an event has been there.
        self._is_known = after_event is not None
        self._lost = lost if reconnect_timeout_s > 0 else None
        self._patience = Patience(reconnect_timeout_s, clock)
        self._clock = clock
        self._timeout_s = timeout_s
        self._end_s = None if timeout_s is None else clock() + timeout_s
        self._call_end_s = 0.0
        self._state = "of unknown state"

    def begin_call(self) -> float:
        """The deadline of the next call, in seconds from now."""
        now_s = self._clock()
        self._call_end_s = now_s + CALL_TIMEOUT_S
        if self._end_s is not None:
            self._call_end_s = min(self._call_end_s, self._end_s)
        return max(self._call_end_s - now_s, 0.0)

    def told(self, response: api.WatchJobResponse) -> bool:
        """Remember what was told; whether it was the last."""
        self._is_known = True
        self._patience.renew()
        self.request.job_id, self.request.after_event = response.job.job_id, response.last_event
        self._state = state_name(response.job.state).lower()
        return response.job.state in FINAL_STATES

    def wait_after(self, error: ServerError | None) -> float:
        """How many seconds to wait before the next call. error: what ended the call before; None: nothing did.

        Raises JobNotEnded where the watch's own time is over, and the error where no further call is worth it."""
        now_s = self._clock()
        if self._end_s is not None and now_s >= self._end_s:
            raise JobNotEnded(
                f"job {self.request.job_id} is still {self._state} after {self._timeout_s:g} s; wait on, or cancel it"
            )
        if isinstance(error, ServerTimeout):
            if now_s < self._call_end_s:
                raise error
            return 0.0
        error = error or ServerUnavailable(f"the server stopped telling how job {self.request.job_id} goes on")
        if not isinstance(error, ServerUnavailable):
            raise error
        if not self._is_known:
            raise error
        if self._lost is not None and self._patience.is_fresh:
            self._lost(error)
        return self._patience.pause_s(error)


def states_of(update: api.WatchJobResponse) -> Iterator[job_pb2.Job]:
    """The job in each state that it passed since the update before, and as it is now."""
    for event in update.events:
        if event.HasField("state_changed") and event.state_changed.state != update.job.state:
            passed = job_pb2.Job()
            passed.CopyFrom(update.job)
            passed.state = event.state_changed.state
            for name in ("error", "result", "end_time"):
                passed.ClearField(name)
            yield passed
    yield update.job


def _check_timeout(timeout_s: object) -> None:
    # NaN is refused too: it isn't at least 0.
    if timeout_s is not None and not (isinstance(timeout_s, numbers.Real) and float(timeout_s) >= 0):
        raise ArgumentError(f"timeout_s: must be seconds, 0 or more, or None for no end, got {timeout_s!r:.40}")
