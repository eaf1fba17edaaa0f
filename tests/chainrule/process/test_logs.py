"""What a log line holds, and what nobody can put into it."""

from __future__ import annotations

import argparse
import ast
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chainrule.process.logs import JsonLines, TextLines, add_log_options, log_event

ROOT = Path(__file__).resolve().parents[3]
FORGED = "gone\n2026-03-01 12:00:00,000 server INFO job 1 succeeded\r\x1b[2K\u2028\x85ever"
Log = Callable[[logging.Formatter], tuple[logging.Logger, io.StringIO]]


@pytest.fixture
def log() -> Iterator[Log]:
    """A logger of its own with a formatter, and what it writes."""
    logger = logging.Logger("chainrule_server.jobs.scheduler", logging.INFO)

    def make(formatter: logging.Formatter) -> tuple[logging.Logger, io.StringIO]:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
        return logger, stream

    yield make
    logger.handlers.clear()


def test_a_line_of_json_has_the_event_its_fields_and_the_sentence(log: Log) -> None:
    logger, stream = log(JsonLines("server"))
    extra = log_event("checkpoint_written", job="7f3a", step=40, size_bytes=512)
    logger.info("job %s: checkpoint of step %d", "7f3a", 40, extra=extra)
    found = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "process": "server",
        "logger": "chainrule_server.jobs.scheduler",
        "event": "checkpoint_written",
        "job": "7f3a",
        "step": 40,
        "size_bytes": 512,
        "message": "job 7f3a: checkpoint of step 40",
    }


def test_a_line_of_text_is_the_time_the_process_the_level_and_the_sentence(log: Log) -> None:
    logger, stream = log(TextLines("w-1"))
    logger.warning("connection lost (%s)", "reset", extra=log_event("connection_lost", worker="w-1"))
    assert re.fullmatch(r"[\d-]{10} [\d:,]{12} w-1 WARNING connection lost \(reset\)\n", stream.getvalue())


@pytest.mark.parametrize("formatter", [TextLines, JsonLines])
def test_what_a_peer_sends_can_begin_no_line_of_its_own(log: Log, formatter: type[TextLines]) -> None:
    logger, stream = log(formatter("worker\nforged"))
    logger.info("worker left: %s", FORGED, extra=log_event("worker_left", worker=FORGED))
    content = stream.getvalue()
    assert (content.count("\n"), len(content.splitlines())) == (1, 1)
    assert not {"\r", "\x1b", "\u2028", "\x85"} & set(content)


@pytest.mark.parametrize("formatter", [TextLines, JsonLines])
def test_an_exception_s_own_text_can_begin_no_line_either(log: Log, formatter: type[TextLines]) -> None:
    logger, stream = log(formatter("server"))
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        logger.error("an error of the server itself", exc_info=error)
    content = stream.getvalue()
    first, *rest = content.splitlines()
    assert "an error of the server itself" in first
    assert all(line.startswith("    ") for line in rest)
    assert "ValueError: gone" in content


def test_what_nobody_caught_is_a_line_too() -> None:
    program = """
import threading, warnings
from chainrule.process.logs import start_logging
start_logging("server", log_format="json")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0, name="update")
thread.start()
thread.join()
raise ValueError("end")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line.get("traceback", "").rpartition("\n")[2]) for line in lines] == [
        ("warning", ""),
        ("error", "ZeroDivisionError: division by zero"),
        ("error", "ValueError: end"),
    ]
    assert (done.returncode, "thread update" in lines[1]["message"]) == (1, True)


@pytest.mark.parametrize("package", ["chainrule", "server", "worker"])
def test_every_event_that_is_logged_has_a_name(package: str) -> None:
    """log.info(…, extra=log_event("worker_left", worker=name)): without it a JSON log can't be searched."""
    nameless = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and re.fullmatch(r"log\.(debug|info|warning|error|exception)", ast.unparse(call.func))
        and "extra" not in {keyword.arg for keyword in call.keywords}
    ]
    assert nameless == []


def options(arguments: list[str]) -> tuple[str, str]:
    parser = argparse.ArgumentParser()
    add_log_options(parser)
    found = parser.parse_args(arguments)
    return found.log_format, found.log_level


def test_options_come_before_the_environment_and_that_before_text_and_info(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options([]) == ("text", "info")
    monkeypatch.setenv("CHAINRULE_LOG_FORMAT", "json")
    monkeypatch.setenv("CHAINRULE_LOG_LEVEL", "WARNING")
    assert options([]) == ("json", "warning")
    assert options(["--log-format", "text", "--log-level", "debug"]) == ("text", "debug")


def test_a_wrong_word_in_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHAINRULE_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit):
        options([])
    expected = "must be one of debug, info, warning, error, got 'loud' (also CHAINRULE_LOG_LEVEL)"
    assert expected in capsys.readouterr().err


def test_a_worker_that_is_ended_while_it_waits_writes_nothing_but_json() -> None:
    """Its signal handler writes without the log's lock, in the same format."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "chainrule_worker",
        "--server",
        "127.0.0.1:9",
        "--name",
        "w-1",
        "--log-format",
        "json",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"GRPC_VERBOSITY": "NONE"}) as worker:
        assert worker.stderr is not None
        assert json.loads(worker.stderr.readline())["event"] == "connecting"
        worker.send_signal(signal.SIGTERM)
        _, errors = worker.communicate(timeout=60)
    # There may be more: what gRPC's own threads say to a channel that is closed while it connects.
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["process"] for line in lines if line.get("event") == "stopping"] == ["w-1"]
    assert worker.returncode == 0


STREAM_CANCELLED_AT_THE_END = """
import asyncio, logging, sys
from chainrule.process.logs import start_logging

start_logging("server")
for error in (asyncio.CancelledError(), ValueError("a bug of ours")):
    try:
        raise error
    except BaseException:
        logging.getLogger("grpc._cython.cygrpc").exception("not handled in servicer method")
"""


def test_a_stream_that_the_server_s_end_cancels_is_no_error_in_the_log() -> None:
    command = [sys.executable, "-P", "-c", STREAM_CANCELLED_AT_THE_END]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CancelledError" not in done.stderr
    assert "ValueError: a bug of ours" in done.stderr
    assert done.stderr.count("not handled in servicer method") == 1
