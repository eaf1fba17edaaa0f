"""Categories that no training row had: what the answers for many rows told of them, in words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from chainrule.errors import UnknownCategoryWarning
from chainrule.v1 import model_service_pb2 as api


class UnknownCategories:
    """Adds up what is told of each column, in the order in which they come."""

    def __init__(self) -> None:
        self._found: dict[str, api.UnknownCategories] = {}

    def add(self, answer: api.PredictResponse | api.ExplainResponse) -> None:
        """Count an answer's too; the example is that of the first."""
        for each in answer.unknown_categories:
            if each.column in self._found:
                self._found[each.column].row_count += each.row_count
            else:
                self._found[each.column] = api.UnknownCategories()
                self._found[each.column].CopyFrom(each)

    def texts(self) -> list[str]:
        """A sentence for each column."""
        return [_text(each) for each in self._found.values()]


def unknown_texts(answers: Sequence[api.PredictResponse | api.ExplainResponse]) -> list[str]:
    """A sentence for each column in which some answer tells of unknown categories."""
    found = UnknownCategories()
    for answer in answers:
        found.add(answer)
    return found.texts()


def warn_of_unknown(answers: Sequence[api.PredictResponse | api.ExplainResponse], *, level: int) -> None:
    """A warning of Python's for each column with unknown categories. level: the `stacklevel` of the caller."""
    for text in unknown_texts(answers):
        warnings.warn(text, UnknownCategoryWarning, stacklevel=level + 1)


def _text(found: api.UnknownCategories) -> str:
    many = "a row" if found.row_count == 1 else f"{found.row_count} rows"
    hint = f", where training had {found.similar!r}" if found.similar else ""
    return (
        f"{many} with a category in column {found.column!r} that no training row had, such as {found.example!r}{hint}: "
        "predicted as having none of the known ones"
    )
