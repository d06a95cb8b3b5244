"""Compress one teacher by every technique, alone and together, and write the two tables that compare them.

    python experiments/techniques.py experiments/010-techniques

A folder holds `cells.toml`: the data set, the seeds, and teachers with their student, their pruning and an
architecture that is small by itself. Per teacher and seed everything is trained on the training part, chosen on the
validation part, and then measured once, deployed, in one run on the test part (`td.compare`): bytes, error and median
time of one window on one thread, beside the student trained without a teacher, a ridge regression and a seasonal
naive forecast. Pruning and quantization-aware training train the teacher on, which moves its error by itself: two more
rows are the teacher trained on for as long and in the same way, neither cut nor rounded.

Finished cells (teacher and seed) are rows of `results.csv` and are skipped next time, under a key of everything that
shapes them. `summary.md` is written anew: techniques in the first table, kinds of quantization in the second.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accuracy import Results
from quantizing import EVERY

import tsdistill as td
from tsdistill.models import MODELS
from tsdistill.quantization import candidate_table
from tsdistill.report.machine import machine
from tsdistill.spec import digest_of
from tsdistill.training import TruthObjective, fit

COLUMNS = [
    "teacher", "seed", "name", "precision", "seconds", "n_parameters", "bytes", "p50_ms", "mse", "error", "p_value",
    "cpu", "key",
]  # fmt: skip
TECHNIQUES = {
    "teacher": "teacher, float32",
    "trained on, pruning": "not a technique: the teacher, trained on as the pruned one is",
    "pruned": "pruning, half of the units",
    "int8": "quantization (the fastest below without training)",
    "distilled": "distillation into a small student",
    "student alone": "the same student without a teacher",
    "efficient": "efficient architecture (separable convolutions)",
    "together": "distilled, pruned and quantized",
    "together without teacher": "the same without a teacher",
    "ridge": "ridge regression",
    "seasonal naive": "seasonal naive",
}
KINDS = {
    "dynamic": ("dynamic INT8", "nothing"),
    "static": ("static INT8", "calibration windows"),
    "qat": ("quantization-aware training", "training"),
    "trained on, rounding": ("not a kind: float32, trained on as that is", "training"),
    "weight-only-8": ("weight-only INT8", "nothing"),
    "weight-only-4": ("weight-only INT4", "nothing"),
}


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of teachers; by default all.")
    parser.add_argument("--seeds", type=int, nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    results = Results(arguments.folder / "results.csv", COLUMNS, ["teacher", "seed", "name"])
    task = td.Task(td.datasets.load(cells["dataset"]), context=cells["context"], horizon=cells["horizon"])
    for entry in cells["teachers"]:
        for seed in cells["seeds"] if arguments.seeds is None else arguments.seeds:
            wanted = not arguments.only or entry["name"] in arguments.only
            if wanted and results.find(key_of(cells, entry, seed, "teacher")) is None:
                measure(cells, entry, seed, task, results, arguments.folder / "work")
    # Rows of settings that are no longer in cells.toml are not averaged with these.
    rows = results.frame()
    current = [
        any(
            key == key_of(cells, entry, seed, name)
            for entry in cells["teachers"]
            if entry["name"] == teacher
            for seed in cells["seeds"]
        )
        for teacher, name, key in zip(rows["teacher"], rows["name"], rows["key"], strict=True)
    ]
    summarise(rows[pd.Series(current, index=rows.index, dtype=bool)], cells, arguments.folder)


def key_of(cells: dict[str, Any], entry: dict[str, Any], seed: int, name: str) -> str:
    """Names a row by all that shapes it."""
    shared = [cells[field] for field in ("dataset", "context", "horizon", "training", "rounded", "recovery")]
    return digest_of([*shared, entry, seed, name])


def measure(
    cells: dict[str, Any], entry: dict[str, Any], seed: int, task: td.Task, results: Results, work: Path
) -> None:
    """Everything of one teacher under one seed: made first, then measured side by side."""
    whole, rounded, recovery = (
        td.Training.from_dict({**cells[name], "seed": seed}) for name in ("training", "rounded", "recovery")
    )
    pruning = td.Pruning.from_dict({**entry["pruning"], "recovery": recovery.to_dict()})
    models: dict[str, Any] = {}
    seconds: dict[str, float] = {}

    def make(name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        models[name] = call()
        seconds[name] = time.perf_counter() - began
        print(f"{entry['name']} seed {seed}: {name} made in {seconds[name]:.0f} s", flush=True)
        return models[name]

    def config(name: str) -> td.models.ModelConfig:
        return MODELS.read(entry[name])

    quiet: dict[str, Any] = {"progress": False}
    taught: dict[str, Any] = {**quiet, "cache": work / "cache"}
    teacher = make("teacher", lambda: td.train(config("config"), task, whole, **quiet))
    make("trained on, pruning", lambda: trained_on(teacher, task, recovery))
    make("trained on, rounding", lambda: trained_on(teacher, task, rounded))
    make("pruned", lambda: td.prune(teacher, task, pruning, **quiet))
    for kind, values in {**EVERY, "qat": {"method": "qat", "training": rounded.to_dict()}}.items():
        spec = td.Quantization.from_dict({**values, "require_gain": False, "max_error_increase": 99.0})
        try:
            make(kind, lambda spec=spec: td.quantize(teacher, task, spec, **quiet))
        except td.errors.UnsupportedError as error:
            print(f"{entry['name']} seed {seed}: no {kind}, {str(error)[:100]}", flush=True)
    make("efficient", lambda: td.train(config("efficient"), task, whole, **quiet))
    alone = make("student alone", lambda: td.train(config("student"), task, whole, **quiet))
    student = make(
        "distilled", lambda: td.distill(teacher, config("student"), task, training=whole, control=False, **taught)
    )

    def shrunk() -> td.Deployed:
        less = td.prune(student, task, pruning, teacher=teacher, **taught)
        return td.quantize(less, task, td.Quantization(method="auto"), **quiet)

    student.control = alone  # so that all that happens to the student happens to it, too
    together = make("together", shrunk)
    seconds["together"] += seconds["distilled"]
    print(candidate_table(together), flush=True)
    for name, model in models.items():
        if name != "together" and isinstance(model, td.Forecaster):
            model.control = None
    report = td.compare(models, task, reference="teacher", **quiet)
    print(report, flush=True)
    deployed = [row for row in report.rows if row.runtime != "torch fp32"]
    error = next(row.mse for row in deployed if row.name == "teacher")
    measured = []
    for row in deployed:
        assert row.mse is not None
        assert error is not None
        measured.append({
            "teacher": entry["name"], "seed": seed, "name": row.name, "precision": row.runtime.removeprefix("onnx "),
            "seconds": seconds.get(row.name, float("nan")), "n_parameters": row.n_parameters, "bytes": row.size_bytes,
            "p50_ms": row.latency_p50_ms, "mse": row.mse, "error": row.mse / error - 1, "p_value": row.p_value_holm,
            "cpu": machine().get("cpu"), "key": key_of(cells, entry, seed, row.name),
        })  # fmt: skip
    # The row that says that a cell is finished comes last.
    for record in sorted(measured, key=lambda record: record["name"] == "teacher"):
        results.add(record)


def trained_on(teacher: td.Forecaster, task: td.Task, training: td.Training) -> td.Forecaster:
    """A copy of the teacher after some more epochs on the truth."""
    longer = copy.deepcopy(teacher)
    fit(longer, task, training, TruthObjective(), progress=False)
    return longer.eval()


def summarise(rows: pd.DataFrame, cells: dict[str, Any], folder: Path) -> None:
    """The two tables for each teacher."""
    lines = [
        f"{cells['dataset']}, context {cells['context']}, horizon {cells['horizon']}, test part; means over seeds "
        "(least to greatest in brackets), everything deployed and measured in one run a seed, one window, one thread, "
        f"{', '.join(sorted(set(rows['cpu'].dropna())))}. Compression, speed and error are against the teacher in "
        "float32 in the same runtime; in square brackets the seeds in which the error differs from the teacher's "
        "by more than chance (Diebold-Mariano, Holm, .05). Effort: seconds beyond the teacher's training.",
    ]
    for entry in cells["teachers"]:
        mine = rows[rows["teacher"] == entry["name"]]
        if mine.empty:
            continue
        kinds = {name: texts[0] for name, texts in KINDS.items()}
        needs = {name: texts[1] for name, texts in KINDS.items()}
        # What is trained for it would mix two techniques.
        fast = mine[mine["name"].isin(EVERY)].groupby("name")["p50_ms"].mean()
        best = mine[mine["name"] == fast.idxmin()].assign(name="int8")
        teacher = mine[mine["name"] == "teacher"]
        means = teacher[["n_parameters", "bytes", "p50_ms", "seconds"]].mean()
        lines += [
            "",
            f"**{entry['name']}** of {means['n_parameters']:,.0f} weights, test MSE {ranged(teacher['mse'], '.4f')}, "
            f"{means['bytes']:,.0f} bytes, {means['p50_ms']:.3f} ms, trained in {means['seconds']:.0f} s. "
            f"{len(teacher)} seeds. The fastest kind of quantization without training is {kinds[fast.idxmin()]}.",
            "",
            "| technique | compression | speed | error | effort |",
            "|---|---|---|---|---|",
            *table(pd.concat([mine, best]), TECHNIQUES, teacher, {}),
            "",
            "| quantization | compression | speed | error | effort |",
            "|---|---|---|---|---|",
            *table(mine, kinds, teacher, needs),
        ]
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def table(rows: pd.DataFrame, names: dict[str, str], teacher: pd.DataFrame, needs: dict[str, str]) -> list[str]:
    """A line for each name that there is."""
    base, lines = teacher.set_index("seed"), []
    for name, shown in names.items():
        own = rows[rows["name"] == name].set_index("seed")
        if own.empty:
            lines.append(f"| {shown} | there is none | | | |")
            continue
        differ = f" [{(own['p_value'] < 0.05).sum()}/{own['p_value'].notna().sum()}]" if name != "teacher" else ""
        effort = "" if own["seconds"].isna().all() or name == "teacher" else f"{own['seconds'].mean():.0f} s"
        lines.append(
            f"| {shown} | {(base['bytes'] / own['bytes']).mean():.1f} "
            f"| {ranged(base['p50_ms'] / own['p50_ms'], '.2f')} "
            f"| {ranged(own['error'], '+.1%')}{differ} | {', '.join(filter(None, (needs.get(name, ''), effort)))} |"
        )
    return lines


def ranged(values: pd.Series[float], form: str) -> str:
    """Mean, and least to greatest where there are several."""
    shown = format(values.mean(), form)
    return shown if len(values) < 2 else f"{shown} ({format(values.min(), form)} to {format(values.max(), form)})"


if __name__ == "__main__":
    main()
