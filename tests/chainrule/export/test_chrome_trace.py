"""A trace file as its readers want it."""

from __future__ import annotations

import json

from chainrule.export.chrome_trace import chrome_trace
from chainrule.v1 import job_service_pb2 as api

SPANS = [
    api.TraceSpan(name="compute", process="worker-2", step=1, start_us=2.5, duration_us=10.25),
    api.TraceSpan(name="compute", process="worker-1", step=1, start_us=2.0, duration_us=11.0),
    api.TraceSpan(name="update", process="server", step=1, start_us=13.0, duration_us=1.0),
    api.TraceSpan(name="compute", process="worker-2", step=2, start_us=20.0, duration_us=0.0),
]


def test_each_process_has_a_row_with_its_name_and_the_server_s_is_the_first() -> None:
    events = json.loads(chrome_trace(SPANS, title="job"))["traceEvents"]
    rows = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert rows == {0: "server", 1: "worker-1", 2: "worker-2"}
    assert [event["args"] for event in events if event["name"] == "process_name"] == [{"name": "job"}]


def test_each_span_is_a_complete_event_in_its_row() -> None:
    events = json.loads(chrome_trace(SPANS, title="job"))["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert [(event["name"], event["tid"], event["ts"], event["dur"], event["args"]) for event in complete] == [
        ("compute", 2, 2.5, 10.25, {"step": 1}),
        ("compute", 1, 2.0, 11.0, {"step": 1}),
        ("update", 0, 13.0, 1.0, {"step": 1}),
        ("compute", 2, 20.0, 0.0, {"step": 2}),
    ]
    assert {event["ph"] for event in events} == {"M", "X"}
    assert {event["pid"] for event in events} == {0}


def test_a_job_without_steps_gives_an_empty_trace_that_is_valid() -> None:
    trace = json.loads(chrome_trace([], title='a "quoted"\nname'))
    assert trace["displayTimeUnit"] == "ms"
    assert [event["ph"] for event in trace["traceEvents"]] == ["M", "M"]
