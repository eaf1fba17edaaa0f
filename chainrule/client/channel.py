"""The connection to a server: its address, the deadlines of long calls, and the options of a gRPC channel to it."""

from __future__ import annotations

import json
import re
from typing import Any

from chainrule.errors import AddressError

DEFAULT_ADDRESS = "127.0.0.1:50051"
# The server loads the data and builds the model before it answers.
CREATE_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 3600.0

_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    # Without this an unanswered ping is waited for a minute, whatever the line before says.
    ("grpc.http2.ping_timeout_ms", 8_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 256 << 20),
    # Otherwise clients of a process share connections, and one fails while another waits before it tries again.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own are 1 s to 120 s: a restarted server would be found late.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

# Calls that are safe to repeat; CreateJob is, because every request has an id. gRPC repeats them itself, with jitter,
# and so the blocking and the asyncio client alike.
REPEATABLE = {
    "chainrule.v1.ClusterService": ("ListWorkers",),
    "chainrule.v1.JobService": (
        "CreateJob",
        "GetJob",
        "ListJobs",
        "PauseJob",
        "ResumeJob",
        "CancelJob",
        "DownloadModel",
        "ReadTrace",
        "ReadMetrics",
    ),
    "chainrule.v1.DataService": ("GetDataSet", "ListDataSets"),
    "chainrule.v1.ModelService": ("Predict", "Explain", "ExplainReduction", "ListCheckpoints"),
}
# The others, each with the reason; a call that is in neither table fails a test.
NOT_REPEATABLE = {
    "chainrule.v1.ClusterService": {"ReportWorkerEnd": "told again after new shards, it is a second event"},
    "chainrule.v1.JobService": {
        "WatchJob": "`Watch` goes on by itself, and knows what was told already",
        "DeleteJob": "the second time the job is unknown, so a success would look like a mistake",
    },
    "chainrule.v1.DataService": {
        "BeginUpload": "an upload goes on by itself, from where the server is, for a minute",
        "AppendUpload": "as BeginUpload",
        "FinishUpload": "as BeginUpload",
        "CancelUpload": "the second time the upload is unknown",
        "DeleteDataSet": "the second time the data set is unknown",
    },
}
# Five attempts are the most that gRPC makes: at least 3 s in all, enough for a server that is started again.
RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.5s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def channel_options(*, repeats: bool) -> list[tuple[str, Any]]:
    """The options of a client's channel.

    repeats: whether calls that are safe to repeat are made again, a few times, where nobody answers."""
    options: list[tuple[str, Any]] = [*_CHANNEL_OPTIONS, ("grpc.enable_retries", int(repeats))]
    if repeats:
        names = [
            {"service": service, "method": method} for service, methods in REPEATABLE.items() for method in methods
        ]
        config = {"methodConfig": [{"name": names, "retryPolicy": RETRY_POLICY}]}
        options.append(("grpc.service_config", json.dumps(config)))
    return options


def checked_address(address: str) -> str:
    """The address itself. Raises AddressError where it isn't HOST:PORT."""
    found = re.fullmatch(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})", address)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise AddressError(f"{address!r} is no server address; write HOST:PORT, for example {DEFAULT_ADDRESS}")
    return address
