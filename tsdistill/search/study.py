"""Run a study to an exact total, from as many processes as there are, and read the best recipe off it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tsdistill.data import Task
from tsdistill.errors import ConfigError, DataError, OrderError, TsdistillError, UnsupportedError, must
from tsdistill.progress import open_bar
from tsdistill.recipe import Recipe
from tsdistill.search.claims import COUNTED, Claims
from tsdistill.search.objective import TrialObjective
from tsdistill.search.space import Space
from tsdistill.search.storage import reached
from tsdistill.teachers import Teacher

MAX_TRIALS = 1_000_000
"""Finished trials that a study can be asked for."""

MAX_WORKERS = 256
"""Processes of one search on one machine."""

MAX_FAILURES = 5
"""So many failures in a row say that the space or the machine is wrong, not the trial."""


def optimize(
    study: optuna.Study,
    space: Space,
    teacher: Teacher,
    task: Task,
    *,
    n_trials: int,
    recipe: Recipe | None = None,
    max_size_bytes: int | None = None,
    cache: str | Path | None = None,
    progress: bool | None = None,
) -> None:
    """Run trials until the study has `n_trials` finished ones: run the same call again, or elsewhere, to go on.

    The total counts what the study has, not what this call does. Processes that call this on one storage share the
    trials out: together they finish exactly `n_trials`. A trial whose process is killed is marked as failed by the next
    one that looks, and retried; so is one that cannot be trained or deployed, with its reason. Failed trials have
    no value, and the sampler does not learn from them.

    Args:
        study: From `create_study`, or any Optuna study in memory, a journal file, SQLite or PostgreSQL.
        space: What varies.
        teacher: Who teaches.
        task: Data, context and horizon; the test part is never read.
        n_trials: Finished trials the study shall have in the end.
        recipe: What does not vary; see `objective`.
        max_size_bytes: Bytes the deployed artifact may take; see `objective`.
        cache: Folder of the teacher's forecasts, shared by processes; by default one per process.
        progress: Show a progress bar; None shows one in a terminal only.

    Raises:
        ConfigError: A setting breaks its rule, or the study was begun with another task, teacher, space or budget.
        OrderError: The study is in SQLite, and another process is using it.
        UnsupportedError: The study's storage is none of the above.
        ArtifactError: The storage cannot be reached any more.
        TsdistillError: Five trials in a row failed; an error of the kind of the last one.

    Example:
        >>> study = create_study("etth1", storage="journal:studies.log")            # doctest: +SKIP
        >>> optimize(study, Space(), teacher, task, n_trials=100)                   # doctest: +SKIP
    """
    evaluate = TrialObjective(space, teacher, task, recipe=recipe, max_size_bytes=max_size_bytes, cache=cache)
    run_trials(study, evaluate, n_trials, progress=progress, begin=evaluate.agree)


def check_count(name: str, value: object, largest: int, remedy: str) -> None:
    """ConfigError unless this is a count that a search can have."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise ConfigError(must(name, f"be a whole number from 1 to {largest:,}", value, remedy))


def run_trials(
    study: optuna.Study,
    evaluate: Callable[[optuna.Trial], float],
    n_trials: int,
    *,
    progress: bool | None = None,
    begin: Callable[[optuna.Study], None] = lambda study: None,
) -> None:
    """What `optimize` does, for any function of a trial; `begin` is called once, while no worker claims a trial."""
    check_count("n_trials", n_trials, MAX_TRIALS, "Give the total the study shall have")
    failures: list[TsdistillError | MemoryError] = []
    with Claims(study) as claims, open_bar("trials", n_trials, progress) as bar:
        with reached(study._storage), claims.turn():
            begin(study)
        while True:
            bar.at(min(n_finished(study), n_trials))
            bar.note(standing(study))
            trial = claims.next(n_trials)
            if trial is None:
                return
            failure = _attempt(study, trial, evaluate)
            failures = [*failures, failure] if failure else []
            if len(failures) == MAX_FAILURES:
                kind = type(failure) if isinstance(failure, TsdistillError) else UnsupportedError
                raise kind(
                    f"{MAX_FAILURES} trials in a row failed, the last one with: {failure} Narrow the space or mend the "
                    "recipe, and start again."
                )


