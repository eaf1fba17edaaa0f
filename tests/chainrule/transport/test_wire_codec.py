"""Vector parts on the Train stream: protobuf's bytes without protobuf's copies."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given
from hypothesis import strategies as st

from chainrule.transport.wire_codec import (
    OutgoingResponse,
    RawPart,
    Request,
    Response,
    add_worker_service,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    open_train,
)
from chainrule.v1 import worker_service_pb2 as pb
from chainrule.v1 import worker_service_pb2_grpc

DEADLINE_S = 20.0

PART = RawPart(offset=4, values=memoryview(b"abcd" * 1000), first_shard=2, shard_count=2, order=9)
ANSWER = PART._replace(order=10)

# The message's class, encode and decode, for both directions.
DIRECTIONS: list[Any] = [
    pytest.param(pb.TrainRequest, encode_request, decode_request, id="request"),
    pytest.param(pb.TrainResponse, encode_response, decode_response, id="response"),
]

uint32 = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 127, 128, 2**31, 2**32 - 1])
uint64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 127, 128, 16383, 16384, 2**63 - 1, 2**63, 2**64 - 1])
raw_parts = st.builds(
    RawPart,
    offset=uint64,
    values=st.binary(max_size=300).map(memoryview),
    first_shard=uint32,
    shard_count=uint32,
    order=uint64,
)


def vector_part(part: RawPart) -> pb.VectorPart:
    return pb.VectorPart(
        offset=part.offset,
        values=bytes(part.values),
        first_shard=part.first_shard,
        shard_count=part.shard_count,
        order=part.order,
    )


def varint(number: int, length: int = 0) -> bytes:
    """The number in seven bits a byte; in at least `length` bytes, as protobuf allows and never writes."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F)
    digits += [0] * (length - len(digits))
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def as_protobuf_reads_it(message_class: type[Any], data: bytes) -> Message | RawPart | None:
    """What decode must give: None for a DecodeError."""
    try:
        message = message_class.FromString(data)
    except DecodeError:
        return None
    if message.WhichOneof("message") != "part":
        return message  # type: ignore[no-any-return]
    part = message.part
    return RawPart(part.offset, memoryview(part.values), part.first_shard, part.shard_count, part.order)


def decoded(decode: Callable[[bytes], Request | Response], data: bytes) -> Message | RawPart | None:
    try:
        return decode(data)
    except DecodeError:
        return None


@pytest.mark.parametrize(("message_class", "encode", "decode"), DIRECTIONS)
@given(part=raw_parts)
def test_a_part_is_written_with_protobufs_bytes_and_read_back(
    message_class: Any, encode: Any, decode: Any, part: RawPart
) -> None:
    data = encode(part)
    assert data == message_class(part=vector_part(part)).SerializeToString()
    assert decode(data) == part


@pytest.mark.parametrize(("message_class", "encode", "decode"), DIRECTIONS)
@pytest.mark.parametrize("size", [2**7 - 1, 2**7, 2**14 - 1, 2**14, 2**20, 2**21, 2**22])
def test_a_part_of_any_size_is_written_with_protobufs_bytes(
    message_class: Any, encode: Any, decode: Any, size: int
) -> None:
    part = RawPart(offset=262144, values=memoryview(np.random.default_rng(size).bytes(size)), order=7)
    data = encode(part)
    assert data == message_class(part=vector_part(part)).SerializeToString()
    assert decode(data) == part


def test_a_read_vector_is_a_view_into_the_message() -> None:
    data = encode_request(RawPart(values=memoryview(b"values of a gradient")))
    part = decode_request(data)
    assert isinstance(part, RawPart)
    assert part.values.obj is data
    assert part.values.readonly


def test_a_range_of_a_float32_vector_is_written_as_it_lies() -> None:
    vector = np.arange(10, dtype="<f4")
    part = decode_response(encode_response(RawPart(offset=3, values=vector[3:7].data)))
    assert isinstance(part, RawPart)
    assert np.frombuffer(part.values, "<f4").tolist() == [3, 4, 5, 6]


def test_strided_values_are_refused() -> None:
    with pytest.raises(ValueError, match="strided"):
        encode_request(RawPart(values=np.zeros(8, np.float32)[::2].data))


@pytest.mark.parametrize(
    "part",
    [RawPart(offset=-1), RawPart(offset=2**64), RawPart(first_shard=2**32), RawPart(shard_count=-1), RawPart(order=-1)],
)
def test_a_number_out_of_its_fields_range_is_refused(part: RawPart) -> None:
    with pytest.raises(ValueError, match="without a sign"):
        encode_request(part)


@pytest.mark.parametrize(
    "message",
    [
        pb.TrainRequest(),
        pb.TrainRequest(hello=pb.Hello(name="w", process_id=3)),
        pb.TrainRequest(partial_sum=pb.PartialSum(job_id="j", vector=pb.VectorPart(values=b"1234"))),
    ],
)
def test_other_messages_are_protobufs_own(message: pb.TrainRequest) -> None:
    data = encode_request(message)
    assert data == message.SerializeToString()
    assert decode_request(data) == message


@pytest.mark.parametrize(("message_class", "encode", "decode"), DIRECTIONS)
def test_a_message_that_is_encoded_already_is_sent_as_it_is(message_class: Any, encode: Any, decode: Any) -> None:
    data = encode(PART)
    assert encode(data) is data


