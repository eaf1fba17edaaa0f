"""Every hop on the gradient's way from a worker to the parameters has a verb of its own, which a search finds."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# In the order in which a part of a gradient goes there. `decode_part` has two forms, and what they promise: a Protocol.
WAY = (
    ("worker/chainrule_worker/vectors.py", "push"),
    ("server/chainrule_server/api/connected_worker.py", "_read_stream"),
    ("server/chainrule_server/api/connected_worker.py", "_deliver"),
    ("server/chainrule_server/jobs/worker_sharing.py", "route_message"),
    ("server/chainrule_server/training/training.py", "push_part"),
    ("server/chainrule_server/training/training.py", "push_partial_sum"),
    ("server/chainrule_server/training/orders.py", "collect_part"),
    ("server/chainrule_server/training/orders.py", "collect_partial_sum"),
    ("chainrule/holding/exchange.py", "decode_part"),
    ("chainrule/holding/exchange.py", "complete_gradient"),
    ("chainrule/holding/step_assembly.py", "assemble_part"),
    ("chainrule/holding/step_assembly.py", "assemble_whole"),
    ("chainrule/holding/step_assembly.py", "_reduce_and_update"),
    ("chainrule/holding/step_assembly.py", "_publish"),
    ("server/chainrule_server/training/training.py", "_commit_step"),
)
FOLDERS = ("server/chainrule_server", "worker/chainrule_worker", "chainrule/holding")


def test_each_hop_is_defined_in_one_file_only_and_none_is_called_receive() -> None:
    defined = defaultdict(set)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    defined[node.name].add(str(path.relative_to(ROOT)))
    assert {verb: defined[verb] for _, verb in WAY} == {verb: {file} for file, verb in WAY}
    assert not {"receive", "receive_part", "look", "take", "told", "share", "note"} & defined.keys()
