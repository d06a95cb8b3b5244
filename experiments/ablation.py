"""Which family of losses gives a student what: alone beside the truth, and all together, five paired seeds.

    python experiments/ablation.py experiments/007-losses [--sets ili] [--summary]

A folder holds `cells.toml`. The teacher is trained on the whole training part, the students on its newest share. A
family's weight (of "output": its alpha) is chosen by validation with one seed; then every seed is trained, from the
same weights and batches as the control, and the test part is read once. "all" takes what each family chose for itself.
Finished cells are rows of `results.csv`; `summary.md` is written anew from it.
"""

from __future__ import annotations

import argparse
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gain import mean_loss, validation_mse

import tsdistill as td
from tsdistill.evaluation import compare_losses, holm
from tsdistill.evaluation.scores import score
from tsdistill.models import MODELS
from tsdistill.models.base import Forecaster
from tsdistill.spec import digest_of

Spec = dict[str, Any]
LOSSES = {"feature": td.FeatureLoss, "attention": td.AttentionLoss, "temporal": td.TemporalLoss,
          "smoothness": td.losses.SmoothnessLoss}  # fmt: skip


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="Names of data sets; by default all.")
    parser.add_argument("--summary", action="store_true", help="Only write the summary.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    results = arguments.folder / "results.csv"
    for entry in [] if arguments.summary else plan["sets"]:
        if not arguments.sets or entry["dataset"] in arguments.sets:
            for student in plan["students"]:
                run(entry, student, plan, results)
    summarise(pd.read_csv(results), arguments.folder)


def run(entry: Spec, student: Spec, plan: Spec, results: Path) -> None:
    """All families of one data set and student that are missing."""
    shape = [entry, student, plan["teacher"], plan["seeds"], plan["share"], plan["weights"], plan["alphas"]]

    @cache
    def task() -> td.Task:
        return td.Task(td.datasets.load(entry["dataset"]), context=entry["context"], horizon=entry["horizon"])

    @cache
    def few() -> td.Task:
        return task().latest(plan["share"])

    @cache
    def teacher() -> Forecaster:
        options = {**plan["teacher"]["training"], **entry["training"], "seed": 100}
        config = MODELS.read(plan["teacher"]["config"])
        return td.train(config, task(), td.Training.from_dict(options), progress=False)

    @cache
    def fit(losses: tuple[td.losses.Loss, ...], seed: int) -> Forecaster:
        training = td.Training.from_dict({**student["training"], **entry["training"], "seed": seed})
        config = MODELS.read(student["config"])
        if not losses:
            return td.train(config, few(), training, progress=False)
        return td.distill(
            teacher(),
            config,
            few(),
            losses=losses,
            training=training,
            balance="start",
            control=False,
            cache=results.parent / "work" / "cache",
            progress=False,
        )

    def chosen(candidates: list[tuple[td.losses.Loss, ...]]) -> tuple[td.losses.Loss, ...]:
        return min(candidates, key=lambda losses: validation_mse(fit(losses, plan["seeds"][0]), few()))

    def candidates(family: str) -> list[tuple[td.losses.Loss, ...]]:
        if family == "output":
            return [(td.OutputLoss(alpha=alpha),) for alpha in plan["alphas"]]
        terms = plan["families"][family]
        return [
            (td.OutputLoss(alpha=0), *(LOSSES[spec["kind"]](**spec, weight=weight / len(terms)) for spec in terms))
            for weight in plan["weights"]
        ]

    for family in [*plan["families"], "all"]:
        name = {"dataset": entry["dataset"], "student": student["name"], "family": family}
        key = digest_of([name, plan["families"].get(family), *shape])
        rows = pd.read_csv(results) if results.exists() else pd.DataFrame(columns=["key"])
        if (rows["key"] == key).any():
            continue
        if family == "all":
            parts = [chosen(candidates(kind)) for kind in plan["families"]]
            losses = (parts[0][0], *(term for part in parts[1:] for term in part[1:]))
        else:
            losses = chosen(candidates(family))
        taught, controls = ([fit(chosen_terms, seed) for seed in plan["seeds"]] for chosen_terms in (losses, ()))
        taught_scores, control_scores = (
            [score(model, few(), "test") for model in models] for models in (taught, controls)
        )
        gains = [1 - mean_loss(a) / mean_loss(b) for a, b in zip(taught_scores, control_scores, strict=True)]
        mean = [np.mean([one.window_losses for one in scores], axis=0) for scores in (taught_scores, control_scores)]
        baselines = [td.LinearConfig(), td.models.SeasonalNaiveConfig(period=entry["period"])]
        ridge, naive = (mean_loss(score(td.train(baseline, few()), few(), "test")) for baseline in baselines)
        row = {
            **name, "losses": " + ".join(map(str, losses)), "naive_mse": naive, "ridge_mse": ridge,
            "teacher_mse": mean_loss(score(teacher(), few(), "test")),
            "control_mse": float(np.mean([mean_loss(one) for one in control_scores])),
            "student_mse": float(np.mean([mean_loss(one) for one in taught_scores])),
            "student_std": float(np.std([mean_loss(one) for one in taught_scores], ddof=1)),
            "gain": float(np.mean(gains)), "gain_std": float(np.std(gains, ddof=1)),
            "validation_gain": 1 - float(np.mean([validation_mse(a, few()) for a in taught]))
            / float(np.mean([validation_mse(b, few()) for b in controls])),
            "p_value": compare_losses(*mean, horizon=entry["horizon"], times=taught_scores[0].times).p_value,
            "key": key,
        }  # fmt: skip
        kept = [record for record in rows.to_dict("records") if any(record[column] != name[column] for column in name)]
        pd.DataFrame([*kept, row]).to_csv(results.with_suffix(".part"), index=False, float_format="%.6g")
        results.with_suffix(".part").replace(results)
        print(name, f"gain {row['gain']:+.2%}", flush=True)


def summarise(rows: pd.DataFrame, folder: Path) -> None:
    """One line per cell."""
    names = [str(number) for number in rows.index]
    adjusted = holm({name: None if np.isnan(p) else p for name, p in zip(names, rows["p_value"], strict=True)})
    lines = [
        "Test MSE of a student of few data by family of losses; mean and standard deviation over five paired seeds. p: "
        "Diebold-Mariano, Holm over all lines.",
        "",
        "| data set | student | losses | naive | ridge | teacher | control | with teacher | gain | on validation | p |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (_, row) in zip(names, rows.iterrows(), strict=True):
        p = adjusted[name]
        lines.append(
            f"| {row['dataset']} | {row['student']} | {row['family']} | {row['naive_mse']:.4f} "
            f"| {row['ridge_mse']:.4f} | {row['teacher_mse']:.4f} | {row['control_mse']:.4f} "
            f"| {row['student_mse']:.4f} ± {row['student_std']:.4f} "
            f"| {row['gain']:+.1%} ± {row['gain_std']:.1%} | {row['validation_gain']:+.1%} "
            f"| {'' if p is None else f'{p:.2g}'} |"
        )
    (folder / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
