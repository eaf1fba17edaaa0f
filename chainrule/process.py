"""What the server's and the worker's process have in common: one BLAS thread, logs, and a clean end.

It imports nothing but the standard library, because `limit_blas_threads` must run before numpy is loaded.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

BLAS_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def limit_blas_threads() -> None:
    """Give BLAS one thread, so that processes on one machine don't fight for its cores. Call before numpy is loaded."""
    for variable in BLAS_THREAD_VARIABLES:
        os.environ[variable] = "1"


def start_logging(name: str) -> None:
    """Log to standard error, each line with the time and the process's name."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s {name} %(levelname)s %(message)s")


def stop_event(*, exit_with_stdin: bool) -> asyncio.Event:
    """An event that is set by SIGTERM, by SIGINT and, if asked for, by the end of standard input.

    A parent that holds the other end of standard input takes its children with it, even when it is killed."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_with_stdin:
        descriptor = sys.stdin.fileno()

        def on_input() -> None:
            if not os.read(descriptor, 4096):
                loop.remove_reader(descriptor)
                stop.set()

        loop.add_reader(descriptor, on_input)
    return stop
