"""What labels may be."""

from __future__ import annotations

import pytest

from chainrule_server.preparation.labels import has, violations


@pytest.mark.parametrize("key", ["team", "a", "A-1_b.c", "example.com/team", "x" * 63])
@pytest.mark.parametrize("value", ["", "vision", "2024-01-01", "V1.2_x"])
def test_a_name_is_a_key_also_after_a_domain_and_a_name_or_nothing_is_a_value(key: str, value: str) -> None:
    assert violations({key: value}) == []


@pytest.mark.parametrize("key", ["", "-a", "a-", "a b", "x" * 64, "/a", "a/", "A.com/a", "a/b/c", "é", "a\n"])
def test_what_is_no_name_is_no_key(key: str) -> None:
    assert [path for path, _ in violations({key: ""})] == [f"labels.{key}"]


@pytest.mark.parametrize("value", [" ", "-", "a/b", "x" * 64, "é", "a\n"])
def test_what_is_no_name_is_no_value(value: str) -> None:
    assert [path for path, _ in violations({"team": value})] == ["labels.team"]


def test_there_are_at_most_64_labels() -> None:
    assert violations({f"key-{number}": "" for number in range(64)}) == []
    assert [path for path, _ in violations({f"key-{number}": "" for number in range(65)})] == ["labels"]


def test_a_job_has_labels_where_each_of_them_is_the_same() -> None:
    labels = {"team": "vision", "stage": ""}
    assert has(labels, {})
    assert has(labels, {"team": "vision", "stage": ""})
    assert not has(labels, {"team": "speech"})
    assert not has(labels, {"other": ""})
