"""A job that was checked whole and is ready to train: what `chainrule_server.preparation.prepare` makes of a spec."""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.v1 import job_pb2
from chainrule_engine.early_stopping import EarlyStopping
from chainrule_engine.evaluation import initial_statistics
from chainrule_engine.initializers import default_initializers, initialize
from chainrule_engine.metrics import Measure
from chainrule_engine.microbatch import ShardRows
from chainrule_engine.model import Model
from chainrule_engine.parameters import Vector
from chainrule_engine.precision import PRECISIONS, Precision
from chainrule_engine.sharding import BatchSchedule, Division
from chainrule_engine.synchronous_sgd import ParameterState, UpdateRecipe
from chainrule_server.preparation.prepared_rows import PreparedRows
from chainrule_server.preparation.preprocessing import Preprocessing
from chainrule_server.preparation.start import Start


@dataclass(frozen=True)
class PreparedJob:
    """Everything that decides a job's result."""

    spec: job_pb2.JobSpec
    model: Model
    measure: Measure
    recipe: UpdateRecipe
    early_stopping: EarlyStopping | None
    schedule: BatchSchedule
    preprocessing: Preprocessing
    rows: PreparedRows
    class_count: int
    # None: every first value is drawn.
    start: Start | None = None

    @property
    def division(self) -> Division:
        """Which rows are in which shard."""
        return self.rows.division

    @property
    def row_count(self) -> int:
        """The number of rows, those for validation among them."""
        return self.rows.row_count

    @property
    def feature_count(self) -> int:
        """The number of places in x."""
        return self.preprocessing.width

    @property
    def total_steps(self) -> int:
        """The number of steps of the whole job."""
        return self.recipe.total_steps

    @property
    def precision(self) -> Precision:
        """What gradients and parameters are rounded to on their way."""
        return PRECISIONS[self.spec.training.precision]

    @property
    def has_validation(self) -> bool:
        """Whether any row is kept for validation."""
        return any(self.rows.validation_sizes)

    def shard(self, number: int, *, validation: bool) -> ShardRows:
        """The rows of one shard."""
        return self.rows.shard(number, validation=validation)

    def first_state(self, memory: tuple[Vector, Vector] | None = None) -> ParameterState:
        """The parameters before the first step. memory: the two vectors to keep them in, or None for new ones."""
        default = default_initializers(self.model.loss)
        parameters = initialize(self.model.layout, self.spec.training.seed, default=default)
        statistics = initial_statistics(self.model.statistics)
        if self.start is not None:
            self.start.fill(self.model, parameters, statistics)
        following = None
        if memory is not None:
            memory[0][...] = parameters
            parameters, following = memory
        state = ParameterState(
            self.recipe,
            parameters,
            next_parameters=following,
            precision=self.precision,
            statistics_layout=self.model.statistics,
        )
        state.statistics = statistics
        return state
