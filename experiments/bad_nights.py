"""What a retraining job makes of bad nights: faults x data sets, and clean nights (experiment 017).

    python experiments/bad_nights.py experiments/017-bad-nights

Needs ETTh1.csv and bike_sharing_dataset_clean.csv in the folder that TSDISTILL_DATA names. Finished cells are skipped.
Every fault is put into the file that a job reads on the night after its first promotion; students are closed forms.
`ratio` is the error of what is served afterwards over that of the incumbent, on the clean week that follows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import tsdistill as td
from tsdistill.errors import TsdistillError
from tsdistill.losses import OutputLoss
from tsdistill.models import LinearConfig
from tsdistill.recipe import Recipe, Source, StudentSpec, TaskSpec, TeacherSpec
from tsdistill.retrain import Job, Store, run_job

SETS = ("nyc-weather", "etth1", "bike-sharing")
CONTEXT, HORIZON, WEEK, N_ROWS, N_CLEAN = 72, 24, 168, 4000, 34
Fault = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def _new(change: Callable[[np.ndarray, np.random.Generator], np.ndarray], n_rows: int, n_channels: int | None) -> Fault:
    """A change of the newest rows, of the first channel or of all."""

    def fault(df: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        columns = df.columns[1 : None if n_channels is None else 1 + n_channels]
        rows = slice(len(df) - min(n_rows, len(df)), len(df))
        values = df[columns].to_numpy(dtype=float).copy()
        values[rows] = change(values[rows], rng)
        return df.assign(**{name: values[:, place] for place, name in enumerate(columns)})

    return fault


def _cell(value: float, back: int, relative: bool = False) -> Fault:
    def fault(df: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        name = df.columns[1]
        column = df[name].to_numpy(dtype=float).copy()
        column[-back] = column[-back] * value if relative else value
        return df.assign(**{name: column})

    return fault


def _swap(n_rows: int) -> Fault:
    def fault(df: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        first, last = df.columns[1], df.columns[-1]
        df, rows = df.copy(), df.index[-n_rows:]
        one, other = df.loc[rows, first].to_numpy(), df.loc[rows, last].to_numpy()
        df.loc[rows, first], df.loc[rows, last] = other, one
        return df

    return fault


def _gap(n_rows: int, before: int) -> Fault:
    def fault(df: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        return pd.concat([df.iloc[: len(df) - before - n_rows], df.iloc[len(df) - before :]])

    return fault


def _roll(steps: int, n_rows: int) -> Fault:
    return _new(lambda values, rng: np.roll(values, steps, axis=0), n_rows, None)


def _shuffled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(values, axis=0)


def _noise(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(values.mean(axis=0), values.std(axis=0) + 1e-9, size=values.shape)


ALL = 10**9
FAULTS: dict[str, Fault] = {
    **{f"all rows x {factor:g}": _new(lambda v, _, f=factor: v * f, ALL, None) for factor in (1000, -1, 0.001, 2)},
    **{f"one channel, all rows x {factor:g}": _new(lambda v, _, f=factor: v * f, ALL, 1) for factor in (1000, -1, 1.8)},
    **{f"new week x {factor:g}": _new(lambda v, _, f=factor: v * f, WEEK, None) for factor in (1000, -1, 10, 0.01)},
    **{f"one channel, new week x {f:g}": _new(lambda v, _, f=f: v * f, WEEK, 1) for f in (1000, -1, 10, 0.01)},
    **{f"one channel, three weeks + {k:g} deviations": _new(lambda v, _, k=k: v + k * v.std(), 3 * WEEK, 1)
       for k in (5, 20)},
    "two channels swapped, all rows": _swap(N_ROWS),
    "two channels swapped, three weeks": _swap(3 * WEEK),
    "two channels swapped, a week": _swap(WEEK),
    **{f"stuck for {n} rows": _new(lambda v, _: np.full_like(v, v[0, 0]), n, 1) for n in (3 * WEEK, WEEK, 48)},
    "all channels stuck for a week": _new(lambda v, _: np.broadcast_to(v[:1], v.shape), WEEK, None),
    **{f"zeros for {n} rows": _new(lambda v, _: np.zeros_like(v), n, 1) for n in (2 * WEEK, WEEK, 48)},
    "all channels zero for two weeks": _new(lambda v, _: np.zeros_like(v), 2 * WEEK, None),
    **{f"a spike of {value:g}, {back} rows back": _cell(value, back)
       for value, back in ((1e9, 20), (-1e9, 1), (1e9, 150), (1e5, 60))},
    "minus 999 in a cell": _cell(-999.0, 30),
    "minus 9999 for a day": _new(lambda v, _: np.full_like(v, -9999.0), 24, 1),
    "last number cut off": _cell(0.01, 1, relative=True),
    "last number ten times": _cell(10.0, 1, relative=True),
    "noise for three weeks": _new(_noise, 3 * WEEK, 1),
    "noise in all rows": _new(_noise, ALL, 1),
    "all channels noise for a week": _new(_noise, WEEK, None),
    "all rows in random order": _new(_shuffled, ALL, None),
    "three weeks in random order": _new(_shuffled, 3 * WEEK, None),
    "2,000 rows filled": _gap(2000, WEEK),
    "a week filled before the last day": _gap(WEEK, 24),
    "two weeks filled before the last hour": _gap(2 * WEEK, 1),
    "half of the history gone": lambda df, _: df.iloc[len(df) // 2 :],
    "file cut off three weeks early": lambda df, _: df.iloc[: -4 * WEEK],
    "clock 6 hours off for three weeks": _roll(6, 3 * WEEK),
    "clock 12 hours off for three weeks": _roll(12, 3 * WEEK),
    "clock 12 hours off in all rows": _roll(12, ALL),
    "three weeks backwards": _new(lambda v, _: v[::-1], 3 * WEEK, None),
    "column renamed": lambda df, _: df.rename(columns={df.columns[1]: "renamed"}),
    "column gone": lambda df, _: df.drop(columns=df.columns[1]),
    "column new": lambda df, _: df.assign(extra=1.0),
    "columns in another order": lambda df, _: df[[df.columns[0], *df.columns[:0:-1]]],
    "every other row": lambda df, _: df.iloc[::2],
    "a row of the year 2199": lambda df, _: pd.concat(
        [df, df.iloc[-1:].assign(**{df.columns[0]: df.iloc[-1, 0] + pd.Timedelta(days=62000)})]
    ),
    "all values rounded to tens": _new(lambda v, _: np.round(v, -1), 3 * WEEK, 1),
    "clipped at the median for three weeks": _new(lambda v, _: np.minimum(v, np.median(v)), 3 * WEEK, 1),
}  # fmt: skip


def frame_of(name: str) -> pd.DataFrame:
    """A data set as one wide table of at most five channels; the newest rows."""
    if name == "bike-sharing":
        file = Path(os.environ["TSDISTILL_DATA"]) / "bike_sharing_dataset_clean.csv"
        columns = ["users", "temp", "hum", "windspeed"]
        panel = td.read_csv(file, time="date_time", target=columns, fill="interpolate")
    else:
        panel = td.datasets.load(name)
    df = panel.to_frame().drop(columns="unique_id", errors="ignore")
    return df.iloc[:, :6].copy()


def job_of(folder: Path) -> Job:
    """Closed-form teacher and student."""
    source = Source(path=str(folder / "fresh.csv"), fill="interpolate")
    recipe = Recipe(
        data=source,
        task=TaskSpec(context=CONTEXT, horizon=HORIZON),
        teacher=TeacherSpec(model=LinearConfig()),
        student=StudentSpec(model=LinearConfig(), losses=(OutputLoss(),)),
        quantization=None,
    )
    return Job(store=str(folder / "store"), data=source, recipe=recipe, judge=WEEK, validation=WEEK, report=False)


def next_week(store: Path, clean: pd.DataFrame) -> float:
    """Error of what is served on the last week of clean rows."""
    panel = td.Panel.from_frame(clean, fill="interpolate")
    n_rows = panel.n_rows
    task = td.Task(panel, context=CONTEXT, horizon=HORIZON, split=td.Split.rows(n_rows - 2 * WEEK, WEEK, WEEK))
    model, _ = Store(store).load("current")
    order = model.signature.channels
    if order != panel.channels:
        task = td.Task(td.quality.reordered(panel, order), context=CONTEXT, horizon=HORIZON, split=task.split)
    return td.evaluate(model, task, "test")["mse"]


def fault_rows(name: str, folder: Path, done: set[str]) -> Iterator[dict[str, object]]:
    """One row per fault that is not done yet."""
    place = folder / "work" / name
    shutil.rmtree(place, ignore_errors=True)
    (place / "first").mkdir(parents=True)
    whole = frame_of(name).iloc[-N_ROWS - 4 * WEEK :].reset_index(drop=True)
    before, night = whole.iloc[: -4 * WEEK], whole.iloc[:-WEEK]
    before.to_csv(place / "first" / "fresh.csv", index=False)
    verdict = run_job(job_of(place / "first"), progress=False)
    if verdict.decision != "promoted":
        raise SystemExit(f"{name}: the first night was not promoted: {verdict}")
    usual = next_week(place / "first" / "store", whole)
    for number, (fault, change) in enumerate({"nothing wrong": lambda df, _: df, **FAULTS}.items()):
        if fault in done:
            continue
        began = time.perf_counter()
        spot = place / "night"
        shutil.rmtree(spot, ignore_errors=True)
        shutil.copytree(place / "first" / "store", spot / "store", symlinks=True)
        change(night.copy(), np.random.default_rng(number)).to_csv(spot / "fresh.csv", index=False)
        try:
            verdict = run_job(job_of(spot), progress=False)
            decision = verdict.decision
            checks = " ".join(dict.fromkeys(finding.check for finding in verdict.findings if finding.rule == "stop"))
        except TsdistillError as error:
            decision, checks = "failed", type(error).__name__
        ratio = next_week(spot / "store", whole) / usual if decision == "promoted" else 1.0
        yield {"set": name, "kind": "fault" if number else "sound", "night": fault, "decision": decision,
                     "checks": checks, "ratio": ratio, "seconds": time.perf_counter() - began}  # fmt: skip


def clean_rows(name: str, done: set[str]) -> Iterator[dict[str, object]]:
    """One row per clean night: profiles of 1, 7 and 28 days before, on 3,000 rows and more."""
    panel = td.Panel.from_frame(frame_of(name), fill="interpolate")
    ds = panel.items[0].ds
    assert ds is not None
    for number, row in enumerate(np.linspace(3000 + 28 * 24, len(ds) - 1, N_CLEAN).astype(int)):
        began = time.perf_counter()
        gap = (1, 7, 28)[number % 3]
        night = f"{ds[row]} after {gap} d"
        if night in done:
            continue
        recent = td.Panel.from_frame(panel.to_frame().iloc[max(0, row - 8760) : row])
        report = td.check_data(recent, td.quality.profile_of(recent.until(ds[row - 1 - 24 * gap])), now=ds[row])
        stops = " ".join(dict.fromkeys(finding.check for finding in report.stops))
        yield {"set": name, "kind": "clean", "night": night, "decision":
                     "passed" if report.passed else "refused", "checks": stops, "ratio": 1.0,
                     "seconds": time.perf_counter() - began}  # fmt: skip
        if not report.passed:
            print(report, flush=True)


def summarise(table: pd.DataFrame, folder: Path) -> None:
    """One line per set."""
    lines = ["| set | faults | refused or failed | kept | promoted | more than 5 % worse | largest ratio | "
             "clean nights | false stops |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, rows in table.groupby("set", sort=False):
        bad, clean = rows[rows["kind"] == "fault"], rows[rows["kind"] == "clean"]
        stopped, kept, promoted = (
            int(bad["decision"].isin(words).sum()) for words in (("refused", "failed"), ("kept",), ("promoted",))
        )
        worse, largest = int((bad["ratio"] > 1.05).sum()), bad["ratio"].max()
        lines.append(f"| {name} | {len(bad)} | {stopped} | {kept} | {promoted} | {worse} | {largest:.3f} | "
                     f"{len(clean)} | {int((clean['decision'] == 'refused').sum())} |")  # fmt: skip
    (folder / "summary.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--kinds", nargs="+", default=("clean", "fault"))
    arguments = parser.parse_args()
    results = arguments.folder / "results.csv"
    for name in arguments.sets:
        for kind in arguments.kinds:
            table = pd.read_csv(results, keep_default_na=False) if results.exists() else pd.DataFrame()
            done = set(table.loc[(table["set"] == name) & (table["kind"] != ("fault" if kind == "clean" else "clean")),
                                 "night"]) if len(table) else set()  # fmt: skip
            for row in clean_rows(name, done) if kind == "clean" else fault_rows(name, arguments.folder, done):
                pd.DataFrame([row]).to_csv(
                    results, mode="a", header=not results.exists(), index=False, float_format="%.4g"
                )
                print(row, flush=True)
    summarise(pd.read_csv(results, keep_default_na=False), arguments.folder)


if __name__ == "__main__":
    main()
