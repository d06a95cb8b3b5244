"""Panels from CSV and Parquet files and from databases, whose passwords appear in no message."""

from __future__ import annotations

import gzip
import io
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from tests.frames import ROWS, hours, long, wide
from tests.typed import known
from tsdistill.data import Panel, read_csv, read_parquet, read_sql
from tsdistill.errors import DataError, UnsupportedError


def test_csv_files_are_read_plain_and_gzipped(tmp_path: Path) -> None:
    text = wide().rename(columns={"ds": "date"}).to_csv(index=False)
    (tmp_path / "plain.csv").write_text(text)
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    plain, packed = (read_csv(tmp_path / file, time="date") for file in ("plain.csv", "packed.csv.gz"))
    pd.testing.assert_frame_equal(plain.to_frame(), packed.to_frame())
    assert (plain.name, packed.name, plain.n_rows) == ("plain", "packed", ROWS)


def test_csv_identifiers_keep_their_zeros() -> None:
    text = "unique_id,ds,y\n" + "".join(f"{name},2024-01-0{day},1\n" for name in ("001", "1") for day in (1, 2))
    assert [item.unique_id for item in read_csv(io.StringIO(text)).items] == ["001", "1"]


CSV_REFUSED: dict[str, tuple[bytes | None, dict[str, Any], list[str]]] = {
    "no file": (None, {}, ["Cannot read", "missing.csv"]),
    "empty": (b"", {}, ["empty"]),
    "another encoding": ("ds,Gr\xfc\xdfe\n2024-01-01,1\n".encode("latin-1"), {}, ["as utf-8", "latin-1"]),
    "unknown encoding": (b"ds,a\n", {"encoding": "klingon"}, ["klingon"]),
    "long row": (b"ds,a\n2024-01-01,1,2\n", {}, ["as many cells as the header"]),
    "long later row": (b"ds,a\n2024-01-01,1\n2024-01-02,1,2\n", {}, ["as many cells as the header"]),
    "another separator": (b"ds;a\n2024-01-01;1\n", {}, ["separator"]),
    "no columns of that name": (b"ds,load\n2024-01-01,1\n", {"target": "lode"}, ["`load`"]),
    "half a file": (gzip.compress(b"ds,a\n2024-01-01,1\n" * 99)[:40], {}, ["Cannot read"]),
}


@pytest.mark.parametrize("case", CSV_REFUSED)
def test_csv_files_that_cannot_be_used_are_refused(case: str, tmp_path: Path) -> None:
    content, options, words = CSV_REFUSED[case]
    path = tmp_path / ("missing.csv" if content is None else "file.csv.gz" if case == "half a file" else "file.csv")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_csv(path, **options)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_parquet_keeps_zones_and_types(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    df = wide(hours(zone="Europe/Berlin"))
    df.to_parquet(tmp_path / "load.parquet")
    df.set_index("ds").to_parquet(tmp_path / "indexed.parquet")
    for file in ("load", "indexed"):
        panel = read_parquet(tmp_path / f"{file}.parquet")
        assert panel.name == file
        pd.testing.assert_frame_equal(panel.to_frame(), Panel.from_frame(df).to_frame())
    (tmp_path / "broken.parquet").write_bytes(b"nothing")
    for file in ("broken.parquet", "missing.parquet"):
        with pytest.raises(DataError, match=f"Cannot read .*{file}"):
            read_parquet(tmp_path / file)


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"tsdistill\[parquet\]"):
        read_parquet("load.parquet")


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'load.db'}"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        long().to_sql("hourly", connection, index=False)
    return url


def test_a_query_gives_a_panel(database: str) -> None:
    query = "SELECT * FROM hourly WHERE unique_id <> :left_out ORDER BY unique_id, ds"
    panel = read_sql(database, query, parameters={"left_out": "s1"}, name="load")
    expected = Panel.from_frame(long().query("unique_id != 's1'"))
    pd.testing.assert_frame_equal(panel.to_frame(), expected.to_frame())
    pd.testing.assert_frame_equal(read_sql(sa.make_url(database), query, parameters={"left_out": "s1"}).to_frame(),
                                  expected.to_frame())  # fmt: skip


