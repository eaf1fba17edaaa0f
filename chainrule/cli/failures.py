"""How commands fail: the exit code, one line on standard error for each problem, and with --json one line of JSON.

Exit codes: 0 succeeded, 1 failed, 2 wrong input, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chainrule.errors import (
    AddressError,
    ArgumentError,
    ChainruleError,
    ConnectionFileError,
    CredentialsError,
    DataFileError,
    InvalidJob,
    JobFileError,
    JobNotFound,
    OfflineError,
    Problem,
    ServerError,
    problem_line,
)
from chainrule.text import json_line, one_line

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130
# 128 + SIGPIPE, as shells have it: whoever read our output has gone.
OUTPUT_CLOSED = 141
# The reason of a failure that standard output can't be told, in JSON or otherwise.
OUTPUT_FAILED = "OUTPUT_FAILED"
_WRONG_INPUT_ERRORS = (
    JobFileError,
    DataFileError,
    AddressError,
    ArgumentError,
    ConnectionFileError,
    CredentialsError,
    InvalidJob,
    JobNotFound,
)


class CommandFailed(Exception):
    """The end of a command. fields: what the line of JSON holds besides the error."""

    def __init__(
        self, code: int, problems: Sequence[Problem], *, reason: str = "", fields: Mapping[str, Any] | None = None
    ) -> None:
        self.code = code
        self.problems = list(problems)
        self.reason = reason
        self.fields = dict(fields or {})
        super().__init__("; ".join(problem_line(problem) for problem in problems))

    @classmethod
    def of(cls, error: ChainruleError, fields: Mapping[str, Any] | None = None) -> CommandFailed:
        """The failure that an error of the package is."""
        code = WRONG_INPUT if isinstance(error, _WRONG_INPUT_ERRORS) else FAILED
        reason = error.reason if isinstance(error, ServerError | OfflineError) else ""
        return cls(code, error.problems, reason=reason or _reason(error), fields=fields)


def _reason(error: ChainruleError) -> str:
    """'JOB_FILE_ERROR' for a JobFileError."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).upper()


def wrong_input(path: str, message: str) -> CommandFailed:
    """The failure of an option or argument."""
    return CommandFailed(WRONG_INPUT, [(path, message)], reason="WRONG_INPUT")


@contextlib.contextmanager
def given_as(path: str) -> Iterator[None]:
    """What a call says of its argument is said of the option or argument of the command that it was given as."""
    try:
        yield
    except ArgumentError as error:
        raise wrong_input(path, str(error)) from None


def interrupted(fields: Mapping[str, Any] | None = None, message: str = "interrupted") -> CommandFailed:
    """The failure after ctrl-C."""
    return CommandFailed(INTERRUPTED, [("", message)], reason="INTERRUPTED", fields=fields)


def report(failure: CommandFailed, *, as_json: bool) -> int:
    """Print a failure; return its exit code."""
    for problem in failure.problems:
        sys.stderr.write(f"error: {one_line(problem_line(problem))}\n")
    sys.stderr.flush()
    if as_json and failure.reason != OUTPUT_FAILED:
        error = {
            "message": str(failure),
            "reason": failure.reason,
            "problems": [{"path": path, "message": message} for path, message in failure.problems],
        }
        try:
            sys.stdout.write(json_line({**failure.fields, "error": error}) + "\n")
            sys.stdout.flush()
        except CommandFailed as unwritten:
            # The exit code stays that of what went wrong first.
            report(unwritten, as_json=False)
    return failure.code
