"""From the status of a gRPC call and its google.rpc details to the typed errors of chainrule.errors.

server/chainrule_server/errors.py is the table the other way. Calls of grpc and of grpc.aio end with the same statuses.
"""

from __future__ import annotations

import os
import re
from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chainrule.errors import (
    InvalidJob,
    JobNotFound,
    NotAllowed,
    NotAuthenticated,
    PreconditionFailed,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
)
from chainrule.security.credentials import Credentials
from chainrule.security.secure_channel import why_no_connection

# gRPC's own words: it refuses what is far too long unread, so that the server itself never hears of it.
_TOO_LONG = re.compile(
    r"(?:(?P<who>SERVER|CLIENT): )?Received message larger than max \((?P<size>[0-9]+) vs\. (?P<most>[0-9]+)\)"
)


def translated(error: grpc.RpcError, address: str, timeout_s: float, credentials: Credentials) -> ServerError:
    """The typed error of a gRPC status and its google.rpc details.

    credentials: those of the channel; where nobody could be reached they are looked at for the reason."""
    call = cast(grpc.Call, error)
    code = call.code()
    message = call.details() or code.name
    violations, reason = _details(call)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidJob(message, violations=violations, reason=reason)
        case grpc.StatusCode.NOT_FOUND:
            return JobNotFound(message, reason=reason)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return PreconditionFailed(message, reason=reason)
        case grpc.StatusCode.UNAUTHENTICATED:
            return NotAuthenticated(f"the server at {address} doesn't let this call in: {message}", reason=reason)
        case grpc.StatusCode.PERMISSION_DENIED:
            return NotAllowed(message, reason=reason)
        case grpc.StatusCode.CANCELLED:
            return ServerUnavailable(f"the server at {address} ended the call ({message})", reason=reason)
        case grpc.StatusCode.UNAVAILABLE:
            why = message.rpartition("Failed to connect to remote host: ")[2]
            if "Connection refused" not in why and (trouble := why_no_connection(address, credentials)) is not None:
                return ServerUnavailable(trouble, reason="TLS")
            if "errors resolving" in why or "DNS resolution failed" in why:
                why = "its host name is unknown"
            return ServerUnavailable(
                f"no chainrule server answers at {address} ({why}); start one with 'chainrule server' or name another"
                + _proxy_hint(address),
                reason=reason,
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerTimeout(
                f"the server at {address} didn't answer within {timeout_s:g} s; try again, or look at its log",
                reason=reason,
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if (found := _TOO_LONG.search(message)) is not None:
            return _too_long(
                address, size_bytes=found["size"], most_bytes=found["most"], is_ours=found["who"] == "CLIENT"
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED if violations:
            # What was asked for is too much: no failure of the server.
            return InvalidJob(message, violations=violations, reason=reason)
        case grpc.StatusCode.UNIMPLEMENTED:
            return ServerError(
                f"the program at {address} doesn't know this call; is it a chainrule server of this version?"
            )
        case _:
            return ServerError(f"the server at {address} failed: {message} ({code.name})", reason=reason)


def _proxy_hint(address: str) -> str:
    """What to say where a proxy of the environment stands between this machine and the server."""
    # Only here: it loads more than a client needs.
    from chainrule.process import doctor

    found = doctor.proxies(os.environ, None if address.startswith("unix:") else address.rpartition(":")[0])
    return "" if found.state == "ok" else f"; {found.found}: {found.mend}"


def _too_long(address: str, *, size_bytes: str, most_bytes: str, is_ours: bool) -> ServerError:
    """is_ours: whether it is this client that takes no more."""
    if is_ours:
        message = f"the answer of {address} has {size_bytes} bytes, and this client takes {most_bytes}; ask for less"
        return ServerError(f"{message} at a time", reason="LIMIT_EXCEEDED")
    return ServerError(
        f"the message has {size_bytes} bytes, and the server at {address} reads none of more than {most_bytes}; send "
        "less at a time, or start the server with a larger --max-message-bytes (CHAINRULE_MAX_MESSAGE_BYTES)",
        reason="LIMIT_EXCEEDED",
    )


def _details(call: grpc.Call) -> tuple[list[tuple[str, str]], str]:
    """The field violations and the reason that ride along with a status."""
    violations: list[tuple[str, str]] = []
    reason = ""
    try:
        status = rpc_status.from_call(call)
    except Exception:  # noqa: BLE001 - malformed details must not hide the error that they belong to
        status = None
    for detail in status.details if status is not None else ():
        request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        if detail.Unpack(request):
            violations += [(violation.field, violation.description) for violation in request.field_violations]
        elif detail.Unpack(info):
            reason = info.reason
    return violations, reason
