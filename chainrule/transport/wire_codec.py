"""The Train stream with fewer copies: a vector part goes between memory and the wire without a protobuf message.

gRPC sends and receives bytes, so one copy of a vector each way can't be avoided; a protobuf message makes three more.
A part's few numbers are therefore written and read here, by hand, as the very bytes that protobuf writes and reads: a
peer with a stock client notices nothing. Whatever is not such a part, or is a part in a form that only protobuf knows
(unknown fields, merged fields, overlong numbers), is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast, overload

import grpc
import grpc.aio

from chainrule.v1 import worker_service_pb2 as pb
from chainrule.v1 import worker_service_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["WorkerService"].full_name

# Tags: the field's number × 8 + 0 for a varint, 2 for bytes.
_OFFSET, _VALUES, _FIRST_SHARD, _SHARD_COUNT, _ORDER = 0x08, 0x12, 0x18, 0x20, 0x28
_REQUEST_TAG = pb.TrainRequest.DESCRIPTOR.fields_by_name["part"].number << 3 | 2
_RESPONSE_TAG = pb.TrainResponse.DESCRIPTOR.fields_by_name["part"].number << 3 | 2

_EMPTY = memoryview(b"")


class RawPart(NamedTuple):
    """A VectorPart that is not a protobuf message.

    values: the bytes, C-contiguous. Of a received part they are a read-only view into the message, at any alignment,
    and hold all of it in memory: copy them to where they belong and let go. The rest is as in VectorPart."""

    offset: int = 0
    values: memoryview = _EMPTY
    first_shard: int = 0
    shard_count: int = 0
    order: int = 0


# What is written; bytes are a message that is encoded already: parameters that go to many workers are encoded once.
OutgoingRequest = pb.TrainRequest | RawPart | bytes
OutgoingResponse = pb.TrainResponse | RawPart | bytes
# What is read; `part` is never set in the protobuf message.
Request = pb.TrainRequest | RawPart
Response = pb.TrainResponse | RawPart


def encode_request(message: OutgoingRequest) -> bytes:
    """The message as protobuf writes it; a part's values are copied once.

    Raises ValueError where a number of a RawPart is out of its field's range, or its values are not contiguous."""
    if isinstance(message, RawPart):
        return _encode_part(message, _REQUEST_TAG)
    return message if isinstance(message, bytes) else message.SerializeToString()


def encode_response(message: OutgoingResponse) -> bytes:
    """As encode_request."""
    if isinstance(message, RawPart):
        return _encode_part(message, _RESPONSE_TAG)
    return message if isinstance(message, bytes) else message.SerializeToString()


def decode_request(data: bytes) -> Request:
    """The message as protobuf reads it, but a part as a RawPart, whose values are not copied.

    Raises google.protobuf.message.DecodeError for bytes that are no TrainRequest."""
    part = _read_part(data, _REQUEST_TAG)
    if part is not None:
        return part
    message = pb.TrainRequest.FromString(data)
    return _raw(message.part) if message.WhichOneof("message") == "part" else message


def decode_response(data: bytes) -> Response:
    """As decode_request, for a TrainResponse."""
    part = _read_part(data, _RESPONSE_TAG)
    if part is not None:
        return part
    message = pb.TrainResponse.FromString(data)
    return _raw(message.part) if message.WhichOneof("message") == "part" else message


@overload
def open_train(channel: grpc.Channel) -> grpc.StreamStreamMultiCallable[OutgoingRequest, Response]: ...
@overload
def open_train(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamMultiCallable[OutgoingRequest, Response]: ...
def open_train(channel: Any) -> Any:
    """WorkerService.Train on a client's channel, as the generated stub's, but with RawPart for vector parts."""
    return channel.stream_stream(
        f"/{SERVICE}/Train", request_serializer=encode_request, response_deserializer=decode_response
    )


def add_worker_service(
    servicer: worker_service_pb2_grpc.WorkerServiceServicer, server: grpc.Server | grpc.aio.Server
) -> None:
    """Serve every method of WorkerService as the generated function does, but Train with RawPart for vector parts."""
    generated = _Handlers()
    worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, generated)
    train = grpc.stream_stream_rpc_method_handler(
        cast("Any", servicer.Train), request_deserializer=decode_request, response_serializer=encode_response
    )
    handlers = {**generated.by_name, "Train": train}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class _Handlers:
    """Takes a server's place where the generated function registers its handlers, and keeps them."""

    def __init__(self) -> None:
        self.by_name: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, _: object) -> None:
        """The same ones come by name."""

    def add_registered_method_handlers(self, _: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        self.by_name.update(handlers)


def _encode_part(part: RawPart, tag: int) -> bytes:
    for number, bits in ((part.offset, 64), (part.first_shard, 32), (part.shard_count, 32), (part.order, 64)):
        if number >> bits:  # of a negative number this is negative
            raise ValueError(f"{number} is no number of {bits} bits without a sign, in {part}")
    if not part.values.c_contiguous:
        raise ValueError("the values of a part must lie in one piece of memory, these are strided")
    size = part.values.nbytes
    # Zeros and an empty vector are left out, as protobuf does.
    head = _field(_OFFSET, part.offset) + _field(_VALUES, size)
    tail = _field(_FIRST_SHARD, part.first_shard) + _field(_SHARD_COUNT, part.shard_count) + _field(_ORDER, part.order)
    return b"".join((bytes((tag,)), _varint(len(head) + size + len(tail)), head, part.values, tail))


def _field(tag: int, number: int) -> bytes:
    return bytes((tag,)) + _varint(number) if number else b""


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; all but the last byte have the top bit set."""
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _read_part(data: bytes, part_tag: int) -> RawPart | None:
    """The part that is all of the message, or None where that is for protobuf to find out."""
    if not data or data[0] != part_tag:
        return None
    offset = first_shard = shard_count = order = 0
    values = _EMPTY
    try:
        length, at = _read_varint(data, 1)
        if length != len(data) - at:
            return None
        while at < len(data):
            tag = data[at]
            number, at = _read_varint(data, at + 1)
            if tag == _VALUES:
                values = memoryview(data)[at : at + number]
                at += number
            elif tag == _OFFSET:
                offset = number
            elif tag == _ORDER:
                order = number
            elif tag == _FIRST_SHARD:
                first_shard = number
            elif tag == _SHARD_COUNT:
                shard_count = number
            else:
                return None
    except IndexError:  # the message ends within a number
        return None
    if at != len(data) or first_shard >> 32 or shard_count >> 32:
        return None
    return RawPart(offset, values, first_shard, shard_count, order)


# Longer ones don't fit into 63 bits; protobuf cuts them, which is not worth copying.
_LONGEST_VARINT = 9


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. Raises IndexError where it is cut off or too long."""
    number = data[at]
    if number < 0x80:
        return number, at + 1
    number &= 0x7F
    for place in range(1, _LONGEST_VARINT):
        digit = data[at + place]
        number |= (digit & 0x7F) << 7 * place
        if digit < 0x80:
            return number, at + place + 1
    raise IndexError


def _raw(part: pb.VectorPart) -> RawPart:
    return RawPart(part.offset, memoryview(part.values), part.first_shard, part.shard_count, part.order)
