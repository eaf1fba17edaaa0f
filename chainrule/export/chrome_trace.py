"""A job's spans in Chrome's trace-event format, for chrome://tracing, Perfetto and speedscope.

Source: "Trace Event Format", complete events (ph "X"), with times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from chainrule.v1 import job_service_pb2 as api

SERVER = "server"


def chrome_trace(spans: Iterable[api.TraceSpan], *, title: str) -> str:
    """The content of a trace file: one row for the server, one for each worker, a colour for each phase."""
    spans = list(spans)
    names = [SERVER, *sorted({span.process for span in spans} - {SERVER})]
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": title}},
        *(
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": number, "args": {"name": name}}
            for number, name in enumerate(names)
        ),
    ]
    for span in spans:
        events.append(
            {
                "ph": "X",
                "name": span.name,
                "cat": "step",
                "pid": 0,
                "tid": names.index(span.process),
                "ts": round(span.start_us, 3),
                "dur": round(span.duration_us, 3),
                "args": {"step": span.step},
            }
        )
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
