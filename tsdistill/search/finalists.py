"""The best trials trained again over several seeds, so that the winner is not the luckiest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from tsdistill.data import Task
from tsdistill.errors import ConfigError, TsdistillError, UnsupportedError, check_type, must
from tsdistill.evaluation import window_losses
from tsdistill.exporting import Deployed
from tsdistill.progress import open_bar
from tsdistill.recipe import Budget, InMemory, Recipe, make_models
from tsdistill.search.question import check_recipe
from tsdistill.search.results import within
from tsdistill.search.table import described
from tsdistill.search.watching import N_BLOCKS
from tsdistill.teachers import Teacher

MAX_FINALISTS, MAX_SEEDS = 100, 100

RULE = "of those within one standard error of the least mean error, the one that seeds change least"
"""How a finalist is chosen."""


@dataclass(frozen=True)
class Finalists:
    """What training the best trials again showed.

    Args:
        recipe: The recipe of the one that was chosen, with the seed whose error is in the middle. `td.run` trains it
            once more, with a control, and reads the test part.
        rows: A line for each finalist, the one that was chosen first: `trial`, its `validation_mse` in the search, the
            `mean` over seeds and their `spread` (standard deviation), `by_seed`, `control` (the mean of the same
            students without a teacher; None where a student learns nothing), `luck` (share by which the search had
            less error), `standard_error` of its distance to the least mean, `size_bytes`, `reason`.
    """

    recipe: Recipe
    rows: list[dict[str, Any]]

    @property
    def trial(self) -> int:
        """Number of the trial that was chosen."""
        return int(self.rows[0]["trial"])


def finalists(
    study: optuna.Study,
    teacher: Teacher,
    task: Task,
    *,
    k: int = 4,
    seeds: int | Sequence[int] = 3,
    budget: Budget | None = None,
    cache: str | Path | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> Finalists:
    """Train the best trials of a study again over several seeds, with controls, and choose among them.

    The best of many trials is also the luckiest of them: its error will be larger when it is trained again. Each of the
    best `k` is made anew with every seed, as a run would make it, and forecasts from every origin of the validation
    part. These errors are averaged over seeds, and over blocks of origins that roll through time; those whose mean lies
    within one standard error of the least are alike, and of them the one that seeds change least is chosen. The test
    part is not read.

    Use it at the end of a search, before `td.run`. It costs `2 * k * len(seeds)` trainings; a student that is solved
    is made once.

    Args:
        study: A study that `optimize`, `run` or an `objective` has run.
        teacher: Who taught in it.
        task: Its task.
        k: How many trials, the best first; those of one recipe count as one.
        seeds: How many seeds, none of them the search's; or the seeds themselves.
        budget: What a finalist may cost, as its trial measured it; by default the limits of the search.
        cache: Folder of the teacher's forecasts; None keeps them in memory.
        progress: Show a progress bar; None shows one in a terminal only.
        say: Called with a line for people for each finalist.

    Returns:
        The recipe that was chosen, and a line for every finalist with the reason.

    Raises:
        OrderError: No trial is finished yet.
        ConfigError: A setting breaks its rule, or teacher or task are not those of the study.
        UnsupportedError: No trial fits the budget, or no finalist could be made again.

    Example:
        >>> final = finalists(study, teacher, task, k=3, seeds=5)           # doctest: +SKIP
        >>> td.run(final.recipe, "best").report                             # doctest: +SKIP

    Source: L. Tashman, "Out-of-sample tests of forecasting accuracy: an analysis and review", International Journal of
    Forecasting 16(4), 2000, section 3, for rolling origins (a fixed model, not fitted again at each); L. Breiman et
    al., "Classification and Regression Trees", 1984, section 3.4.3, for the rule of one standard error.
    """
    check_type("budget", budget, Budget, "Pass td.Budget(max_size_bytes=...)", optional=True)
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_FINALISTS:
        raise ConfigError(must("k", f"be a whole number from 1 to {MAX_FINALISTS}", k, "Such as 4"))
    trials = _best(study, k, budget)
    recipes = [Recipe.from_json(trial.user_attrs["recipe"]) for trial in trials]
    check_recipe(recipes[0], teacher, task)
    rows, errors = [], {}
    n_made = sum(len(_seeds(recipe, seeds)) for recipe in recipes)
    with open_bar("finalists", n_made, progress) as bar:
        for trial, recipe in zip(trials, recipes, strict=True):
            row: dict[str, Any] = {"trial": trial.number, "validation_mse": float(trial.values[0])}
            try:
                row, errors[trial.number] = _trained(
                    row, recipe, seeds, teacher, task, InMemory(_path(cache)), bar.advance
                )
            except TsdistillError as error:
                row["reason"] = f"could not be made again: {error}"
            rows.append(row)
            if say is not None:
                mean = f"{row['mean']:.4f} +- {row['spread']:.4f}" if "mean" in row else row["reason"]
                say(f"trial {trial.number} ({described(trial.params)}): {mean}")
    if not errors:
        raise UnsupportedError(f"No finalist could be made again. Trial {rows[0]['trial']}: {rows[0]['reason']}")
    return _choice(rows, errors, dict(zip((trial.number for trial in trials), recipes, strict=True)))


def _best(study: optuna.Study, k: int, budget: Budget | None) -> list[FrozenTrial]:
    """The best trials within the budget, one of each recipe."""
    by_recipe = {trial.user_attrs["recipe"]: trial for trial in reversed(within(study, budget))}
    return sorted(by_recipe.values(), key=lambda trial: (float(trial.values[0]), trial.number))[:k]


def _seeds(recipe: Recipe, seeds: int | Sequence[int]) -> list[int]:
    """The seeds to train with; one for a student that draws nothing."""
    own = recipe.student.training.seed
    if isinstance(seeds, int):
        if isinstance(seeds, bool) or not 1 <= seeds <= MAX_SEEDS:
            raise ConfigError(must("seeds", f"be from 1 to {MAX_SEEDS}, or a list of seeds", seeds, "Such as 3"))
        chosen = [own + 1 + number for number in range(seeds)]
    else:
        chosen = list(dict.fromkeys(seeds))
        if not 1 <= len(chosen) <= MAX_SEEDS or any(isinstance(seed, bool) or seed < 0 for seed in chosen):
            raise ConfigError(must("seeds", f"be 1 to {MAX_SEEDS} whole numbers from 0 on", seeds, "Such as (1, 2, 3)"))
    draws = recipe.pruning is not None or (recipe.quantization is not None and recipe.quantization.needs_teacher)
    return chosen[:1] if recipe.student.model.forecaster.closed_form and not draws else chosen


def _reseeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed for all but its teacher."""
    return recipe.with_seed(seed).replace(teacher=recipe.teacher)


