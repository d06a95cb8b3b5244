"""Run recipes cell by cell (recipe x seed), keep each finished cell as rows of a CSV file, and summarise over seeds.

    python experiments/cells.py experiments/001-whole-pipeline --seeds 0 1 2 3 4

A folder holds `recipe.toml`; every finished cell adds its rows to `results.csv` and is skipped next time; several
processes may work on different seeds. Models and reports go to `work/` inside the folder, which is not committed.
`summary.md` is written anew from results.csv.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from filelock import FileLock
from scipy.stats import ttest_rel

from tsdistill.recipe import read_recipe, run

COLUMNS = [
    "seed", "name", "runtime", "role", "mse", "mae", "mse_raw", "mae_raw", "n_parameters", "size_bytes",
    "latency_p50_ms", "latency_p95_ms", "mse_ratio", "size_ratio", "speedup", "p_value", "p_value_holm",
]  # fmt: skip


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    results = folder / "results.csv"
    recipe = read_recipe(folder / "recipe.toml")
    for seed in arguments.seeds:
        table = pd.read_csv(results) if results.exists() else pd.DataFrame(columns=["seed", "recipe"])
        cell = recipe.with_seed(seed)
        if ((table["seed"] == seed) & (table["recipe"] == cell.digest)).any():
            print(f"seed {seed}: kept", flush=True)
            continue
        finished = run(cell, folder / "work" / f"seed-{seed}", cache=folder / "work" / "cache", say=print)
        rows = finished.report.to_frame()
        rows = rows.reset_index() if "name" not in rows else rows
        rows.insert(0, "seed", seed)
        rows = rows[[name for name in COLUMNS if name in rows]].assign(recipe=cell.digest)
        # Other seeds may have been finished meanwhile by another process.
        with FileLock(f"{results}.lock"):
            others = pd.read_csv(results) if results.exists() else rows.iloc[:0]
            frame = pd.concat([others[others["seed"] != seed], rows], ignore_index=True).sort_values(
                "seed", kind="stable"
            )
            frame.to_csv(results.with_suffix(".part"), index=False, float_format="%.6g")
            results.with_suffix(".part").replace(results)
        print(finished.report, flush=True)
    table = pd.read_csv(results)
    # Rows of another recipe are not averaged with these.
    current = table["recipe"] == table["seed"].map(lambda seed: recipe.with_seed(int(seed)).digest)
    summarise(table[current], folder)


def summarise(table: pd.DataFrame, folder: Path) -> None:
    """Mean and standard deviation over seeds, one line per model and runtime, and paired tests of what is deployed."""
    n_seeds = table["seed"].nunique()
    lines = [
        f"Mean over {n_seeds} seeds (± standard deviation; least to greatest in brackets), test part."
        if n_seeds > 1
        else "One seed, test part.",
        "",
        "| model | runtime | MSE | to teacher | bytes | smaller | p50 ms | faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, runtime), rows in table.groupby(["name", "runtime"], sort=False):
        spread = f" ± {rows['mse'].std(ddof=1):.4f}" if len(rows) > 1 else ""
        lines.append(
            f"| {name} | {runtime} | {rows['mse'].mean():.4f}{spread} "
            f"| {_with_range(rows['mse_ratio'], 3)} "
            f"| {rows['size_bytes'].mean():,.0f} | {(1 / rows['size_ratio']).mean():.1f} "
            f"| {rows['latency_p50_ms'].mean():.3f} "
            f"| {_with_range(rows['speedup'], 1)} |"
        )
    text = "\n".join([*lines, *tests(table)]) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _with_range(values: pd.Series[float], digits: int) -> str:
    if len(values) == 1:
        return f"{values.iloc[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def tests(table: pd.DataFrame) -> list[str]:
    """Paired t-tests over seeds: the deployed model against its control, the baselines and the teacher."""
    errors = table[table["runtime"] != "torch fp32"].pivot_table(index="seed", columns="name", values="mse")
    subject = next((name for name in ("int8", "int8-weights", "int4-weights", "deployed") if name in errors), None)
    if subject is None or len(errors) < 3:
        return []
    lines = ["", f"MSE of {subject} against, by a paired t-test over seeds:", ""]
    for other in (f"{subject} without teacher", "teacher", "ridge", "seasonal naive"):
        change = (errors[subject] / errors[other] - 1).mean()
        p_value = ttest_rel(errors[subject], errors[other]).pvalue
        lines.append(f"- {other}: {change:+.1%} (p = {p_value:.2g})")
    return lines


if __name__ == "__main__":
    main()
