"""Automatic and privileged teachers: what they are worth by themselves, and to students that see less (set x seed).

    python experiments/teachers.py experiments/012-auto-teacher [--only etth1] [--seeds 0 1 2]

A folder holds `cells.toml`. Per set and seed three teachers are made on training and validation rows: "auto" within a
budget of minutes, and one architecture with the calendar ("calendar") and without ("plain"). Each teaches the same
students, none of which sees the calendar, beside their controls. The test part is read once, when everything is chosen.
Finished cells are rows of `results.csv` and are skipped next time; members of the automatic teacher stay in `work/`,
which is not committed; `summary.md` is written anew.
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
from tsdistill.recipe import AutoTeacher, auto_teacher
from tsdistill.spec import digest_of
from tsdistill.teachers import Teacher, adapt

COLUMNS = [
    "dataset", "horizon", "seed", "teacher", "student", "validation_mse", "mse", "control_validation_mse",
    "control_mse", "best_member_validation_mse", "best_member_mse", "n_members", "members", "seconds", "key",
]  # fmt: skip


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of data sets; by default all.")
    parser.add_argument("--seeds", type=int, nargs="+", help="By default those of cells.toml.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    results = Results(arguments.folder / "results.csv", COLUMNS, ["dataset", "horizon", "seed", "teacher", "student"])
    for entry in cells["sets"]:
        if arguments.only and entry["dataset"] not in arguments.only:
            continue
        panel = td.datasets.load(entry["dataset"])
        for seed in arguments.seeds or cells["seeds"]:
            cell(
                td.Task(panel, context=entry["context"], horizon=entry["horizon"]),
                cells,
                seed,
                results,
                arguments.folder,
            )
    summarise(results.frame(), arguments.folder)


def cell(task: td.Task, cells: dict[str, Any], seed: int, results: Results, folder: Path) -> None:
    """All teachers and students of one set and seed."""
    name = str(task.panel.name)
    for title in ("plain", "calendar", "auto"):
        what = cells["privileged"] if title != "auto" else [cells["minutes"], cells["reach"]]
        base = [name, task.context, task.horizon, seed, title, what, cells["calendar"]]
        missing = {student["name"]: digest_of([base, student]) for student in cells["students"]}
        missing = {student: key for student, key in missing.items() if results.find(key) is None}
        teacher_key = digest_of(base)
        if not missing and results.find(teacher_key) is not None:
            continue
        began = time.perf_counter()
        teacher = made(title, task, cells, seed, folder / "work" / f"{name}-{seed}")
        row = {"dataset": name, "horizon": task.horizon, "seed": seed, "teacher": title}
        if results.find(teacher_key) is None:
            scores = {f"{prefix}mse": td.evaluate(teacher, task, part=part)["mse"]
                      for prefix, part in (("validation_", "validation"), ("", "test"))}  # fmt: skip
            results.add({**row, "student": "-", **scores, **members(teacher, task), "key": teacher_key,
                         "seconds": time.perf_counter() - began})  # fmt: skip
        for student in cells["students"]:
            if student["name"] in missing:
                results.add({**row, "student": student["name"], **taught(teacher, task, student, seed),
                             "key": missing[student["name"]]})  # fmt: skip
        print(f"{name} seed {seed}: {title} finished", flush=True)


def made(title: str, task: td.Task, cells: dict[str, Any], seed: int, folder: Path) -> Teacher:
    """A teacher by its name."""
    if title == "auto":
        return auto_teacher(
            task,
            minutes=cells["minutes"],
            reach=cells["reach"],
            seed=100 * seed,
            folder=folder,
            progress=False,
            say=print,
        )
    known = td.Covariates(calendar=tuple(cells["calendar"])) if title == "calendar" else None
    own_task = td.Task(task.panel, context=task.context, horizon=task.horizon, covariates=known)
    training = td.Training.from_dict({**cells["privileged"]["training"], "seed": seed})
    return adapt(td.train(MODELS.read(cells["privileged"]["config"]), own_task, training, progress=False), task)


def members(teacher: Teacher, task: td.Task) -> dict[str, Any]:
    """The best single member by validation, and who the members are."""
    if not isinstance(teacher, AutoTeacher):
        return {}
    trained = [candidate for candidate in teacher.candidates if candidate.error is not None]
    best = min(trained, key=lambda candidate: candidate.error or 0.0)
    weighed = [candidate for candidate in teacher.candidates if candidate.weight]
    numbers: dict[str, Any] = {
        "best_member_validation_mse": best.error,
        "n_members": len(weighed),
        "members": "; ".join(candidate.line for candidate in teacher.candidates),
    }
    if best in weighed:
        numbers["best_member_mse"] = td.evaluate(teacher.teachers[weighed.index(best)], task, part="test")["mse"]
    return numbers


def taught(teacher: Teacher, task: td.Task, entry: dict[str, Any], seed: int) -> dict[str, Any]:
    """A student and its control."""
    began = time.perf_counter()
    training = td.Training.from_dict({**entry.get("training", {}), "seed": seed})
    losses = [td.OutputLoss(alpha=entry["alpha"])]
    student = td.distill(teacher, MODELS.read(entry["config"]), task, losses=losses, training=training, progress=False)
    numbers: dict[str, Any] = {"seconds": time.perf_counter() - began}
    for prefix, model in (("", student), ("control_", student.control)):
        for part_prefix, part in (("validation_", "validation"), ("", "test")):
            numbers[f"{prefix}{part_prefix}mse"] = td.evaluate(model, task, part=part)["mse"]  # type: ignore[arg-type]
    return numbers


def summarise(rows: pd.DataFrame, folder: Path) -> None:
    """Teachers against their best members, students against their controls; means over seeds."""
    lines = ["Mean over seeds (least to greatest in brackets).", "",
             "| set | horizon | seeds | teacher | validation MSE | to its best | test MSE | to its best | members |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    teachers, students = rows[rows["student"] == "-"], rows[rows["student"] != "-"]
    for (dataset, horizon, name), group in teachers.groupby(["dataset", "horizon", "teacher"], sort=False):
        against = ("", "", "")
        if name == "auto":
            against = (
                ranged(group["validation_mse"] / group["best_member_validation_mse"] - 1),
                ranged((group["mse"] / group["best_member_mse"] - 1).dropna()),
                f"{group['n_members'].mean():.1f}",
            )
        lines.append(
            f"| {dataset} | {horizon} | {len(group)} | {name} | {group['validation_mse'].mean():.4f} | {against[0]} "
            f"| {group['mse'].mean():.4f} | {against[1]} | {against[2]} |"
        )
    lines += ["", "| set | horizon | student | teacher | student's test MSE | control's | gain | gain on validation |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for (dataset, horizon, student, name), group in students.groupby(
        ["dataset", "horizon", "student", "teacher"], sort=False
    ):
        lines.append(
            f"| {dataset} | {horizon} | {student} | {name} | {group['mse'].mean():.4f} "
            f"| {group['control_mse'].mean():.4f} "
            f"| {ranged(1 - group['mse'] / group['control_mse'])} "
            f"| {ranged(1 - group['validation_mse'] / group['control_validation_mse'])} |"
        )
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def ranged(values: pd.Series[float]) -> str:
    """The mean, with the least and the greatest where there are several."""
    if values.empty:
        return ""
    spread = f" ({values.min():+.1%} to {values.max():+.1%})" if len(values) > 1 else ""
    return f"{values.mean():+.1%}{spread}"


if __name__ == "__main__":
    main()
