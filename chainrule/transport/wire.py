"""Vectors on the wire: parts of at most 1 MiB, whatever the size, so that no message limit is ever met."""

from __future__ import annotations

# Elements in a part: a whole number of the engine's blocks, and 1 MiB of float32.
PART_ELEMENTS = 1 << 18

# Pings find a dead peer within 20 s; the peer allows them at this rate, so no healthy one is dropped for pinging.
KEEPALIVE_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.http2.ping_timeout_ms", 8_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]


def part_starts(size: int) -> range:
    """Where the parts of a vector of `size` elements begin."""
    return range(0, size, PART_ELEMENTS)


def part_stop(start: int, size: int) -> int:
    """Where the part that begins at `start` ends. Raises ValueError where none begins there."""
    if start % PART_ELEMENTS or not 0 <= start < size:
        raise ValueError(f"a part that begins at element {start} of a vector of {size}")
    return min(start + PART_ELEMENTS, size)
