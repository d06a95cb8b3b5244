"""The default recipe on data that it was not made for: what it deploys, and whether that is the best thing to deploy.

    python experiments/real_life.py experiments/014-real-life [--only etth1 exchange] [--seeds 0]

A folder holds `cells.toml`: the sets, and what their tasks need that is not the default. Nothing else is changed. The
test part of a cell is read once, by the comparison at the end of its run. Finished cells are rows of `results.csv` and
are skipped next time; models and reports go to `work/` inside the folder, which is not committed; `summary.md` is
written anew.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accuracy import Results

from tsdistill.recipe import Recipe, Source, default_recipe, run
from tsdistill.report import Report
from tsdistill.spec import digest_of

COLUMNS = [
    "dataset", "seed", "chosen", "precision", "mse", "ridge", "naive", "without_teacher", "teacher", "p_ridge",
    "size_bytes", "teacher_bytes", "seconds", "key",
]  # fmt: skip


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of data sets; by default all.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder: Path = arguments.folder
    cells = tomllib.loads((folder / "cells.toml").read_text(encoding="utf-8"))
    results = Results(folder / "results.csv", COLUMNS, ["dataset", "seed"])
    for seed in arguments.seeds:
        for entry in cells["sets"]:
            recipe = recipe_of(entry).with_seed(seed)
            # A file may lie elsewhere next time.
            key = digest_of([entry, recipe.replace(data=Source(dataset="nyc-weather")).digest])
            if (arguments.only and entry["dataset"] not in arguments.only) or results.find(key) is not None:
                continue
            began = time.perf_counter()
            finished = run(recipe, folder / "work" / f"{entry['dataset']}-{seed}", say=print)
            row = measured(finished.report)
            row |= {"dataset": entry["dataset"], "seed": seed, "key": key}
            results.add({**row, "seconds": round(time.perf_counter() - began, 1)})
            print(finished.report, flush=True)
    summarise(results.frame(), folder)


def recipe_of(entry: dict[str, Any]) -> Recipe:
    """The default recipe over one set."""
    recipe = default_recipe()
    task = recipe.task.replace(**entry.get("task", {}))
    source = Source(dataset=entry["dataset"]) if "data" not in entry else Source(**entry["data"])
    if source.path is not None:
        source = source.replace(path=str(Path(os.environ["TSDISTILL_DATA"]) / source.path))
    return recipe.replace(name=entry["dataset"], data=source, task=task)


def measured(report: Report) -> dict[str, Any]:
    """What was deployed, and the rows that it is held against."""
    subject = [row for row in report.rows if row.name == report.subject][-1]
    reference = report.row(report.reference)
    control = next((row.mse for row in report.rows if row.role == "control"), None)
    against = {comparison.other: comparison.p_value for comparison in report.comparisons}
    return {
        "chosen": next(row.name for row in report.candidates if row.chosen),
        "precision": subject.runtime.removeprefix("onnx "),
        "mse": subject.mse,
        "ridge": report.row("ridge").mse,
        "naive": report.row("seasonal naive").mse,
        "without_teacher": control,
        "teacher": reference.mse,
        "p_ridge": against.get("ridge"),
        "size_bytes": subject.size_bytes,
        "teacher_bytes": reference.size_bytes,
    }


def summarise(rows: pd.DataFrame, folder: Path) -> None:
    """One line per set: means over seeds, and how far what is deployed is from the best alternative."""
    lines = [
        "Test MSE, means over seeds. Best other: the least of ridge, seasonal naive and the same student without a "
        "teacher, which is chosen by the test part and so is a bound, not a rival.",
        "",
        "| set | seeds | deployed | MSE | ridge | against ridge | p | naive | without teacher | best other | teacher "
        "| bytes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    gains, worst = [], []
    for name, cells in rows.groupby("dataset", sort=False):
        mean = cells.mean(numeric_only=True)
        best = min(mean[other] for other in ("ridge", "naive", "without_teacher") if not pd.isna(mean[other]))
        gain, far = mean["mse"] / mean["ridge"] - 1, mean["mse"] / best - 1
        gains.append(gain)
        worst.append(far)
        deployed = ", ".join(sorted({f"{cell.chosen} {cell.precision}" for cell in cells.itertuples()}))
        p_value = "" if len(cells) > 1 or pd.isna(mean["p_ridge"]) else f"{mean['p_ridge']:.2g}"
        lines.append(
            f"| {name} | {len(cells)} | {deployed} | {mean['mse']:.4f} | {mean['ridge']:.4f} | {gain:+.1%} | {p_value} "
            f"| {mean['naive']:.4f} | {mean['without_teacher']:.4f} | {far:+.1%} | {mean['teacher']:.4f} "
            f"| {mean['size_bytes']:,.0f} |"
        )
    if gains:
        lines += [
            "",
            f"Mean against ridge {sum(gains) / len(gains):+.1%}; farthest above the best other {max(worst):+.1%}.",
        ]
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
