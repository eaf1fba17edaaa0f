"""How many connections the server takes, and for how long it keeps those that do nothing.

A connection takes a file descriptor. Those that the server itself needs, for its database, models, data and shared
memory, are set aside, so that a running job goes on whoever connects.
"""

from __future__ import annotations

import resource

MAX_CONNECTIONS = 4096
MIN_CONNECTIONS = 64
OWN_DESCRIPTORS = 512
# Of one connection; more wait for those to end.
MAX_STREAMS = 256
# Without a call. A client that comes back connects again by itself.
IDLE_S = 120
# For TLS and the first bytes of HTTP/2.
HANDSHAKE_S = 10


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else MAX_CONNECTIONS + OWN_DESCRIPTORS


def connection_limit(descriptors: int) -> int:
    """How many connections a process with so many descriptors takes."""
    return min(MAX_CONNECTIONS, max(MIN_CONNECTIONS, descriptors - OWN_DESCRIPTORS))


def connection_options(limit: int) -> list[tuple[str, int]]:
    """gRPC's options for at most `limit` connections; one more is closed at once."""
    return [
        ("grpc.max_allowed_incoming_connections", limit),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
    ]
