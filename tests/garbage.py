"""What only a full collection would free: objects that hold themselves, and all that they hold."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np


def left_behind(action: Callable[[], object]) -> list[str]:
    """The kinds of objects of ours, and arrays, that an action leaves in reference cycles; sorted, each once.

    It is done twice: what the first time makes for good (caches, imports) is no garbage."""
    action()
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    flags = gc.get_debug()
    try:
        action()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return sorted({_kind(each) for each in gc.garbage if _is_ours(each)})
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        if was_enabled:
            gc.enable()


def _is_ours(value: object) -> bool:
    # By its type: what is asked for its class may be a weak reference to something that is gone.
    return issubclass(type(value), np.ndarray) or type(value).__module__.startswith("chainrule")


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
