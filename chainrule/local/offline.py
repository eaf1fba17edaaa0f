"""Asks a short-lived process of the server's code about a job or a model: it alone reads and prepares data.

Such a process takes a serialized message, a JobSpec or a PredictRequest, on standard input and answers with one line of
JSON. Exit code 2 means wrong input, {"violations": [[path, message], …]}; exit code 1 may bring {"failure": message}.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from chainrule.errors import InvalidJob, OfflineError
from chainrule.text import one_line

# The exit code of wrong input.
WRONG_INPUT = 2


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
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        message = f"the data could not be read: {one_line(lines[-1]) if lines else f'exit code {done.returncode}'}"
        reason = f"{module.rpartition('.')[2].upper()}_FAILED"
        raise OfflineError(message, reason=reason) from None
    if done.returncode == WRONG_INPUT:
        violations = [(str(path), str(message)) for path, message in answer["violations"]]
        raise InvalidJob("the job is wrong", violations=violations, reason="INVALID_SPEC")
    if "failure" in answer:
        raise OfflineError(str(answer["failure"]), reason="FAILED")
    return answer
