"""What `chainrule init` makes of the columns that real files have; and whatever it writes, a server takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from chainrule.cli.app import run
from chainrule.spec.job_file import load_job_file
from chainrule.v1 import job_pb2
from chainrule_server.preparation.prepare import prepare
from chainrule_server.preparation.prepared_job import PreparedJob
from tests.plain_workers import train_with_plain_workers

pytest.importorskip("pyarrow")
ROWS = 60
RANDOM = random.Random(3)
SIZES = [round(RANDOM.uniform(1, 9), 3) for _ in range(ROWS)]
PRICES = [round(3 * size + 1, 3) for size in SIZES]


def proposed(path: Path, *options: str) -> tuple[job_pb2.JobSpec, str, PreparedJob]:
    """The job that init proposes for a file or folder, its text, and the job as a server takes it."""
    job_file = path.parent / "job.toml"
    assert run(["init", str(path), "-o", str(job_file), *options]) == 0
    spec = load_job_file(job_file)
    return spec, job_file.read_text(), prepare(spec, data_root=path.parent)


def csv(path: Path, header: Sequence[str], *columns: Sequence[object], delimiter: str = ",") -> Path:
    rows = [delimiter.join(map(str, row)) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([delimiter.join(header), *rows]) + "\n")
    return path


def test_a_first_column_without_a_name_is_left_out_and_said(tmp_path: Path) -> None:
    spec, text, job = proposed(csv(tmp_path / "t.csv", ["", "size", "price"], range(1, ROWS + 1), SIZES, PRICES))
    assert list(spec.data.exclude) == [""]
    assert '# "": has no name: row numbers, as pandas and R write them.' in text
    assert job.feature_count == 1


@pytest.mark.parametrize("name", ["Unnamed: 0", "rownames", "PassengerId", "customerID", "id", "row_number", "X"])
def test_what_tells_rows_apart_is_left_out_and_said_in_any_order(name: str, tmp_path: Path) -> None:
    numbers = RANDOM.sample(range(1000, 9000), ROWS)
    spec, text, _ = proposed(csv(tmp_path / "t.csv", [name, "size", "price"], numbers, SIZES, PRICES))
    assert list(spec.data.exclude) == [name]
    assert "a number of its own for each row, so it says which row it is" in text


@pytest.mark.parametrize("first", [0, 1, 17])
def test_what_counts_the_rows_is_left_out_whatever_it_is_called(first: int, tmp_path: Path) -> None:
    counter = range(first, first + ROWS)
    spec, _, _ = proposed(csv(tmp_path / "t.csv", ["n", "size", "price"], counter, SIZES, PRICES))
    assert list(spec.data.exclude) == ["n"]
    # Where there is nothing else, it is better than nothing.
    (tmp_path / "other").mkdir()
    spec, _, _ = proposed(csv(tmp_path / "other" / "t.csv", ["n", "price"], counter, PRICES))
    assert list(spec.data.exclude) == []


def test_a_quantity_that_differs_in_each_row_is_a_feature(tmp_path: Path) -> None:
    populations = RANDOM.sample(range(1000, 9000), ROWS)
    spec, _, _ = proposed(csv(tmp_path / "t.csv", ["population", "price"], populations, PRICES))
    assert list(spec.data.exclude) == []


def test_texts_of_which_most_rows_have_their_own_are_no_feature(tmp_path: Path) -> None:
    names = [f"Mr {number}" for number in range(ROWS)]
    spec, _, _ = proposed(csv(tmp_path / "t.csv", ["name", "size", "price"], names, SIZES, PRICES))
    assert list(spec.data.exclude) == ["name"]


def test_class_does_not_beat_the_last_column(tmp_path: Path) -> None:
    classes = ["first", "second", "third"] * 20
    spec, _, _ = proposed(csv(tmp_path / "t.csv", ["class", "fare", "survived"], classes, SIZES, [0, 1] * 30))
    assert spec.data.target == "survived"


def test_what_cannot_be_a_target_is_not_chosen(tmp_path: Path) -> None:
    remarks = [f"remark {number}" for number in range(ROWS)]
    spec, _, _ = proposed(
        csv(
            tmp_path / "t.csv",
            ["size", "price", "same", "remark", "id"],
            SIZES,
            PRICES,
            [1] * ROWS,
            remarks,
            range(ROWS),
        )
    )
    assert spec.data.target == "price"
    assert set(spec.data.exclude) == {"same", "remark", "id"}


def test_all_rows_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = 150_000
    target = [0] * 120_000 + [1] * 30_000
    same_at_first = [0] * 120_000 + [round(number / 7, 3) for number in range(30_000)]
    path = csv(
        tmp_path / "t.csv",
        ["size", "late", "kind"],
        [number % 97 / 7 for number in range(count)],
        same_at_first,
        target,
    )
    spec, text, job = proposed(path)
    assert job.class_count == 2
    assert list(spec.data.exclude) == []
    assert f"{count} rows of file:t.csv, all looked at" in text


@pytest.mark.parametrize("name", ["T.CSV", "t.tab", "t.TSV", "T.Tab"])
def test_endings_of_any_size_and_tab_are_known_to_init_and_to_training(name: str, tmp_path: Path) -> None:
    delimiter = "," if name.lower().endswith("csv") else "\t"
    path = csv(tmp_path / name, ["size", "price"], SIZES, PRICES, delimiter=delimiter)
    spec, _, job = proposed(path)
    assert (spec.data.uri, job.row_count) == (f"file:{name}", ROWS)


def test_a_folder_of_files_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "2024.parts"
    folder.mkdir()
    for part in ("a.csv", "b.csv"):
        csv(folder / part, ["size", "price"], SIZES, PRICES)
    spec, _, job = proposed(folder)
    assert (spec.data.uri, job.row_count) == ("file:2024.parts", 2 * ROWS)
    assert run(["init", str(folder)]) == 0
    assert load_job_file(tmp_path / "2024.parts.toml").data.uri == "file:2024.parts"


def test_names_that_are_numbers_are_names_where_the_rest_fits(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", ["908.1", "914.46", "y"], SIZES, PRICES[::-1], PRICES)
    spec, _, job = proposed(path)
    assert (spec.data.target, job.feature_count) == ("y", 2)


@pytest.mark.parametrize("classes", [None, ["cat", "dog"]])
def test_an_npz_file_with_features_and_target_is_one_that_init_knows(classes: list[str] | None, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(ROWS, 3))
    more = {} if classes is None else {"classes": classes}
    target = features[:, 0] * 2 if classes is None else (features[:, 0] > 0).astype(int)
    np.savez(tmp_path / "t.npz", features=features, target=target, feature_names=["a", "b", "c"], **more)
    spec, text, job = proposed(tmp_path / "t.npz")
    assert (spec.data.target, job.feature_count, job.class_count) == ("", 3, 2 if classes else 0)
    assert 'predicts "target" from 3 columns' in text


def test_an_npz_file_of_columns_is_one_that_init_knows(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", size=np.array(SIZES), colour=np.array(["red", "blue"] * 30), price=np.array(PRICES))
    spec, _, job = proposed(tmp_path / "t.npz")
    assert (spec.data.target, job.feature_count) == ("price", 3)


def test_numbers_for_people_are_numbers_by_a_setting_of_the_job_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [
        f'"{1000 * size:,.2f}","${price:,.2f}",{size:.1f}%,{price}' for size, price in zip(SIZES, PRICES, strict=True)
    ]
    path.write_text("\n".join(["size,fee,share,price", *rows]) + "\n")
    spec, text, job = proposed(path)
    assert list(spec.data.csv.numbers) == ["size", "fee", "share"]
    assert "are written for people: signs and what parts thousands don't count." in text
    assert job.feature_count == 3
    # Also the target, and with more different values than there may be categories.
    money = [f'"${1000 + 7 * number:,.2f}",{number % 13}' for number in range(1500)]
    path.write_text("\n".join(["price,n", *money]) + "\n")
    (tmp_path / "job.toml").unlink()
    spec, _, job = proposed(path, "--target", "price")
    assert (list(spec.data.csv.numbers), job.class_count) == (["price"], 0)


def test_codes_that_are_no_numbers_stay_texts(tmp_path: Path) -> None:
    codes = ["1,2", "3-4", "A 5"] * 20
    spec, _, _ = proposed(csv(tmp_path / "t.csv", ["code", "price"], [f'"{code}"' for code in codes], PRICES))
    assert list(spec.data.csv.numbers) == []


def test_rows_without_a_target_are_left_out_by_a_setting_and_said(tmp_path: Path) -> None:
    prices = ["" if number % 10 == 0 else price for number, price in enumerate(PRICES)]
    spec, text, job = proposed(csv(tmp_path / "t.csv", ["size", "price"], SIZES, prices))
    assert spec.data.missing_target == "leave_out"
    assert "# 6 rows have no target, and are left out." in text
    assert job.row_count == ROWS - 6


@pytest.mark.parametrize("form", ["money", "unnamed index", "wavelengths"])
def test_a_job_as_it_is_proposed_learns_what_the_table_holds(form: str, tmp_path: Path) -> None:
    sizes = [RANDOM.uniform(1, 9) for _ in range(160)]
    others = [RANDOM.uniform(0, 1) for _ in sizes]
    prices = [900 * size + 300 * other for size, other in zip(sizes, others, strict=True)]
    if form == "money":
        cells = [f'"${price:,.2f}"' for price in prices]
        path = csv(tmp_path / "t.csv", ["size", "other", "price"], sizes, others, cells)
    elif form == "unnamed index":
        path = csv(tmp_path / "t.csv", ["", "size", "other", "price"], range(160), sizes, others, prices)
    else:
        path = csv(tmp_path / "t.csv", ["908.1", "914.46", "y"], sizes, others, prices)
    _, _, job = proposed(path)
    result = train_with_plain_workers(job, worker_count=1).result
    assert result is not None
    assert {metric.name: metric.value for metric in result.metrics}["r2"] > 0.95


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sep=;\na;y\n1;2\n", "is meant for Excel; take it out"),
        ("My report\na,y\n1,2\n3,4\n", "the first line, 'My report', is a title, and no names for the 2 columns"),
        ("a,y\n1,5\n2,5\n", "no column but 'a' can be used"),
        ("a,y\n1,5\n1,5\n", "no column holds different numbers or categories"),
    ],
)
def test_lines_above_the_names_are_called_what_they_are(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert run(["init", str(tmp_path / "t.csv")]) == 2
    assert said in capsys.readouterr().err
