"""Vectors on the wire: parts of at most 1 MiB, whatever the size, so that no message limit is ever met."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chainrule.wire_codec import RawPart

# Elements in a part: a whole number of the engine's blocks, and 1 MiB of float32.
PART_ELEMENTS = 1 << 18
LITTLE_FLOAT32 = np.dtype("<f4")

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

Vector = NDArray[np.float32]


def part_starts(size: int) -> range:
    """Where the parts of a vector of `size` elements begin."""
    return range(0, size, PART_ELEMENTS)


def write_part(vector: Vector, start: int, *, order: int, first_shard: int = 0, shard_count: int = 0) -> RawPart:
    """The part of a vector that begins at `start`, a view: it is copied when it is sent."""
    values = vector[start : start + PART_ELEMENTS].astype(LITTLE_FLOAT32, copy=False)
    return RawPart(start, values.data.cast("B"), first_shard, shard_count, order)


def read_part(offset: int, values: bytes | memoryview, out: Vector) -> int:
    """Copy a part's values to their place in `out` and return where it ends. Raises ValueError where it doesn't fit."""
    stop = min(offset + PART_ELEMENTS, out.size)
    if offset % PART_ELEMENTS or offset >= max(out.size, 1):
        raise ValueError(f"a part that begins at element {offset} of a vector of {out.size}")
    if len(values) != 4 * (stop - offset):
        raise ValueError(f"{len(values)} bytes for the elements {offset} to {stop - 1}, not {4 * (stop - offset)}")
    out[offset:stop] = np.frombuffer(values, dtype=LITTLE_FLOAT32)
    return stop