# The fields of a part as any client may write them: in any order, repeated, overlong, unknown ones among them.
wire_varints = st.builds(varint, uint64, st.integers(0, 10))
wire_fields = st.one_of(
    st.builds(
        lambda tag, number: bytes((tag,)) + number, st.sampled_from([0x08, 0x18, 0x20, 0x28, 0x30]), wire_varints
    ),
    st.builds(lambda tag, data: bytes((tag,)) + varint(len(data)) + data, st.sampled_from([0x12, 0x3A]), st.binary()),
    st.builds(lambda data: b"\x12" + varint(len(data), 3) + data, st.binary()),
    st.binary(max_size=4),
)
wire_parts = st.lists(wire_fields, max_size=6).map(b"".join)


@pytest.mark.parametrize(("message_class", "encode", "decode"), DIRECTIONS)
@given(parts=st.lists(wire_parts, min_size=1, max_size=2), rest=st.just(b"") | st.binary(max_size=6), data=st.data())
def test_parts_in_any_form_are_read_as_protobuf_reads_them(
    message_class: Any, encode: Any, decode: Any, parts: list[bytes], rest: bytes, data: st.DataObject
) -> None:
    tag = bytes((message_class.DESCRIPTOR.fields_by_name["part"].number << 3 | 2,))
    written = b"".join(tag + varint(len(part)) + part for part in parts) + rest
    for message in (written, written[: data.draw(st.integers(0, len(written)))]):
        assert decoded(decode, message) == as_protobuf_reads_it(message_class, message)


@pytest.mark.parametrize(("message_class", "encode", "decode"), DIRECTIONS)
@given(first=st.sampled_from([b"", b"\x1a", b"\x12"]), garbage=st.binary(max_size=40))
@example(first=b"\x1a", garbage=b"\x80" * 12)
@example(first=b"\x12", garbage=b"\x02\x12\x05")
@example(first=b"\x12", garbage=b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
def test_garbage_is_read_as_protobuf_reads_it_or_is_a_decode_error(
    message_class: Any, encode: Any, decode: Any, first: bytes, garbage: bytes
) -> None:
    assert decoded(decode, first + garbage) == as_protobuf_reads_it(message_class, first + garbage)


class Mirror(worker_service_pb2_grpc.WorkerServiceServicer):
    """Answers a part with the same part, under the next order."""

    async def Train(self, request_iterator: AsyncIterator[Request], context: object) -> AsyncIterator[OutgoingResponse]:  # noqa: N802, ARG002
        async for request in request_iterator:
            assert isinstance(request, RawPart)
            yield encode_response(request._replace(order=request.order + 1))

    async def ReadShard(self, request: pb.ReadShardRequest, context: object) -> AsyncIterator[pb.ReadShardResponse]:  # noqa: N802, ARG002
        yield pb.ReadShardResponse(row_count=request.shard)


def exchange_with_a_sync_client(address: str) -> Response:
    with grpc.insecure_channel(address) as channel:
        requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        requests.put(PART)
        call = open_train(channel)(iter(requests.get, None), timeout=DEADLINE_S)
        answer = next(call)
        requests.put(None)
        assert list(call) == []
        return answer


async def exchange_with_an_aio_client(address: str) -> Response:
    async with grpc.aio.insecure_channel(address) as channel:
        call = open_train(channel)(timeout=DEADLINE_S)
        await call.write(PART)
        answer = await call.read()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        return answer


def exchange_with_a_stock_client(address: str) -> Response:
    """A client of the generated stubs; it uses another method of the service, too."""
    with grpc.insecure_channel(address) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        rows = list(stub.ReadShard(pb.ReadShardRequest(shard=5), timeout=DEADLINE_S))
        assert rows == [pb.ReadShardResponse(row_count=5)]
        (answer,) = stub.Train(iter([pb.TrainRequest(part=vector_part(PART))]), timeout=DEADLINE_S)
        return decode_response(answer.SerializeToString())


@pytest.mark.parametrize(
    "exchange", [exchange_with_a_sync_client, exchange_with_a_stock_client, exchange_with_an_aio_client]
)
def test_parts_travel_both_ways_between_the_server_and_every_kind_of_client(exchange: Any) -> None:
    async def serve() -> Response:
        server = grpc.aio.server()
        add_worker_service(Mirror(), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            if asyncio.iscoroutinefunction(exchange):
                return await exchange(address)  # type: ignore[no-any-return]
            return await asyncio.to_thread(exchange, address)
        finally:
            await server.stop(None)

    assert asyncio.run(asyncio.wait_for(serve(), DEADLINE_S)) == ANSWER


def test_a_sync_server_serves_parts_as_well() -> None:
    class SyncMirror(worker_service_pb2_grpc.WorkerServiceServicer):
        def Train(self, request_iterator: Iterator[Request], context: object) -> Iterator[Response]:  # noqa: N802, ARG002
            for request in request_iterator:
                assert isinstance(request, RawPart)
                yield request._replace(order=request.order + 1)

    server = grpc.server(ThreadPoolExecutor(1))
    add_worker_service(SyncMirror(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert exchange_with_a_sync_client(f"127.0.0.1:{port}") == ANSWER
    finally:
        server.stop(None).wait(DEADLINE_S)
