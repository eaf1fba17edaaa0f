"""Shared memory and gRPC: the same bits by either, whoever is killed, stopped or cut off on the way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.holding.link_offers import LinkOffers
from chainrule.local.cluster import LocalCluster
from chainrule.transport.local_link.listener import Listener
from chainrule.transport.local_link.segment import Segment, SegmentError
from chainrule.v1 import job_pb2
from chainrule_server.api.grpc_server import make_server
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.uploads import Uploads
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.row_file import RowFolder
from tests.cluster.jobs import Reference, disturbed, finished, large, last, small
from tests.cluster.support import TIMEOUT_S, Processes, wait_for

pytestmark = pytest.mark.cluster
TRANSPORTS = ["grpc", "auto"]
SHOWN = {"grpc": "grpc", "auto": "shared-memory"}


def with_adam(spec: job_pb2.JobSpec) -> None:
    spec.training.optimizer.name = "adam"


def with_clipping(spec: job_pb2.JobSpec) -> None:
    spec.training.clipping.global_norm = 0.05


def with_early_stopping(spec: job_pb2.JobSpec) -> None:
    """It stops with the second epoch, because the first is the best by definition."""
    spec.training.epochs = 6
    spec.training.early_stopping.patience_epochs = 1
    spec.training.early_stopping.min_delta = 1e6


def as_it_is(spec: job_pb2.JobSpec) -> None:
    """Plain SGD."""


RECIPES = [as_it_is, with_adam, with_clipping, with_early_stopping]


def every_job() -> list[job_pb2.JobSpec]:
    found = []
    for base in (small, large):
        for recipe in RECIPES:
            spec = base()
            recipe(spec)
            found.append(spec)
    return found


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_small_and_large_models_have_the_bits_of_one_process(
    workers: int, transport: str, marker: str, data_root: Path, reference: Reference
) -> None:
    with (
        LocalCluster(workers=workers, data_root=data_root, transport=transport) as cluster,
        Client(cluster.address, credentials=cluster.credentials) as client,
    ):
        for spec in every_job():
            spec.training.min_workers = workers
            job = finished(client, spec)
            what = f"{spec.name} with {spec.training}"
            assert job.progress.transport == SHOWN[transport], what
            spec.training.ClearField("min_workers")
            assert job.result.parameters_sha256 == reference(spec), what
            assert bool(job.progress.step_cost.pushed_bytes) == (transport == "grpc"), what


def test_early_stopping_takes_back_other_parameters_than_the_last(reference: Reference) -> None:
    for base in (small, large):
        early, short = base(), base()
        with_early_stopping(early)
        short.training.epochs = 1
        assert reference(early) == reference(short)
        short.training.epochs = 2
        assert reference(early) != reference(short)


def test_transports_may_be_mixed_in_one_job(processes: Processes, reference: Reference) -> None:
    order = ("auto", "grpc", "auto")
    address = processes.server()
    for number, transport in enumerate(order):
        processes.worker(f"w{number}", address, "--transport", transport)
    with Client(address) as client:
        for spec in every_job():
            expected = reference(spec)
            spec.training.min_workers = len(order)
            job = finished(client, spec)
            assert job.progress.transport == "mixed"
            assert job.result.parameters_sha256 == expected, spec.name


@pytest.mark.parametrize(("transport", "base"), [("grpc", large), ("auto", small), ("auto", large)])
def test_a_killed_and_a_stopped_worker_change_no_bit(
    transport: str, base: Callable[[], job_pb2.JobSpec], processes: Processes, reference: Reference
) -> None:
    address = processes.server()
    for name in ("killed", "stopped"):
        processes.worker(name, address, "--transport", transport)
    spec = disturbed(base)
    with Client(address) as client:
        wait_for(lambda: processes.joined("killed", 1) and processes.joined("stopped", 1))
        job_id = client.create_job(spec).job_id
        wait_for(lambda: client.get_job(job_id).progress.step >= 3)
        processes.started["stopped"].send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        processes.started["killed"].kill()
        time.sleep(0.1)
        processes.started["stopped"].send_signal(signal.SIGCONT)
        processes.worker("late", address, "--transport", transport)
        job = last(client, job_id)
    assert job.result.parameters_sha256 == reference(spec)
    assert "worker killed left" in processes.log("server")


@pytest.mark.parametrize("transport", ["grpc", "shared-memory"])
def test_workers_of_a_killed_server_join_the_next_one(
    transport: str, processes: Processes, reference: Reference
) -> None:
    address = processes.server()
    workers = [processes.worker(name, address, "--transport", transport) for name in ("a", "b")]
    with Client(address) as client:
        wait_for(lambda: processes.joined("a", 1) and processes.joined("b", 1))
        job_id = client.create_job(disturbed(large)).job_id
        wait_for(lambda: client.get_job(job_id).progress.step >= 2)
    with processes.started.pop("server") as server:
        server.kill()
    killed_s = time.monotonic()
    processes.server(port=int(address.rpartition(":")[2]), name="next")
    wait_for(lambda: processes.joined("a", 1, server="next") and processes.joined("b", 1, server="next"))
    print(f"{transport}: workers were back {time.monotonic() - killed_s:.2f} s after the kill")  # noqa: T201
    assert all(worker.poll() is None for worker in workers)
    with Client(address) as client:
        spec = small()
        spec.training.min_workers = 2
        job = finished(client, spec)
        spec.training.ClearField("min_workers")
        assert job.result.parameters_sha256 == reference(spec)
        assert job.progress.transport == ("grpc" if transport == "grpc" else "shared-memory")


def test_shared_memory_that_the_server_does_not_offer_is_a_clear_error(processes: Processes) -> None:
    address = processes.server("--transport", "grpc")
    worker = processes.worker("strict", address, "--transport", "shared-memory")
    assert worker.wait(TIMEOUT_S) == 1
    assert (
        f"error: memory can't be shared with the server at {address}: the server offers none; use --transport auto"
        in processes.log("strict")
    )


def test_a_server_that_shares_no_memory_serves_workers_that_would(processes: Processes, reference: Reference) -> None:
    address = processes.server("--transport", "grpc")
    processes.worker("w", address)
    with Client(address) as client:
        job = finished(client, large())
    assert job.progress.transport == "grpc"
    assert job.result.parameters_sha256 == reference(large())


@pytest.mark.parametrize(("transport", "number"), [("grpc", signal.SIGTERM), ("auto", signal.SIGINT)])
def test_a_worker_ends_at_a_signal_while_it_waits_and_while_it_computes(
    number: signal.Signals, transport: str, processes: Processes, reference: Reference
) -> None:
    address = processes.server()
    waiting, computing, _ = (
        processes.worker(name, address, "--transport", transport) for name in ("waits", "computes", "stays")
    )
    wait_for(lambda: all(processes.joined(name, 1) for name in ("waits", "computes", "stays")))
    waiting.send_signal(number)
    assert waiting.wait(60) == 0
    spec = disturbed(large)
    with Client(address) as client:
        job_id = client.create_job(spec).job_id
        wait_for(lambda: client.get_job(job_id).progress.step >= 2)
        computing.send_signal(number)
        assert computing.wait(60) == 0
        job = last(client, job_id)
    assert job.result.parameters_sha256 == reference(spec)
    assert "stopping" in processes.log("waits")
    assert "stopping" in processes.log("computes")


# A server in this process, whose memory a test can take away.


@contextlib.contextmanager
def server_here(folder: Path, data_root: Path) -> Iterator[tuple[str, Scheduler, asyncio.AbstractEventLoop]]:
    """A whole server on an event loop in a thread: its address, its scheduler, its loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server")
    thread.start()
    numbers = iter(range(1, 1000))

    async def start() -> tuple[Scheduler, LinkOffers, object, int]:
        data_sets = DataSetStore(folder / "datasets")
        preparing = functools.partial(prepare, data_root=data_root, data_sets=data_sets)
        archive = Archive(folder, prepare=functools.partial(preparing, row_folder=RowFolder(folder / "rows")))
        scheduler = Scheduler(JobRegistry(lambda: f"{next(numbers):012x}"[::-1]), archive, share_memory=True)
        links = LinkOffers(Listener())
        uploads = Uploads(folder / "uploads", data_sets)
        server, _ = await make_server(scheduler, uploads, link_offers=links)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return scheduler, links, server, port

    def call(coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(TIMEOUT_S)  # type: ignore[arg-type]

    scheduler, links, server, port = call(start())  # type: ignore[misc]
    try:
        yield f"127.0.0.1:{port}", scheduler, loop
    finally:

        async def stop() -> None:
            scheduler.workers.close()
            links.close()
            await server.stop(0.5)
            await scheduler.archive.journal.close()
            scheduler.archive.journal.store.close()

        call(stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("base", [small, large])
@pytest.mark.parametrize("lacking", ["chainrule-gradients", "chainrule-parameters"])
def test_without_room_for_shared_memory_the_job_goes_over_grpc_with_the_same_bits(
    lacking: str,
    base: Callable[[], job_pb2.JobSpec],
    processes: Processes,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = Segment.create

    def refuse(size_bytes: int, *, name: str) -> Segment:
        if name == lacking:
            raise SegmentError("no room")
        return create(size_bytes, name=name)

    with server_here(processes.folder, processes.data_root) as (address, _, _), Client(address) as client:
        for name in ("a", "b"):
            processes.worker(name, address)
        monkeypatch.setattr(Segment, "create", refuse)
        spec = base()
        spec.training.min_workers = 2
        job = finished(client, spec)
        spec.training.ClearField("min_workers")
        assert job.progress.transport == "grpc"
        assert job.result.parameters_sha256 == reference(spec)
        assert "goes on" not in processes.log("a")
        assert "memory is shared no longer" in processes.log("a")
        processes.end()


@pytest.mark.parametrize("base", [small, large])
def test_a_worker_whose_local_link_is_closed_goes_on_over_grpc_with_the_same_bits(
    base: Callable[[], job_pb2.JobSpec], processes: Processes, reference: Reference
) -> None:
    with server_here(processes.folder, processes.data_root) as (address, scheduler, loop), Client(address) as client:
        for name in ("a", "b"):
            processes.worker(name, address)
        spec = disturbed(base)
        job_id = client.create_job(spec).job_id
        wait_for(lambda: client.get_job(job_id).progress.step >= 3)
        assert client.get_job(job_id).progress.transport == "shared-memory"
        link = scheduler.workers.links["a"]
        loop.call_soon_threadsafe(link._fail, "the test has closed it")  # type: ignore[union-attr]
        wait_for(lambda: client.get_job(job_id).progress.transport == "mixed")
        job = last(client, job_id)
        assert job.result.parameters_sha256 == reference(spec)
        processes.end()


def test_a_worker_that_must_share_memory_ends_when_it_no_longer_can(processes: Processes) -> None:
    with server_here(processes.folder, processes.data_root) as (address, scheduler, loop):
        worker = processes.worker("a", address, "--transport", "shared-memory")
        wait_for(lambda: scheduler.workers.links.get("a") is not None)
        loop.call_soon_threadsafe(scheduler.workers.links["a"]._fail, "the test has closed it")  # type: ignore[union-attr]
        assert worker.wait(TIMEOUT_S) == 1
        assert f"error: memory is shared with the server at {address} no longer" in processes.log("a")
        assert "use --transport auto" in processes.log("a")
