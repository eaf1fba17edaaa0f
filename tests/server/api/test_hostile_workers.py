"""Workers and clients that were let in and break the rules are refused with the right code; the job ends with its bits.

A worker that owes a part of the first step is always there while they do so, so the job can't have ended before.
"""

from __future__ import annotations

import io
import queue
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.client.blocking.client import Client
from chainrule.errors import InvalidJob
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_engine.reduction import Subtree, maximal_subtrees
from tests.server.attacked import Attacked, ended, spec

TIMEOUT_S = 60.0
MIB = 1 << 20
PARAMETERS = 176
# Of the first step.
ROWS_IN_SHARD = 8


class Worker:
    """A worker whose messages are whatever bytes the test wants."""

    def __init__(self, channel: grpc.Channel, stack: ExitStack) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = "/chainrule.v1.WorkerService/Train"
        open_stream = channel.stream_stream(
            method, request_serializer=None, response_deserializer=pb.TrainResponse.FromString
        )
        self._call = open_stream(iter(self._requests.get, None), timeout=TIMEOUT_S)
        stack.callback(self._call.cancel)
        stack.callback(self._requests.put, None)
        self.say(pb.TrainRequest(hello=pb.Hello(name="stranger")))
        assert next(self._call).HasField("welcome")

    def say(self, *messages: pb.TrainRequest | bytes) -> None:
        for message in messages:
            self._requests.put(message if isinstance(message, bytes) else message.SerializeToString())

    def take(self, *, above: int = 0) -> pb.Assignment:
        """Say that the first assignment of a generation above this one is held."""
        for response in self._call:
            assignment: pb.Assignment = response.assignment
            if assignment.generation > above:
                ready = pb.Ready(job_id=assignment.job_id, generation=assignment.generation)
                self.say(pb.TrainRequest(ready=ready))
                return assignment
        raise AssertionError("the stream ended before an assignment")

    def order(self, generation: int) -> pb.Order:
        for response in self._call:
            if response.order.generation == generation:
                order: pb.Order = response.order
                return order
        raise AssertionError("the stream ended before an order")

    def end(self) -> grpc.StatusCode:
        """The status that the server ends the stream with."""
        try:
            for _ in self._call:
                pass
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def push(order: pb.Order, shards: Subtree, /, **changed: Any) -> pb.TrainRequest:
    """The answer to an order of the first step, with a gradient of zeros; a field that is changed to None isn't set."""
    fields = {
        "job_id": order.job_id,
        "generation": order.generation,
        "order": order.order,
        "first_shard": shards.first,
        "shard_count": shards.count,
        "row_count": ROWS_IN_SHARD * shards.count,
        "sums": [1.0],
        "vector": pb.VectorPart(values=bytes(4 * PARAMETERS)),
    }
    return pb.TrainRequest(partial_sum=pb.PartialSum(**fields | changed))


def part(order: pb.Order, shards: Subtree, *, offset: int = 0, size: int = PARAMETERS) -> pb.TrainRequest:
    vector = pb.VectorPart(offset=offset, values=bytes(4 * size), first_shard=shards.first, shard_count=shards.count)
    vector.order = order.order
    return pb.TrainRequest(part=vector)


def cut_short(message: pb.TrainRequest) -> bytes:
    return message.SerializeToString()[:-10]


Attack = Callable[[pb.Order, Subtree], list[pb.TrainRequest | bytes]]
INVALID, TOO_MUCH = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
REFUSED: dict[str, tuple[grpc.StatusCode, Attack]] = {
    "truncated": (INVALID, lambda order, mine: [cut_short(push(order, mine))]),
    "nonsense": (INVALID, lambda *_: [b"\xff" * 100]),
    "empty": (INVALID, lambda *_: [b""]),
    "unknown to this version": (INVALID, lambda *_: [b"\xfa\x3f\x01x"]),
    "a length beyond the message's end": (INVALID, lambda *_: [b"\x22\xff\xff\xff\xff\x07"]),
    "oversized": (TOO_MUCH, lambda *_: [bytes(17 * MIB)]),
    "a second hello": (INVALID, lambda *_: [pb.TrainRequest(hello=pb.Hello(name="again"))]),
    "a gradient that is too short": (INVALID, lambda order, mine: [part(order, mine, size=PARAMETERS - 1)]),
    "a gradient that is too long": (INVALID, lambda order, mine: [part(order, mine, size=PARAMETERS + 1)]),
    "no gradient": (INVALID, lambda order, mine: [push(order, mine, vector=None)]),
    "a repeated part": (INVALID, lambda order, mine: [part(order, mine)] * 2),
    "reordered: the sum before its gradient": (
        INVALID,
        lambda order, mine: [push(order, mine, vector=None), part(order, mine)],
    ),
    "a part beyond the vector": (INVALID, lambda order, mine: [part(order, mine, offset=1 << 18)]),
    "a part at an odd place": (INVALID, lambda order, mine: [part(order, mine, offset=3)]),
    "another's shards": (INVALID, lambda order, mine: [push(order, mine, first_shard=mine.first ^ mine.count)]),
    "shards that there are not": (INVALID, lambda order, mine: [push(order, mine, first_shard=1 << 20)]),
    "other rows than there are": (INVALID, lambda order, mine: [push(order, mine, row_count=1 << 40)]),
    "too many sums": (INVALID, lambda order, mine: [push(order, mine, sums=[1.0] * 1000)]),
    "a place in memory that is not shared": (
        INVALID,
        lambda order, mine: [push(order, mine, vector=None, place=pb.Place(segment=1, offset_bytes=1 << 40))],
    ),
}
# Late or lost messages look the same: they count nowhere.
IGNORED: dict[str, Attack] = {
    "a gradient for another job": lambda order, mine: [push(order, mine, job_id="0123456789ab")],
    "a gradient of an older generation": lambda order, mine: [push(order, mine, generation=order.generation - 1)],
    "a gradient of an older order": lambda order, mine: [push(order, mine, order=order.order - 1)],
    "a part of an order to come": lambda order, mine: [
        pb.TrainRequest(part=pb.VectorPart(order=order.order + 1, values=bytes(4), shard_count=mine.count))
    ],
    "ready a thousand times": lambda order, _: (
        [pb.TrainRequest(ready=pb.Ready(job_id=order.job_id, generation=order.generation - 1))] * 1000
    ),
    "a failure of another job": lambda order, _: [
        pb.TrainRequest(failure=pb.Failure(job_id="none", generation=order.generation, is_of_job=True))
    ],
}


