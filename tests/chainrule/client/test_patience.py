"""How long a client goes on while nobody answers, with a clock of the test's own."""

from __future__ import annotations

import pytest

from chainrule.client.patience import LONGEST_BACKOFF_S, Patience
from chainrule.errors import ServerUnavailable


def test_pauses_grow_and_begin_anew_with_an_answer() -> None:
    patience = Patience(60.0, clock=lambda: 100.0)
    gone = ServerUnavailable("gone")
    for expected_s in (0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_BACKOFF_S, LONGEST_BACKOFF_S):
        assert 0.5 * expected_s <= patience.pause_s(gone) <= 1.5 * expected_s
    assert not patience.is_fresh
    patience.renew()
    assert patience.is_fresh
    assert patience.pause_s(gone) <= 0.15


def test_the_time_that_nobody_answered_in_a_row_is_what_counts() -> None:
    now_s = 100.0
    patience = Patience(10.0, clock=lambda: now_s)
    for _ in range(3):
        patience.pause_s(ServerUnavailable("gone"))
        now_s += 9.0
        patience.renew()
    patience.pause_s(ServerUnavailable("gone"))
    now_s += 10.0
    with pytest.raises(ServerUnavailable, match="still gone"):
        patience.pause_s(ServerUnavailable("still gone"))
