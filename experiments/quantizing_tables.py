"""What experiment 009 says: speed by width, errors and bytes by form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

FORMS = (
    "dynamic", "torch int8", "static", "weight-only-8", "weight-only-4", "trained on", "trained on, 7 bits", "qat",
    "trained on, 4 bits", "qat-4",
)  # fmt: skip


def summarise(
    rows: pd.DataFrame, latency: pd.DataFrame, mates: pd.DataFrame, cells: dict[str, Any], folder: Path
) -> None:
    """Tables of times, of errors and bytes, of the errors of all models together, of quantiles and of batch mates."""
    names = [entry["name"] for entry in cells["models"]]
    lines = [*times(latency, names), *forms(rows, names), "", *together(rows), "", *quantiles(rows), *served(mates)]
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def times(latency: pd.DataFrame, names: list[str]) -> list[str]:
    """Medians relative to ONNX Runtime in float32, a table for each processor."""
    lines = []
    for cpu, mine in latency.groupby("cpu"):
        lines += [
            f"Calls that took turns, one thread, {cpu}. Times faster than ONNX Runtime in float32; below 1 is slower. "
            "In brackets dynamic INT8 over torch in float32. Auto: the form taken, and its time over that of the "
            "faster of float32 and INT8.",
            "",
            "| model | channels | windows | fp32 ms | dynamic | static | weights 8 | weights 4 | torch | torch INT8 "
            "| auto | to the faster |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
            *(line for name in names for line in _times(mine[mine["model"] == name], name)),
            "",
        ]
    return lines


def _times(rows: pd.DataFrame, name: str) -> list[str]:
    """One line for each place of a model."""
    lines = []
    for place, mine in rows.groupby(["channels", "windows"]):
        ms, taken = mine.set_index("form")["paired_ms"], mine.set_index("form")["taken"]
        if "fp32" not in ms:
            continue
        cell = {form: f"{ms['fp32'] / ms[form]:.2f}" for form in ms.index}
        if "dynamic" in ms:
            cell["dynamic"] += f" ({ms['torch'] / ms['dynamic']:.2f})"
        int8 = min(ms[form] for form in ("fp32", "dynamic", "static") if form in ms)
        order = ("dynamic", "static", "weight-only-8", "weight-only-4", "torch", "torch int8")
        columns = " | ".join(cell.get(form, "") for form in order)
        lines.append(
            f"| {name} | {place[0]} | {place[1]} | {ms['fp32']:.3f} | {columns} "
            f"| {taken['auto']} | {ms['auto'] / int8 - 1:+.1%} |"
        )
    return lines


def forms(rows: pd.DataFrame, names: list[str]) -> list[str]:
    """Change of the test error and bytes, means over seeds."""
    lines = [
        "Change of the test MSE against float32 and, in brackets, how many times fewer bytes; means over seeds. Empty: "
        'there is no such form. "torch int8" is torch\'s own dynamic INT8, weights against weights. "trained '
        'on" is float32 after the further epochs that "qat" trains; with bits, that quantized without training, which '
        '"qat" and "qat-4" are to be held against.',
        "",
        f"| model | seeds | fp32 MSE | bytes | {' | '.join(FORMS)} |",
        f"|---|---|---|---|{'---|' * len(FORMS)}",
    ]
    for name in names:
        mine = rows[rows["model"] == name]
        full = mine[mine["form"] == "fp32"]
        if full.empty:
            continue
        cells = []
        for form in FORMS:
            own = mine[(mine["form"] == form) & mine["mse"].notna()]
            # The rival has no file: its weights are held against those of float32.
            whole = 4 * full["n_parameters"].mean() if form == "torch int8" else full["bytes"].mean()
            smaller = whole / own["bytes"].mean()
            cells.append("" if own.empty else f"{own['increase'].mean():+.2%} ({smaller:.1f})")
        spread = f" ± {full['mse'].std(ddof=1):.4f}" if len(full) > 1 else ""
        lines.append(
            f"| {name} | {len(full)} | {full['mse'].mean():.4f}{spread} | {full['bytes'].mean():,.0f} "
            f"| {' | '.join(cells)} |"
        )
    return lines


def together(rows: pd.DataFrame) -> list[str]:
    """Errors of every model in a form, seeds first averaged."""
    lines = ["All models:", "", "| form | models | mean change | mean size of it | worst |", "|---|---|---|---|---|"]
    for form in FORMS:
        own = rows[(rows["form"] == form) & rows["mse"].notna()]
        if own.empty:
            continue
        by_model = own.groupby("model")["increase"].mean()
        worst = own.loc[own["increase"].idxmax()]
        lines.append(
            f"| {form} | {len(by_model)} | {by_model.mean():+.3%} | {by_model.abs().mean():.3%} "
            f"| {worst['increase']:+.2%} ({worst['model']}, seed {worst['seed']}) |"
        )
    return lines


def quantiles(rows: pd.DataFrame) -> list[str]:
    """How far coverage moves, and whether levels cross."""
    own = rows[rows["coverage"].notna()]
    if own.empty:
        return []
    lines = [
        f"Quantile heads: targets between the outermost levels, nominally {own['nominal_coverage'].iloc[0]:.0%}; "
        "largest move over models and seeds, in points.",
        "",
        "| form | coverage | largest move | levels that cross |",
        "|---|---|---|---|",
    ]
    full = own[own["form"] == "fp32"].set_index(["model", "seed"])["coverage"]
    for form in ("fp32", *FORMS):
        mine = own[own["form"] == form].set_index(["model", "seed"])
        if mine.empty:
            continue
        move = 100 * (mine["coverage"] - full.reindex(mine.index)).abs().max()
        lines.append(
            f"| {form} | {mine['coverage'].min():.1%} to {mine['coverage'].max():.1%} | {move:.2f} "
            f"| {mine['crossing_rate'].max():.2%} |"
        )
    return lines


def served(rows: pd.DataFrame) -> list[str]:
    """How far forecasts move into a graph and among other windows, the largest over models and seeds."""
    if rows.empty:
        return []
    lines = [
        "",
        "Largest distances over models and seeds, in standard deviations of a channel, raw values in and out, over 64 "
        "real windows: of float32 to torch, of the other forms to float32, and of forecasts among 63 others to those "
        "alone. Last the mean change of the test MSE of forms that mix windows, one at a time and 64 at once.",
        "",
        "| form | models | to what it was made from | among others | MSE alone | MSE of 64 |",
        "|---|---|---|---|---|---|",
    ]
    for form in ("fp32", *FORMS):
        mine = rows[(rows["form"] == form) & rows["difference"].notna()]
        if mine.empty:
            continue
        changes = [
            "" if mine[name].isna().all() else f"{mine.groupby('model')[name].mean().mean():+.3%}"
            for name in ("increase_alone", "increase_together")
        ]
        among = "" if not mine["batch_effect"].max() > 1e-4 else f"{mine['batch_effect'].max():.3f}"
        lines.append(
            f"| {form} | {mine['model'].nunique()} | {mine['difference'].max():.2g} | {among} | {' | '.join(changes)} |"
        )
    return lines
