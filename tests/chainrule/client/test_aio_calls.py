"""The asyncio client has every call of the blocking one, and they answer the same."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import chainrule
from chainrule import aio
from chainrule.client.blocking import connection, job, model
from chainrule.v1 import data_service_pb2
from tests.server.in_process import RunningServer, add_data_sets, prepared, regression_spec, running_server

TIMEOUT_S = 120.0
PAIRS = [(connection.Connection, aio.Connection), (job.Job, aio.Job), (model.Model, aio.Model)]
# What isn't the same there, and why.
DIFFERENT = {
    "wait": "a bar would be drawn by the loop's own thread, between other tasks: no `progress`",
    "metrics": "a property can't be awaited under its name",
}


def public(kind: type) -> dict[str, Any]:
    """The public attributes of a class, with those of its bases."""
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_method_has_a_counterpart_with_the_same_arguments(blocking: type, awaited: type) -> None:
    one, other = public(blocking), public(awaited)
    assert one.keys() == other.keys()
    for name, attribute in one.items():
        if name in DIFFERENT or isinstance(attribute, property) or attribute is other[name]:
            continue
        assert list(inspect.signature(attribute).parameters.values()) == list(
            inspect.signature(other[name]).parameters.values()
        ), name
        waits = inspect.iscoroutinefunction(other[name]) or inspect.isasyncgenfunction(other[name])
        assert waits, f"{name} would hold up the loop"


def asked(server: RunningServer, use: Callable[[aio.Connection, chainrule.Client], Awaitable[None]]) -> None:
    """Run `use` with both clients of the server."""

    async def run() -> None:
        credentials = chainrule.Credentials()
        async with asyncio.timeout(TIMEOUT_S), aio.connect(server.address, credentials=credentials) as client:
            with chainrule.Client(server.address, credentials=credentials) as blocking:
                await use(client, blocking)

    asyncio.run(run())


def test_what_is_asked_of_a_job_is_answered_as_to_the_blocking_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_data_sets(monkeypatch)
    spec = regression_spec()
    with running_server(tmp_path / "home") as server:
        job_id = server.add_finished(prepared(spec)).job_id

        async def use(client: aio.Connection, blocking: chainrule.Client) -> None:
            assert await client.health() == blocking.health()
            assert await client.list_checkpoints(job_id) == blocking.list_checkpoints(job_id)
            assert await client.read_trace(job_id) == blocking.read_trace(job_id)
            assert await client.explain(job_id, row=2) == blocking.explain(job_id, row=2)
            assert await client.explain_reduction(job_id) == blocking.explain_reduction(job_id)
            assert await client.validate_job(spec) == blocking.validate_job(spec)
            assert [each.state async for each in client.watch_job(job_id)] == [
                each.state for each in blocking.watch_job(job_id)
            ]
            last = await client.download_model(job_id, tmp_path / "last", version="last")
            assert last.read_bytes() == blocking.download_model(job_id, tmp_path / "own").read_bytes()
            with pytest.raises(chainrule.JobNotFound):
                await client.download_model(job_id, tmp_path / "none", version=10**9)
            with pytest.raises(chainrule.JobNotFound):
                await client.report_worker_end("nobody", "exit code 1")

        asked(server, use)


def test_a_file_is_uploaded_in_parts_listed_and_deleted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,target\n" + "123456789,1\n" * 300_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    told: list[tuple[str, int]] = []

    async def use(client: aio.Connection, blocking: chainrule.Client) -> None:
        data_set = await client.upload(path, told=lambda what, done, _: told.append((what, done)))
        assert (data_set.sha256, data_set.size_bytes) == (sha256, path.stat().st_size)
        assert (await client.upload(path, name="again.csv")).names == ["rows.csv", "again.csv"]
        assert await client.list_data_sets(name_prefix="again") == blocking.list_data_sets()
        assert await client.get_data_set("rows.csv") == blocking.get_data_set(sha256[:8])
        assert await client.delete_data_set("rows.csv") == sha256
        with pytest.raises(chainrule.JobNotFound):
            await client.get_data_set("rows.csv")
        for wrong, said in ((tmp_path / "gone.csv", "can't be read"), (tmp_path, "can't be read|no file")):
            with pytest.raises(chainrule.DataFileError, match=said):
                await client.upload(wrong)
        (tmp_path / "rows.txt").write_text("a")
        with pytest.raises(chainrule.InvalidJob):
            await client.upload(tmp_path / "rows.txt")

    with running_server(tmp_path / "home") as server:
        asked(server, use)
    parts = [done for what, done in told if what == "uploading"]
    assert len(parts) > 2
    assert parts == sorted(parts)
    assert told[-1] == ("checking", path.stat().st_size)


def test_an_upload_outlives_a_lost_connection_and_gives_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,target\n1,1\n")
    failures = {"left": 2}

    async def use(client: aio.Connection, _: chainrule.Client) -> None:
        ask = client._ask

        async def broken(method: Any, request: Any, timeout_s: float | None = None) -> Any:
            if isinstance(request, data_service_pb2.FinishUploadRequest) and failures["left"]:
                failures["left"] -= 1
                raise chainrule.ServerUnavailable("the server went away")
            return await ask(method, request, timeout_s)

        monkeypatch.setattr(client, "_ask", broken)
        assert (await client.upload(path)).names == ["rows.csv"]
        assert failures["left"] == 0
        failures["left"] = 10**9
        await client.delete_data_set("rows.csv")
        with pytest.raises(chainrule.ServerUnavailable, match="went away"):
            await client.upload(path, reconnect_timeout_s=0.3)

    with running_server(tmp_path / "home") as server:
        asked(server, use)
