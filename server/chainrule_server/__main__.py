"""`python -P -m chainrule_server`: the parameter server as a process.

When it listens, it prints one line of JSON on standard output: {"address": "127.0.0.1:50051"}, with --metrics-port
"metrics_address" too.
"""

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads
from chainrule.process.memory_tuning import keep_freed_memory

limit_blas_threads()
keep_freed_memory()

import argparse
import asyncio
import functools
import json
import logging
import math
import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from chainrule.errors import CredentialsError
from chainrule.holding.lease import DEFAULT_LEASE_S
from chainrule.holding.link_offers import LinkOffers
from chainrule.process.lifecycle import available_processors, stop_event
from chainrule.process.logs import add_log_options, log_event, start_logging
from chainrule.security.expiry import keep_telling_of_expiry
from chainrule.security.tokens import TokenError
from chainrule.transport.local_link.listener import CannotShare, Listener, why_unsupported
from chainrule_server.access.connection_limits import raise_descriptor_limit
from chainrule_server.access.listening import CannotListen, listen, listen_on_socket
from chainrule_server.access.protection import add_protection_options, protection_of
from chainrule_server.api.grpc_server import make_server
from chainrule_server.data.data_root import default_data_root
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.memory_budget import MemoryBudget
from chainrule_server.data.object_storage import ObjectStorage, allowed_prefixes, default_prefixes
from chainrule_server.data.uploads import Uploads
from chainrule_server.jobs.archive import Archive
from chainrule_server.jobs.registry import JobRegistry
from chainrule_server.jobs.scheduler import Scheduler
from chainrule_server.limits import add_limit_options, limits_of
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.row_file import RowFolder
from chainrule_server.storage.checkpoint_folder import KEPT_LAST
from chainrule_server.storage.home import Home, HomeError
from chainrule_server.storage.journal import Journal
from chainrule_server.storage.store import Store, StoreError
from chainrule_server.workers.pool import WorkerPool
from chainrule_server.workers.registry import WorkerRegistry

if TYPE_CHECKING:
    from chainrule_server.monitoring.metrics_endpoint import MetricsEndpoint

log = logging.getLogger("server")
GRACE_S = 2.0
CLEANING_INTERVAL_S = 3600.0
# More threads than this only wait for memory.
MAX_UPDATE_THREADS = 4


