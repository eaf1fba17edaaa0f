"""What a user of chainrule can catch. Every message says what is wrong, where, and what to do.

ChainruleError
├── JobFileError             a job file that is no JobSpec; `problems` holds all of them
├── ArgumentError            an argument that a call can't take
├── AddressError             a server address that isn't HOST:PORT
├── ModelFileError           a model file that can't be written
├── DataFileError            a file of rows that can't be read to be uploaded
├── CredentialsError         a certificate, key or token that can't be used
├── ConnectionFileError      a file of named connections that can't be used
├── ClusterError             a process of a local cluster that didn't start, or died
├── OfflineError             a short-lived process that didn't answer what it was asked
├── ExpressionError          a Python expression that is no formula
├── RowsError                rows that can't be sent to a model
├── JobError                 a job that isn't where a caller waited for it to be
│   ├── JobFailed            it failed; the message is the server's
│   ├── JobCancelled         somebody ended it
│   └── JobNotEnded          it goes on after the time that the caller gave it
└── ServerError              what a server answered, or that it didn't
    ├── InvalidJob           the job is wrong; `violations` holds every wrong field
    ├── JobNotFound          no such job
    ├── PreconditionFailed   the job's state doesn't allow the call
    ├── NotAuthenticated     the server doesn't know who calls
    ├── NotAllowed           the caller's role doesn't allow the call
    ├── ServerUnavailable    nobody answers at the address, or the connection broke
    └── ServerTimeout        the answer didn't come in time

And one warning of Python's: UnknownCategoryWarning, for rows with a category that no training row had.

This module knows nothing of gRPC: `chainrule.client.blocking.client` turns statuses into these errors.
"""

from __future__ import annotations

from collections.abc import Sequence

Problem = tuple[str, str]


class ChainruleError(Exception):
    """The base of all errors of this package."""

    @property
    def problems(self) -> list[Problem]:
        """Every problem as (path of a field or "", message)."""
        return [("", str(self))]


class _Problems(ChainruleError):
    def __init__(self, problems: Sequence[Problem]) -> None:
        self._problems = list(problems)
        super().__init__("; ".join(problem_line(problem) for problem in problems))

    @property
    def problems(self) -> list[Problem]:
        return list(self._problems)


class JobFileError(_Problems):
    """A job file that can't be read as a job. The path of a problem is the key's, such as 'training.epochs'."""


class ArgumentError(ChainruleError, ValueError):
    """An argument that a call can't take; a ValueError too, as Python expects of it."""


class AddressError(ChainruleError):
    """An address that isn't HOST:PORT."""


class ModelFileError(ChainruleError):
    """A model file that can't be written."""


class DataFileError(ChainruleError):
    """A file of rows that can't be read to be uploaded."""


class CredentialsError(ChainruleError):
    """A certificate, key or token that can't be used."""


class ConnectionFileError(ChainruleError):
    """A file of named connections that can't be used, or has no connection of that name."""


class ClusterError(ChainruleError):
    """A process of a local cluster that didn't start, or died."""


class OfflineError(ChainruleError):
    """A short-lived process that didn't answer what it was asked. reason: for programs."""

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message)


class ExpressionError(ChainruleError, TypeError):
    """A Python expression that is no formula; a TypeError too, as Python expects of operators."""


class RowsError(ChainruleError, ValueError):
    """Rows that can't be sent to a model."""


class UnknownCategoryWarning(UserWarning):
    """Rows have a category that no training row had; they are predicted as having none of those that are known."""


class JobError(ChainruleError):
    """A job that isn't where a caller waited for it to be."""


class JobFailed(JobError):
    """The job failed; the message is the server's."""


class JobCancelled(JobError):
    """Somebody ended the job."""


class JobNotEnded(JobError):
    """The job goes on after the time that the caller gave it."""


class ServerError(ChainruleError):
    """What a server answered. `reason` is the reason that it gave for programs, or ''."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)


class InvalidJob(ServerError):
    """The server refuses a job or another request. violations: (path of the field, what is wrong and what to do)."""

    def __init__(self, message: str, *, violations: Sequence[Problem] = (), reason: str = "") -> None:
        self.violations = list(violations)
        super().__init__(message, reason=reason)

    @property
    def problems(self) -> list[Problem]:
        return self.violations or super().problems


class JobNotFound(ServerError):
    """The server doesn't know the job."""


class PreconditionFailed(ServerError):
    """The job's state doesn't allow the call."""


class NotAuthenticated(ServerError):
    """The server doesn't know who calls."""


class NotAllowed(ServerError):
    """The caller's role doesn't allow the call."""


class ServerUnavailable(ServerError):
    """Nobody answers at the address, or the connection broke."""


class ServerTimeout(ServerError):
    """The server didn't answer in time."""


def problem_line(problem: Problem) -> str:
    """'path: message', or only the message where there is no path."""
    path, message = problem
    return f"{path}: {message}" if path else message
