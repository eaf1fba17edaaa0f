"""What a holder of parameters refuses of those who compute for it."""

from __future__ import annotations


class ServiceError(Exception):
    """An error of the caller. `reason` is for programs, the message for people."""

    reason = "UNKNOWN"


class ProtocolError(ServiceError):
    """A message that breaks the contract in worker_service.proto."""

    reason = "PROTOCOL_ERROR"
