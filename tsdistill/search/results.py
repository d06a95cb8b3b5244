"""What a study holds: the best recipe, the leaders, the front of error against cost."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tsdistill.errors import ConfigError, OrderError, UnsupportedError, must
from tsdistill.recipe import Budget, Recipe
from tsdistill.search.claims import COUNTED
from tsdistill.search.question import OBJECTIVES
from tsdistill.search.storage import reached

COSTS = OBJECTIVES[1:]
"""What a trial keeps of what its model costs; the last one where the search asked for it."""


def best_recipe(
    study: optuna.Study, *, max_size_bytes: int | None = None, max_latency_ms: float | None = None
) -> Recipe:
    """The recipe of the best finished trial, within a budget if one is given.

    Args:
        study: A study that `optimize` or an `objective` has run.
        max_size_bytes: Bytes the deployed artifact may take; by default the budget of the search, if it had one. Of
            equal errors the smaller model wins.
        max_latency_ms: Time of one forecast, of trials whose time the search measured.

    Returns:
        A recipe for `tsdistill.run`; with the same parameters `Space.propose` gives it again.

    Raises:
        OrderError: No trial is finished yet, or none was timed and a limit of time is given.
        UnsupportedError: No finished trial fits the budget; the message names the smallest.

    Example:
        >>> best_recipe(study, max_size_bytes=50_000).to_toml()     # doctest: +SKIP
    """
    trial = best_trial(study, max_size_bytes=max_size_bytes, max_latency_ms=max_latency_ms)
    return Recipe.from_json(trial.user_attrs["recipe"])


def best_trial(
    study: optuna.Study, *, max_size_bytes: int | None = None, max_latency_ms: float | None = None
) -> FrozenTrial:
    """The trial behind `best_recipe`; same arguments and errors."""
    finished = _finished(study)
    if not finished:
        raise OrderError(f"The study {study.study_name!r} has no finished trial of this search yet. Run some first.")
    budget = _budget(max_size_bytes, max_latency_ms)
    if max_latency_ms is not None:
        finished = [trial for trial in finished if "latency_ms" in trial.user_attrs]
        if not finished:
            raise OrderError(
                f"No trial of {study.study_name!r} was timed, so that max_latency_ms cannot choose one. Search with "
                'a budget of time, or with objectives=("error", "latency_ms").'
            )
    fitting = [trial for trial in finished if _fits(trial, budget)]
    if not fitting:
        raise UnsupportedError(
            f"None of the {len(finished)} finished trials of {study.study_name!r} fits {_wanted(budget)}: "
            f"{_nearest(finished, budget)}. Raise the budget, or allow smaller students."
        )
    return min(fitting, key=_rank)


def leaders(study: optuna.Study, n: int = 5, *, max_size_bytes: int | None = None) -> list[dict[str, Any]]:
    """The best `n` finished trials as plain data, those within the budget first."""
    budget = _budget(max_size_bytes, None)
    finished = sorted(_finished(study), key=lambda trial: (not _fits(trial, budget), _rank(trial)))
    return [_row(trial, budget) for trial in finished[:n]]


def front(study: optuna.Study, *, costs: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    """The finished trials that no other one beats: with less error at no more cost, or as little at less.

    Works for any study, whether it was searched for one objective or for several. Use it to see what a byte or a
    millisecond is worth, before a budget is fixed.

    Args:
        study: A study that `optimize` or an `objective` has run.
        costs: What is traded for error: "size_bytes", "n_parameters", "latency_ms"; by default bytes, and time where
            every trial was timed.

    Returns:
        Rows like those of `leaders`, the cheapest first.

    Raises:
        ConfigError: A cost that there is not.
        OrderError: No trial is finished yet, or one was not timed and `costs` names time.

    Example:
        >>> for row in front(study):                                            # doctest: +SKIP
        ...     print(row["size_bytes"], row["validation_mse"])
    """
    finished = _finished(study)
    if not finished:
        raise OrderError(f"The study {study.study_name!r} has no finished trial of this search yet. Run some first.")
    timed = all("latency_ms" in trial.user_attrs for trial in finished)
    if costs is None:
        costs = ("size_bytes", "latency_ms") if timed else ("size_bytes",)
    if not costs or not set(costs) <= set(COSTS):
        raise ConfigError(must("costs", f"be some of {', '.join(COSTS)}", costs, "Leave it out for bytes"))
    if "latency_ms" in costs and not timed:
        raise OrderError(f"Not every trial of {study.study_name!r} was timed. Leave latency_ms out.")
    points = {trial.number: (_error(trial), *(float(trial.user_attrs[name]) for name in costs)) for trial in finished}
    ahead = [trial for trial in finished if not any(_beats(other, points[trial.number]) for other in points.values())]
    # Of trials that are alike in everything the first one stands for all.
    first = {points[trial.number]: trial for trial in reversed(ahead)}
    ordered = sorted(first.values(), key=lambda trial: points[trial.number][1:])
    return [_row(trial, None) for trial in ordered]


def n_finished(study: optuna.Study) -> int:
    """Trials that count towards a total."""
    with reached(study._storage):
        return len(study.get_trials(deepcopy=False, states=COUNTED))


def standing(study: optuna.Study) -> str:
    """The best trial so far in a few words."""
    with reached(study._storage):
        done = [
            trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if _fits(trial, None)
        ]
    best = min(done, key=_rank, default=None)
    if best is None:
        return "none finished"
    size = best.user_attrs.get("size_bytes")
    return f"best {_error(best):.4f}" + (f" in {size / 1e3:.0f} kB" if size is not None else "")


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ended with a recipe and a size, of which a user's own loop may leave others."""
    with reached(study._storage):
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if {"recipe", "size_bytes"} <= trial.user_attrs.keys()]


