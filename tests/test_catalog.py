"""The catalogue: the bundled sample, files that are found, downloaded and verified, and those that are not."""

from __future__ import annotations

import gzip
import hashlib
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from tests.frames import wide
from tsdistill.data import Split, Task, catalog, datasets
from tsdistill.errors import ConfigError, DataError

CARDS = Path(__file__).resolve().parents[1] / "datasets"


def table(n_rows: int = 101) -> bytes:
    return wide(pd.date_range("2024-01-01", periods=n_rows, freq="h")).rename(columns={"ds": "date"}).to_csv(
        index=False).encode()  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no data folder, and a catalogue whose etth1 is a small table without an address."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(catalog.VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    small = catalog.info("etth1").replace(sha256=hashlib.sha256(table()).hexdigest(), url=None)
    monkeypatch.setitem(catalog._SETS, "etth1", small)
    return tmp_path / "cache" / "tsdistill" / "data"


# ---------------------------------------------------------------------------------------------------- what is known


def test_the_catalogue_is_the_module_under_another_name() -> None:
    assert datasets is catalog
    names = ("nyc-weather", "etth1", "etth2", "ettm1", "ettm2", "weather", "exchange", "ili", "m4-hourly")
    assert catalog.names() == names
    assert all(catalog.info(name).name == name for name in names)


@pytest.mark.parametrize("name", ["etth2", "ettm1", "ettm2", "weather", "exchange", "ili", "m4-hourly", "nyc-weather"])
def test_borders_and_checksums_agree_with_the_cards(name: str) -> None:
    known = catalog.info(name)
    card = (CARDS / ("ett.md" if name.startswith("ett") else f"{name}.md")).read_text(encoding="utf-8")
    assert [
        sha256 for sha256 in (known.sha256, *(digest for _, digest in known.rest)) if f"`{sha256}`" not in card
    ] == []
    assert f"{known.n_rows:,}" in card
    borders = known.split.borders(known.n_rows)
    assert 0 < borders.train < borders.validation < borders.test <= known.n_rows
    written = f"{borders.train} / {borders.validation - borders.train} / {borders.test - borders.validation}"
    words = {
        "rows": written,
        "fractions": "70 / 10 / 20 %",
        "last": f"the last {known.split.test:g} steps of each item",
    }
    assert words[known.split.kind] in card


def test_ett_borders_are_months_of_thirty_days() -> None:
    assert catalog.info("etth2").split == Split.rows(8640, 2880, 2880)
    assert catalog.info("ettm2").split == Split.rows(34560, 11520, 11520)


@pytest.mark.parametrize(
    ("name", "word"), [("etth", "`etth"), ("wether", "`weather`"), ("nyc", "Known: "), (7, "Known: ")]
)
def test_an_unknown_name_is_answered_with_known_ones(name: str, word: str) -> None:
    for ask in (catalog.info, catalog.load):
        with pytest.raises(ConfigError, match=word):
            ask(name)


# ---------------------------------------------------------------------------------------------------- bundled sample


def test_the_sample_is_what_its_card_says() -> None:
    panel = catalog.load("nyc-weather")
    measures = ("temperature", "dew_point", "humidity", "wind_speed", "pressure", "visibility")
    assert panel.channels == tuple(f"{station}_{measure}" for station in ("EWR", "JFK", "LGA") for measure in measures)
    assert (panel.n_rows, panel.frequency, panel.periods) == (8730, "h", (24, 168))
    stamps = panel.items[0].ds
    assert stamps is not None
    assert str(stamps[0]) == "2013-01-01 06:00:00+00:00"
    assert "interpolated" in panel.notes["remark"]
    assert panel.items[0].values[:, 3].max() < 50


def test_the_sample_makes_the_task_of_the_default_recipe() -> None:
    task = Task(catalog.load("nyc-weather"), context=336, horizon=24)
    assert (len(task.train), len(task.validation), len(task.test)) == (5752, 850, 1723)
    series = task.test.series.numpy().astype(np.float64)
    rows = task.test.starts.numpy()[:, None] + 336 + np.arange(24)
    assert np.square(series[rows] - series[rows - 24]).mean() == pytest.approx(1.235, abs=5e-4)


