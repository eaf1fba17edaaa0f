"""Who computes, besides a late worker, what that one owes: within one generation, subtree by subtree.

The bits don't depend on who computes a subtree, so whichever answer comes first counts, and nothing is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from chainrule.holding.exchange import Exchange
from chainrule_engine.reduction import Subtree

# An exchange for a worker and one subtree.
MakeExchange = Callable[[str, Subtree], Exchange]


@dataclass
class BackupTasks:
    """make_exchange: of a worker that helps, for a subtree of another's.

    unable: who failed at helping, and is asked no more."""

    make_exchange: MakeExchange
    unable: set[str] = field(default_factory=set)
    # Kept for the whole generation: where memory is shared, an exchange is a segment that both processes map.
    _exchanges: dict[tuple[str, Subtree], Exchange] = field(default_factory=dict)
    # Of the current order.
    _helpers: dict[Subtree, str] = field(default_factory=dict)

    def begin_order(self) -> None:
        """A new order is given: of the one before, nobody's help counts any more."""
        self._helpers.clear()

    def choose(
        self, subtrees: Iterable[Subtree], row_counts: Mapping[Subtree, int], loads: Mapping[str, int]
    ) -> dict[Subtree, str]:
        """Who is to help with each of these subtrees: whoever has the fewest rows to compute then.

        loads: the rows that those who may help have to compute before. Subtrees that somebody helps with already are
        left out; where nobody can help, all are."""
        left = {name: rows for name, rows in loads.items() if name not in self.unable}
        chosen: dict[Subtree, str] = {}
        for subtree in subtrees:
            if left and subtree not in self._helpers:
                name = min(left, key=lambda name: left[name])
                left[name] += row_counts[subtree]
                chosen[subtree] = name
        self._helpers |= chosen
        return chosen

    def begin(self, name: str, subtree: Subtree) -> tuple[Exchange, bool]:
        """The exchange for a worker's help with a subtree, and whether it is new."""
        key = name, subtree
        is_new = key not in self._exchanges
        if is_new:
            self._exchanges[key] = self.make_exchange(name, subtree)
        return self._exchanges[key], is_new

    def exchange(self, name: str, subtree: Subtree) -> Exchange | None:
        """The exchange by which a worker helps with a subtree of the current order; None where it doesn't."""
        return self._exchanges[name, subtree] if self._helpers.get(subtree) == name else None

    def is_helped(self, subtrees: Iterable[Subtree]) -> bool:
        """Whether somebody computes every one of these for the current order."""
        return all(subtree in self._helpers for subtree in subtrees)

    def helpers(self, answered: Mapping[Subtree, object]) -> list[str]:
        """Who still computes for others; answered: the subtrees of the current order that need no help any more."""
        return sorted({name for subtree, name in self._helpers.items() if subtree not in answered})

    def holds(self, name: str, shard: int) -> bool:
        """Whether a worker helps, or has helped, with a shard in this generation."""
        return any(
            helper == name and subtree.first <= shard < subtree.first + subtree.count
            for helper, subtree in self._exchanges
        )

    def failed(self, name: str) -> None:
        """A worker can't help."""
        self.unable.add(name)
        self._helpers = {subtree: helper for subtree, helper in self._helpers.items() if helper != name}
