"""How tables are read: one set of options everywhere, kept by what was trained, and files told apart by content."""

from __future__ import annotations

import gzip
import inspect
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import tsdistill as td
from tests.frames import hours, long, wide
from tests.tampering import rewrite
from tsdistill.artifacts import load, save
from tsdistill.cli import app
from tsdistill.cli.options import READING
from tsdistill.data import Panel, Reading, Task, read_csv, read_file, read_parquet, read_sql
from tsdistill.data.reading_options import ReadingRecord
from tsdistill.errors import ArtifactError, ConfigError, DataError
from tsdistill.formats.reading import READING as KEPT
from tsdistill.models import SeasonalNaiveConfig
from tsdistill.recipe import Source
from tsdistill.retrain import Job
from tsdistill.runtime import load as load_light

OF_TEXT = {"separator", "decimal", "encoding"}


def test_every_way_to_read_has_the_same_options() -> None:
    options = set(Reading.model_fields)
    for function, lacking in (
        (read_csv, set()),
        (read_parquet, OF_TEXT),
        (read_sql, OF_TEXT),
        (Panel.from_frame, OF_TEXT),
    ):
        assert options - set(inspect.signature(function).parameters) == lacking, function
    assert options <= set(Source.model_fields)
    assert [name for name, _, _ in READING] == list(Reading.model_fields)
    assert list(ReadingRecord.model_fields) == list(KEPT)
    assert {name: getattr(ReadingRecord(), name) for name in KEPT} == KEPT


@pytest.mark.parametrize("command", ["predict", "prune", "quantize"])
def test_commands_that_read_tables_have_them_too(command: str) -> None:
    names = {name for option in td.cli.typer.main.get_command(app).commands[command].params for name in option.opts}  # type: ignore[attr-defined]
    flags = {f"--{name.replace('_', '-')}" for name in Reading.model_fields}
    assert flags - names == set()


