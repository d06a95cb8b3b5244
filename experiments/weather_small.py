"""Closed forms for Weather: how small, and how good (model x horizon), everything chosen without the test part.

    python experiments/weather_small.py experiments/015-weather-small [--only "ridge per channel"] [--horizons 96]

A folder holds `cells.toml`: models with their horizons, context and config; where one has `layouts` (borders between
resolutions), validation error chooses among them. The test part is read once per finished cell, for what was chosen.
Finished cells are rows of `results.csv` and are skipped next time; `summary.md` is written anew.
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
from tsdistill.models import MODELS
from tsdistill.spec import digest_of

COLUMNS = [
    "model", "horizon", "context", "chosen", "validation_mse", "mse", "n_parameters", "seconds", "n_at_edge", "key",
]  # fmt: skip


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of models; by default all.")
    parser.add_argument("--horizons", type=int, nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    panel = td.datasets.load(cells["dataset"])
    results = Results(arguments.folder / "results.csv", COLUMNS, ["model", "horizon"])
    for entry in cells["models"]:
        for horizon in entry["horizons"]:
            wanted = not arguments.only or entry["name"] in arguments.only
            if not wanted or horizon not in (arguments.horizons or entry["horizons"]):
                continue
            key = digest_of([panel.name, entry, horizon])
            if results.find(key) is None:
                row = cell(panel, entry, horizon)
                results.add({"model": entry["name"], "horizon": horizon, **row, "key": key})
                print(f"{entry['name']} {horizon}: finished", flush=True)
    summarise(results.frame(), cells, arguments.folder)


def cell(panel: td.Panel, entry: dict[str, Any], horizon: int) -> dict[str, Any]:
    """Train every layout, keep the one with the least error on validation, and read the test part for it."""
    task = td.Task(panel, context=entry["context"], horizon=horizon)
    layouts = [{"borders": borders} for borders in entry.get("layouts", [])] or [{}]
    began = time.perf_counter()
    tried = []
    for layout in layouts:
        model = td.train(MODELS.read({**entry["config"], **layout}), task, progress=False)
        error = float(td.evaluate(model, task, part="validation")["mse"])
        tried.append((error, model, layout))
        print(f"  {layout}: validation {error:.5f}, {model.n_parameters} weights", flush=True)
    error, model, layout = min(tried, key=lambda candidate: candidate[0])
    return {
        "context": entry["context"],
        "chosen": " ".join(str(border) for border in layout.get("borders", [])),
        "validation_mse": error,
        "seconds": time.perf_counter() - began,
        "mse": float(td.evaluate(model, task, part="test")["mse"]),
        "n_parameters": model.n_parameters,
        "n_at_edge": model.lineage[-1].metrics.get("n_at_edge", 0),
    }


def summarise(rows: pd.DataFrame, cells: dict[str, Any], folder: Path) -> None:
    """One line per model, one column per horizon."""
    horizons = [96, 192, 336, 720]
    lines = [
        "Test MSE (weights); closed forms have no seed.",
        "",
        "| model | context | " + " | ".join(map(str, horizons)) + " | mean | seconds at 96 |",
        "|---" * (len(horizons) + 4) + "|",
    ]
    for entry in cells["models"]:
        own = rows[rows["model"] == entry["name"]].set_index("horizon")
        if own.empty:
            continue
        numbers = [
            f"{own.loc[horizon, 'mse']:.4f} ({own.loc[horizon, 'n_parameters']:,.0f})" if horizon in own.index else ""
            for horizon in horizons
        ]
        mean = f"{own.loc[horizons, 'mse'].mean():.4f}" if set(horizons) <= set(own.index) else ""
        seconds = f"{own.loc[96, 'seconds']:.0f}" if 96 in own.index else ""
        lines.append(f"| {entry['name']} | {entry['context']} | {' | '.join(numbers)} | {mean} | {seconds} |")
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
