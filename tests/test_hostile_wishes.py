"""Work without end that a table, a recipe, a query or a search may ask for: one clear error each.

How long each refusal takes, and how much memory, is measured by `experiments/benchmarks/hostile.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tsdistill as td
from tsdistill.data import parquet, read_sql
from tsdistill.data.sources import read_file
from tsdistill.errors import ConfigError, DataError, nearest
from tsdistill.recipe import Source, default_recipe
from tsdistill.recipe.teacher import RegressorTeacherSpec

STAMPS = pd.date_range("2024-01-01", periods=50, freq="h")
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} AS y FROM c"


def regressor(**settings: Any) -> Callable[[], object]:
    return lambda: RegressorTeacherSpec(regressor="RandomForestRegressor", settings=settings)


WISHES: dict[str, tuple[Callable[[], object], str]] = {
    "trees": (regressor(n_estimators=10**9), r"`settings.n_estimators` must be at most 10,000"),
    "threads": (regressor(n_jobs=10**6), r"`settings.n_jobs` must be at most 256"),
    "leaves": (regressor(max_leaf_nodes=10**18), r"`settings.max_leaf_nodes` must be at most 1,000,000,000"),
    "parameters": (regressor(**{f"x{n}": n for n in range(1001)}), r"`settings` must hold at most 1,000"),
    "trials": (
        lambda: td.search.run(default_recipe(), "out", n_trials=10**12),
        r"`n_trials` must be a whole number from 1 to 1,000,000, got n_trials=1000000000000",
    ),
    "workers": (
        lambda: td.search.run(default_recipe(), "out", n_trials=1, workers=10**6),
        r"`workers` must be a whole number from 1 to 256",
    ),
    "seed": (lambda: td.search.create_study("x", seed=2**70), r"`seed` must be a whole number from 0 to below 2\^32"),
    "time limit": (
        lambda: read_sql("sqlite://", "SELECT 1", time_limit=-1),
        r"`time_limit` must be a number of seconds above 0",
    ),
}


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_without_end_is_refused_when_it_is_made(wish: str) -> None:
    make, words = WISHES[wish]
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize("what", ["count(*)", "x"])
def test_a_query_without_end_is_stopped(tmp_path: Path, what: str) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    with pytest.raises(DataError, match=r"the query must end within time_limit=0.05 seconds, and did not"):
        read_sql(f"sqlite:///{tmp_path}/empty.db", ENDLESS.format(what), time_limit=0.05)


def test_a_query_may_not_make_cells_without_end(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(DataError, match="too big"):
        read_sql(f"sqlite:///{tmp_path}/empty.db", "SELECT hex(zeroblob(900000000)) AS y")


def test_a_recipe_has_a_time_limit_and_is_written_as_before() -> None:
    source = Source(url="sqlite:///x.db", query="SELECT 1")
    assert source.time_limit == 600
    assert "time_limit" not in source.to_dict()
    assert Source.from_toml(source.replace(time_limit=None).to_toml()).time_limit is None
    with pytest.raises(ConfigError, match="time_limit"):
        Source(url="sqlite:///x.db", query="SELECT 1", time_limit=0)


@pytest.mark.postgres
def test_postgres_stops_a_query_without_end(postgres_url: str) -> None:
    endless = "SELECT count(*) AS y FROM generate_series(1, 100000000000) AS x"
    with pytest.raises(DataError, match=r"the query must end within time_limit=0.5 seconds, and did not"):
        read_sql(postgres_url, endless, time_limit=0.5)
    with pytest.raises(DataError, match=r"canceling statement due to statement timeout"):
        read_sql(f"{postgres_url}?options=-cstatement_timeout%3D300", endless, time_limit=60)
    ordinary = "SELECT x AS y FROM generate_series(1, 5) AS x"
    assert read_sql(postgres_url, ordinary, time=None, time_limit=5).n_rows == 5


@pytest.mark.parametrize("read", [td.read_csv, td.read_parquet, lambda path: read_file(path, td.data.Reading())])
@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(
    "address", ["postgresql://user:hunter2@host/db", "https://me:hunter2@host/x.csv", "s3://hunter2"]
)
def test_an_address_for_a_path_is_refused_and_not_repeated(read: Any, kind: Any, address: str) -> None:
    with pytest.raises(DataError, match=f"got an address that begins with {address.split(':')[0]}:") as refused:
        read(kind(address))
    assert "hunter2" not in str(refused.value)


def test_a_path_with_a_colon_in_it_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a:b.csv"
    pd.DataFrame({"ds": STAMPS, "y": np.arange(50.0)}).to_csv(path, index=False)
    assert td.read_csv(path).n_rows == 50


def test_many_columns_of_objects_are_read_as_each_by_itself() -> None:
    draw = np.random.default_rng(0).normal(size=(50, 101))
    table = pd.DataFrame(draw, index=STAMPS).astype(object)
    table[7] = range(50)
    values = td.Panel.from_frame(table.rename_axis("ds")).items[0].values
    expected = draw.copy()
    expected[:, 7] = np.arange(50)
    np.testing.assert_array_equal(values, expected)
    table.iloc[3, 5] = None
    with pytest.raises(DataError, match="Column `5` has 1 missing value"):
        td.Panel.from_frame(table.rename_axis("ds"))
    table.iloc[3, 5] = "much"
    with pytest.raises(DataError, match=r"Column `5` holds 1 value that cannot be read as numbers \('much'\)"):
        td.Panel.from_frame(table.rename_axis("ds"))


def test_messages_list_some_of_many_names() -> None:
    names = [f"column {number}" for number in range(20_000)]
    assert nearest("column 123456", names).startswith("Did you mean `column 1")
    assert nearest("else", names).endswith(" and 19,800 more.")


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / f"part-{number}.parquet").touch()
    with pytest.raises(DataError, match=r"it holds more than 3 files\. Join them first"):
        td.read_parquet(tmp_path)
