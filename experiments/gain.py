"""What a teacher gives a student: cells of data set x horizon x amount of data x kind of student, five paired seeds.

    python experiments/gain.py experiments/006-gain [--sets etth1 ili] [--summary]

A folder holds `cells.toml`. Per data set and horizon the context is chosen by the ridge's validation error; per task
the teacher is the candidate that validation likes best, or, where the plan has `[auto]`, the automatic one. The
control (the student without a teacher) chooses among the settings of its kind by validation with one seed; the student
with a teacher gets the control's setting and chooses its alpha likewise. Then both are trained with every seed, from
the same weights and batches, and the test part is read once. "few" data are the newest share of the training windows;
their teacher saw either all of the training part or the same few windows. Finished cells are rows of `results.csv`;
`summary.md` is written anew from it.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

import tsdistill as td
from tsdistill.evaluation import compare_losses, holm
from tsdistill.evaluation.scores import Scores, score
from tsdistill.models import MODELS
from tsdistill.models.base import Forecaster
from tsdistill.recipe import AutoTeacher, auto_teacher
from tsdistill.spec import digest_of
from tsdistill.teachers import Teacher

Spec = dict[str, Any]
CLOSE = 1.05
CELLS = {"all": ("all", "all"), "few": ("few", "all"), "few-for-both": ("few", "few")}
CELL = ["dataset", "horizon", "student", "data", "teacher_data"]


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="Names of data sets; by default all.")
    parser.add_argument("--horizons", type=int, nargs="*", help="By default all of a data set.")
    parser.add_argument("--students", nargs="*", help="Names of students; by default all.")
    parser.add_argument(
        "--cells", nargs="*", default=list(CELLS), choices=CELLS, help="Amounts of data; by default all."
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", action="store_true", help="Only write the summary.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plan = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    results = arguments.folder / "results.csv"
    for entry in [] if arguments.summary else plan["sets"]:
        if arguments.sets and entry["dataset"] not in arguments.sets:
            continue
        for horizon in entry["horizons"]:
            if arguments.horizons and horizon not in arguments.horizons:
                continue
            students = [s for s in plan["students"] if not arguments.students or s["name"] in arguments.students]
            run(entry, horizon, students, arguments.cells, plan, results)
    summarise(pd.read_csv(results), plan, arguments.folder)


def applies(student: Spec, cell: Spec) -> bool:
    """Whether a student belongs to a cell; by default to all."""
    return all(cell[name] == value for name, value in student.get("only", {}).items())


def run(entry: Spec, horizon: int, students: list[Spec], cells: list[str], plan: Spec, results: Path) -> None:
    """All cells of one data set and horizon that are missing; teachers are trained when the first cell needs them."""

    @cache
    def task(data: str) -> td.Task:
        panel = td.datasets.load(entry["dataset"])
        tasks = [td.Task(panel, context=context, horizon=horizon) for context in entry["contexts"]]
        best = min(tasks, key=lambda candidate: validation_mse(td.train(td.LinearConfig(), candidate), candidate))
        return best if data == "all" else best.latest(plan["share"])

    @cache
    def teacher(data: str) -> tuple[str, Teacher]:
        return choose_teacher(entry, task(data), plan, data == "few")

    @cache
    def control(student: str, data: str) -> tuple[Spec, list[Forecaster]]:
        spec = next(candidate for candidate in students if candidate["name"] == student)
        return fit_control(spec, entry, task(data), plan, data == "few")

    for data, lesson in (CELLS[code] for code in cells):
        for student in students:
            name = {"dataset": entry["dataset"], "horizon": horizon, "data": data, "teacher_data": lesson}
            name["student"] = student["name"]
            if not applies(student, name):
                continue
            who = plan["auto"] if "auto" in plan else plan["teachers"]
            key = digest_of([name, {**entry, "horizons": None}, student, who, *choices(plan)])
            rows = pd.read_csv(results) if results.exists() else pd.DataFrame(columns=["key"])
            if (rows["key"] == key).any():
                continue
            began = time.perf_counter()
            row = cell(
                entry,
                task(data),
                teacher(lesson),
                control(student["name"], data),
                plan,
                data == "few",
                results.parent / "work" / "cache",
            )
            add({**name, **row, "seconds": time.perf_counter() - began, "key": key}, results)
            print(name, {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}, flush=True)


def choices(plan: Spec) -> list[Any]:
    """What else shapes a cell."""
    return [plan["alphas"], plan["seeds"], plan["share"], plan["few_epochs"]]


def choose_teacher(entry: Spec, task: td.Task, plan: Spec, few: bool) -> tuple[str, Teacher]:
    """The automatic teacher where a plan asks for it, or the candidate with the least validation error.

    Candidates are each teacher alone, and the equal mean of all that come close to the best.
    """
    if "auto" in plan:
        return "auto", auto_teacher(task, seed=100, progress=False, say=print, **plan["auto"])
    teachers: dict[str, Teacher] = {}
    for spec in plan["teachers"]:
        n_windows = spec.get("windows_per_epoch", {}).get(entry["dataset"])
        training = training_of(spec.get("training", {}), entry, plan, few, 100, n_windows)
        teachers[spec["name"]] = td.train(MODELS.read(spec["config"]), task, training, progress=False)
    errors = {name: validation_mse(model, task) for name, model in teachers.items()}
    close = [name for name in teachers if errors[name] <= CLOSE * min(errors.values())]
    if len(close) > 1:
        name = f"mean of {', '.join(close)}"
        teachers[name] = td.teachers.TeacherEnsemble([teachers[member] for member in close], task)
        errors[name] = validation_mse(teachers[name], task)
    best = min(errors, key=lambda name: errors[name])
    print("teacher", task.horizon, len(task.train), {k: round(v, 4) for k, v in errors.items()}, flush=True)
    return best, teachers[best]


def for_task(teacher: td.teachers.TeacherEnsemble, task: td.Task) -> Teacher:
    """An ensemble of the same members, for these training windows."""
    members = [
        td.teachers.PrivilegedTeacher(member.teacher, task, member.own_task)
        if isinstance(member, td.teachers.PrivilegedTeacher)
        else member
        for member in teacher.teachers
    ]
    if not isinstance(teacher, AutoTeacher):
        return td.teachers.TeacherEnsemble(members, task)
    weighed = [number for number, candidate in enumerate(teacher.candidates) if candidate.weight]
    return AutoTeacher(dict(zip(weighed, members, strict=True)), task, teacher.candidates)


def fit_control(student: Spec, entry: Spec, task: td.Task, plan: Spec, few: bool) -> tuple[Spec, list[Forecaster]]:
    """The setting that validation prefers with one seed, and the student without a teacher for every seed."""
    seeds = plan["seeds"] if "training" in student else plan["seeds"][:1]  # a closed form knows no seed

    def fit(setting: Spec, seed: int) -> Forecaster:
        training = training_of({**student.get("training", {}), **setting.get("training", {})}, entry, plan, few, seed)
        return td.train(MODELS.read(setting["config"]), task, training, progress=False)

    tried = [fit(setting, seeds[0]) for setting in student["settings"]]
    best = int(np.argmin([validation_mse(model, task) for model in tried]))
    chosen = student["settings"][best]
    setting = {"config": chosen["config"], "training": {**student.get("training", {}), **chosen.get("training", {})}}
    return setting, [tried[best], *(fit(chosen, seed) for seed in seeds[1:])]


def training_of(spec: Spec, entry: Spec, plan: Spec, few: bool, seed: int, n_windows: int | None = None) -> td.Training:
    """How a model is trained on a task: what its kind says, then the data set; more epochs where windows are few."""
    n_windows = n_windows or spec.get("windows_per_epoch") or entry.get("windows_per_epoch")
    spec = {"epochs": 10, "patience": 3, **spec, **entry.get("training", {}), "windows_per_epoch": n_windows}
    if few and n_windows is None:
        spec |= {name: spec[name] * plan["few_epochs"] for name in ("epochs", "patience")}
    return td.Training.from_dict({**spec, "seed": seed})


def cell(
    entry: Spec,
    task: td.Task,
    taught_by: tuple[str, Teacher],
    plain: tuple[Spec, list[Forecaster]],
    plan: Spec,
    few: bool,
    outputs: Path,
) -> Spec:
    """Choose alpha by validation with one seed, train every seed, read the test part once."""
    (name, teacher), (setting, controls) = taught_by, plain
    if isinstance(teacher, td.teachers.TeacherEnsemble):
        teacher = for_task(teacher, task)

    def fit(alpha: float, seed: int) -> Forecaster:
        training = training_of(setting["training"], entry, plan, few, seed)
        config, losses = MODELS.read(setting["config"]), [td.OutputLoss(alpha=alpha)]
        return td.distill(
            teacher, config, task, losses=losses, training=training, control=False, cache=outputs, progress=False
        )

    seeds = plan["seeds"][: len(controls)]
    tried = {alpha: fit(alpha, seeds[0]) for alpha in plan["alphas"]}
    alpha = min(tried, key=lambda share: validation_mse(tried[share], task))
    taught = [tried[alpha], *(fit(alpha, seed) for seed in seeds[1:])]
    taught_errors, control_errors = ([validation_mse(model, task) for model in models] for models in (taught, controls))
    returned = [
        a if mine <= his else b for a, b, mine, his in zip(taught, controls, taught_errors, control_errors, strict=True)
    ]
    tests = {kind: [score(model, task, "test") for model in models]
             for kind, models in (("student", taught), ("control", controls), ("returned", returned))}  # fmt: skip
    ridge = score(td.train(td.LinearConfig(), task), task, "test")
    naive = score(td.train(td.models.SeasonalNaiveConfig(period=entry["period"]), task), task, "test")
    row: Spec = {
        "context": task.context, "n_train": len(task.train), "teacher": name, "setting": digest_of(setting),
        "alpha": alpha, "n_parameters": taught[0].n_parameters, "n_seeds": len(seeds),
        "teacher_validation_mse": validation_mse(teacher, task),
        "student_validation_mse": float(np.mean(taught_errors)),
        "control_validation_mse": float(np.mean(control_errors)),
        "n_returned": sum(a <= b for a, b in zip(taught_errors, control_errors, strict=True)),
        "naive_mse": mean_loss(naive), "ridge_mse": mean_loss(ridge), "teacher_mse": mse(teacher, task.test),
    }  # fmt: skip
    for kind, scores in tests.items():
        errors = [mean_loss(one) for one in scores]
        row |= {
            f"{kind}_mse": float(np.mean(errors)),
            f"{kind}_std": float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0,
        }
    for kind in ("student", "returned"):
        pairs = [1 - mean_loss(a) / mean_loss(b) for a, b in zip(tests[kind], tests["control"], strict=True)]
        row |= {f"{kind}_gain": float(np.mean(pairs)), f"{kind}_gain_std": float(np.std(pairs))}
    mean = {kind: np.mean([one.window_losses for one in scores], axis=0) for kind, scores in tests.items()}
    comparison = compare_losses(mean["student"], mean["control"], horizon=task.horizon, times=ridge.times)
    return row | {"p_value": comparison.p_value}


def mean_loss(scores: Scores) -> float:
    """Mean squared error over all windows."""
    return float(scores.window_losses.mean())


def validation_mse(teacher: Teacher, task: td.Task) -> float:
    """Mean squared error on the validation part."""
    return mse(teacher, task.validation)


def mse(teacher: Teacher, windows: Any) -> float:
    """Mean squared scaled error of a teacher or forecaster on some windows."""
    total = count = 0.0
    for batch in windows.batches(256):
        total += float((teacher.forecast(batch) - batch.target).double().square().sum())
        count += batch.target.numel()
    return total / count


def add(row: Spec, results: Path) -> None:
    """Append a finished cell; other processes may be adding theirs."""
    with FileLock(f"{results}.lock"):
        rows = pd.read_csv(results).to_dict("records") if results.exists() else []
        rows = [record for record in rows if any(record[column] != row[column] for column in CELL)]
        frame = pd.DataFrame([*rows, row]).sort_values(CELL)
        frame.to_csv(results.with_suffix(".part"), index=False, float_format="%.6g")
        results.with_suffix(".part").replace(results)


def summarise(rows: pd.DataFrame, plan: Spec, folder: Path) -> None:
    """One line per cell, and what they say together."""
    order = {entry["dataset"]: number for number, entry in enumerate(plan["sets"])}
    rows = rows.assign(order=rows["dataset"].map(order)).sort_values(
        ["order", "horizon", "student", "data", "teacher_data"]
    )
    names = [str(number) for number in rows.index]
    adjusted = holm({name: None if np.isnan(p) else p for name, p in zip(names, rows["p_value"], strict=True)})
    lines = [
        "Test MSE (mean ± standard deviation over the seeds). Gain: how much smaller the error is with the teacher "
        "than without, mean over paired seeds. p: Diebold-Mariano, Holm over all cells. Returned: the gain of what "
        'keep="better" returns.',
        "",
        "| data set | horizon | student | trained on | teacher, trained on | alpha | naive | ridge | teacher | control "
        "| with teacher | gain | p | returned |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (_, row) in zip(names, rows.iterrows(), strict=True):
        p = adjusted[name]
        lines.append(
            f"| {row['dataset']} | {row['horizon']} | {row['student']} | {row['data']} | {row['teacher']}, "
            f"{row['teacher_data']} | {row['alpha']:g} | {row['naive_mse']:.4f} | {row['ridge_mse']:.4f} "
            f"| {row['teacher_mse']:.4f} | {row['control_mse']:.4f} ± {row['control_std']:.4f} "
            f"| {row['student_mse']:.4f} ± {row['student_std']:.4f} | {row['student_gain']:+.1%} "
            f"| {'' if p is None else f'{p:.2g}'} | {row['returned_gain']:+.1%} |"
        )
    lines += ["", *totals(rows, adjusted, names)]
    (folder / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def totals(rows: pd.DataFrame, adjusted: dict[str, float | None], names: list[str]) -> list[str]:
    """Means over cells: all, and those whose control is no more than 5 % worse than ridge."""
    fair = rows["control_mse"] <= CLOSE * rows["ridge_mse"]
    lines = []
    for title, chosen in (("All cells", fair | True), ("Cells whose control is within 5 % of ridge", fair)):
        for scope, inside in (
            ("", chosen),
            (", all data", chosen & (rows["data"] == "all")),
            (", few data and a teacher of all", chosen & (rows["data"] == "few") & (rows["teacher_data"] == "all")),
            (", few data for both", chosen & (rows["data"] == "few") & (rows["teacher_data"] == "few")),
        ):
            part = rows[inside]
            if part.empty:
                continue
            lines.append(
                f"- {title}{scope} ({len(part)}): mean gain {part['student_gain'].mean():+.1%}, best "
                f"{part['student_gain'].max():+.1%}, worst {part['student_gain'].min():+.1%}; returned "
                f"{part['returned_gain'].mean():+.1%}."
            )
    sure = [name for name in names if adjusted[name] is not None and adjusted[name] < 0.05]  # type: ignore[operator]
    better = int((rows.loc[[int(name) for name in sure], "student_gain"] > 0).sum())
    lines.append(f"- Significant at 5 % after Holm: {better} cells better with a teacher, {len(sure) - better} worse.")
    return lines


if __name__ == "__main__":
    main()
