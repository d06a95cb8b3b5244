"""One ridge, its context chosen by validation, against the mean of ridges at several contexts (set x horizon).

    python experiments/contexts.py experiments/011-averaged-contexts [--only etth1 exchange]

A folder holds `cells.toml`: sets, horizons, and the contexts that the single ridge may choose from by validation error;
the mean takes the longest of them and its own defaults. The test part of a cell is read once, when everything is
chosen. Finished cells are rows of `results.csv` and are skipped next time; `summary.md` is written anew.
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accuracy import Results

import tsdistill as td
from tsdistill.evaluation import compare_losses, score, seasonal_naive
from tsdistill.models import AveragedLinearConfig
from tsdistill.spec import digest_of

COLUMNS = [
    "dataset", "horizon", "model", "context", "validation_mse", "mse", "n_parameters", "seconds", "p_value",
    "n_at_edge", "key",
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
        panel = td.datasets.load(entry["dataset"])
        for horizon in entry["horizons"]:
            key = digest_of(
                [entry["dataset"], entry["contexts"], horizon, AveragedLinearConfig().to_dict(), "refitted"]
            )
            if results.find(f"{key} averaged, refitted") is None:
                for row in cell(panel, entry["contexts"], horizon):
                    results.add(
                        {"dataset": entry["dataset"], "horizon": horizon, **row, "key": f"{key} {row['model']}"}
                    )
                print(f"{entry['dataset']} {horizon}: finished", flush=True)
    summarise(results.frame(), cells, arguments.folder)


def cell(panel: td.Panel, contexts: list[int], horizon: int) -> list[dict[str, Any]]:
    """Every model at one horizon, the averaged one last; p-values are against the ridge chosen by validation."""
    tasks = {context: td.Task(panel, context=context, horizon=horizon) for context in contexts}
    longest = tasks[max(contexts)]
    models: dict[str, tuple[td.Forecaster, td.Task, float]] = {
        "seasonal naive": (seasonal_naive(longest), longest, 0.0)
    }
    ridges, times = {}, {}
    for context, task in tasks.items():
        began = time.perf_counter()
        ridges[context] = td.train(td.LinearConfig(), task)
        times[context] = time.perf_counter() - began
    best = min(contexts, key=lambda context: validation_mse(ridges[context], tasks[context]))
    models["ridge"] = (ridges[best], tasks[best], sum(times.values()))
    models["ridge, longest context"] = (ridges[max(contexts)], longest, times[max(contexts)])
    began = time.perf_counter()
    averaged = td.train(AveragedLinearConfig(), longest)
    models["averaged"] = (averaged, longest, time.perf_counter() - began)
    # What has learnt from validation rows stands in rows of its own, and is compared with nothing on validation.
    for name, model, task in (("ridge", ridges[best], tasks[best]), ("averaged", averaged, longest)):
        began = time.perf_counter()
        models[f"{name}, refitted"] = (td.refit(model, task), task, time.perf_counter() - began)
    # Tasks of every context have the same test windows: their targets are those of the test part.
    losses = {name: score(model, task, "test") for name, (model, task, _) in models.items()}
    rows = []
    for name, (model, task, spent) in models.items():
        test = losses[name].window_losses
        against = compare_losses(test, losses["ridge"].window_losses, horizon=horizon, times=losses["ridge"].times)
        rows.append(
            {
                "model": name,
                "context": task.context,
                "validation_mse": float("nan") if "refitted" in name else validation_mse(model, task),
                "mse": float(test.mean()),
                "n_parameters": model.n_parameters,
                "seconds": spent,
                "p_value": float("nan") if name == "ridge" else against.p_value,
                "n_at_edge": model.lineage[-1].metrics.get("n_at_edge", 0),
            }
        )
    return rows


def validation_mse(model: td.Forecaster, task: td.Task) -> float:
    """Mean squared error on the validation part."""
    return float(td.evaluate(model, task, part="validation")["mse"])


def summarise(rows: pd.DataFrame, cells: dict[str, Any], folder: Path) -> None:
    """One line per set and horizon, and the mean change against the ridge over the sets that did not find the rule."""
    lines = [
        "Test MSE; closed forms have no seed. p: the averaged one against the ridge whose context validation chose.",
        "",
        "| set | horizon | seasonal naive | ridge (context) | longest context | averaged | change | p "
        "| ridge, refitted | averaged, refitted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    changes: dict[str, list[float]] = {}
    refits: dict[str, list[float]] = {}
    for entry in cells["sets"]:
        for horizon in entry["horizons"]:
            of_cell = rows[(rows["dataset"] == entry["dataset"]) & (rows["horizon"] == horizon)].set_index("model")
            if "averaged, refitted" not in of_cell.index:
                continue
            errors = of_cell["mse"]
            change = errors["averaged"] / errors["ridge"] - 1
            changes.setdefault(entry["dataset"], []).append(change)
            refits.setdefault(entry["dataset"], []).append(errors["averaged, refitted"] / errors["averaged"] - 1)
            p_value = of_cell.loc["averaged", "p_value"]
            lines.append(
                f"| {entry['dataset']} | {horizon} | {errors['seasonal naive']:.4f} "
                f"| {errors['ridge']:.4f} ({of_cell.loc['ridge', 'context']:.0f}) "
                f"| {errors['ridge, longest context']:.4f} | {errors['averaged']:.4f} | {change:+.1%} "
                f"| {'' if pd.isna(p_value) else f'{p_value:.2g}'} "
                f"| {errors['ridge, refitted']:.4f} | {errors['averaged, refitted']:.4f} |"
            )
    lines += ["", "Mean change per set: " + ", ".join(
        f"{name} {sum(values) / len(values):+.1%}" for name, values in changes.items()
    ) + ".", "", "Mean change of the averaged one by the refit on training and validation rows: " + ", ".join(
        f"{name} {sum(values) / len(values):+.1%}" for name, values in refits.items()
    ) + "."]  # fmt: skip
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
