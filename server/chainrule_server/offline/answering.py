"""How a short-lived process answers one question; `chainrule.local.offline` asks it.

Standard input is a serialized message. Standard output is one line of JSON: the answer; {"violations": [[path,
message], …]} and exit code 2 where the question is wrong; or {"failure": message} and exit code 1 where it has none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from chainrule_server.data.columns import ColumnError
from chainrule_server.data.data_root import DataFileError
from chainrule_server.errors import InvalidRequest, WrongState

FAILED = 1
WRONG_INPUT = 2
Question = TypeVar("Question", bound=Message)


class NoAnswer(Exception):
    """A question that is right and has no answer; the message says why."""


def answer(kind: type[Question], answer_to: Callable[[Question], dict[str, Any]]) -> int:
    """Write what `answer_to` says of the question, a message of this kind; return the exit code."""
    code = WRONG_INPUT
    try:
        found, code = answer_to(kind.FromString(sys.stdin.buffer.read())), 0
    except DecodeError as error:
        found = {"violations": [["", f"standard input is no {kind.DESCRIPTOR.name}: {error}"]]}
    except InvalidRequest as error:
        found = {"violations": error.violations}
    except (ColumnError, DataFileError) as error:
        found = {"violations": [[error.field, str(error)]]}
    except (NoAnswer, WrongState) as error:
        found, code = {"failure": str(error)}, FAILED
    sys.stdout.write(json.dumps(found) + "\n")
    return code
