"""What a study holds: the best recipe, the leaders, the front of error against cost."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tsdistill.errors import ConfigError, OrderError, UnsupportedError, must
from tsdistill.recipe import Budget, Recipe
from tsdistill.search.claims import COUNTED
from tsdistill.search.question import OBJECTIVES, SEARCHED
from tsdistill.search.storage import reached

FIELDS = {
    "size_bytes": "max_size_bytes",
    "n_parameters": "max_parameters",
    "n_multiplications": "max_multiplications",
    "latency_ms": "max_latency_ms",
}
"""The limit of a budget for each cost."""

LATEST = 20
"""Trials whose time foretells that of the coming ones."""

COSTS = OBJECTIVES[1:]
"""What a trial keeps of what its model costs; the last one where the search asked for it."""


def best_recipe(
    study: optuna.Study,
    *,
    max_size_bytes: int | None = None,
    max_parameters: int | None = None,
    max_multiplications: int | None = None,
    max_latency_ms: float | None = None,
) -> Recipe:
    """The recipe of the best finished trial, within a budget if one is given.

    Args:
        study: A study that `optimize` or an `objective` has run.
        max_size_bytes: Bytes the deployed artifact may take. Without any limit those of the search count, if it had
            some. Of equal errors the smaller model wins.
        max_parameters: Numbers that were learnt.
        max_multiplications: Products of numbers in one forecast; see `td.Budget`.
        max_latency_ms: Time of one forecast, of trials whose time the search measured.

    Returns:
        A recipe for `tsdistill.run`; with the same parameters `Space.propose` gives it again.

    Raises:
        OrderError: No trial is finished yet, or none has the cost that is limited.
        UnsupportedError: No finished trial fits the budget; the message says by how much the nearest misses.

    Example:
        >>> best_recipe(study, max_size_bytes=50_000).to_toml()     # doctest: +SKIP
    """
    asked = (max_size_bytes, max_parameters, max_multiplications, max_latency_ms)
    budget = None
    if any(limit is not None for limit in asked):
        budget = Budget(**dict(zip(Budget.model_fields, asked, strict=True)))
    return Recipe.from_json(best_trial(study, budget).user_attrs["recipe"])


def best_trial(study: optuna.Study, budget: Budget | None = None) -> FrozenTrial:
    """The trial behind `best_recipe`; same errors."""
    return min(within(study, budget), key=_rank)


def within(study: optuna.Study, budget: Budget | None) -> list[FrozenTrial]:
    """The finished trials that keep a budget, or without one the limits of the search; the errors of `best_recipe`."""
    finished = _finished(study)
    if not finished:
        raise OrderError(f"The study {study.study_name!r} has no finished trial of this search yet. Run some first.")
    limits = budget_of_search(study) if budget is None else budget
    for name, limit in ({} if limits is None else limits.limits).items():
        known = [trial for trial in finished if name in trial.user_attrs]
        if not known and name == "latency_ms":
            raise OrderError(
                f"No trial of {study.study_name!r} was timed, so that max_latency_ms cannot choose one. Search with "
                'a budget of time, or with objectives=("error", "latency_ms").'
            )
        if not known:
            raise OrderError(
                f"No trial of {study.study_name!r} has {name}, so that a limit of {limit:,} cannot choose one: an "
                "earlier version ran them. Run some more."
            )
        finished = known
    fitting = [trial for trial in finished if _fits(trial, limits)]
    if not fitting:
        raise UnsupportedError(
            f"None of the {len(finished)} finished trials of {study.study_name!r} fits {_wanted(limits)}: "
            f"{_nearest(finished, limits)}. Raise the budget, or allow smaller students."
        )
    return fitting


def budget_of_search(study: optuna.Study) -> Budget | None:
    """The limits that a search was last run with."""
    asked = study.user_attrs.get(SEARCHED, {})
    limits = {"max_size_bytes": asked.get("size budget"), **{
        name: limit for name, limit in (asked.get("budget") or {}).items() if name in Budget.model_fields and limit
    }}  # fmt: skip
    return Budget(**limits) if any(limit is not None for limit in limits.values()) else None


def leaders(study: optuna.Study, n: int = 5, *, max_size_bytes: int | None = None) -> list[dict[str, Any]]:
    """The best `n` finished trials as plain data, those within the budget first."""
    budget = budget_of_search(study) if max_size_bytes is None else Budget(max_size_bytes=max_size_bytes)
    finished = sorted(_finished(study), key=lambda trial: (not _fits(trial, budget), _rank(trial)))
    return [_row(trial, budget) for trial in finished[:n]]


def front(study: optuna.Study, *, costs: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    """The finished trials that no other one beats: with less error at no more cost, or as little at less.

    Works for any study, whether it was searched for one objective or for several. Use it to see what a byte or a
    millisecond is worth, before a budget is fixed.

    Args:
        study: A study that `optimize` or an `objective` has run.
        costs: What is traded for error: "size_bytes", "n_parameters", "n_multiplications", "latency_ms"; by default
            bytes, and time where every trial was timed.

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
    if lacking := [name for name in costs if any(name not in trial.user_attrs for trial in finished)]:
        raise OrderError(f"Not every trial of {study.study_name!r} has {lacking[0]}. Leave it out.")
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


