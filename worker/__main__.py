"""`python -P -m worker --server HOST:PORT`: a worker as a process."""

from __future__ import annotations

from chainrule.process import limit_blas_threads

limit_blas_threads()

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys

from chainrule.process import start_logging, stop_event
from worker.session import Refused, ServerGone, Session

log = logging.getLogger("worker")


def main() -> int:
    """Work until SIGTERM, SIGINT or, with --exit-with-stdin, the end of standard input; return the exit code."""
    parser = argparse.ArgumentParser(prog="chainrule worker")
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}")
    parser.add_argument("--connect-timeout-s", type=float, default=60.0, help="how long the server may be away")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    if not arguments.server.rpartition(":")[2].isdigit():
        parser.error(f"--server must be HOST:PORT, got {arguments.server!r}")
    if arguments.connect_timeout_s <= 0:
        parser.error(f"--connect-timeout-s must be above 0, got {arguments.connect_timeout_s:g}")
    start_logging(arguments.name)
    return asyncio.run(_work(arguments))


async def _work(arguments: argparse.Namespace) -> int:
    stop = stop_event(exit_with_stdin=arguments.exit_with_stdin)
    session = asyncio.create_task(Session(arguments.server, arguments.name, arguments.connect_timeout_s).run())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({session, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if session.done():
        stopped.cancel()
        try:
            session.result()
        except (ServerGone, Refused) as error:
            sys.stderr.write(f"error: {error}\n")
        return 1
    log.info("stopping")
    session.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await session
    return 0


if __name__ == "__main__":
    sys.exit(main())
