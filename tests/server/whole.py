"""All rows of a data set as the model sees them, in its own order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule_server.data.columns import Rows
from chainrule_server.data.data_set import data_errors
from chainrule_server.preparation.preprocessing import Preprocessing


def prepared(preprocessing: Preprocessing, data: Rows) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """(features, targets)."""
    with data_errors(data.uri):
        return np.concatenate(list(preprocessing.blocks(data))), preprocessing.targets(data)