def standing(study: optuna.Study, n_trials: int | None = None, until: float = math.inf) -> str:
    """The best trial so far in a few words, and how long the study needs for `n_trials`, until a moment at most.

    By the median of the latest trials and the number that run now: also right after a search is taken up again.
    """
    left = "" if n_trials is None else _left(study, n_trials, until)
    with reached(study._storage):
        budget = budget_of_search(study)
        done = [
            trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if _fits(trial, budget)
        ]
    best = min(done, key=_rank, default=None)
    if best is None:
        return f"none finished{left}"
    size = best.user_attrs.get("size_bytes")
    return f"best {_error(best):.4f}" + (f" in {size / 1e3:.0f} kB" if size is not None else "") + left


def _left(study: optuna.Study, n_trials: int, until: float) -> str:
    """Such as ", 4 min left"."""
    with reached(study._storage):
        trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state in COUNTED and "from_study" not in trial.user_attrs]
    seconds = [trial.duration.total_seconds() for trial in done[-LATEST:] if trial.duration is not None]
    if not seconds:
        return ""
    n_running = sum(trial.state == TrialState.RUNNING for trial in trials)
    n_left = n_trials - sum(trial.state in COUNTED for trial in trials)
    needed = min(statistics.median(seconds) * max(n_left, 0) / max(n_running, 1), max(until - time.monotonic(), 0.0))
    if needed < 100:
        return f", {needed:.0f} s left"
    return f", {needed / 60:.0f} min left" if needed < 6000 else f", {needed / 3600:.1f} h left"


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
        **{name: trial.user_attrs[name] for name in ("n_multiplications",) if name in trial.user_attrs},
        **({"latency_ms": trial.user_attrs["latency_ms"]} if "latency_ms" in trial.user_attrs else {}),
        "precision": trial.user_attrs["precision"],
        "seconds": trial.user_attrs["seconds"],
        "fits": _fits(trial, budget),
        "params": trial.params,
    }


def _fits(trial: FrozenTrial, budget: Budget | None) -> bool:
    """Within a budget, or without one within the limits that the trial itself was run with."""
    if budget is not None:
        return all(excess <= 0 for excess in budget.excess(trial.user_attrs).values())
    return all(excess <= 0 for excess in trial.constraints.values())


def _wanted(budget: Budget | None) -> str:
    if budget is None:
        return "the budget"
    words = {"size_bytes": "bytes", "n_parameters": "parameters", "n_multiplications": "multiplications"}
    return " and ".join(
        f"into {limit:g} ms" if name == "latency_ms" else f"into {limit:,} {words[name]}"
        for name, limit in budget.limits.items()
    )


def _nearest(finished: list[FrozenTrial], budget: Budget | None) -> str:
    """By how much the trial that is nearest to a budget misses it, as a share of the limit that it misses most."""
    if budget is None:
        limits = {
            name: trial.user_attrs[name] - excess
            for trial in finished
            for name, excess in trial.constraints.items()
            if name in trial.user_attrs
        }
        budget = Budget(**{field: limits[name] for name, field in FIELDS.items() if limits.get(name, 0) > 0})
    shares = budget.limits

    def miss(trial: FrozenTrial) -> float:
        return max((excess / shares[name] for name, excess in budget.excess(trial.user_attrs).items()), default=0.0)

    trial = min(finished, key=lambda trial: (miss(trial), _rank(trial)))
    titles = {"size_bytes": "smallest", "latency_ms": "fastest"}
    title = titles.get(next(iter(shares)), "nearest") if len(shares) == 1 else "nearest"
    return f"the {title}, trial {trial.number}, takes {budget.excess_in_words(trial.user_attrs)}"


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _error(trial: FrozenTrial) -> float:
    """The first objective, which is always the validation error."""
    return float(trial.values[0])


def _rank(trial: FrozenTrial) -> tuple[float, float, int]:
    return (_error(trial), float(trial.user_attrs.get("size_bytes", 0)), trial.number)
