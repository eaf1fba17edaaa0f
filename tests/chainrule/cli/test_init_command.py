"""`chainrule init` proposes a job that a server accepts, and writes over nothing."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from chainrule.cli.app import run
from chainrule.spec.job_file import load_job_file
from chainrule.spec.job_proposal import ColumnFacts, NoTarget, chosen_target, proposal
from chainrule_server.preparation.prepare import prepare

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def rows_of(path: Path, row_count: int = 40) -> Path:
    """A CSV file with a number, a text, a class, and an empty cell."""
    lines = ["id,size,colour,kind"]
    lines += [f"{row},{row * 1.5},{'red' if row % 3 else 'blue'},{row % 2}" for row in range(1, row_count)]
    lines.append(f"{row_count},,red,1")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_proposed_job_is_one_that_can_be_trained(tmp_path: Path) -> None:
    data = rows_of(tmp_path / "things.csv")
    assert run(["init", str(data)]) == 0
    spec = load_job_file(tmp_path / "things.toml")
    prepared = prepare(spec, data_root=tmp_path)
    assert prepared.class_count == 2
    assert spec.data.target == "kind"
    assert list(spec.data.exclude) == ["id"]
    assert spec.data.missing == "median"


def test_a_number_with_a_fraction_becomes_a_regression(tmp_path: Path) -> None:
    data = rows_of(tmp_path / "things.csv")
    (tmp_path / "things.csv").write_text(data.read_text().replace("40,,red,1", "40,60,red,1"))
    assert run(["init", str(data), "--target", "size", "-o", str(tmp_path / "job.toml")]) == 0
    spec = load_job_file(tmp_path / "job.toml")
    assert "prediction - y" in spec.model.loss
    assert prepare(spec, data_root=tmp_path).class_count == 0


def test_a_parquet_file_with_dates_is_proposed_without_them(tmp_path: Path) -> None:
    days = [datetime.date(2026, 1, 1 + day) for day in range(30)]
    table = pa.table(
        {"day": days, "x": [day * 0.5 for day in range(30)], "y": [float(day) + 0.25 for day in range(30)]}
    )
    pq.write_table(table, tmp_path / "days.parquet")
    assert run(["init", str(tmp_path / "days.parquet")]) == 0
    spec = load_job_file(tmp_path / "days.toml")
    assert list(spec.data.exclude) == ["day"]
    prepare(spec, data_root=tmp_path)


@pytest.mark.parametrize(
    ("delimiter", "point", "said"),
    [
        (";", ",", 'csv = { delimiter = ";", decimal_point = "," }'),
        (";", ".", 'csv = { delimiter = ";" }'),
        ("\t", ",", 'csv = { delimiter = "\\t", decimal_point = "," }'),
        ("|", ".", 'csv = { delimiter = "|" }'),
        (",", ".", None),
    ],
)
def test_a_table_of_another_country_is_proposed_as_it_is_written(
    delimiter: str, point: str, said: str | None, tmp_path: Path
) -> None:
    rows = [f"{row}.5{delimiter}{row % 7}.25{delimiter}{row * 2}.75" for row in range(40)]
    text = "\n".join([delimiter.join(["one", "two", "three"]), *(row.replace(".", point) for row in rows)])
    (tmp_path / "rows.csv").write_text(text + "\n", encoding="utf-8-sig")
    assert run(["init", str(tmp_path / "rows.csv")]) == 0
    proposed = (tmp_path / "rows.toml").read_text()
    assert (said in proposed) if said else ("csv =" not in proposed)
    prepared = prepare(load_job_file(tmp_path / "rows.toml"), data_root=tmp_path)
    assert (prepared.row_count, prepared.feature_count) == (40, 2)


def test_a_column_that_is_left_out_says_why_and_no_more(tmp_path: Path) -> None:
    lines = [f"2026-01-{1 + row % 28:02},{row}.5,{row}.25" for row in range(30)]
    (tmp_path / "days.csv").write_text("\n".join(["day,x,y", *lines]) + "\n")
    assert run(["init", str(tmp_path / "days.csv")]) == 0
    (comment,) = [line for line in (tmp_path / "days.toml").read_text().splitlines() if line.startswith('# "day"')]
    assert comment.startswith('# "day": holds date32[day], and dates')
    assert "exclude" not in comment


def test_a_job_file_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = rows_of(tmp_path / "things.csv")
    (tmp_path / "things.toml").write_text("mine")
    assert run(["init", str(data)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "things.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.csv"], "there is no such file"),
        (["things.csv", "--target", "weight"], "there is no column 'weight'; there are id, size, colour, kind"),
        (["things.csv", "-o", "elsewhere/job.toml"], "must be the data file's folder"),
    ],
)
def test_what_cannot_be_proposed_says_why(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rows_of(tmp_path / "things.csv")
    assert run(["init", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_json_names_the_file_and_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = rows_of(tmp_path / "things.csv")
    assert run(["init", str(data), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"path": str(tmp_path / "things.toml"), "target": "kind", "row_count": 40}


def test_a_column_that_is_called_target_is_preferred_to_the_last() -> None:
    columns = [ColumnFacts("y", "number", distinct=9), ColumnFacts("x", "number", distinct=9)]
    assert chosen_target(columns, None, row_count=9).name == "y"


def test_a_table_of_nothing_but_the_target_is_refused() -> None:
    only = ColumnFacts("y", "number", distinct=9)
    with pytest.raises(NoTarget, match="nothing to predict it from"):
        proposal([only], uri="file:a.csv", name="a", target=only, row_count=9, file_name="a.toml")


def test_names_with_quotes_and_line_breaks_stay_in_their_strings(tmp_path: Path) -> None:
    columns = [ColumnFacts('a"\nb', "number", distinct=9, missing=1), ColumnFacts("y", "number", distinct=9)]
    text = proposal(columns, uri="file:a.csv", name="a", target=columns[1], row_count=90, file_name="a.toml")
    path = tmp_path / "a.toml"
    path.write_text(text)
    assert load_job_file(path).data.target == "y"


def test_a_file_that_holds_no_rows_is_named_and_no_key_of_a_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rides.toml"
    path.write_text("name = 'rides'\n")
    assert run(["init", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: DATA: {path}: names no file that can be read; its name must end")