def main() -> int:
    """Run until SIGTERM, SIGINT or, with --exit-with-stdin, the end of standard input; return the exit code."""
    parser = argparse.ArgumentParser(prog="chainrule server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=50051, help="0 takes a free one")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="listen on this Unix socket too")
    add_protection_options(parser)
    parser.add_argument("--home", type=Path, default=os.environ.get("CHAINRULE_HOME") or Path.home() / ".chainrule")
    parser.add_argument("--data-root", type=Path, default=default_data_root(), help="what jobs' file: URIs may read")
    parser.add_argument(
        "--allow-object-storage",
        action="append",
        default=default_prefixes(),
        metavar="PREFIX",
        help="let jobs read below s3://BUCKET/ or gs://BUCKET/FOLDER/; may be repeated",
    )
    parser.add_argument(
        "--checkpoint-every-s",
        type=float,
        default=30.0,
        help="seconds between two checkpoints of a job; 0: only those that a job asks for",
    )
    parser.add_argument(
        "--keep-checkpoints",
        type=int,
        default=KEPT_LAST,
        help="the last checkpoints of a job that are kept, besides the best, until it ends",
    )
    parser.add_argument(
        "--keep-jobs",
        type=int,
        help="so many jobs that have ended are kept; older ones are forgotten, with events, model and checkpoints",
    )
    parser.add_argument(
        "--transport", choices=["auto", "grpc"], default="auto", help="grpc: share memory with no worker"
    )
    parser.add_argument(
        "--lease-s", type=float, default=DEFAULT_LEASE_S, help="seconds after which a silent worker loses its shards"
    )
    parser.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="answer Prometheus at this port; 0 takes a free one"
    )
    parser.add_argument(
        "--metrics-host", default="127.0.0.1", metavar="HOST", help="whoever reaches it may read the metrics"
    )
    parser.add_argument(
        "--local-link",
        type=Path,
        metavar="PATH",
        help="a Unix socket by which workers in other containers share memory, too; without it only in this one",
    )
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input or our parent ends")
    add_limit_options(parser)
    add_log_options(parser)
    arguments = parser.parse_args()
    start_logging("server", log_format=arguments.log_format, log_level=arguments.log_level)
    if not 0 <= arguments.port <= 65535:
        parser.error(f"--port must be from 0 to 65535, got {arguments.port}")
    if arguments.metrics_port is not None and not 0 <= arguments.metrics_port <= 65535:
        parser.error(f"--metrics-port must be from 0 to 65535, got {arguments.metrics_port}")
    if not 0 <= arguments.checkpoint_every_s < math.inf:
        parser.error(f"--checkpoint-every-s must be at least 0, got {arguments.checkpoint_every_s:g}")
    for option, count in (("--keep-checkpoints", arguments.keep_checkpoints), ("--keep-jobs", arguments.keep_jobs)):
        if count is not None and count < 1:
            parser.error(f"{option} must be at least 1, got {count}")
    if not 0.5 <= arguments.lease_s <= 3600:
        parser.error(f"--lease-s must be from 0.5 to 3600, got {arguments.lease_s:g}")
    try:
        arguments.limits = limits_of(arguments)
    except ValueError as error:
        parser.error(str(error))
    try:
        arguments.allow_object_storage = allowed_prefixes(arguments.allow_object_storage)
    except ValueError as error:
        parser.error(f"--allow-object-storage {error}")
    if arguments.local_link is not None and arguments.transport == "grpc":
        parser.error("--local-link shares memory, and --transport grpc shares none; leave one of them away")
    if arguments.data_root is not None and not arguments.data_root.is_dir():
        return _refuse(f"--data-root: there is no folder {arguments.data_root}; make it or name another")
    return asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    raise_descriptor_limit()
    # Whatever this process writes is its user's alone: data sets and models lie in its home.
    os.umask(0o077)
    stop = stop_event(exit_with_stdin=arguments.exit_with_stdin)
    try:
        certificate, authentication = protection_of(arguments)
        home = Home(arguments.home)
        store = Store(home.database)
        data_sets = DataSetStore(home.data_sets)
        object_storage = ObjectStorage(arguments.allow_object_storage, home.uploads)
        uploads = Uploads(home.uploads, data_sets, max_bytes=arguments.limits.max_data_set_bytes)
    except OSError as error:
        return _refuse(f"the folder {arguments.home} can't be used: {error.strerror}; choose another --home")
    except (CannotListen, CredentialsError, TokenError, HomeError, StoreError) as error:
        return _refuse(str(error))
    try:
        link_offers = _link_offers(arguments.local_link) if arguments.transport == "auto" else None
    except CannotShare as error:
        return _refuse(str(error))
    thread_count = min(MAX_UPDATE_THREADS, available_processors())
    pool = ThreadPoolExecutor(thread_count - 1, thread_name_prefix="update") if thread_count > 1 else None
    scheduler = Scheduler(
        JobRegistry(lambda: secrets.token_hex(6)),
        Archive(
            home.models,
            home.checkpoints,
            arguments.checkpoint_every_s,
            Journal(store),
            functools.partial(
                prepare,
                data_root=arguments.data_root,
                data_sets=data_sets,
                object_storage=object_storage,
                row_folder=RowFolder(home.rows),
                memory=MemoryBudget(arguments.limits.max_preparation_bytes),
            ),
            kept_checkpoints=arguments.keep_checkpoints,
        ),
        share_memory=link_offers is not None,
        thread_count=thread_count,
        pool=pool,
        workers=WorkerPool(registry=WorkerRegistry(arguments.lease_s)),
        kept_jobs=arguments.keep_jobs,
        limits=arguments.limits,
    )
    metrics = None if arguments.metrics_port is None else _metrics_endpoint()
    interceptors: list[grpc.aio.ServerInterceptor] = [] if metrics is None else [metrics.rpcs]
    if authentication is not None:
        interceptors.append(authentication)
    server, health = await make_server(
        scheduler,
        uploads,
        link_offers=link_offers,
        interceptors=interceptors,
    )
    try:
        address = listen(server, arguments.host, arguments.port, certificate)
        if arguments.socket is not None:
            listen_on_socket(server, arguments.socket)
    except CannotListen as error:
        return _refuse(str(error))
    addresses = {"address": address}
    if metrics is not None:
        try:
            addresses["metrics_address"] = metrics.start(
                scheduler, host=arguments.metrics_host, port=arguments.metrics_port
            )
        except OSError as error:
            where = f"{arguments.metrics_host}:{arguments.metrics_port}"
            return _refuse(f"--metrics-port: {where} can't be listened on ({error.strerror}); choose another")
    try:
        scheduler.restore()
    except StoreError as error:
        return _refuse(str(error))
    await server.start()
    print(json.dumps(addresses), flush=True)  # noqa: T201 - the answer to whoever started us
    how = "in the clear" if certificate is None else "with TLS"
    log.info("listening on %s %s, home %s", address, how, arguments.home, extra=log_event("listening"))
    tasks = [asyncio.create_task(_drop_abandoned(uploads))]
    if certificate is not None:
        files = certificate.files
        keep_telling_of_expiry("the server's", certificate=files.certificate, authority=files.client_ca)
    await stop.wait()
    log.info("stopping", extra=log_event("stopping"))
    for task in tasks:
        task.cancel()
    await health.enter_graceful_shutdown()
    await scheduler.stop()
    scheduler.workers.close()
    if link_offers is not None:
        link_offers.close()
    await server.stop(GRACE_S)
    if metrics is not None:
        await asyncio.to_thread(metrics.close)
    await scheduler.archive.journal.close()
    store.close()
    home.close()
    return 0


def _metrics_endpoint() -> MetricsEndpoint:
    # Loading prometheus-client takes a tenth of a second.
    from chainrule_server.monitoring.metrics_endpoint import MetricsEndpoint

    return MetricsEndpoint()


async def _drop_abandoned(uploads: Uploads) -> None:
    """Look for uploads that nobody goes on with, now and then, for as long as the server lives."""
    while True:
        await asyncio.sleep(CLEANING_INTERVAL_S)
        await asyncio.to_thread(uploads.remove_abandoned)


def _link_offers(path: Path | None) -> LinkOffers | None:
    """What shares memory with workers; None where it can't be. Raises CannotShare where a path was asked for."""
    reason = why_unsupported()
    try:
        if reason is None:
            return LinkOffers(Listener(path))
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    if path is not None:
        raise CannotShare(f"--local-link: {path} can't be listened on: {reason}; name another path")
    log.warning("memory is shared with no worker: %s", reason, extra=log_event("no_shared_memory"))
    return None


def _refuse(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
