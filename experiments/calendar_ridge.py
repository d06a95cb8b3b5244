"""A ridge with and without the calendar (set x horizon x what it knows), the seasonal naive beside it.

    python experiments/calendar_ridge.py experiments/016-calendar-ridge [--only bike-sharing etth1]

A folder holds `cells.toml`: sets, horizons, contexts, and columns known ahead. A cell is a ridge that knows so much:
its context, whether each channel has its own map, its penalty and that of its effects are chosen by validation, and its
test part is read once. Finished cells are rows of `results.csv` and are skipped next time; `summary.md` is written
anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from accuracy import Results

import tsdistill as td
from tsdistill.evaluation import compare_losses, score, seasonal_naive
from tsdistill.spec import digest_of

Cycle = Literal["time-of-day", "time-of-week", "time-of-year"]

COLUMNS = [
    "dataset", "horizon", "model", "context", "individual", "effect_penalty", "validation_mse", "mse", "n_parameters",
    "seconds", "p_value", "key",
]  # fmt: skip


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of data sets; by default all.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    results = Results(arguments.folder / "results.csv", COLUMNS, ["dataset", "horizon", "model"])
    for entry in cells["sets"]:
        if arguments.only and entry["dataset"] not in arguments.only:
            continue
        for horizon in entry["horizons"]:
            key = digest_of([entry, horizon, td.LinearConfig().to_dict()])
            if results.find(f"{key} {list(knowledge(entry))[-1]}") is None:
                for row in cell(panel_of(entry), entry, horizon):
                    results.add(
                        {"dataset": entry["dataset"], "horizon": horizon, **row, "key": f"{key} {row['model']}"}
                    )
                print(f"{entry['dataset']} {horizon}: finished", flush=True)
    summarise(results.frame(), cells, arguments.folder)


def panel_of(entry: dict[str, Any]) -> td.Panel:
    """The data of a set."""
    if "data" not in entry:
        return td.datasets.load(entry["dataset"])
    options = dict(entry["data"])
    return td.read_csv(Path(os.environ["TSDISTILL_DATA"]) / options.pop("path"), **options)


def without(panel: td.Panel, columns: set[str]) -> td.Panel:
    """A panel less some columns."""
    places = [place for place, name in enumerate(panel.channels) if name not in columns]
    items = tuple(td.data.Item(item.unique_id, item.ds, item.values[:, places]) for item in panel.items)
    return dataclasses.replace(panel, items=items, channels=tuple(panel.channels[place] for place in places))


def knowledge(entry: dict[str, Any]) -> dict[str, td.Covariates | None]:
    """What ridges know, by the name of their row: nothing, the calendar, and columns known ahead."""
    planned, weather = (tuple(entry.get(name, ())) for name in ("planned", "weather"))
    short: tuple[Cycle, ...] = ("time-of-day", "time-of-week")
    known: dict[str, td.Covariates | None] = {
        "ridge": None,
        "day, week": td.Covariates(calendar=short),
        "day, week, year": td.Covariates(calendar=(*short, "time-of-year")),
    }
    if planned:
        known["day, week, plans"] = td.Covariates(calendar=short, future=planned)
    if weather:
        known["day, week, plans, weather"] = td.Covariates(calendar=short, future=planned + weather)
    return known


def cell(panel: td.Panel, entry: dict[str, Any], horizon: int) -> list[dict[str, Any]]:
    """Every model at one horizon, the one that knows most last; p-values are against the ridge that knows nothing."""
    columns = (*entry.get("planned", ()), *entry.get("weather", ()))

    def task_of(context: int, known: td.Covariates | None) -> td.Task:
        # Columns that a ridge does not know are no channels either: all forecast the same.
        unused = {*columns} - {*(known.future if known is not None else ())}
        return td.Task(without(panel, unused), context=context, horizon=horizon, covariates=known)

    rows, losses = [], {}
    models: dict[str, tuple[td.Forecaster, td.Task, float]] = {}
    longest = task_of(max(entry["contexts"]), None)
    models["seasonal naive"] = (seasonal_naive(longest), longest, 0.0)
    for name, known in knowledge(entry).items():
        began = time.perf_counter()
        tried = []
        for context in entry["contexts"]:
            task = task_of(context, known)
            for individual in (False, True) if len(task.channels) > 1 else (False,):
                tried.append((td.train(td.LinearConfig(individual=individual), task), task))
        best = min(tried, key=lambda pair: float(pair[0].lineage[-1].metrics["validation_mse"]))
        models[name] = (*best, time.perf_counter() - began)
    # Tasks of every context have the same test windows: their targets are those of the test part.
    for name, (model, task, _) in models.items():
        losses[name] = score(model, task, "test")
    reference = losses["ridge"]
    for name, (model, task, spent) in models.items():
        test = losses[name].window_losses
        against = compare_losses(test, reference.window_losses, horizon=horizon, times=reference.times)
        rows.append(
            {
                "model": name,
                "context": task.context,
                "individual": getattr(model.config, "individual", False),
                "effect_penalty": str(model.lineage[-1].metrics.get("effect_penalty", "")) if model.lineage else "",
                "validation_mse": float(td.evaluate(model, task, part="validation")["mse"]),
                "mse": float(test.mean()),
                "n_parameters": model.n_parameters,
                "seconds": round(spent, 1),
                "p_value": float("nan") if name == "ridge" else against.p_value,
            }
        )
    return rows


def summarise(rows: pd.DataFrame, cells: dict[str, Any], folder: Path) -> None:
    """One line per set, horizon and model."""
    lines = [
        "Test MSE; closed forms have no seed. p: against the ridge that knows nothing. Weights count effects.",
        "",
        "| set | horizon | model | context | map per channel | validation | test | against ridge | p | weights |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in cells["sets"]:
        for horizon in entry["horizons"]:
            of_cell = rows[(rows["dataset"] == entry["dataset"]) & (rows["horizon"] == horizon)].set_index("model")
            for name in [name for name in ("seasonal naive", *knowledge(entry)) if name in of_cell.index]:
                row = of_cell.loc[name]
                change = "" if name == "ridge" else f"{row['mse'] / of_cell.loc['ridge', 'mse'] - 1:+.1%}"
                p_value = "" if pd.isna(row["p_value"]) else f"{row['p_value']:.2g}"
                lines.append(
                    f"| {entry['dataset']} | {horizon} | {name} | {row['context']} "
                    f"| {'yes' if row['individual'] else 'no'} | {row['validation_mse']:.4f} | {row['mse']:.4f} "
                    f"| {change} | {p_value} | {row['n_parameters']:,} |"
                )
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
