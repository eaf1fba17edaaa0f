"""What a process logs to standard error: a line for each event, as text for people or as JSON for programs.

An event is a name and fields (job, step, worker), which only JSON shows, and a sentence, which both do. Whatever a peer
sent is printed with its control characters escaped: it can't begin a line of its own. It imports nothing but the
standard library and text, because the processes' entry points load it before numpy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any

from chainrule.text import one_line

log = logging.getLogger(__name__)
FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
FORMAT_VARIABLE = "CHAINRULE_LOG_FORMAT"
LEVEL_VARIABLE = "CHAINRULE_LOG_LEVEL"
# The one attribute of a log record that is ours: no field can collide with those of the standard library.
_ATTRIBUTE = "event_of_chainrule"


def log_event(name: str, **fields: str | int | float) -> dict[str, Any]:
    """The `extra` of a log record: `log.info("worker %s left", name, extra=log_event("worker_left", worker=name))`.

    Fields are the same everywhere: job (its id), step, worker (its name), data_set (its SHA-256), size_bytes."""
    return {_ATTRIBUTE: {"event": name, **fields}}


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """The options --log-format and --log-level; the environment has the defaults."""
    parser.add_argument(
        "--log-format",
        type=_one_of(FORMATS, FORMAT_VARIABLE),
        default=os.environ.get(FORMAT_VARIABLE) or "text",
        metavar="|".join(FORMATS),
        help=f"text for people, json for programs; {FORMAT_VARIABLE}",
    )
    parser.add_argument(
        "--log-level",
        type=_one_of(LEVELS, LEVEL_VARIABLE),
        default=os.environ.get(LEVEL_VARIABLE) or "info",
        metavar="|".join(LEVELS),
        help=f"what is not worth a line is left out; {LEVEL_VARIABLE}",
    )


def start_logging(process: str, *, log_format: str = "text", log_level: str = "info") -> None:
    """Log to standard error from now on, warnings and exceptions that nobody caught too.

    process: the name that every line carries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if log_format == "json" else TextLines(process))
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # A stream that a server's end cancels before gRPC has begun with it is no error; gRPC says it with a traceback.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_cancellation)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_of_thread


def write_without_lock(message: str, *, name: str) -> None:
    """Log an event from a signal handler, where the log's lock may be taken by whoever was interrupted."""
    record = logging.LogRecord("chainrule", logging.INFO, __file__, 0, message, (), None)
    record.__dict__.update(log_event(name))
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None and logging.getLogger().isEnabledFor(logging.INFO):
            os.write(sys.stderr.fileno(), (handler.formatter.format(record) + "\n").encode(errors="backslashreplace"))


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    uncaught = (kind, error, traceback)
    log.error("an exception that nobody caught ends the process", exc_info=uncaught, extra=log_event("uncaught"))


def _log_uncaught_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
        name = "unknown" if arguments.thread is None else arguments.thread.name
        uncaught = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
        message = "an exception that nobody caught ends thread %s"
        log.error(message, name, exc_info=uncaught, extra=log_event("uncaught"))


class TextLines(logging.Formatter):
    """`2026-03-01 12:00:00,250 server INFO worker w-1 left`; the lines of a traceback follow, indented."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = one_line(process)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and those of its traceback."""
        line = f"{self.formatTime(record)} {self._process} {record.levelname} {one_line(record.getMessage())}"
        # No line of an exception's own text may look like an event's.
        return "\n    ".join([line, *(one_line(each) for each in self._traceback(record).splitlines())])

    def _traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonLines(TextLines):
    """One object a line: time (UTC), level, process, logger, the event and its fields if any, message, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The object. JSON escapes what could end the line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            **getattr(record, _ATTRIBUTE, {}),
            "message": record.getMessage(),
        }
        if record.exc_info:
            found["traceback"] = self._traceback(record)
        # ASCII: also U+2028 and the like, which some readers take for a line's end.
        return json.dumps(found, ensure_ascii=True, default=str)


def _one_of(names: tuple[str, ...], variable: str) -> Any:
    """A type of argparse: its `choices` wouldn't look at what comes from the environment."""

    def checked(value: str) -> str:
        if value.lower() not in names:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(names)}, got {value[:40]!r} (also {variable})")
        return value.lower()

    return checked