def _row(trial: FrozenTrial, budget: Budget | None) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "validation_mse": _error(trial),
        "size_bytes": trial.user_attrs["size_bytes"],
        "n_parameters": trial.user_attrs["n_parameters"],
        **({"latency_ms": trial.user_attrs["latency_ms"]} if "latency_ms" in trial.user_attrs else {}),
        "precision": trial.user_attrs["precision"],
        "seconds": trial.user_attrs["seconds"],
        "fits": _fits(trial, budget),
        "params": trial.params,
    }


def _budget(max_size_bytes: int | None, max_latency_ms: float | None) -> Budget | None:
    if max_size_bytes is None and max_latency_ms is None:
        return None
    return Budget(max_size_bytes=max_size_bytes, max_latency_ms=max_latency_ms)


def _fits(trial: FrozenTrial, budget: Budget | None) -> bool:
    """Within the budget asked for, else within the one the trial was run with."""
    if budget is not None:
        return all(excess <= 0 for excess in budget.excess(trial.user_attrs).values())
    return all(excess <= 0 for excess in trial.constraints.values())


def _wanted(budget: Budget | None) -> str:
    if budget is None:
        return "the budget"
    words = [f"into {budget.max_size_bytes:,} bytes"] if budget.max_size_bytes is not None else []
    return " and ".join(words + ([f"into {budget.max_latency_ms:g} ms"] if budget.max_latency_ms is not None else []))


def _nearest(finished: list[FrozenTrial], budget: Budget | None) -> str:
    """By how much the trial that is nearest to a budget misses it."""
    if budget is not None and budget.max_latency_ms is not None:
        fastest = min(finished, key=lambda trial: float(trial.user_attrs["latency_ms"]))
        missed = budget.excess_in_words(fastest.user_attrs)
        if missed:
            return f"the fastest, trial {fastest.number}, takes {missed}"
    smallest = min(finished, key=lambda trial: int(trial.user_attrs["size_bytes"]))
    return f"the smallest, trial {smallest.number}, takes {smallest.user_attrs['size_bytes']:,} bytes"


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _error(trial: FrozenTrial) -> float:
    """The first objective, which is always the validation error."""
    return float(trial.values[0])


def _rank(trial: FrozenTrial) -> tuple[float, float, int]:
    return (_error(trial), float(trial.user_attrs.get("size_bytes", 0)), trial.number)
