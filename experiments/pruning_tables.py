"""What experiment 008 chooses on validation, and what it says of the test part."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd


def chosen(cuts: dict[float, dict[str, Any]], dense: float, allowed: float) -> dict[str, float]:
    """The deepest cuts that validation finds no worse than the dense model, and no worse than is allowed."""
    deepest = {}
    for name, limit in (("no loss", dense), (f"+{allowed:.0%}", (1 + allowed) * dense)):
        good = [share for share, row in cuts.items() if row["validation_mse"] <= limit]
        if good:
            deepest[name] = max(good)
    return deepest


def equal(rungs: list[dict[str, Any]], error: float) -> int | None:
    """Number of the smallest dense model whose validation error is no higher."""
    good = [number for number, row in enumerate(rungs) if row["validation_mse"] <= error]
    return min(good, key=lambda number: rungs[number]["n_parameters"]) if good else None


def settled(rows: pd.DataFrame, also: str) -> pd.DataFrame:
    """Of two cuts of a model to one share the one that validation finds better, with its shape trained anew."""
    place = ["dataset", "model", "seed", "share"]
    plain, other = (rows[rows["role"] == f"pruned{end}"].set_index(place)["validation_mse"] for end in ("", also))
    better = set(other.index[other < plain.reindex(other.index)])
    wins = pd.Series([at in better for at in rows[place].itertuples(index=False, name=None)], index=rows.index)
    names = rows["role"].str.removesuffix(also)
    kept = rows[~names.isin(["pruned", "scratch"]) | (rows["role"].str.endswith(also) == wins)]
    return kept.assign(role=names)


def summarise(rows: pd.DataFrame, cells: dict[str, Any], folder: Path) -> None:
    """Means over seeds of what the test part says, and what repair is worth."""
    names = [(data["name"], entry["name"]) for data in cells["datasets"] for entry in cells["models"]]
    baselines = [(data["name"], baseline["name"]) for data in cells["datasets"] for baseline in data["baselines"]]
    lines = [
        f"Horizon {cells['horizon']}, context {cells['context']}; means over seeds (least to greatest in brackets). "
        "Test errors are relative to the dense model of the same seed; in square brackets the seeds in which the two "
        "differ by more than chance at .05 (Diebold-Mariano). Shares are of parameters, chosen on validation.",
        "",
        "| data | model | cut | share removed | weights | validation | test | same size, trained anew "
        "| smallest dense as good on validation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for dataset, model in names:
        mine = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
        lines += table_of(mine, dataset, model, cells)
    lines += [
        "",
        "Test MSE of the dense models, as they are pruned and trained as long as the pruned ones are, and baselines:",
        "",
    ]
    lines += ["| data | model | weights | MSE | trained as long |", "|---|---|---|---|---|"]
    for dataset, model in [*names, *baselines]:
        mine = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
        dense, longer = mine[mine["role"].isin(["dense", "baseline"])], mine[mine["role"] == "ladder"]
        longer = longer[longer["share"] == longer["share"].max()]
        if not dense.empty:
            errors = " | ".join(ranged(frame["mse"], ".4f") for frame in (dense, longer))
            lines.append(f"| {dataset} | {model} | {dense['n_parameters'].iloc[0]:,.0f} | {errors} |")
    lines += ["", "Half of some groups' units gone without training: how the error grows, with and without repair.", ""]
    lines += ["| data | model | groups | part | growth | repaired | taken back |", "|---|---|---|---|---|---|---|"]
    for data in cells["datasets"]:
        for entry in cells["models"]:
            mine = rows[(rows["dataset"] == data["name"]) & (rows["model"] == entry["name"])]
            lines += repairs_of(mine, data["name"], entry["name"], entry["halved"])
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def table_of(mine: pd.DataFrame, dataset: str, model: str, cells: dict[str, Any]) -> list[str]:
    """A line for every chosen cut and every share that is read in any case."""
    dense = mine[mine["role"] == "dense"].set_index("seed")
    cuts = mine[(mine["role"] == "pruned") & mine["mse"].notna()]
    if dense.empty or cuts.empty:
        return []
    picks = {seed: chosen(by_place(mine, "pruned", seed), dense.loc[seed, "validation_mse"], cells["allowed"])
             for seed in dense.index}  # fmt: skip
    wanted: list[tuple[str, pd.DataFrame]] = []
    for name in ("no loss", f"+{cells['allowed']:.0%}"):
        own = [picks[seed].get(name) == share for seed, share in zip(cuts["seed"], cuts["share"], strict=True)]
        wanted.append((name, cuts[own]))
    wanted += [(f"{share:.0%}", cuts[cuts["share"] == share]) for share in cells["read"]]
    lines = []
    for name, picked in wanted:
        if picked.empty:
            lines.append(f"| {dataset} | {model} | {name} | none of {len(dense)} seeds | | | | | |")
            continue
        whole = picked["seed"].map(dense["n_parameters"])
        scratch = mine[mine["role"] == "scratch"].set_index(["seed", "share"])
        anew = scratch.reindex(list(zip(picked["seed"], picked["share"], strict=True)))  # of a run that goes on, some
        sizes, errors = [], []
        for row in picked.to_dict("records"):
            rungs = by_place(mine, "ladder", row["seed"])
            number = equal(list(rungs.values()), row["validation_mse"])
            if number is not None:
                sizes.append(list(rungs.values())[number]["n_parameters"])
                errors.append(list(rungs.values())[number]["against_dense"])
        rival = (
            "none" if not sizes else f"{ranged(pd.Series(sizes), ',.0f')} weights, {ranged(pd.Series(errors), '+.1%')}"
        )
        rival += f" ({len(sizes)} of {len(picked)} seeds)" if 0 < len(sizes) < len(picked) else ""
        growth = picked["validation_mse"] / picked["seed"].map(dense["validation_mse"]) - 1
        sizes_told = f"{ranged(1 - picked['n_parameters'] / whole, '.0%')} | {ranged(picked['n_parameters'], ',.0f')}"
        errors_told = f"{ranged(growth, '+.1%')} | {tested(picked)} | {tested(anew)}"
        lines.append(f"| {dataset} | {model} | {name} | {sizes_told} | {errors_told} | {rival} |")
    return lines


def by_place(mine: pd.DataFrame, role: str, seed: int) -> dict[float, dict[str, Any]]:
    """Rows of one role and seed by their share or number, ascending."""
    matching = mine[(mine["role"] == role) & (mine["seed"] == seed)].sort_values("share")
    return {row["share"]: row for row in matching.to_dict("records")}


def tested(rows: pd.DataFrame) -> str:
    """Relative test errors, and how many differ by more than chance."""
    sure = rows[rows["p_value"] < 0.05]["against_dense"]
    return (
        f"{ranged(rows['against_dense'], '+.1%')} [{(sure > 0).sum()} worse, {(sure < 0).sum()} better of {len(rows)}]"
    )


def repairs_of(mine: pd.DataFrame, dataset: str, model: str, halved: list[list[str]]) -> list[str]:
    """A line for every set of groups and part of the data."""
    dense, lines = mine[mine["role"] == "dense"].set_index("seed"), []
    for number, groups in enumerate(halved):
        cut, repaired = (
            mine[(mine["role"] == role) & (mine["share"] == number)].set_index("seed") for role in ("cut", "repaired")
        )
        if cut.empty or repaired.empty:
            continue
        for part, column in (("validation", "validation_mse"), ("test", "mse")):
            base = dense[column]
            grown, left = ((errors[column] - base) / base for errors in (cut, repaired))
            back = f"{1 - left.mean() / grown.mean():.0%}" if grown.mean() > 0 else "nothing was lost"
            lines.append(f"| {dataset} | {model} | {', '.join(groups)} | {part} | {ranged(grown, '+.2%')} | "
                         f"{ranged(left, '+.2%')} | {back} |")  # fmt: skip
    return lines


def ranged(values: pd.Series[float], form: str) -> str:
    """Mean, and least to greatest where there are several that differ."""
    values = values.dropna()
    if values.empty:
        return ""
    mean, low, high = (format(value, form) for value in (values.mean(), values.min(), values.max()))
    return mean if low == high else f"{mean} ({low} to {high})"
