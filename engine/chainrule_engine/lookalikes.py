"""Names that look alike and aren't the same: V₃ and V3, a Cyrillic а and a Latin a. For errors only."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# Cyrillic and Greek letters, and the Latin ones that they look like in print.
_LATIN = str.maketrans(
    "аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅαοικνρυγΑΒΕΖΗΙΚΜΝΟΡΤΥΧωıℓ",
    "aeopcyxijshdqwABEKMHOPCTYXIJSaoikvpuyABEZHIKMNOPTYXwil",
)


def look_of(name: str) -> str:
    """What a name looks like at a glance: equal for names that are easily confused."""
    return unicodedata.normalize("NFKC", name).translate(_LATIN)


def lookalike(name: str, known: Iterable[str]) -> str:
    """'; it looks like …' where one of the known names looks like this one, and which characters differ; else ''."""
    look = look_of(name)
    other = next((each for each in known if each != name and look_of(each) == look), None)
    if other is None:
        return ""
    pairs = ((a, b) for a, b in zip(name, other, strict=False) if a != b)
    written, meant = next(pairs, (name[-1], other[-1]))
    return f"; it looks like '{other}', but has {_described(written)} for {_described(meant)}; write '{other}'"


def _described(character: str) -> str:
    return f"'{character}' ({unicodedata.name(character, 'no name').lower()})"
