"""What one server takes at most, so that no client can use up what all of them need. The operator sets it.

Each limit is an option of `chainrule server` and an environment variable. It is checked before the memory is spent, and
only when something new is asked for: what was acknowledged goes on under lower limits too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from chainrule_server.errors import LimitExceeded

# A part of a vector or of an upload must get through.
LEAST_MESSAGE_BYTES = 2 << 20


def _limit(default: int, what: str) -> int:
    found: int = field(default=default, metadata={"what": what})
    return found


@dataclass(frozen=True)
class Limits:
    """Every check raises LimitExceeded, which names the limit and the setting that raises it."""

    max_active_jobs: int = _limit(1_000, "jobs that have not ended")
    max_jobs: int = _limit(100_000, "jobs that are kept, the ended ones included")
    max_parameters: int = _limit(250_000_000, "parameters of a job")
    max_data_bytes: int = _limit(16 << 30, "bytes of a job's prepared features: 4 for each of rows x places")
    max_data_set_bytes: int = _limit(1 << 40, "bytes of uploaded data sets, and uploads under way, together")
    max_preparation_bytes: int = _limit(8 << 30, "bytes of memory that reading data takes, all jobs together")
    max_message_bytes: int = _limit(4 << 20, "bytes of a message that a client sends")

    def check_new_job(self, *, active_jobs: int, jobs: int) -> None:
        """One more job, where there are so many."""
        if active_jobs >= self.max_active_jobs:
            remedy = "wait until one ends or cancel one ('chainrule list --state queued')"
            self._refuse("max_active_jobs", f"{active_jobs} jobs have not ended, which is the most", remedy)
        if jobs >= self.max_jobs:
            remedy = "delete one that has ended ('chainrule delete JOB')"
            self._refuse("max_jobs", f"{jobs} jobs are kept, which is the most", remedy)

    def check_parameters(self, count: int) -> None:
        """A model of so many parameters."""
        if count > self.max_parameters:
            message = f"the model has {count} parameters, more than the {self.max_parameters} that are allowed"
            self._refuse("max_parameters", message, "take a smaller model", field="model.parameters")

    def check_data(self, *, row_count: int, place_count: int) -> None:
        """Features of so many rows and places."""
        size_bytes = 4 * row_count * place_count
        if size_bytes > self.max_data_bytes:
            message = (
                f"the features of {row_count} rows with {place_count} places in x take {size_bytes} bytes, "
                f"more than the {self.max_data_bytes} that are allowed"
            )
            self._refuse("max_data_bytes", message, "take fewer rows or columns", field="data")

    def check_message(self, size_bytes: int) -> None:
        """A message of so many bytes."""
        if size_bytes > self.max_message_bytes:
            message = f"the message has {size_bytes} bytes, more than the {self.max_message_bytes} that are allowed"
            self._refuse("max_message_bytes", message, "send less at a time")

    def _refuse(self, name: str, message: str, remedy: str, *, field: str = "") -> None:
        raise LimitExceeded(
            f"{message}; {remedy}, or start the server with a larger {_option(name)} ({_variable(name)})", field=field
        )


def add_limit_options(parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Declare an option for each limit; where it isn't given, the environment's value or the default holds."""
    for each in fields(Limits):
        # argparse converts a default that is a text as if it had been given.
        default = environment.get(_variable(each.name)) or str(each.default)
        what = f"at most so many {each.metadata['what']}; {_variable(each.name)}, or {each.default}"
        parser.add_argument(_option(each.name), type=int, default=default, metavar="N", help=what)


def limits_of(arguments: argparse.Namespace) -> Limits:
    """The limits that were given. Raises ValueError for one that can't be."""
    for each in fields(Limits):
        least = LEAST_MESSAGE_BYTES if each.name == "max_message_bytes" else 1
        value = getattr(arguments, each.name)
        if value < least:
            raise ValueError(f"{_option(each.name)} ({_variable(each.name)}) must be at least {least}, got {value}")
    return Limits(**{each.name: getattr(arguments, each.name) for each in fields(Limits)})


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return "CHAINRULE_" + name.upper()
