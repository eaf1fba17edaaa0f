"""Vectors on the wire: parts of at most 1 MiB, whatever the size, so that no message limit is ever met."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chainrule.v1 import worker_service_pb2 as pb

PART_BYTES = 1 << 20
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


def split(vector: NDArray[np.float32]) -> tuple[list[pb.VectorPart], pb.VectorPart]:
    """A vector as the parts that go ahead and the part that rides in the message that completes it."""
    data = vector.astype(LITTLE_FLOAT32, copy=False).view(np.uint8).data
    starts = range(0, max(len(data), 1), PART_BYTES)
    parts = [pb.VectorPart(values=bytes(data[start : start + PART_BYTES])) for start in starts]
    return parts[:-1], parts[-1]


class VectorAssembler:
    """Puts a vector together again from its parts. size: the number of float32 elements that it must have."""

    def __init__(self, size: int) -> None:
        self._size_bytes = 4 * size
        self._buffer = bytearray(self._size_bytes)
        self._filled = 0

    def add(self, part: pb.VectorPart) -> None:
        """Append a part. Raises ValueError where the vector would become too long."""
        end = self._filled + len(part.values)
        if end > self._size_bytes:
            raise ValueError(f"a vector of more than {self._size_bytes} bytes, but the job's has just so many")
        self._buffer[self._filled : end] = part.values
        self._filled = end

    def take(self) -> NDArray[np.float32]:
        """The complete vector; the next one starts empty. Raises ValueError where bytes are missing."""
        if self._filled != self._size_bytes:
            raise ValueError(f"a vector of {self._filled} bytes, but the job's has {self._size_bytes}")
        vector = np.frombuffer(self._buffer, dtype=LITTLE_FLOAT32).astype(np.float32, copy=False)
        self._buffer = bytearray(self._size_bytes)
        self._filled = 0
        return vector
