"""`python -P -m chainrule_worker --server HOST:PORT`: a worker as a process."""

from __future__ import annotations

from chainrule.process.lifecycle import limit_blas_threads
from chainrule.process.memory_tuning import keep_freed_memory

limit_blas_threads()
keep_freed_memory()

import argparse
import logging
import os
import socket
import sys

from chainrule.errors import CredentialsError
from chainrule.process.lifecycle import Stopped, StopSignal
from chainrule.process.logs import add_log_options, log_event, start_logging
from chainrule.security.credentials import Credentials
from chainrule.security.expiry import keep_telling_of_expiry
from chainrule_worker.session import TRANSPORTS, Refused, ServerGone, Session
from chainrule_worker.status_file import StatusFileError

log = logging.getLogger("worker")


def main() -> int:
    """Work until SIGTERM, SIGINT or, with --exit-with-stdin, the end of standard input; return the exit code."""
    parser = argparse.ArgumentParser(prog="chainrule worker")
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="or unix:PATH")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}")
    parser.add_argument("--connect-timeout-s", type=float, default=60.0, help="how long the server may be away")
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default="auto",
        help="auto: share memory with a server on this machine, and otherwise use gRPC alone",
    )
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input or our parent ends")
    add_log_options(parser)
    arguments = parser.parse_args()
    if not arguments.server.startswith("unix:") and not arguments.server.rpartition(":")[2].isdigit():
        parser.error(f"--server must be HOST:PORT or unix:PATH, got {arguments.server!r}")
    if arguments.connect_timeout_s <= 0:
        parser.error(f"--connect-timeout-s must be above 0, got {arguments.connect_timeout_s:g}")
    start_logging(arguments.name, log_format=arguments.log_format, log_level=arguments.log_level)
    stop = StopSignal(exit_with_stdin=arguments.exit_with_stdin)
    try:
        credentials = Credentials.from_environment(os.environ)
        if credentials.tls is not None:
            tls = credentials.tls
            keep_telling_of_expiry("this worker's", certificate=tls.certificate, authority=tls.ca)
        Session(
            arguments.server,
            arguments.name,
            arguments.connect_timeout_s,
            stop,
            arguments.transport,
            credentials,
        ).run()
    except (CredentialsError, StatusFileError, ServerGone, Refused) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except Stopped:
        log.info("stopping", extra=log_event("stopping"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