def _trained(
    row: dict[str, Any],
    recipe: Recipe,
    seeds: int | Sequence[int],
    teacher: Teacher,
    task: Task,
    stages: InMemory,
    advance: Callable[[], None],
) -> tuple[dict[str, Any], np.ndarray]:
    """The line of a finalist, and its errors by seed and block of origins."""
    errors, controls, sizes = [], [], []
    chosen = _seeds(recipe, seeds)
    for seed in chosen:
        models = make_models(_reseeded(recipe, seed), task, teacher, stages, progress=False, timed=False)
        deployed = list(models.values())[-1]
        assert isinstance(deployed, Deployed)  # a pipeline ends in one
        errors.append(_by_block(deployed, task))
        sizes.append(dataclasses.replace(deployed, control=None).size_bytes)
        if deployed.control is not None:
            controls.append(float(window_losses(deployed.control, task).mean()))
        advance()
    table = np.stack(errors)
    by_seed = {seed: float(error) for seed, error in zip(chosen, table.mean(axis=1), strict=True)}
    mean = float(np.mean(list(by_seed.values())))
    row |= {
        "mean": mean,
        "spread": float(np.std(list(by_seed.values()), ddof=1)) if len(by_seed) > 1 else 0.0,
        "by_seed": by_seed,
        "control": float(np.mean(controls)) if controls else None,
        "luck": 1 - row["validation_mse"] / mean if mean else 0.0,
        "size_bytes": max(sizes),
    }
    return row, table


def _by_block(model: Deployed, task: Task) -> np.ndarray:
    """Errors over blocks of origins, weighed so that their mean is the error over all."""
    losses = window_losses(model, task)
    blocks = np.array_split(losses, min(N_BLOCKS, len(losses)))
    return np.array([block.mean() * len(block) * len(blocks) / len(losses) for block in blocks])


def _choice(rows: list[dict[str, Any]], errors: dict[int, np.ndarray], recipes: dict[int, Recipe]) -> Finalists:
    """Who is chosen, and why the others are not."""
    made = [row for row in rows if row["trial"] in errors]
    best = min(made, key=lambda row: row["mean"])
    for row in made:
        row["standard_error"] = 0.0 if row is best else _standard_error(errors[row["trial"]], errors[best["trial"]])
    alike = [row for row in made if row["mean"] - best["mean"] <= row["standard_error"]]
    winner = min(alike, key=lambda row: (row["spread"], row["mean"], row["size_bytes"]))
    for row in made:
        if row is winner:
            row["reason"] = "chosen: " + (
                "nothing has less error over seeds" if row is best and len(alike) == 1 else RULE
            )
        elif row in alike:
            row["reason"] = f"as good as trial {winner['trial']}, and seeds change it more"
        else:
            above = f"{row['mean'] / best['mean'] - 1:.1%}" if best["mean"] else "far"
            row["reason"] = f"its error is {above} above that of trial {best['trial']}, by more than one standard error"
    by_seed = winner["by_seed"]
    middle = sorted(by_seed, key=by_seed.__getitem__)[(len(by_seed) - 1) // 2]
    ordered = [winner, *sorted((row for row in rows if row is not winner), key=lambda row: row.get("mean", math.inf))]
    return Finalists(_reseeded(recipes[winner["trial"]], middle), ordered)


def _standard_error(one: np.ndarray, other: np.ndarray) -> float:
    """Of the distance between two means: blocks of origins are shared and seeds are not."""
    differences = one.mean(axis=0) - other.mean(axis=0)
    variance = differences.var(ddof=1) / len(differences) if len(differences) > 1 else 0.0
    for errors in (one, other):
        by_seed = errors.mean(axis=1)
        variance += by_seed.var(ddof=1) / len(by_seed) if len(by_seed) > 1 else 0.0
    return math.sqrt(variance)


def _path(cache: str | Path | None) -> Path | None:
    return None if cache is None else Path(cache)
