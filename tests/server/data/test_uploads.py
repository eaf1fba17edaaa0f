"""Uploads and the data sets that they become, without a server."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from chainrule.v1 import data_service_pb2 as api
from chainrule_server.api.data_service import page
from chainrule_server.data.data_root import DataFileError
from chainrule_server.data.data_set_record import MANIFEST, MOST_NAMES
from chainrule_server.data.data_set_store import DataSetStore
from chainrule_server.data.uploads import PART_BYTES, Uploads
from chainrule_server.errors import InvalidRequest, LimitExceeded, NotFound, OutOfRange, StorageFull, WrongState

CONTENT = b"a,b,target\n" + b"1,2,3\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def opened(folder: Path, **settings: float) -> Uploads:
    """The uploads of a server that has just been started on this folder."""
    return Uploads(folder / "uploads", DataSetStore(folder / "datasets"), **settings)  # type: ignore[arg-type]


def begin(uploads: Uploads, content: bytes = CONTENT, *, name: str = "rows.csv") -> int:
    received, _ = uploads.begin(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), name=name)
    return received


def uploaded(uploads: Uploads, content: bytes = CONTENT, *, name: str = "rows.csv") -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    if begin(uploads, content, name=name) < len(content):
        uploads.append(sha256, 0, content)
    return uploads.finish(sha256).sha256


def read(uploads: Uploads, reference: str) -> bytes:
    with uploads.data_sets.open(uploads.data_sets.find(reference).sha256) as file:
        return file.read()


def test_a_file_is_stored_once_under_its_hash_and_found_by_its_names(tmp_path: Path) -> None:
    uploads = opened(tmp_path)
    uploaded(uploads)
    assert begin(uploads, name="again.csv") == len(CONTENT)
    uploads.finish(SHA256, "again.csv")
    for each in (uploads, opened(tmp_path)):
        (record,) = each.data_sets.all()
        assert [each.name for each in record.names] == ["rows.csv", "again.csv"]
        for reference in ("rows.csv", "again.csv", SHA256, SHA256[:8]):
            assert read(each, reference) == CONTENT
        for reference in ("rows", SHA256[:7], "0" * 64, "", "../x.csv"):
            with pytest.raises(NotFound):
                each.data_sets.find(reference)
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [SHA256]
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_name_is_that_of_the_data_set_that_got_it_last(tmp_path: Path) -> None:
    now_s = iter(range(1, 1000))
    uploads = opened(tmp_path, clock=lambda: float(next(now_s)))  # type: ignore[arg-type]
    uploaded(uploads, b"old")
    uploaded(uploads, b"new")
    assert read(uploads, "rows.csv") == b"new"
    uploads.finish(hashlib.sha256(b"old").hexdigest(), "rows.csv")
    uploads.finish(hashlib.sha256(b"old").hexdigest(), "rows.csv")
    for each in (uploads, opened(tmp_path)):
        assert read(each, "rows.csv") == b"old"


def test_after_the_clock_was_put_back_a_name_is_still_that_of_the_data_set_that_got_it_last(tmp_path: Path) -> None:
    now_s = iter(range(2_000_000_000, 0, -86_400))
    uploads = opened(tmp_path, clock=lambda: float(next(now_s)))  # type: ignore[arg-type]
    for content in (b"first", b"second", b"third"):
        uploaded(uploads, content)
        for each in (uploads, opened(tmp_path)):
            assert read(each, "rows.csv") == content
    # Also where another process goes on, and where an old file gets the name again.
    again = opened(tmp_path, clock=lambda: 1.0)  # type: ignore[arg-type]
    again.finish(hashlib.sha256(b"first").hexdigest(), "rows.csv")
    for each in (again, opened(tmp_path)):
        assert read(each, "rows.csv") == b"first"


def test_names_that_an_older_chainrule_gave_go_by_their_times_and_before_all_later_ones(tmp_path: Path) -> None:
    uploads = opened(tmp_path, clock=lambda: 5.0)  # type: ignore[arg-type]
    for content, given_at_s in ((b"new", 2e9), (b"old", 1e9)):
        manifest = tmp_path / "datasets" / uploaded(uploads, content) / MANIFEST
        fields = json.loads(manifest.read_bytes())
        del fields["order"], fields["name_orders"]
        manifest.write_text(json.dumps(fields | {"names": [["rows.csv", given_at_s]], "created_at_s": given_at_s}))
    home = opened(tmp_path, clock=lambda: 5.0)  # type: ignore[arg-type]
    assert read(home, "rows.csv") == b"new"
    uploaded(home, b"newest")
    for each in (home, opened(tmp_path)):
        assert read(each, "rows.csv") == b"newest"
        listed = page(each.data_sets.all(), api.ListDataSetsRequest()).data_sets
        expected = [hashlib.sha256(content).hexdigest() for content in (b"newest", b"new", b"old")]
        assert [data_set.sha256 for data_set in listed] == expected


def test_what_is_written_of_a_data_set_is_what_an_older_chainrule_reads(tmp_path: Path) -> None:
    uploads = opened(tmp_path, clock=lambda: 5.0)  # type: ignore[arg-type]
    fields = json.loads((tmp_path / "datasets" / uploaded(uploads) / MANIFEST).read_bytes())
    assert fields["names"] == [["rows.csv", 5.0]]
    assert {"size_bytes", "created_at_s"} <= set(fields)


def test_a_data_set_keeps_only_its_latest_names(tmp_path: Path) -> None:
    uploads = opened(tmp_path)
    uploaded(uploads)
    for number in range(MOST_NAMES + 5):
        uploads.finish(SHA256, f"{number}.csv")
    (record,) = uploads.data_sets.all()
    assert [each.name for each in record.names] == [f"{number}.csv" for number in range(5, MOST_NAMES + 5)]


def test_an_upload_goes_on_after_a_restart_from_where_it_was(tmp_path: Path) -> None:
    begin(opened(tmp_path))
    for start in range(0, len(CONTENT), 1000):
        uploads = opened(tmp_path)
        assert begin(uploads) == start
        assert uploads.append(SHA256, start, CONTENT[start : start + 1000]) == min(start + 1000, len(CONTENT))
    assert begin(opened(tmp_path)) == len(CONTENT)
    opened(tmp_path).finish(SHA256)
    assert read(opened(tmp_path), SHA256) == CONTENT


def test_a_part_that_came_already_does_no_harm_and_a_gap_is_refused(tmp_path: Path) -> None:
    uploads = opened(tmp_path)
    begin(uploads)
    assert uploads.append(SHA256, 0, CONTENT[:100]) == 100
    assert uploads.append(SHA256, 0, CONTENT[:100]) == 100
    assert uploads.append(SHA256, 50, CONTENT[50:150]) == 150
    with pytest.raises(OutOfRange, match="has 150 bytes; go on from there and not from 151"):
        uploads.append(SHA256, 151, CONTENT[151:160])
    with pytest.raises(OutOfRange, match=f"begun with {len(CONTENT)} bytes"):
        uploads.append(SHA256, 150, CONTENT)
    with pytest.raises(InvalidRequest, match="content: must be at most"):
        uploads.append(SHA256, 150, bytes(PART_BYTES + 1))
    with pytest.raises(WrongState, match=f"has 150 of {len(CONTENT)} bytes"):
        uploads.finish(SHA256)
    uploads.append(SHA256, 150, CONTENT[150:])
    uploads.finish(SHA256)
    assert read(uploads, SHA256) == CONTENT


def test_other_bytes_than_the_hash_says_are_refused_and_can_be_sent_again(tmp_path: Path) -> None:
    uploads = opened(tmp_path)
    begin(uploads)
    uploads.append(SHA256, 0, CONTENT[:-1] + b"!")
    with pytest.raises(InvalidRequest, match="did the file change"):
        uploads.finish(SHA256)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert uploaded(uploads) == SHA256


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"sha256": "x"}, "sha256"),
        ({"sha256": SHA256.upper()}, "sha256"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"name": ""}, "name"),
        ({"name": "rows.pickle"}, "name"),
        ({"name": "../rows.csv"}, "name"),
        ({"name": ".csv"}, "name"),
        ({"name": "a\n.csv"}, "name"),
        ({"name": 300 * "a" + ".csv"}, "name"),
    ],
)
def test_what_can_be_no_upload_is_refused_with_its_field(tmp_path: Path, changed: dict[str, str], field: str) -> None:
    arguments = {"sha256": SHA256, "size_bytes": 5, "name": "rows.csv"} | changed
    with pytest.raises(InvalidRequest) as caught:
        opened(tmp_path).begin(**arguments)  # type: ignore[arg-type]
    assert [path for path, _ in caught.value.violations] == [field]
    assert list((tmp_path / "uploads").iterdir()) == []


def test_the_same_bytes_have_one_size_and_one_ending(tmp_path: Path) -> None:
    uploads = opened(tmp_path)
    begin(uploads)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="size_bytes: the file of this hash has"):
            uploads.begin(sha256=SHA256, size_bytes=5, name="rows.csv")
        with pytest.raises(InvalidRequest, match="name: these bytes are known as"):
            begin(uploads, name="rows.tsv")
        with pytest.raises(InvalidRequest, match="name"):
            uploads.finish(SHA256, "rows.tsv")
        uploaded(uploads)


def test_more_than_the_server_keeps_is_refused_with_the_setting(tmp_path: Path) -> None:
    uploads = opened(tmp_path, max_bytes=len(CONTENT) + 10)
    begin(uploads)
    with pytest.raises(LimitExceeded, match="--max-data-set-bytes"):
        begin(uploads, b"x" * 11, name="more.csv")
    assert uploaded(uploads, b"x" * 10, name="more.csv")
    uploads.cancel(SHA256)
    assert uploaded(uploads, b"y" * 10, name="more.csv")


def test_what_fitted_on_a_full_disk_is_kept_and_the_upload_goes_on(tmp_path: Path) -> None:
    uploads = opened(tmp_path)
    begin(uploads)
    uploads.append(SHA256, 0, CONTENT[:100])
    path, aside = tmp_path / "uploads" / SHA256 / "content", tmp_path / "aside"
    path.rename(aside)
    path.symlink_to("/dev/full")
    with pytest.raises(StorageFull, match="disk is full; what it has is kept"):
        uploads.append(SHA256, 0, CONTENT[:100])
    aside.replace(path)
    assert begin(uploads) == 100
    uploads.append(SHA256, 100, CONTENT[100:])
    uploads.finish(SHA256)
    assert read(uploads, SHA256) == CONTENT


def test_a_file_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="are needed"):
        opened(tmp_path, max_bytes=1 << 62).begin(sha256=SHA256, size_bytes=1 << 61, name="rows.csv")
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_upload_without_bytes_for_long_is_dropped_and_no_other(tmp_path: Path) -> None:
    now_s = [1e3]
    uploads = opened(tmp_path, monotonic_s=lambda: now_s[0], abandoned_after_s=100.0)  # type: ignore[arg-type]
    begin(uploads)
    begin(uploads, b"other")
    now_s[0] += 50
    uploads.append(hashlib.sha256(b"other").hexdigest(), 0, b"ot")
    now_s[0] += 51
    uploads.remove_abandoned()
    with pytest.raises(NotFound, match="there is no upload"):
        uploads.append(SHA256, 0, CONTENT)
    assert uploads.append(hashlib.sha256(b"other").hexdigest(), 0, b"other") == 5
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == [hashlib.sha256(b"other").hexdigest()]


def test_a_clock_that_is_set_drops_no_upload(tmp_path: Path) -> None:
    now_s = [1e9]
    uploads = opened(tmp_path, clock=lambda: now_s[0], abandoned_after_s=100.0)  # type: ignore[arg-type]
    begin(uploads)
    os.utime(tmp_path / "uploads" / SHA256 / "content", (1.0, 1.0))
    now_s[0] += 1e8
    uploads.remove_abandoned()
    assert uploads.append(SHA256, 0, CONTENT) == len(CONTENT)


def test_what_a_killed_server_left_half_done_is_cleared_away(tmp_path: Path) -> None:
    uploaded(opened(tmp_path))
    begun = tmp_path / "uploads" / ("0" * 64)
    begun.mkdir()
    (tmp_path / "datasets" / f"{'1' * 64}.gone").mkdir()
    assert len(opened(tmp_path).data_sets.all()) == 1
    assert not begun.exists()
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [SHA256]


def test_bytes_that_changed_on_the_disk_are_not_read(tmp_path: Path) -> None:
    uploads = opened(tmp_path)
    uploaded(uploads)
    path = tmp_path / "datasets" / SHA256 / "content"
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DataFileError, match="is damaged on the server's disk"):
        uploads.data_sets.open(SHA256)
    # One that was cut short is known at the start, and can be uploaded again.
    path.write_bytes(CONTENT[:-1])
    uploads = opened(tmp_path)
    assert uploads.data_sets.all() == []
    uploaded(uploads)
    assert read(uploads, SHA256) == CONTENT


def test_a_data_set_that_a_job_is_created_from_is_not_deleted(tmp_path: Path) -> None:
    store = opened(tmp_path).data_sets
    uploaded(opened(tmp_path))
    store = opened(tmp_path).data_sets
    with store.held("dataset:rows.csv") as uri:
        assert uri == f"dataset:{SHA256}"
        with pytest.raises(WrongState, match="being created"):
            store.remove(SHA256)
    for uri in ("sklearn:iris", "dataset:none.csv", "file:rows.csv", ""):
        with store.held(uri) as same:
            assert same == uri
    store.remove(SHA256)
    with pytest.raises(NotFound):
        store.remove(SHA256)
    assert list((tmp_path / "datasets").iterdir()) == []
    assert opened(tmp_path).data_sets.all() == []