FORMULAS = {
    "brackets": "(" * 9_000 + "y" + ")" * 9_000,
    "signs": "-" * 9_000 + "y",
    "a tower of powers": "**".join(["y"] * 4_000),
    "a doubled sum, again and again": "+".join(["(prediction - y)**2"] * 2_000),
    "huge numbers": "9e300**9e300**9e300 * y",
    "code": "__import__('os').system('true') or y",
    "a million names": " * ".join(f"a{number}" for number in range(100_000)),
}


def bomb(*, claimed_bytes: int, rows: int) -> bytes:
    """A short .npz file whose table of contents claims another size, and whose arrays another number of rows."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in (("features", (rows, 8)), ("target", (rows,))):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(8 * MIB))
        for member in archive.infolist():
            member.file_size = claimed_bytes or member.file_size
    return packed.getvalue()


BOMBS = {
    "one that unpacks to a petabyte": bomb(claimed_bytes=1 << 50, rows=1 << 44),
    "one that claims to unpack to little": bomb(claimed_bytes=1000, rows=1 << 17),
    "one whose arrays claim to be huge": bomb(claimed_bytes=0, rows=1 << 44),
}


def refuse_clients(client: Client, folder: Path) -> None:
    """Jobs over bombs, and jobs with formulas made to explode, are refused."""
    for name, formula in FORMULAS.items():
        job = spec(3)
        job.model.loss = formula
        with pytest.raises(InvalidJob) as caught:
            client.create_job(job)
        assert [path for path, _ in caught.value.problems] == ["model.loss"], name
    for name, content in BOMBS.items():
        (folder / "rows.npz").write_bytes(content)
        job = spec(3)
        job.data.uri = f"dataset:{client.upload(folder / 'rows.npz').sha256}"
        with pytest.raises(InvalidJob) as caught:
            client.create_job(job)
        assert [path for path, _ in caught.value.problems] == ["data.uri"], name


def test_every_message_that_breaks_the_rules_is_refused_and_the_job_ends_with_its_bits(
    attacked: Attacked, tmp_path: Path
) -> None:
    job = spec(3)
    # No shards move from who is slow: only from who is refused.
    job.training.stragglers.factor = 0
    # A stranger may claim to be of the same kind; here it needn't.
    job.training.require_identical_workers = False
    with Client(attacked.address) as client, ExitStack() as stack:
        expected = ended(client, client.create_job(job).job_id)
        before_bytes = attacked.resident_bytes
        channel = stack.enter_context(grpc.insecure_channel(attacked.address, [("grpc.enable_http_proxy", 0)]))
        stranger, generation = Worker(channel, stack), 0
        job.training.min_workers = 2
        job_id = client.create_job(job).job_id
        refuse_clients(client, tmp_path)
        attacks = [*((name, *each) for name, each in REFUSED.items())]
        attacks += [(name, grpc.StatusCode.OK, each) for name, each in IGNORED.items()]
        for name, code, attack in attacks:
            # The next is there before this one goes, so somebody always owes the first step a part.
            follower = Worker(channel, stack)
            generation = follower.take(above=generation).generation
            assignment = stranger.take(above=generation - 1)
            order = stranger.order(generation)
            first = assignment.first_shard
            mine = maximal_subtrees(first=first, stop=first + assignment.shard_count)[0]
            stranger.say(*attack(order, mine))
            if code == grpc.StatusCode.OK:
                stranger.say(pb.TrainRequest(goodbye=pb.Goodbye(reason="done")))
            assert stranger.end() == code, name
            stranger = follower
        assert client.get_job(job_id).progress.step == 0
        stranger.say(pb.TrainRequest(goodbye=pb.Goodbye(reason="done")))
        assert ended(client, job_id) == expected
        assert attacked.resident_bytes < before_bytes + 100 * MIB
