"""The gate for data: what it stops, what it lets pass, and what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import tsdistill as td
from tsdistill.data import Panel
from tsdistill.errors import ConfigError
from tsdistill.quality import DataGate, DataProfile, DataReport, check_data, profile_of, suspect_rows

N_OLD, N_NEW = 1009, 173


def frame(seed: int = 0) -> pd.DataFrame:
    """Three hourly channels: two daily rhythms and a random walk that returns."""
    rng = np.random.default_rng(seed)
    hours = np.arange(N_OLD + N_NEW)
    walk = np.zeros(len(hours))
    for row, step in enumerate(rng.normal(size=len(hours))):
        walk[row] = 0.9 * walk[row - 1] + step
    waves = np.sin(2 * np.pi * hours[:, None] / 24 + [0, 1]) * [9, 3] + rng.normal(size=(len(hours), 2)) + [50, -4]
    stamps = pd.date_range("2024-01-01", periods=len(hours), freq="h", tz="UTC")
    return pd.DataFrame({"ds": stamps, "load": waves[:, 0], "wind": waves[:, 1], "walk": walk + 1000})


@pytest.fixture(scope="module")
def profile() -> DataProfile:
    return profile_of(Panel.from_frame(frame().iloc[:N_OLD]))


def checked(df: pd.DataFrame, profile: DataProfile, gate: DataGate | None = None) -> DataReport:
    return check_data(Panel.from_frame(df, fill="interpolate"), profile, gate)


def put(name: str, rows: slice, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(df: pd.DataFrame) -> pd.DataFrame:
        column = df[name].to_numpy(dtype=float).copy()
        column[rows] = value(column[rows]) if callable(value) else value
        return df.assign(**{name: column})

    return change


NEW = slice(N_OLD, None)


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (put("load", slice(None), lambda x: x * 1000), "rewritten", ["as if multiplied by 1000", "`load`"]),
        (put("load", slice(None), lambda x: -x), "rewritten", ["as if multiplied by -1"]),
        (lambda df: df.assign(load=df["wind"], wind=df["load"]), "rewritten", ["`load` holds what `wind` held"]),
        (put("load", NEW, lambda x: x * 1000), "spikes", ["robust deviations", "it lay between", "173 such rows"]),
        (put("load", NEW, lambda x: -x), "spikes", ["`load`"]),
        (put("load", slice(-9, -8), 1e9), "spikes", ["`load` holds 1e+09 at 2024-02-18"]),
        (put("load", slice(-90, None), 51.0), "stuck", ["`load` says 51 90 times in a row", "at most 1 times"]),
        (put("wind", slice(-40, None), 0.0), "stuck", ["`wind` says 0 40 times in a row"]),
        (put("walk", NEW, lambda x: x + 60), "spikes", ["`walk`"]),
        (put("walk", NEW, lambda x: x + 12), "jumps", ["its level is"]),
        (lambda df: df.drop(index=range(N_OLD + 5, N_OLD + 150)), "filled", ["% of 173 new values were filled"]),
        (lambda df: df.drop(index=range(300, 600)), "vanished", ["300 rows that were there are gone or filled"]),
        (lambda df: df.iloc[:900], "vanished", ["The data ends at", "before the 2024-02-12T00:00:00+00:00"]),
        (
            lambda df: df.rename(columns={"load": "laod"}),
            "columns",
            ["'load' gone; 'laod' new", "is called 'laod' now"],
        ),
        (lambda df: df.assign(more=1.0), "columns", ["'more' new"]),
        (lambda df: df.iloc[::2], "timing", ["The step width was h, and is 2h now"]),
        (lambda df: df.assign(ds=df["ds"].dt.tz_localize(None)), "timing", ["zone UTC, and are in None now"]),
        (
            lambda df: df.assign(ds=df["ds"] + pd.Timedelta(days=366 * 190)),
            "future",
            ["which is still to come"],
        ),
    ],
)
def test_a_fault_is_stopped_and_named(
    profile: DataProfile, change: Callable[[pd.DataFrame], pd.DataFrame], check: str, words: list[str]
) -> None:
    report = checked(change(frame()), profile)
    checks = {finding.check for finding in report.stops}
    stops = {name: " ".join(stop.words for stop in report.stops if stop.check == name) for name in checks}
    assert not report.passed
    assert check in stops, str(report)
    for word in words:
        assert word in stops[check]
    gate = DataGate(**dict.fromkeys(stops, "warn"))
    assert checked(change(frame()), profile, gate).passed
    off = checked(change(frame()), profile, DataGate(**dict.fromkeys(stops, "off")))
    assert check not in {finding.check for finding in off.findings}


def test_clean_data_passes(profile: DataProfile) -> None:
    report = checked(frame(), profile)
    assert (report.passed, report.n_new) == (True, N_NEW)
    assert checked(frame()[["ds", "walk", "load", "wind"]], profile).passed


def test_a_late_correction_is_only_told(profile: DataProfile) -> None:
    report = checked(put("load", slice(990, 995), 50.0)(frame()), profile)
    assert report.passed
    assert "`load`" in str(report)
    assert "was rewritten" in str(report)


def test_a_rolling_window_of_rows_passes(profile: DataProfile) -> None:
    assert checked(frame().iloc[N_NEW:], profile).passed


def test_old_data_is_stopped_only_when_an_age_is_named(profile: DataProfile) -> None:
    panel, now = Panel.from_frame(frame()), pd.Timestamp("2024-02-25", tz="UTC")
    assert check_data(panel, profile, now=now).passed
    report = check_data(panel, profile, DataGate(max_age="2d"), now=now)
    assert [finding.check for finding in report.stops] == ["freshness"]
    assert "at most 2d is asked for" in str(report)


@pytest.mark.parametrize("value", ["soon", "-1h", ""])
def test_an_age_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="`max_age` must be a time span above 0"):
        DataGate(max_age=value)


def test_a_profile_survives_its_file_and_a_newer_one_is_refused(profile: DataProfile) -> None:
    assert DataProfile.from_json(profile.to_json()) == profile
    assert len(profile.to_json()) < 30_000
    with pytest.raises(ConfigError, match="Update tsdistill to read what a newer one wrote"):
        DataProfile.from_json(profile.to_json().replace('"schema_version": 1', '"schema_version": 9'))


def test_rows_that_are_no_truth_are_marked(profile: DataProfile) -> None:
    df = put("load", slice(-9, -8), 1e9)(frame()).drop(index=[1100, 1101])
    panel = Panel.from_frame(df, fill="interpolate")
    (rows,) = suspect_rows(panel, profile)
    assert np.flatnonzero(rows.filled).tolist() == [1100, 1101]
    assert {len(panel.items[0]) - 9} <= set(np.flatnonzero(rows.broken).tolist())
    assert not suspect_rows(panel, profile, DataGate(spikes="off", stuck="off"))[0].broken.any()


def test_items_of_a_long_table_are_compared_each_with_itself() -> None:
    parts = [frame(seed).assign(unique_id=name) for seed, name in ((0, "a"), (1, "b"))]
    old = pd.concat([part.iloc[:N_OLD] for part in parts])
    trusted = profile_of(td.Panel.from_frame(old, target=["load", "wind"]))
    parts[1] = put("load", slice(-90, None), 51.0)(parts[1])
    panel = td.Panel.from_frame(pd.concat(parts), target=["load", "wind"])
    assert "`load` of b says 51 90 times in a row" in str(check_data(panel, trusted))
    alone = dataclasses.replace(panel, items=panel.items[:1])
    assert "1 of 2 items are gone: b." in str(check_data(alone, trusted))
