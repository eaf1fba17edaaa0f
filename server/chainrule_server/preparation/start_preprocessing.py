"""The preprocessing of what a job starts from, where it is the job's own too.

A parameter means something only with the preprocessing that it was trained with: fine-tuning on rows of another mean
and scale would begin with another model. So the source's is taken over, unless the job says otherwise, and a job whose
rows don't fit it is refused; nothing is learnt anew in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from chainrule.text import shortened_list
from chainrule.v1 import job_pb2
from chainrule_server.data.column_choice import listed
from chainrule_server.data.data_set import DataSet, FileRows
from chainrule_server.preparation.encodings import CategoryEncoding, NumberEncoding
from chainrule_server.preparation.preprocessing import Preprocessing, TargetPreprocessing, learn_features, learn_target
from chainrule_server.preparation.start_file import StartError, StartFile

FIELD = "model.start.preprocessing"
# What a data set with a target of its own calls it.
UNNAMED = "the target"


@dataclass(frozen=True)
class StartPreprocessing:
    """source: all of it. data: of the source's job. features, target: which of the two are taken."""

    source: Preprocessing
    data: job_pb2.DataSpec
    features: bool
    target: bool

    def put_into(self, data: job_pb2.DataSpec, given: job_pb2.DataSpec) -> None:
        """Complete a job's `data` by what the source's says, `standardize` apart.

        given: the same without defaults. Raises StartError where it says something else."""
        if self.features:
            _check_same("data.missing", given.missing, self.data.missing, is_given=given.HasField("missing"))
            data.missing = self.data.missing
            if not data.missing_markers:
                data.missing_markers[:] = self.data.missing_markers
            self._put_columns_into(data)
        if self.target:
            labels = list(self.source.labels or ())
            _check_same("data.labels", list(given.labels), labels, is_given=bool(given.labels))
            data.labels[:] = labels
        names = {*(self.source.feature_names if self.features else ()), *([data.target] if self.target else ())}
        data.categories.extend(
            name for name in self.data.categories if name in names and name not in set(data.categories)
        )

    def put_standardization_into(self, data: job_pb2.DataSpec, given: job_pb2.DataSpec) -> None:
        """Complete `data.standardize`, which holds the default where it isn't given. Raises StartError."""
        for name in ("features", "target"):
            if getattr(self, name):
                theirs = getattr(self.data.standardize, name)
                own = getattr(given.standardize, name)
                is_given = given.HasField("standardize")
                _check_same("data.standardize", own, theirs, is_given=is_given, what=f"the {name}: ")
                setattr(data.standardize, name, theirs)

    def _put_columns_into(self, data: job_pb2.DataSpec) -> None:
        names = self.source.feature_names
        if data.target in names:
            raise StartError(f"{data.target!r} is a feature of what the job starts from", field="data.target")
        left_out = [name for name in names if name in set(data.exclude)]
        if left_out:
            _refuse("data.exclude", f"leaves out {listed(left_out)}, which the job's start takes as features")
        if data.features and set(data.features) != set(names):
            _refuse("data.features", f"what the job starts from has others, {listed(names)}")
        data.ClearField("exclude")
        # In the source's order: a column of V belongs to a feature.
        data.features[:] = names


def taken_from(start: job_pb2.ModelStart, file: StartFile) -> StartPreprocessing | None:
    """What a job takes over of the preprocessing in a file; None for nothing. `start.preprocessing` is filled in.

    Raises StartError where a preprocessing is asked for that the file doesn't have."""
    text = file.metadata.get("preprocessing")
    if not start.HasField("preprocessing"):
        start.preprocessing.features = start.preprocessing.target = text is not None
    wanted = start.preprocessing
    if not (wanted.features or wanted.target):
        return None
    if text is None:
        message = "what it starts from doesn't say how its rows were prepared, as models of jobs do; leave this out"
        raise StartError(message, field=FIELD)
    try:
        source = Preprocessing.from_json(text)
        _check_sound(source)
        spec = json_format.Parse(file.metadata.get("spec", "{}"), job_pb2.JobSpec(), ignore_unknown_fields=True)
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise StartError(f"what it starts from can't be read: {error}; say {FIELD} = []", field=FIELD) from None
    return StartPreprocessing(source, spec.data, wanted.features, wanted.target)