def test_recipes_that_do_not_use_new_options_are_what_they_were() -> None:
    source = Source(path="load.csv", time="date", time_zone="UTC")
    assert source.to_dict() == {"path": "load.csv", "time": "date", "time_zone": "UTC"}
    assert source.digest == "483ae1f336f34a49"
    more = source.replace(day_first=True, separator=r"\t", time="none")
    assert more.time is None
    assert more.separator == "\t"
    assert Source.from_toml(more.to_toml()) == more
    job = Job(store="store", data={"path": "load.csv", "decimal": ",", "day_first": False})  # type: ignore[call-arg]
    assert (job.data.decimal, job.recipe.data.day_first) == (",", False)
    for wrong in ({"decimal": ".."}, {"separator": ""}, {"fill": "mean"}, {"day_first": "perhaps"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Source(path="load.csv", **wrong)


GERMAN = {"time": "Zeit", "separator": ";", "decimal": ",", "encoding": "latin-1", "time_zone": "Europe/Berlin"}


def german(path: Path, start: str = "2024-01-13", n_rows: int = 60) -> Path:
    stamps = pd.date_range(start, periods=n_rows, freq="h")
    values = np.arange(n_rows) % 7 + 0.5
    rows = [
        f"{stamp:%d.%m.%Y %H:%M};{value:.1f}".replace(".5", ",5") for stamp, value in zip(stamps, values, strict=True)
    ]
    path.write_bytes("\n".join(["Zeit;Gr\xf6\xdfe", *rows]).encode("latin-1"))
    return path


def test_a_saved_model_reads_newer_files_as_its_own_data_was_read(tmp_path: Path) -> None:
    panel = read_csv(german(tmp_path / "alt.csv"), **GERMAN)  # type: ignore[arg-type]
    assert panel.reading == ReadingRecord(day_first=True, **GERMAN)
    model = SeasonalNaiveConfig(period=7).build(Task(panel, context=7, horizon=3).signature)
    assert model.signature.digest == model.signature.replace(reading=None).digest
    deployed = td.export(model)
    # The first of February, where the older file showed that days come first.
    newer = german(tmp_path / "NEU.CSV", "2024-02-01", 11)
    for trained, name in ((model, "trainable"), (deployed, "deployed")):
        folder = save(trained, tmp_path / name)
        assert load(folder).signature.reading == panel.reading
        done = CliRunner().invoke(app, ["predict", str(folder), str(newer)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        forecast = pd.read_csv(io.StringIO(done.output))
        assert forecast.columns.tolist() == ["Zeit", "Gr\xf6\xdfe"]
        assert forecast["Zeit"].iloc[0] == "2024-02-01 11:00:00+01:00"
        assert forecast.iloc[:, 1].tolist() == [4.5, 5.5, 6.5]
    assert load_light(tmp_path / "deployed").signature.reading.separator == ";"  # type: ignore[attr-defined]
    plain = tmp_path / "plain.csv"
    read_csv(newer, **{**GERMAN, "day_first": True}).to_frame().to_csv(plain, index=False)  # type: ignore[arg-type]
    options = ["--time", "ds", "--separator", ",", "--decimal", ".", "--encoding", "utf-8"]
    done = CliRunner().invoke(
        app, ["predict", str(tmp_path / "deployed"), str(plain), *options], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output


NONSENSE: dict[str, Any] = {
    "no object": ["ds"],
    "an unknown field": {"path": "/etc/passwd"},
    "a number": {"time": 3},
    "text for truth": {"day_first": "yes"},
    "codes for a terminal": {"time": "\x1b[31m"},
    "an unknown way to fill": {"fill": "mean"},
    "two characters": {"decimal": ".."},
    "numbers for names": {"left_out": [1]},
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_in_the_record_is_refused(case: str, tmp_path: Path) -> None:
    panel = Panel.from_frame(wide(hours(60), channels=("y",)))
    folder = save(SeasonalNaiveConfig(period=7).build(Task(panel, context=7, horizon=3).signature), tmp_path / "model")

    def spoil(values: dict[str, Any]) -> None:
        values["reading"] = NONSENSE[case]

    rewrite(folder, spoil)
    with pytest.raises(ArtifactError, match=r"reading|Reading|fill|decimal|left_out") as caught:
        load(folder)
    assert "\x1b" not in str(caught.value)


def test_older_artifacts_have_no_record(tmp_path: Path) -> None:
    signature = Task(Panel.from_frame(wide(hours(60), channels=("y",))), context=7, horizon=3).signature
    folder = save(SeasonalNaiveConfig(period=7).build(signature.replace(reading=None)), tmp_path / "model")
    assert "reading" not in json.loads((folder / "manifest.json").read_bytes())
    assert load(folder).signature.reading is None


@pytest.mark.parametrize("name", ["load.csv", "LOAD.CSV", "load.Csv.GZ", "load.txt", "load"])
def test_text_is_read_whatever_the_name(name: str, tmp_path: Path) -> None:
    text = wide().to_csv(index=False).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith(".gz") else text)
    assert read_file(tmp_path / name, Reading()).channels == ("a", "b", "c")


@pytest.mark.parametrize("name", ["load.parquet", "LOAD.Parquet", "load.PQ", "load"])
def test_parquet_is_read_whatever_the_name(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    wide().to_parquet(tmp_path / name)
    assert read_file(tmp_path / name, Reading()).channels == ("a", "b", "c")


def test_folders_of_parquet_are_one_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    df = long()
    whole = Panel.from_frame(df).to_frame()
    for name, rows in df.groupby("unique_id"):
        folder = tmp_path / "items" / f"unique_id={name}"
        folder.mkdir(parents=True)
        rows.drop(columns="unique_id").to_parquet(folder / "part-0.parquet")
    (tmp_path / "items" / "_SUCCESS").touch()
    (tmp_path / "items" / "README.md").touch()
    pd.testing.assert_frame_equal(read_file(tmp_path / "items", Reading()).to_frame(), whole)
    one = wide()
    for number, places in enumerate(np.array_split(np.arange(len(one)), 12)):
        folder = tmp_path / "months" / f"month={number}"
        folder.mkdir(parents=True)
        one.iloc[places].to_parquet(folder / "data.snappy.parquet")
    panel = read_parquet(tmp_path / "months")
    assert panel.channels == ("a", "b", "c")
    pd.testing.assert_frame_equal(panel.to_frame(), one)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no Parquet files"):
        read_file(tmp_path / "empty", Reading())


def test_identifiers_stay_what_is_written() -> None:
    names = ["NA", "None", "nan", "null", "007", "1e5", "NULL"]
    rows = [f"{name},2024-01-0{day},{day}" for name in names for day in (1, 2, 3)]
    panel = read_csv(io.StringIO("\n".join(["unique_id,ds,y", *rows])))
    assert [item.unique_id for item in panel.items] == names
    renamed = read_csv(io.StringIO("\n".join(["shop,ds,y", *rows])), id="shop")
    assert [item.unique_id for item in renamed.items] == names
    with pytest.raises(DataError, match=r"(?s)no identifier in row 3.*missing value"):
        read_csv(io.StringIO("unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,NA\na,2024-01-03,3\n,2024-01-01,1\n"))


def test_row_numbers_and_labels_are_left_out_and_the_notes_say_so() -> None:
    for text in (wide().to_csv(), wide().assign(index=range(53)).to_csv(index=False)):
        panel = read_csv(io.StringIO(text))
        assert panel.channels == ("a", "b", "c")
        assert "numbers the rows" in next(iter(panel.notes["left_out"].values()))
    again = pd.read_csv(io.StringIO(wide().iloc[5:].to_csv()))
    assert Panel.from_frame(again).channels == ("a", "b", "c")
    assert Panel.from_frame(again, target=["Unnamed: 0"]).channels == ("Unnamed: 0",)
    shop = {"s0": 3, "s1": 5, "s2": 7}
    df = long().rename(columns={"y": "load"})
    df = df.assign(shop=df["unique_id"].map(shop), version=1, price=np.arange(len(df)) % 5)
    panel = Panel.from_frame(df)
    assert panel.channels == ("load", "price")
    assert set(panel.notes["left_out"]) == {"shop", "version"}
    assert Panel.from_frame(df, target=["load", "shop"]).channels == ("load", "shop")
    assert Panel.from_frame(df[["unique_id", "ds", "version"]]).channels == ("version",)
    with pytest.raises(DataError, match="`Unnamed: 0` has no name"):
        read_csv(io.StringIO(",ds,a\n0.5,2024-01-01,1\n0.5,2024-01-02,1\n"))


HEADERS: dict[str, tuple[str, list[str]]] = {
    "repeated": ("ds,v,v", ["column 'v' more than once", "columns 2, 3"]),
    "repeated in quotes": ('ds,"v",v', ["column 'v' more than once"]),
    "two repeated": ("ds,v,w,v,w", ["more than once", "1 more names"]),
    "a repeated time": ("ds,ds,v", ["column 'ds' more than once"]),
}


@pytest.mark.parametrize("case", HEADERS)
def test_repeated_columns_are_refused(case: str) -> None:
    header, words = HEADERS[case]
    row = ",".join(["2024-01-01", *"1" * header.count(",")])
    with pytest.raises(DataError) as caught:
        read_csv(io.StringIO(f"{header}\n{row}\n"))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_headers_are_read_as_they_stand() -> None:
    text = '\n\ufeffds,v.1,"two\nlines"," c"\n2024-01-01,1,2,3\n2024-01-02,4,5,6\n'
    panel = read_csv(io.BytesIO(text.encode()))
    assert panel.channels == ("v.1", "two\nlines", " c")
    assert read_csv(io.StringIO("ds,a,\n2024-01-01,1,\n2024-01-02,2,\n")).channels == ("a",)
    assert read_csv(io.StringIO("ds  a\n2024-01-01  1\n2024-01-02  2\n"), separator=r"\s+").channels == ("a",)
