"""What is left of a training that has ended: what can be told of it, without its vectors and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chainrule.v1 import job_service_pb2 as api
from chainrule_server.training.step_cost import StepCosts


@dataclass(frozen=True)
class EndedTraining:
    """worker_kinds: what has computed for the job. costs: of its last steps. first_issued_at_ns: its first order."""

    worker_kinds: tuple[str, ...]
    costs: StepCosts
    first_issued_at_ns: int

    def spans(self) -> Iterator[api.TraceSpan]:
        """Where the time of the last steps went, from the first order on."""
        return self.costs.spans(origin_ns=self.first_issued_at_ns)
