"""Tables that nobody should have to read: each is refused with one sentence, quickly, and nothing else happens."""

from __future__ import annotations

import bz2
import decimal
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.frames import wide
from tsdistill.data import Panel, Reading, read_csv, read_file
from tsdistill.errors import DataError

CSV = b"ds,a\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n"
HUGE = 32 * 2**30


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.csv", CSV)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo("a.csv")
        entry.size = len(CSV)
        archive.addfile(entry, io.BytesIO(CSV))
    return content.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "zip": ("a.zip", zipped, "zip archive"),
    "zip called CSV": ("a.csv", zipped, "zip archive"),
    "xz": ("a.csv.xz", lambda: lzma.compress(CSV), "packed by xz"),
    "bzip2": ("a.csv.bz2", lambda: bz2.compress(CSV), "packed by bzip2"),
    "zstd": ("a.csv.zst", lambda: b"\x28\xb5\x2f\xfd\x04\x00" + CSV, "packed by zstd"),
    "tar": ("a.tar.gz", tarred, "tar archive"),
    "packed twice": ("a.csv.gz", lambda: gzip.compress(gzip.compress(CSV)), "packed twice"),
    "cut": ("a.csv.gz", lambda: gzip.compress(CSV * 99)[:60], "damaged"),
    "another checksum": ("a.csv.gz", lambda: gzip.compress(CSV)[:-6] + b"123456", "Cannot read"),
    "a bomb": (
        "a.csv.gz",
        lambda: gzip.compress(b"ds,a\n" + b"0,0\n" * 2**25, 1),
        "unpack to 134,217,733. It is damaged",
    ),
    "a database": ("a.csv", lambda: b"SQLite format 3\x00" + b"\0" * 99, "SQLite database"),
    "UTF-16": ("a.csv", lambda: CSV.decode().encode("utf-16"), "Pass encoding="),
    "zero bytes later": ("a.csv", lambda: CSV * 20_000 + b"\0" * 99, "zero bytes"),
    "junk as Parquet": ("a.parquet", lambda: bytes(5000), "does not end as Parquet does"),
    "text as Parquet": ("a.parquet", lambda: CSV, "does not end as Parquet does"),
    "nothing as Parquet": ("a.parquet", lambda: b"", "does not end as Parquet does"),
    "a large footer": ("a.parquet", lambda: b"PAR1" + b"\xff\xff\xff\x7fPAR1", "too large"),
    "a junk footer": ("a.parquet", lambda: b"PAR1" + bytes(range(99)) + b"\x40\0\0\0PAR1", "Cannot read"),
}
for _ending in ("zip", "xz", "zst", "tar.gz", "gz", "bz2", "tar", "xlsx", "csv"):
    FILES[f"junk .{_ending}"] = (f"junk.{_ending}", lambda: np.random.default_rng(0).bytes(5000), "zero bytes")


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_tables_are_refused(case: str, tmp_path: Path) -> None:
    name, content, words = FILES[case]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content())
    with pytest.raises(DataError, match=words) as caught:
        read_file(tmp_path / name, Reading())
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["sparse.csv", "sparse.parquet", "sparse.gz"])
@pytest.mark.parametrize("head", [b"", CSV * 2000, b"PAR1"])
def test_sparse_files_are_refused_at_once(name: str, head: bytes, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with open(tmp_path / name, "wb") as handle:
        handle.write(head)
        handle.truncate(HUGE)
    with pytest.raises(DataError, match=r"zero bytes|does not end as Parquet"):
        read_file(tmp_path / name, Reading())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("name", ["pipe.csv", "pipe.parquet", "pipe"])
def test_pipes_devices_and_loops_are_refused_without_waiting(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="it is a pipe"):
        read_file(tmp_path / name, Reading())
    with pytest.raises(DataError, match="it is a device"):
        read_csv("/dev/zero")
    with pytest.raises(DataError, match="it is a folder"):
        read_csv(tmp_path)
    loop = tmp_path / f"loop-{name}"
    loop.symlink_to(loop.name)
    with pytest.raises(DataError, match="Cannot read"):
        read_file(loop, Reading())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "again.parquet").symlink_to(folder)
    (folder / "self.parquet").symlink_to("self.parquet")
    with pytest.raises(DataError, match="Cannot read"):
        read_file(folder, Reading())
    for path in ("x" * 5000, "a\0b.csv"):
        with pytest.raises(DataError, match="Cannot read"):
            read_file(path, Reading())


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"encoding": "zlib"}, "zlib"),
    "unknown": ({"encoding": "klingon"}, "klingon"),
    "a pattern": ({"separator": "(a+)+b"}, "`separator` must be one character"),
    "a line break": ({"separator": "\n"}, "`separator` must be one character"),
    "a quote": ({"separator": '"'}, "`separator` must be one character"),
    "a digit": ({"decimal": "1"}, "`decimal` must be a mark"),
    "the separator": ({"decimal": ","}, "`decimal` must differ"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_without_a_sense_are_refused(case: str, tmp_path: Path) -> None:
    options, words = OPTIONS[case]
    (tmp_path / "a.csv").write_bytes(CSV)
    with pytest.raises(DataError, match=words):
        read_csv(tmp_path / "a.csv", **options)


CELLS: dict[str, tuple[Any, str]] = {
    "a list": ([1], "cannot be read as numbers"),
    "a dict": ({"a": 1}, "cannot be read as numbers"),
    "an array": (np.arange(3), "cannot be read as numbers"),
    "a set": ({1}, "cannot be read as numbers"),
    "a complex number": (1 + 2j, "cannot be read as numbers"),
    "a complex number of numpy": (np.complex128(1j), "cannot be read as numbers"),
    "a signalling NaN": (decimal.Decimal("sNaN"), "cannot be read as numbers"),
    "a number beyond all floats": (10**400, "more than 40 digits"),
    "a long text": ("x" * 10_000, r"xxx\.\.\."),
    "the same as text": ("1e400", "infinite value"),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_that_are_no_numbers_are_pointed_at(case: str) -> None:
    cell, words = CELLS[case]
    cells = [*wide()["b"].tolist()[:7], cell, *wide()["b"].tolist()[8:]]
    df = wide().assign(b=pd.Series(cells, dtype=object))
    with pytest.raises(DataError, match=words) as caught:
        Panel.from_frame(df)
    assert "`b`" in str(caught.value)
    assert "row 7" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("cell", [[1], {"a": 1}, {1}, decimal.Decimal("sNaN")])
def test_identifiers_that_cannot_be_told_apart_are_refused(cell: Any) -> None:
    df = wide(channels=("y",)).assign(unique_id=pd.Series([cell] * 53, dtype=object))
    with pytest.raises(DataError, match="`unique_id` must hold names of items, got cells of type"):
        Panel.from_frame(df)


def test_nested_and_far_parquet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    stamps = pa.array(pd.date_range("2024-01-01", periods=3))
    far = pa.array([(98030 + n) * 31_556_952_000_000 for n in range(3)], pa.timestamp("us"))
    tables = {
        "lists": pa.table({"ds": stamps, "a": [[1.0], [2.0], None]}),
        "records": pa.table({"ds": stamps, "a": [{"x": 1}, {"x": 2}, {"x": 3}]}),
        "far": pa.table({"ds": far, "a": [1.0, 2.0, 3.0]}),
        "metadata": pa.table({"ds": stamps, "a": [1.0, 2.0, 3.0]}).replace_schema_metadata({"pandas": "[1, {"}),
        "other metadata": pa.table({"ds": stamps, "a": [1.0, 2.0, 3.0]}).replace_schema_metadata({"pandas": "[]"}),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match=r"Column `a` holds cells of type|years 1 to 9999|Cannot read"):
            read_file(tmp_path / f"{name}.parquet", Reading())
    monkeypatch.setattr("tsdistill.data.parquet.UNPACKED", 2**20)
    pq.write_table(pa.table({"a": pa.array(np.zeros(10**6))}), tmp_path / "runs.parquet", compression="zstd")
    with pytest.raises(DataError, match="claim to hold"):
        read_file(tmp_path / "runs.parquet", Reading(time=None))


def test_tables_that_lie_on_their_side_are_refused_by_their_number_of_columns() -> None:
    names = [f"c{number}" for number in range(100_000)]
    text = f"ds,{','.join(names)}\n2024-01-01{',1' * len(names)}\n"
    with pytest.raises(DataError, match="100,001 columns, more than 20,000"):
        read_csv(io.StringIO(text))
    frame = pd.DataFrame(np.ones((2, len(names))), columns=names)
    with pytest.raises(DataError, match="100,000 columns, more than 20,000"):
        Panel.from_frame(frame, time=None)
    few = frame.iloc[:, :500].copy()
    assert len(Panel.from_frame(few, time=None).channels) == 500
    for spoilt in (few.mask(few == 1), few.astype(str).replace("1.0", "x")):
        with pytest.raises(DataError, match="more columns, which were not looked at") as caught:
            Panel.from_frame(spoilt, time=None)
        assert len(str(caught.value)) < 6000
    with pytest.raises(DataError, match="and 480 more names of `target`"):
        Panel.from_frame(few, time=None, target=[f"d{number}" for number in range(500)])
