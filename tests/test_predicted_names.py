"""What `tsdistill predict` writes is called as in the file that it read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import tsdistill as td
from tsdistill.cli import app

STAMPS = pd.date_range("2024-01-01", periods=60, freq="h")


def table(items: int = 1, **names: str) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"unique_id": f"s{item}", "ds": STAMPS, "y": np.arange(60.0) % 7 + item}) for item in range(items)
    ]
    return pd.concat(frames, ignore_index=True).rename(columns=names)


def predicted(folder: Path, frame: pd.DataFrame, *options: str) -> pd.DataFrame:
    frame.to_csv(folder / "newest.csv", index=False)
    arguments = ["predict", str(folder / "model"), str(folder / "newest.csv"), *options]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return pd.DataFrame(json.loads(done.output)) if "--json" in options else pd.read_csv(io.StringIO(done.output))


def trained(folder: Path, frame: pd.DataFrame, **reading: str) -> None:
    task = td.Task(td.Panel.from_frame(frame, **reading), context=7, horizon=3)  # type: ignore[arg-type]
    td.save(td.models.SeasonalNaiveConfig(period=7).build(task.signature), folder / "model")


@pytest.mark.parametrize("options", [(), ("--json",), ("--rolling", "24")])
def test_columns_have_the_names_that_training_gave(tmp_path: Path, options: tuple[str, ...]) -> None:
    frame = table(2, unique_id="shop", ds="hour", y="sales")
    trained(tmp_path, frame, time="hour", id="shop", target="sales")
    forecast = predicted(tmp_path, frame, *options)
    assert [name for name in forecast.columns if name != "cutoff"] == ["shop", "hour", "sales"]
    assert set(forecast["shop"]) == {"s0", "s1"}


def test_an_option_names_the_columns_of_a_newer_file(tmp_path: Path) -> None:
    trained(tmp_path, table(2))
    forecast = predicted(tmp_path, table(2, ds="when", unique_id="who"), "--time", "when", "--id", "who")
    assert forecast.columns.tolist() == ["who", "when", "y"]
    assert predicted(tmp_path, table(2)).columns.tolist() == ["unique_id", "ds", "y"]


def test_a_channel_called_ds_leaves_the_stamps_in_a_column(tmp_path: Path) -> None:
    frame = table(1, ds="when", y="ds").drop(columns="unique_id")
    trained(tmp_path, frame, time="when", target="ds")
    forecast = predicted(tmp_path, frame)
    assert forecast.columns.tolist() == ["when", "ds"]
    assert forecast["when"].iloc[0] == "2024-01-03 12:00:00"