def _check_sound(source: Preprocessing) -> None:
    """Raise ValueError for a preprocessing that no job can have learnt: a file may be anybody's."""
    names = source.feature_names
    scaled = [(each.mean, each.scale) for each in source.features if isinstance(each, NumberEncoding)]
    sorted_names = [each.categories for each in source.features if isinstance(each, CategoryEncoding)]
    sorted_names += [source.classes] if source.classes is not None else []
    if not names or len(set(names)) < len(names):
        raise ValueError("is no preprocessing: each feature has a name of its own")
    for mean, scale in (*scaled, (source.target_mean, source.target_scale)):
        if (mean is None) != (scale is None) or (scale is not None and scale <= 0):
            raise ValueError(f"is no preprocessing: a mean has a scale above 0, got {mean} and {scale}")
    for each in sorted_names:
        if not each or list(each) != sorted(set(each)):
            raise ValueError("is no preprocessing: categories and classes are sorted, each of them once")
    if source.labels is not None and len(source.labels) != len(source.classes or ()):
        raise ValueError("is no preprocessing: it has not one label for each class")


def learn_or_take(
    data: DataSet | FileRows, spec: job_pb2.DataSpec, training_rows: NDArray[np.int64], taken: StartPreprocessing | None
) -> tuple[DataSet | FileRows, Preprocessing]:
    """The preprocessing of a job's rows, and the rows with the source's classes where these are taken.

    training_rows: row numbers, sorted. Raises DataError, and StartError where the rows don't fit what is taken."""
    if taken is None or not taken.features:
        features = learn_features(data, spec, training_rows)
    else:
        features = taken.source.features
    if taken is None or not taken.target:
        return data, Preprocessing.of(features, learn_target(data, spec, training_rows))
    target = taken.source.target
    return _with_classes(data, target), Preprocessing.of(features, target._replace(name=data.target_name))


def _with_classes(data: DataSet | FileRows, target: TargetPreprocessing) -> DataSet | FileRows:
    """The rows with the numbers that the source has for the classes. Raises StartError where it isn't its target."""
    if UNNAMED not in (data.target_name, target.name) and data.target_name != target.name:
        _refuse(
            "data.target",
            f"is {data.target_name!r}, but what the job starts from predicts {target.name!r}",
            mend=f'{FIELD} = ["features"] learns another target',
        )
    if (data.classes is None) != (target.classes is None):
        kinds = ("a number", "a class") if data.classes is None else ("a class", "a number")
        _refuse(
            "data.target",
            f"is {kinds[0]}, but {kinds[1]} in what the job starts from",
            mend=f'{FIELD} = ["features"] learns another target',
        )
    if data.classes is None or target.classes is None:
        return data
    place_of = {name: place for place, name in enumerate(target.classes)}
    unknown = [name for name in data.classes if name not in place_of]
    if unknown:
        _refuse(
            "data.target",
            f"has {shortened_list(unknown)}, but what the job starts from knows {shortened_list(target.classes)}",
            mend=f'{FIELD} = ["features"] learns the classes anew, and draw the last layer, whose shape changes',
        )
    places = np.array([place_of[name] for name in data.classes], dtype=np.int64)
    return replace(data, target=places[data.target], classes=target.classes)


def _check_same(field: str, own: Any, theirs: Any, *, is_given: bool, what: str = "") -> None:
    if is_given and own != theirs:
        _refuse(field, f"{what}{_shown(own)} here, but {_shown(theirs)} in what the job starts from; leave it out")


def _refuse(field: str, message: str, *, mend: str = f"{FIELD} = [] learns all of it from this job's rows") -> None:
    raise StartError(f"{message}; its preprocessing is taken over: {mend}", field=field)


def _shown(value: str | bool | Sequence[float]) -> str:
    if isinstance(value, bool):
        return "standardized" if value else "not standardized"
    return f'"{value}"' if isinstance(value, str) else str(list(value))