def best_recipe(study: optuna.Study, *, max_size_bytes: int | None = None) -> Recipe:
    """The recipe of the best finished trial, within a budget if one is given.

    Args:
        study: A study that `optimize` or an `objective` has run.
        max_size_bytes: Bytes the deployed artifact may take; by default the budget of the search, if it had one. Of
            equal errors the smaller model wins.

    Returns:
        A recipe for `tsdistill.run`; with the same parameters `Space.propose` gives it again.

    Raises:
        OrderError: No trial is finished yet.
        UnsupportedError: No finished trial fits the budget; the message names the smallest.

    Example:
        >>> best_recipe(study, max_size_bytes=50_000).to_toml()     # doctest: +SKIP
    """
    return Recipe.from_json(best_trial(study, max_size_bytes=max_size_bytes).user_attrs["recipe"])


def best_trial(study: optuna.Study, *, max_size_bytes: int | None = None) -> FrozenTrial:
    """The trial behind `best_recipe`; same arguments and errors."""
    finished = _finished(study)
    if not finished:
        raise OrderError(f"The study {study.study_name!r} has no finished trial of this search yet. Run some first.")
    fitting = [trial for trial in finished if _fits(trial, max_size_bytes)]
    if not fitting:
        smallest = min(finished, key=_size)
        budget = f"into {max_size_bytes:,} bytes" if max_size_bytes else "the budget"
        raise UnsupportedError(
            f"None of the {len(finished)} finished trials of {study.study_name!r} fits {budget}: the smallest, trial "
            f"{smallest.number}, takes {_size(smallest):,} bytes. Raise the budget, or allow smaller students."
        )
    return min(fitting, key=_rank)


def leaders(study: optuna.Study, n: int = 5, *, max_size_bytes: int | None = None) -> list[dict[str, Any]]:
    """The best `n` finished trials as plain data, those within the budget first."""
    finished = sorted(_finished(study), key=lambda trial: (not _fits(trial, max_size_bytes), _rank(trial)))
    return [
        {
            "trial": trial.number,
            "validation_mse": trial.value,
            "size_bytes": _size(trial),
            "n_parameters": trial.user_attrs["n_parameters"],
            "precision": trial.user_attrs["precision"],
            "seconds": trial.user_attrs["seconds"],
            "fits": _fits(trial, max_size_bytes),
            "params": trial.params,
        }
        for trial in finished[:n]
    ]


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
    return f"best {best.value:.4f}" + (f" in {size / 1e3:.0f} kB" if size is not None else "")


def _attempt(
    study: optuna.Study, trial: optuna.Trial, evaluate: Callable[[optuna.Trial], float]
) -> TsdistillError | MemoryError | None:
    """Run one trial to its end, whatever that is; what it failed with, if it failed for reasons of its own."""
    try:
        value = evaluate(trial)
    except TrialPruned:
        _tell(study, trial, state=TrialState.PRUNED)
        return None
    except (TsdistillError, MemoryError) as error:
        _tell(study, trial, state=TrialState.FAIL, reason=str(error) or type(error).__name__)
        return error
    except BaseException as error:  # an interruption, or a fault: neither is the trial's, and both end the run
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        _tell(
            study, trial, state=TrialState.FAIL, reason="interrupted" if stopped else f"{type(error).__name__}: {error}"
        )
        raise
    if not math.isfinite(value):
        failure = DataError(f"The trial's value must be finite, got {value}.")
        _tell(study, trial, state=TrialState.FAIL, reason=str(failure))
        return failure
    _tell(study, trial, value)
    return None


def _tell(
    study: optuna.Study,
    trial: optuna.Trial,
    value: float | None = None,
    state: TrialState | None = None,
    reason: str | None = None,
) -> None:
    """Finish a trial, unless another worker took this process for dead (a broken connection) and has done so."""
    with reached(study._storage):
        try:
            if reason is not None and "reason" not in trial.user_attrs:
                trial.set_user_attr("reason", reason)
            study.tell(trial, value, state=state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            return


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ended with a recipe and a size, of which a user's own loop may leave others."""
    with reached(study._storage):
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if {"recipe", "size_bytes"} <= trial.user_attrs.keys()]


def _fits(trial: FrozenTrial, max_size_bytes: int | None) -> bool:
    """Within the budget asked for, else within the one the trial was run with."""
    if max_size_bytes is not None:
        return _size(trial) <= max_size_bytes
    return all(excess <= 0 for excess in trial.constraints.values())


def _size(trial: FrozenTrial) -> int:
    return int(trial.user_attrs["size_bytes"])


def _rank(trial: FrozenTrial) -> tuple[float, float, int]:
    return (cast("float", trial.value), float(trial.user_attrs.get("size_bytes", 0)), trial.number)