def test_a_bad_query_or_table_is_one_clear_error(database: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such table: weekly"):
        read_sql(database, "SELECT * FROM weekly")
    with pytest.raises(DataError, match="Sort the rows by item and time"):
        read_sql(database, "SELECT * FROM hourly ORDER BY ds DESC")
    with pytest.raises(DataError, match="no such file"):
        read_sql(f"sqlite:///{tmp_path / 'laod.db'}", "SELECT 1")
    assert not (tmp_path / "laod.db").exists()


PASSWORD = "tr0ub&dor/3"
ADDRESSES = [
    "postgresql+psycopg://job:tr0ub%26dor%2F3@127.0.0.1:9/load",
    "postgresql+psycopg://127.0.0.1:9/load?user=job&password=tr0ub%26dor%2F3",
    "postgresql+psycopg://job:abc@127.0.0.1:9/load",
    "nosuchbase://job:tr0ub%26dor%2F3@127.0.0.1:9/load",
    "postgresql+nosuchdriver://job:tr0ub%26dor%2F3@127.0.0.1:9/load",
    "postgresql//job:tr0ub%26dor%2F3@127.0.0.1:9/load",
    "postgresql+psycopg://job:tr0ub%26dor%2F3@127.0.0.1:port/load",
]


@pytest.mark.parametrize("url", ADDRESSES)
def test_a_password_appears_in_no_error_and_no_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psycopg")
    caplog.set_level(logging.DEBUG)
    with pytest.raises((DataError, UnsupportedError)) as caught:
        read_sql(url, "SELECT 1")
    error: BaseException | None = caught.value
    text = caplog.text
    while error is not None:
        text += f"{error!s} {error!r}"
        error = error.__cause__ or error.__context__
    for secret in (PASSWORD, "tr0ub", "%2F3", "abc", "job:"):
        assert secret not in text.replace("Check its form", "").replace("driver://user:password@host", "")


@pytest.mark.parametrize("url", ADDRESSES[:3])
def test_a_password_is_struck_out_of_what_a_driver_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def talkative(address: sa.URL, **options: object) -> None:
        raise RuntimeError(f"no way to {address.render_as_string(hide_password=False)} ({address})\n{address!s}")

    monkeypatch.setattr(sa, "create_engine", talkative)
    with pytest.raises(DataError) as caught:
        read_sql(url, "SELECT 1")
    assert "Cannot read from postgresql+psycopg://127.0.0.1:9/load: " in str(caught.value)
    assert not any(secret in str(caught.value) for secret in (PASSWORD, "tr0ub", "abc"))
    assert caught.value.__context__ is None
    assert ("cannot be shown" in str(caught.value)) == (":abc@" in url)


def test_a_database_that_is_down_says_so_and_where() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DataError) as caught:
        read_sql(ADDRESSES[0], "SELECT 1")
    assert "Cannot read from postgresql+psycopg://127.0.0.1:9/load: " in str(caught.value)
    assert "refused" in str(caught.value)


@pytest.mark.postgres
def test_postgres_gives_numerics_and_zones(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE hourly (ds timestamptz, load numeric(9, 3))"))
        fill = "INSERT INTO hourly SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n FROM "
        connection.execute(sa.text(fill + "generate_series(0, 52) AS n"))
    panel = read_sql(postgres_url, "SELECT * FROM hourly ORDER BY ds")
    assert (panel.n_rows, panel.frequency, panel.items[0].values[-1, 0]) == (53, "h", 52.0)
    assert known(panel.items[0].ds)[0] == pd.Timestamp("2024-01-01", tz="UTC")
