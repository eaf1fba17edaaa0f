"""When to stop: once the validation loss has not improved for some epochs.

A decision is a pure function of an explicit state and a loss, so a restarted server takes the same one. Whoever trains
keeps a copy of the parameters whenever `best_epoch` is the epoch just observed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from chainrule_engine.settings import check_count, check_number


@dataclass(frozen=True)
class EarlyStoppingState:
    """What is known after some epochs: plain numbers, so that JSON holds it exactly.

    best_loss, best_epoch: the lowest validation loss that counted as an improvement, and when; None before the first
    finite loss. should_stop: whether training should end; it stays so."""

    best_loss: float | None = None
    best_epoch: int | None = None
    should_stop: bool = False


@dataclass(frozen=True)
class EarlyStopping:
    """Stop patience_epochs epochs after the best validation loss.

    A loss is an improvement if it is below the best so far by more than min_delta. NaN and infinity never are: without
    any finite loss training stops after patience_epochs epochs. Epochs may be left out: what counts is how many lie
    between. Source: Prechelt 1998, "Early stopping - but when?"."""

    patience_epochs: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        check_count(self.patience_epochs, setting="early_stopping.patience_epochs", at_least=1)
        check_number(self.min_delta, setting="early_stopping.min_delta", at_least=0)

    def observe(self, state: EarlyStoppingState, validation_loss: float, epoch: int) -> EarlyStoppingState:
        """The state after an epoch. validation_loss: the mean over the validation rows. epoch: counts from 1."""
        best = math.inf if state.best_loss is None else state.best_loss
        if math.isfinite(validation_loss) and validation_loss < best - self.min_delta:
            return replace(state, best_loss=float(validation_loss), best_epoch=epoch)
        waited_epochs = epoch - (state.best_epoch or 0)
        return replace(state, should_stop=state.should_stop or waited_epochs >= self.patience_epochs)