def test_the_script_fills_holes_and_drops_the_impossible() -> None:
    source = pd.DataFrame([
        {"origin": station, "time_hour": f"2013-01-01T0{hour}:00:00Z", "wind_speed": [0, 1048, 4, 0, 0, 10][hour],
         "temp": 10.004 * hour, "dewp": 0, "humid": 0, "pressure": np.nan if hour == 0 else 1000.0, "visib": 10}
        for station in ("EWR", "JFK", "LGA") for hour in (0, 1, 2, 5)
    ])  # fmt: skip
    cleaned, counts = runpy.run_path(str(CARDS / "prepare_nyc_weather.py"))["cleaned"](source)
    assert cleaned["JFK_wind_speed"].tolist() == [0, 2, 4, 6, 8, 10]
    assert cleaned["LGA_temperature"].tolist() == [0, 10, 20.01, 30.01, 40.02, 50.02]
    assert cleaned["EWR_pressure"].tolist() == [1000.0] * 6
    expected = {"impossible winds": 3, "hours": 6, "hours missing at all stations": 2, "EWR hours missing": 2}
    assert expected.items() <= counts.items()
    assert (counts["EWR_wind_speed cells interpolated"], counts["EWR_pressure cells interpolated"]) == (3, 3)


def test_the_script_refuses_another_source(tmp_path: Path) -> None:
    script = CARDS / "prepare_nyc_weather.py"
    wrong = tmp_path / "other.csv"
    wrong.write_text("origin\n")
    ran = subprocess.run(
        [sys.executable, script, wrong, tmp_path / "out.gz"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "must have sha256" in ran.stderr
    assert not (tmp_path / "out.gz").exists()


# ------------------------------------------------------------------------------------------------------- local files


def lines(*rows: list[object]) -> bytes:
    width = max(len(row) for row in rows)
    head = ",".join(f'"V{number + 1}"' for number in range(width))
    cells = [
        ",".join(["" if cell is None else f'"{cell}"' for cell in [*row, *[None] * (width - len(row))]]) for row in rows
    ]
    return "\n".join([head, *cells]).encode()


def test_series_of_their_own_lengths_lie_in_the_lines_of_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = lines(["H1", *range(7)], ["H2", *range(100, 111)]), lines(["H1", 7, 8.5], ["H2", 111, 112])
    digests = [hashlib.sha256(content).hexdigest() for content in (first, second)]
    small = catalog.info("m4-hourly").replace(sha256=digests[0], rest=(("M4-Hourly-test.csv", digests[1]),))
    monkeypatch.setitem(catalog._SETS, "m4-hourly", small)
    (tmp_path / "M4-Hourly-train.csv").write_bytes(first)
    with pytest.raises(DataError, match=r"not in .*Get M4-Hourly-test\.csv"):
        catalog.load("m4-hourly", folder=tmp_path)
    (tmp_path / "M4-Hourly-test.csv.gz").write_bytes(gzip.compress(second))
    panel = catalog.load("m4-hourly", folder=tmp_path)
    assert [item.unique_id for item in panel.items] == ["H1", "H2"]
    assert [item.values.ravel().tolist() for item in panel.items] == [[*range(8), 8.5], [*range(100, 113)]]
    assert (panel.channels, panel.frequency, panel.split) == (("y",), "h", Split.last(validation=48, test=48))
    assert "no time stamps" in panel.notes["remark"]
    (tmp_path / "M4-Hourly-test.csv.gz").write_bytes(gzip.compress(second + b"\n"))
    with pytest.raises(DataError, match="must have the checksum"):
        catalog.load("m4-hourly", folder=tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("by", ["argument", "variable", "cache"])
def test_a_file_is_found_plain_and_gzipped(
    packed: bool, by: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache if by == "cache" else tmp_path / "data"
    folder.mkdir(parents=True)
    (folder / ("ETTh1.csv.gz" if packed else "ETTh1.csv")).write_bytes(gzip.compress(table()) if packed else table())
    if by == "variable":
        monkeypatch.setenv(catalog.VARIABLE, str(folder))
    panel = catalog.load("etth1", folder=folder if by == "argument" else None)
    assert (panel.name, panel.n_rows, panel.channels, panel.frequency) == ("etth1", 101, ("a", "b", "c"), "h")
    assert panel.split == Split.rows(8640, 2880, 2880)
    assert panel.notes == {}


def test_another_checksum_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "ETTh1.csv").write_bytes(table() + b"\n")
    with pytest.raises(DataError) as caught:
        catalog.load("etth1", folder=tmp_path)
    digests = (hashlib.sha256(table()).hexdigest(), hashlib.sha256(table() + b"\n").hexdigest())
    assert all(word in str(caught.value) for word in (*digests, "ETTh1.csv", "ETDataset"))


@pytest.mark.parametrize("damage", [b"no gzip", gzip.compress(table())[:99]], ids=["no gzip", "cut off"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "ETTh1.csv.gz").write_bytes(damage)
    with pytest.raises(DataError, match=r"Cannot read .*ETTh1\.csv\.gz"):
        catalog.load("etth1", folder=tmp_path)


def test_a_missing_file_says_where_to_get_it_and_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(catalog.VARIABLE, str(tmp_path))
    words = ["national_illness.csv", "Autoformer", "folder=", "TSDISTILL_DATA", str(tmp_path), "cache"]
    with pytest.raises(DataError) as caught:
        catalog.load("ili")
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_named_folder_is_not_left_for_a_download(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "ETTh1.csv").write_bytes(table())
    with pytest.raises(DataError, match="is not in "):
        catalog.load("etth1", folder=tmp_path)


# --------------------------------------------------------------------------------------------------------- downloads


class Server(BaseHTTPRequestHandler):
    """Sends one file: whole, another one, cut short, or not at all."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/absent":
            self.send_error(404)
            return
        content = table() if self.path != "/other" else b"something else"
        self.send_response(200)
        if self.path != "/unmeasured":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path == "/short" else content)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Server.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog._SETS, "etth1", catalog.info("etth1").replace(url=url))


@pytest.mark.parametrize("path", ["/whole", "/unmeasured"])
def test_a_download_is_verified_kept_and_not_repeated(
    path: str, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_to(address + path, monkeypatch)
    assert catalog.load("etth1").n_rows == catalog.load("etth1").n_rows == 101
    assert Server.asked == [path]
    assert [file.name for file in cache.iterdir()] == ["ETTh1.csv"]
    assert (cache / "ETTh1.csv").read_bytes() == table()
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_shown_when_asked_and_never_on_standard_output(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_to(f"{address}/whole", monkeypatch)
    catalog.load("etth1", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "ETTh1.csv" in err


DOWNLOADS_REFUSED = {
    "/other": [hashlib.sha256(b"something else").hexdigest(), hashlib.sha256(table()).hexdigest()],
    "/short": ["broke off after", f"of {len(table()):,} bytes", "TSDISTILL_DATA"],
    "/absent": ["404", "ETDataset", "TSDISTILL_DATA"],
}


@pytest.mark.parametrize("path", DOWNLOADS_REFUSED)
def test_a_failed_download_is_explained_and_leaves_nothing(
    path: str, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(address + path, monkeypatch)
    with pytest.raises(DataError) as caught:
        catalog.load("etth1")
    assert [word for word in DOWNLOADS_REFUSED[path] if word not in str(caught.value)] == [], str(caught.value)
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    point_to(f"{address}/whole", monkeypatch)
    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        catalog.load("etth1")
    assert list(cache.iterdir()) == []


def test_an_address_that_does_not_answer_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    point_to("http://127.0.0.1:9/ETTh1.csv", monkeypatch)
    with pytest.raises(DataError, match=r"Cannot download http://127\.0\.0\.1:9/ETTh1\.csv.*refused.*TSDISTILL_DATA"):
        catalog.load("etth1")


# ------------------------------------------------------------------------------------------------------- the family


def test_the_door_of_the_family_loads_nothing_heavy() -> None:
    code = (
        "import sys, tsdistill.data, tsdistill.data.task; from tsdistill.data import datasets, Task, Split, Signature; "
        "datasets.info('etth1'); print(*(name for name in ('torch', 'pandas', 'sqlalchemy') if name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_the_door_offers_what_it_lists_and_nothing_else() -> None:
    import tsdistill.data as door

    assert all(getattr(door, name) is not None for name in door.__all__)
    assert dir(door) == sorted(door.__all__)
    with pytest.raises(AttributeError, match="Pannel"):
        _ = door.Pannel
