"""Which tests stay together when several processes run them, and which come first."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import settings

# No test asserts how long something takes. A failing example is printed as code that tries it again.
settings.register_profile("chainrule", deadline=None, print_blob=True)
settings.load_profile("chainrule")

# Loading PyTorch or numba takes seconds: one process does it for all of these.
REFEREES = {
    "benchmarks/test_peers.py",
    "engine/test_clipping.py",
    "engine/test_microbatch.py",
    "engine/test_numba.py",
    "engine/test_optimizers.py",
    "engine/test_penalties.py",
    "engine/test_random_formulas.py",
    "engine/test_schedules.py",
    "test_referees.py",
}
# What takes longest, the longest first: a process that gets it last would go on alone at the end.
LONGEST = [
    "compose",
    "documentation/test_code_blocks.py",
    "cluster/test_faults.py",
    "cluster/test_restart.py",
    "referees",
    "cluster/test_processes.py",
    "cluster/test_transports.py",
    "cluster/test_same_bits.py",
    "cluster/test_pause.py",
    "cluster/test_shared_pool.py",
    "cluster/test_secured.py",
    "server/storage/test_checkpoint.py",
    "chainrule/cli/test_check_command.py",
    "chainrule/estimators/test_estimators.py",
    "chainrule/cli/test_graph_command.py",
]


def pytest_configure() -> None:
    """Whoever starts the tests in the background has SIGINT ignored, and what tests interrupt would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def group_of(nodeid: str) -> str:
    """A file's tests share their fixtures in one process; those of tests/compose one cluster of containers."""
    path = nodeid.partition("::")[0].removeprefix("tests/")
    if path.startswith("compose/"):
        return "compose"
    return "referees" if path in REFEREES else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups that take longest come first."""
    places = {group: place for place, group in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(group_of(item.nodeid), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each group to one process. pytest-xdist 3.8 does it by marks, which pytest 9.2 lets have no effect."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)
