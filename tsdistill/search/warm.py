"""What a new study takes over from another one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from tsdistill.errors import ConfigError, TsdistillError
from tsdistill.recipe import Budget, Recipe
from tsdistill.search.question import SEARCHED
from tsdistill.search.space import Space
from tsdistill.spec import value_at

SAME = ("task (data, context, horizon)", "recipe", "teacher")
"""What two studies must have in common for the trials of one to count in the other."""

N_TRIED = 10
"""So many of the best trials of a study of another question are tried first."""


def take_over(
    study: optuna.Study,
    source: optuna.Study,
    space: Space,
    recipe: Recipe,
    question: Mapping[str, Any],
    budget: Budget | None,
    objectives: Sequence[str],
) -> None:
    """Take over the trials of another study into one that has none yet.

    Where task, recipe and teacher are the same, finished trials are copied with their results, those that the space
    can draw, with limits and objectives taken anew from what they cost. Else the best of them are tried first.
    """
    if study.get_trials(deepcopy=False):
        return  # begun before: it has taken over what there was
    if source.study_name == study.study_name and source._storage is study._storage:
        raise ConfigError(f"`warm_start` must be another study, got {study.study_name!r} itself. Name another one.")
    trials = source.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    done = [trial for trial in trials if {"recipe", "size_bytes"} <= trial.user_attrs.keys()]
    if not done:
        raise ConfigError(
            f"`warm_start` must have a finished trial of a search, got {source.study_name!r}. Leave it out."
        )
    earlier = source.user_attrs.get(SEARCHED, {})
    alike = all(earlier.get(name) == question[name] for name in SAME)
    replayed = [(trial, _replayed(trial, space, recipe)) for trial in done]
    known = [(trial, again) for trial, again in replayed if again is not None]
    if alike:
        wanted = set(objectives[1:])
        for trial, (params, distributions, written) in known:
            if written == trial.user_attrs["recipe"] and wanted <= trial.user_attrs.keys():
                study.add_trial(_copied(trial, params, distributions, source.study_name, budget, objectives))
    else:
        for trial, (params, _, _) in sorted(known, key=lambda pair: float(pair[0].values[0]))[:N_TRIED]:
            study.enqueue_trial(params, user_attrs={"from_study": source.study_name, "from_trial": trial.number})


def _replayed(
    trial: FrozenTrial, space: Space, recipe: Recipe
) -> tuple[dict[str, Any], dict[str, BaseDistribution], str] | None:
    """What the space draws where it draws as a trial did; None where it cannot."""
    params = dict(trial.params)
    was = Recipe.from_json(trial.user_attrs["recipe"])
    for address in space.ranges(recipe):
        if address not in params:
            try:
                params[address] = value_at(was, address)
            except ConfigError:
                continue  # of another kind than the one that was drawn, or left out
    fixed = FixedTrial(params)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is outside is looked at below
            written = space.propose(fixed, recipe).to_json()
    except (ValueError, TsdistillError):
        return None
    drawn, distributions = fixed.params, fixed.distributions
    inside = all(among._contains(among.to_internal_repr(drawn[name])) for name, among in distributions.items())
    return (drawn, distributions, written) if inside else None


def _copied(
    trial: FrozenTrial,
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    source: str,
    budget: Budget | None,
    objectives: Sequence[str],
) -> FrozenTrial:
    """A finished trial as one of this study."""
    costs = trial.user_attrs
    return create_trial(
        values=[trial.values[0], *(float(costs[name]) for name in objectives[1:])],
        params=params,
        distributions=distributions,
        user_attrs={**costs, "from_study": source, "from_trial": trial.number},
        constraints=None if budget is None else budget.excess(costs),
    )
