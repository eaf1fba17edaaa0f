"""The asyncio client, against a small server in the same process and a cluster of real processes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

import chainrule
from chainrule import aio
from chainrule.v1 import job_pb2
from tests.chainrule.conftest import FakeServer

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
RUNNING = job_pb2.JOB_STATE_RUNNING
TIMEOUT_S = 120.0
TOKEN = "0123456789abcdef-token"  # noqa: S105


def with_client(fake: FakeServer, use: Callable[[aio.Connection], Awaitable[None]], **keywords: Any) -> None:
    """Run `use` with a connection to the server, in a loop of its own."""

    async def run() -> None:
        async with asyncio.timeout(TIMEOUT_S), aio.connect(fake.address, **keywords) as client:
            await use(client)

    asyncio.run(run())


@pytest.mark.timeout(300)
def test_jobs_of_a_real_cluster_are_watched_at_once_in_one_loop(tmp_path: Path) -> None:
    async def steps_of(job: aio.Job) -> list[int]:
        return [message.progress.step async for message in job.watch(timeout_s=TIMEOUT_S)]

    async def use(cluster: chainrule.LocalCluster) -> None:
        async with aio.connect(cluster.address, credentials=cluster.credentials) as client:
            first, second, third = [
                await client.submit(EXAMPLES / "two_layer.toml", epochs=epochs, name=f"epochs-{epochs}")
                for epochs in (2, 3, 4)
            ]
            steps = await asyncio.gather(*(steps_of(job) for job in (first, second, third)))
            assert [job.state for job in (first, second, third)] == ["SUCCEEDED"] * 3
            assert 0 < steps[0][-1] < steps[1][-1] < steps[2][-1]
            assert all(told == sorted(told) for told in steps)
            assert await first.wait() is first
            assert {job.id for job in await client.jobs(states=["succeeded"])} == {first.id, second.id, third.id}
            assert (await (await client.job(second.id[:6])).refresh()).name == "epochs-3"
            assert len(await client.list_workers()) == 1

            metrics, blocking = await third.metrics(), cluster.job(third.id)
            np.testing.assert_array_equal(metrics["loss"], blocking.metrics["loss"])
            model = await third.model()
            rows = np.random.default_rng(0).standard_normal((5, 10)) / 20
            np.testing.assert_array_equal(await model.predict(rows), blocking.model().predict(rows))
            np.testing.assert_array_equal(await model.outputs(rows), blocking.model().outputs(rows))
            assert str(await model.explain(0)) == str(blocking.model().explain(0))
            files = [await model.save(tmp_path / "a"), blocking.model().save(tmp_path / "b")]
            assert len({hashlib.sha256(path.read_bytes()).digest() for path in files}) == 1

            await first.delete()
            with pytest.raises(chainrule.JobNotFound):
                await first.refresh()
            with pytest.raises(chainrule.PreconditionFailed):
                await second.pause()
            with pytest.raises(chainrule.InvalidJob) as refused:
                await client.submit(EXAMPLES / "two_layer.toml", batch_size=63)
            assert [path for path, _ in refused.value.problems] == ["training.batch_size"]

            long = await client.submit(EXAMPLES / "two_layer.toml", epochs=1_000_000)
            assert (await long.pause()).state == "PAUSED"
            assert (await long.resume()).state != "PAUSED"
            await long.cancel()
            with pytest.raises(chainrule.JobCancelled):
                await long.wait(timeout_s=TIMEOUT_S)

    with chainrule.LocalCluster(workers=1) as cluster:
        asyncio.run(use(cluster))


@pytest.mark.parametrize("token", [None, TOKEN])
def test_statuses_are_the_typed_errors_of_the_blocking_client(fake_server: FakeServer, token: str | None) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="training.epochs", description="must be positive")
    fake_server.fail(
        grpc.StatusCode.INVALID_ARGUMENT, "wrong", error_details_pb2.BadRequest(field_violations=[violation])
    )

    async def use(client: aio.Connection) -> None:
        with pytest.raises(chainrule.InvalidJob) as error:
            await client.submit(name="one")
        assert error.value.problems == [("training.epochs", "must be positive")]
        # Of a stream too.
        with pytest.raises(chainrule.InvalidJob):
            await client.read_metrics("abcd")

    with_client(fake_server, use, token=token)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_task_that_is_cancelled_cancels_its_call(fake_server: FakeServer, token: str | None) -> None:
    fake_server.states, fake_server.hangs = [RUNNING], True

    async def use(client: aio.Connection) -> None:
        job = await client.job("abcd")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job.wait(), 0.3)
        async for _ in job.watch():
            break
        # The connection is still there: the calls themselves were ended.
        while fake_server.ended < 2:
            await asyncio.sleep(0.02)

    with_client(fake_server, use, token=token)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_who_waits_while_the_connection_is_closed_is_told_so(fake_server: FakeServer, token: str | None) -> None:
    fake_server.states, fake_server.hangs = [RUNNING], True

    async def use(client: aio.Connection) -> None:
        job = await client.job("abcd")
        told = asyncio.Event()

        async def watch() -> None:
            async for _ in job.watch():
                told.set()

        watching = asyncio.create_task(watch())
        await told.wait()
        await client.close()
        with pytest.raises(chainrule.ServerUnavailable, match="closed"):
            await watching
        with pytest.raises(chainrule.ServerUnavailable, match="closed"):
            await job.refresh()

    with_client(fake_server, use, token=token)


def test_a_connection_outside_of_a_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="connect inside of a coroutine"):
        aio.connect()
