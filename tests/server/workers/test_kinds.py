"""Which workers may compute for one job."""

from __future__ import annotations

import pytest

from chainrule.v1 import job_pb2
from chainrule.v1 import worker_service_pb2 as pb
from chainrule_server.workers.kinds import LACKS_NUMBA, admit, kind_of, sets_of_like

HELLO = pb.Hello(numpy_version="2.4.6", blas="openblas 0.3 SkylakeX", instructions="x86_64 AVX512", numba="0.65")


@pytest.mark.parametrize(
    "changed", [{"numpy_version": "2.4.5"}, {"blas": "openblas 0.3 Haswell"}, {"instructions": ""}]
)
def test_another_numpy_blas_kernel_or_processor_is_another_kind(changed: dict[str, str]) -> None:
    other = pb.Hello()
    other.CopyFrom(HELLO)
    for name, value in changed.items():
        setattr(other, name, value)
    assert kind_of(HELLO, backend="numpy") != kind_of(other, backend="numpy")


def test_names_hosts_and_models_of_processors_make_no_kind() -> None:
    other = pb.Hello(name="w", host="h", processor="Xeon", process_id=7)
    other.MergeFrom(HELLO)
    assert kind_of(HELLO, backend="numpy") == kind_of(other, backend="numpy")
    assert kind_of(HELLO, backend="numpy") == "numpy 2.4.6, openblas 0.3 SkylakeX, x86_64 AVX512"


def test_numba_counts_only_where_it_is_the_backend() -> None:
    other = pb.Hello()
    other.CopyFrom(HELLO)
    other.numba = ""
    assert kind_of(HELLO, backend="numpy") == kind_of(other, backend="numpy")
    assert kind_of(other, backend="numba") == LACKS_NUMBA
    assert kind_of(HELLO, backend="numba").endswith("numba 0.65")


def test_the_kind_that_most_of_the_first_workers_have_is_the_job_s() -> None:
    found = admit({"a": "x", "b": "y", "c": "y"}, [], must_be_identical=True)
    assert (found.admitted, found.refused, found.kinds) == (("b", "c"), ("a",), ("y",))
    assert found.events == (job_pb2.WorkerDiffers(worker="a", kind="x", job_kind="y", is_refused=True),)


def test_of_as_many_the_first_decides() -> None:
    assert admit({"a": "x", "b": "y"}, [], must_be_identical=True).admitted == ("a",)


def test_what_has_computed_decides_over_what_comes_later_however_many() -> None:
    found = admit({"b": "y", "c": "y"}, ["x"], must_be_identical=True)
    assert (found.admitted, found.refused, found.kinds) == ((), ("b", "c"), ("x",))


def test_where_they_need_not_be_identical_all_compute_and_it_is_told() -> None:
    found = admit({"a": "x", "b": "y"}, [], must_be_identical=False)
    assert (found.admitted, found.refused, found.kinds) == (("a", "b"), (), ("x", "y"))
    assert [event.is_refused for event in found.events] == [False]


def test_who_lacks_the_backend_is_refused_in_any_case() -> None:
    found = admit({"a": LACKS_NUMBA, "b": "x"}, [], must_be_identical=False)
    assert (found.admitted, found.refused, found.kinds) == (("b",), ("a",), ("x",))


def test_before_its_first_workers_a_job_may_have_those_of_any_one_kind_and_the_most_common_is_named_first() -> None:
    kinds = {"a": "x", "b": "y", "c": LACKS_NUMBA, "d": "y"}
    assert sets_of_like(kinds, [], must_be_identical=True) == (frozenset("bd"), frozenset("a"))
    assert sets_of_like(kinds, ["x", "y"], must_be_identical=True) == (frozenset("a"),)
    assert sets_of_like(kinds, ["z"], must_be_identical=True) == (frozenset(),)
    assert sets_of_like(kinds, ["x"], must_be_identical=False) == (frozenset("abd"),)
    assert sets_of_like({"c": LACKS_NUMBA}, [], must_be_identical=True) == ()
