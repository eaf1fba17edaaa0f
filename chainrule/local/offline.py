"""Asks a short-lived process of the server's code about a job or a model: it alone reads and prepares data.

Such a process takes a serialized message, a JobSpec or a PredictRequest, on standard input and answers with one line of
JSON. Exit code 2 means wrong input, {"violations": [[path, message], …]}; exit code 1 may bring {"failure": message}.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from typing import IO, Any

from google.protobuf.message import Message

from chainrule.errors import InvalidJob, OfflineError
from chainrule.text import one_line

# The exit code of wrong input.
WRONG_INPUT = 2
MOST_READ_BYTES = 1 << 20
# How long a process that has closed its output may take to end.
EXIT_TIMEOUT_S = 10.0


def ask(
    module: str, question: Message, options: Sequence[str], *, timeout_s: float, timeout_message: str
) -> dict[str, Any]:
    """What `python -P -m MODULE` answers. Raises InvalidJob with the violations, or OfflineError.

    Whatever ends the wait, the process is killed."""
    command = [sys.executable, "-P", "-m", module, *options]
    try:
        done = subprocess.run(
            command, input=question.SerializeToString(), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        message = f"{timeout_message} within {timeout_s:g} s"
        raise OfflineError(message, reason="TIMEOUT") from None
    try:
        answer = dict(json.loads(done.stdout))
    except ValueError:
        raise _broken(module, done.stderr, done.returncode) from None
    if done.returncode == WRONG_INPUT:
        raise _invalid(answer)
    if "failure" in answer:
        raise OfflineError(str(answer["failure"]), reason="FAILED")
    return answer


def ask_for_parts(
    module: str, question: Message, options: Sequence[str], *, timeout_s: float, timeout_message: str
) -> Generator[bytes, None, None]:
    """The parts that `python -P -m MODULE` answers, as `chainrule_server.offline.rows` writes them, each as it comes.

    timeout_s: for each of them. Raises InvalidJob with the violations, or OfflineError. Whoever stops reading ends the
    process."""
    command = [sys.executable, "-P", "-m", module, *options]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(question.SerializeToString())
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        try:
            yield from _parts(process, errors, module, timeout_s=timeout_s, timeout_message=timeout_message)
        finally:
            process.kill()
            process.communicate()


def _parts(
    process: subprocess.Popen[bytes], errors: IO[bytes], module: str, *, timeout_s: float, timeout_message: str
) -> Iterator[bytes]:
    if process.stdout is None:
        raise TypeError("the process has no pipe")
    descriptor = process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            deadline_s = time.monotonic() + timeout_s

            def read(size_bytes: int, deadline_s: float = deadline_s) -> bytes:
                found = bytearray()
                while len(found) < size_bytes:
                    if not selector.select(max(0.0, deadline_s - time.monotonic())):
                        raise OfflineError(f"{timeout_message} within {timeout_s:g} s", reason="TIMEOUT")
                    more = os.read(descriptor, min(size_bytes - len(found), MOST_READ_BYTES))
                    if not more:
                        code = process.wait(EXIT_TIMEOUT_S)
                        errors.seek(0)
                        raise _broken(module, errors.read(), code)
                    found += more
                return bytes(found)

            kind = read(1)
            content = read(int.from_bytes(read(4), "big"))
            if kind == b"Z":
                return
            if kind == b"E":
                raise _invalid(json.loads(content))
            yield content


def _invalid(answer: dict[str, Any]) -> InvalidJob:
    violations = [(str(path), str(message)) for path, message in answer["violations"]]
    return InvalidJob("the job is wrong", violations=violations, reason="INVALID_SPEC")


def _broken(module: str, errors: bytes, exit_code: int) -> OfflineError:
    """What a process that ended without an answer left."""
    lines = errors.decode(errors="replace").strip().splitlines()
    message = f"the data could not be read: {one_line(lines[-1]) if lines else f'exit code {exit_code}'}"
    return OfflineError(message, reason=f"{module.rpartition('.')[2].upper()}_FAILED")
