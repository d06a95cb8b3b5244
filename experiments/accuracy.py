"""Train forecasters cell by cell (model x horizon x context x seed), keep every finished cell, and summarise.

    python experiments/accuracy.py experiments/004-forecasters [--only patchtst lstm] [--horizons 96 720]

A folder holds `cells.toml`: the data set, the horizons, and for each model its config, its training and the contexts to
choose from. Per model and horizon the contexts are tried with one seed and judged by validation error alone; the best
one is then trained with every seed of that horizon and read on the test part, once. Finished cells are rows of
`results.csv` and are skipped next time, under a key of everything that shapes them; `summary.md` is written anew.
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

import tsdistill as td
from tsdistill.models import MODELS
from tsdistill.spec import digest_of

COLUMNS = [
    "model", "horizon", "context", "seed", "validation_mse", "mse", "mae", "n_parameters", "epochs", "seconds",
    "n_windows", "key",
]  # fmt: skip


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of models; by default all.")
    parser.add_argument("--horizons", type=int, nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cells = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    panel = td.datasets.load(cells["dataset"])
    results = Results(arguments.folder / "results.csv", COLUMNS, ["model", "horizon", "context", "seed"])
    for horizon in arguments.horizons or cells["horizons"]:
        for entry in cells["models"]:
            if arguments.only and entry["name"] not in arguments.only:
                continue
            run(entry, horizon, cells, panel, results)
    summarise(results.frame(), cells, arguments.folder, panel.name)


class Results:
    """Finished cells, one row each, written whole after every one of them."""

    def __init__(self, path: Path, columns: list[str], order: list[str]) -> None:
        self.path, self.columns, self.order = path, columns, order

    def frame(self) -> pd.DataFrame:
        """All rows."""
        return pd.read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=self.columns)

    def find(self, key: str) -> dict[str, Any] | None:
        """The row of a key, if that cell is finished."""
        rows = self.frame()
        rows = rows[rows["key"] == key]
        return None if rows.empty else dict(rows.iloc[0])

    def add(self, row: dict[str, Any]) -> None:
        """Replace the row of the same key, or append; other processes may be adding theirs."""
        from filelock import FileLock

        with FileLock(f"{self.path}.lock"):
            rows = self.frame()
            rows = rows[rows["key"] != row["key"]]
            frame = pd.DataFrame([*rows.to_dict("records"), row], columns=self.columns)
            frame = frame.sort_values(self.order)
            frame.to_csv(self.path.with_suffix(".part"), index=False, float_format="%.6g")
            self.path.with_suffix(".part").replace(self.path)


def run(entry: dict[str, Any], horizon: int, cells: dict[str, Any], panel: td.Panel, results: Results) -> None:
    """Choose the context of one model at one horizon by validation, then read the test part for every seed."""
    seeds = cells["seeds"].get(str(horizon), [0]) if entry.get("training") is not None else [0]
    contexts = entry.get("contexts", cells["contexts"])
    tried = {context: cell(entry, horizon, context, seeds[0], panel, results, test=False) for context in contexts}
    best = min(tried, key=lambda context: tried[context]["validation_mse"])
    for seed in seeds:
        row = cell(entry, horizon, best, seed, panel, results, test=True)
        print(f"{entry['name']:>22} {horizon:4d} context {best} seed {seed}: test MSE {row['mse']:.4f}", flush=True)


def cell(
    entry: dict[str, Any], horizon: int, context: int, seed: int, panel: td.Panel, results: Results, *, test: bool
) -> dict[str, Any]:
    """One trained model; `test` says whether its context was chosen, so that the test part may be read."""
    key = key_of(entry, horizon, context, seed, panel.name)
    kept = results.find(key)
    if kept is not None and (not test or kept["mse"] == kept["mse"]):
        return kept
    covariates = td.Covariates.from_dict(entry["covariates"]) if entry.get("covariates") else None
    task = td.Task(panel, context=context, horizon=horizon, covariates=covariates)
    training = td.Training.from_dict({**entry.get("training", {}), "seed": seed})
    began = time.perf_counter()
    model = td.train(MODELS.read(entry["config"]), task, training, progress=False)
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {
        "model": entry["name"], "horizon": horizon, "context": context, "seed": seed,
        "validation_mse": td.evaluate(model, task, part="validation")["mse"], "mse": float("nan"), "mae": float("nan"),
        "n_parameters": model.n_parameters, "epochs": model.lineage[-1].metrics.get("epochs", 0), "seconds": seconds,
        "n_windows": len(task.test), "key": key,
    }  # fmt: skip
    if test:
        scores = td.evaluate(model, task, part="test")
        row |= {"mse": scores["mse"], "mae": scores["mae"]}
    results.add(row)
    return row


def key_of(entry: dict[str, Any], horizon: int, context: int, seed: int, dataset: str | None) -> str:
    """Names a cell by all that shapes it."""
    shape = {name: entry.get(name) for name in ("config", "training", "covariates")}
    return digest_of([dataset, shape, horizon, context, seed])


def summarise(rows: pd.DataFrame, cells: dict[str, Any], folder: Path, dataset: str | None) -> None:
    """Mean and spread over seeds by model and horizon, the average over horizons, and the rivals' margin."""
    horizons = cells["horizons"]
    # Rows of settings that are no longer in cells.toml are not averaged with these.
    current = {
        (entry["name"], key_of(entry, horizon, context, seed, dataset))
        for entry in cells["models"]
        for horizon in horizons
        for context in entry.get("contexts", cells["contexts"])
        for seed in cells["seeds"].get(str(horizon), [0])
    }
    is_current = pd.Series([pair in current for pair in zip(rows["model"], rows["key"], strict=True)], index=rows.index)
    read = rows[rows["mse"].notna() & is_current]
    lines = [
        f"Test MSE on {cells['dataset']} (mean ± standard deviation over seeds where there are several); context "
        "chosen on validation.",
        "",
        f"| model | parameters | {' | '.join(str(horizon) for horizon in horizons)} | average | contexts |",
        "|---|---|" + "---|" * (len(horizons) + 2),
    ]
    for entry in cells["models"]:
        mine = read[read["model"] == entry["name"]]
        if mine.empty:
            continue
        by_horizon = {horizon: mine[mine["horizon"] == horizon] for horizon in horizons}
        whole = all(len(group) for group in by_horizon.values())
        average = f"{sum(group['mse'].mean() for group in by_horizon.values()) / len(horizons):.4f}" if whole else ""
        sizes = f"{mine['n_parameters'].min():,.0f} to {mine['n_parameters'].max():,.0f}"
        contexts = ", ".join(str(int(group["context"].iloc[0])) if len(group) else "" for group in by_horizon.values())
        values = " | ".join(_spread(group["mse"]) for group in by_horizon.values())
        lines.append(f"| {entry['name']} | {sizes} | {values} | {average} | {contexts} |")
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _spread(values: pd.Series[float]) -> str:
    if values.empty:
        return ""
    return f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
