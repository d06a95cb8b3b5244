"""Run a study to an exact total, from as many processes as there are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tsdistill.data import Task
from tsdistill.errors import ConfigError, DataError, TsdistillError, UnsupportedError, must
from tsdistill.progress import open_bar
from tsdistill.recipe import Budget, Recipe
from tsdistill.search.claims import INTERRUPTED, Claims
from tsdistill.search.objective import Suggest, TrialObjective
from tsdistill.search.results import n_finished, standing
from tsdistill.search.space import Space
from tsdistill.search.storage import reached
from tsdistill.teachers import Teacher

Callback = Callable[[optuna.Study, FrozenTrial], None]
"""Called after a trial, as the callbacks of Optuna's own `study.optimize` are."""

MAX_TRIALS = 1_000_000
"""Finished trials that a study can be asked for."""

MAX_WORKERS = 256
"""Processes of one search on one machine."""

MAX_FAILURES = 5
"""So many failures in a row say that the space or the machine is wrong, not the trial."""


def optimize(
    study: optuna.Study,
    space: Space | Suggest,
    teacher: Teacher,
    task: Task,
    *,
    n_trials: int,
    recipe: Recipe | None = None,
    objectives: Sequence[str] = ("error",),
    max_size_bytes: int | None = None,
    budget: Budget | None = None,
    cache: str | Path | None = None,
    warm_start: optuna.Study | None = None,
    timeout: float | None = None,
    callbacks: Iterable[Callback] = (),
    catch: type[Exception] | tuple[type[Exception], ...] = (),
    progress: bool | None = None,
) -> None:
    """Run trials until the study has `n_trials` finished ones: run the same call again, or elsewhere, to go on.

    The total counts what the study has, not what this call does. Processes that call this on one storage share the
    trials out: together they finish exactly `n_trials`. A trial whose process is killed is marked as failed by the next
    one that looks, and retried; so is one that cannot be trained or deployed, with its reason. Failed trials have
    no value, and the sampler does not learn from them. A trial that the study's pruner stops counts as finished.

    Args:
        study: From `create_study`, or any Optuna study in memory, a journal file, SQLite or PostgreSQL.
        space: What varies.
        teacher: Who teaches.
        task: Data, context and horizon; the test part is never read.
        n_trials: Finished trials the study shall have in the end.
        recipe: What does not vary; see `objective`.
        objectives: What is minimised; see `objective`.
        max_size_bytes: Bytes the deployed artifact may take; see `objective`.
        budget: Limits of other costs as well; see `objective`.
        cache: Folder of the teacher's forecasts, shared by processes; by default one per process.
        warm_start: Another study, whose trials a new one takes over: with their results where task, recipe and teacher
            are the same, those that the space can draw; they count towards the total. Else its ten best are tried
            first.
        timeout: Seconds after which this call begins no further trial; the one that runs is ended as usual.
        callbacks: Called with the study and the finished trial after each trial of this call; `study.stop()` in one of
            them, or in anything else that a trial calls, ends this call after the trial.
        catch: Exceptions that make a trial fail and not the whole call, besides those of tsdistill.
        progress: Show a progress bar; None shows one in a terminal only.

    Raises:
        ConfigError: A setting breaks its rule, or the study was begun with another task, teacher, space or budget, or
            for another number of objectives.
        OrderError: The study is in SQLite, and another process is using it.
        UnsupportedError: The study's storage is none of the above.
        ArtifactError: The storage cannot be reached any more.
        TsdistillError: Five trials in a row failed; an error of the kind of the last one.

    Example:
        >>> study = create_study("etth1", storage="journal:studies.log")            # doctest: +SKIP
        >>> optimize(study, Space(), teacher, task, n_trials=100)                   # doctest: +SKIP
    """
    evaluate = TrialObjective(
        space,
        teacher,
        task,
        recipe=recipe,
        objectives=objectives,
        max_size_bytes=max_size_bytes,
        budget=budget,
        cache=cache,
        warm_start=warm_start,
    )
    run_trials(
        study,
        evaluate,
        n_trials,
        progress=progress,
        begin=evaluate.agree,
        timeout=timeout,
        callbacks=callbacks,
        catch=catch,
    )


def check_count(name: str, value: object, largest: int, remedy: str) -> None:
    """ConfigError unless this is a count that a search can have."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise ConfigError(must(name, f"be a whole number from 1 to {largest:,}", value, remedy))


def checked_timeout(timeout: object) -> float:
    """Seconds that a search may take."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ConfigError(must("timeout", "be a number of seconds above 0", timeout, "Leave it out for no limit"))
    return timeout


def run_trials(
    study: optuna.Study,
    evaluate: Callable[[optuna.Trial], float | Sequence[float]],
    n_trials: int,
    *,
    progress: bool | None = None,
    begin: Callable[[optuna.Study], None] = lambda study: None,
    timeout: float | None = None,
    callbacks: Iterable[Callback] = (),
    catch: type[Exception] | tuple[type[Exception], ...] = (),
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """What `optimize` does, for any function of a trial.

    `begin` is called once, while no worker claims a trial; `is_stopped` says that an interruption came which a library
    may have swallowed.
    """
    check_count("n_trials", n_trials, MAX_TRIALS, "Give the total the study shall have")
    until = math.inf if timeout is None else time.monotonic() + checked_timeout(timeout)
    callbacks = tuple(callbacks)
    caught: tuple[type[Exception], ...] = (
        TsdistillError,
        MemoryError,
        *(catch if isinstance(catch, tuple) else (catch,)),
    )
    failures: list[Exception] = []
    with Claims(study) as claims, _stoppable(study), open_bar("trials", n_trials, progress, foretells=False) as bar:
        with reached(study._storage), claims.turn():
            begin(study)
        while True:
            bar.at(min(n_finished(study), n_trials))
            bar.note(standing(study, n_trials, until))
            if study._stop_flag or time.monotonic() >= until:
                return
            trial = claims.next(n_trials)
            if trial is None:
                return
            failure = _attempt(study, trial, evaluate, caught, is_stopped)
            if callbacks:
                with reached(study._storage):
                    finished = study._storage.get_trial(trial._trial_id)
                for callback in callbacks:
                    callback(study, finished)
            failures = [*failures, failure] if failure else []
            if len(failures) == MAX_FAILURES:
                kind = type(failure) if isinstance(failure, TsdistillError) else UnsupportedError
                raise kind(
                    f"{MAX_FAILURES} trials in a row failed, the last one with: {failure} Narrow the space or mend the "
                    "recipe, and start again."
                )


@contextmanager
def _stoppable(study: optuna.Study) -> Iterator[None]:
    """While this lasts, `study.stop()` sets the flag that Optuna's own loop looks at, instead of being refused."""
    study._stop_flag = False
    study._thread_local.in_optimize_loop = True
    try:
        yield
    finally:
        study._thread_local.in_optimize_loop = False


def _attempt(
    study: optuna.Study,
    trial: optuna.Trial,
    evaluate: Callable[[optuna.Trial], float | Sequence[float]],
    caught: tuple[type[Exception], ...],
    is_stopped: Callable[[], bool],
) -> Exception | None:
    """Run one trial to its end, whatever that is; what it failed with, if it failed for reasons of its own."""
    try:
        value = evaluate(trial)
    except TrialPruned:
        _tell(study, trial, state=TrialState.PRUNED)
        return None
    except BaseException as error:
        # An interruption, or a fault, is not the trial's and ends the run; libraries make other errors of the former.
        stopped = isinstance(error, KeyboardInterrupt | SystemExit) or is_stopped()
        own = isinstance(error, caught) and not stopped
        message = str(error) or type(error).__name__
        reason = message if isinstance(error, TsdistillError | MemoryError) else f"{type(error).__name__}: {error}"
        _tell(study, trial, state=TrialState.FAIL, reason=INTERRUPTED if stopped else reason)
        if own:
            return cast("Exception", error)
        raise
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) != len(study.directions):
        reason = f"The trial has {len(values)} values, and the study minimises {len(study.directions)}."
        _tell(study, trial, state=TrialState.FAIL, reason=reason)
        raise ConfigError(f"{reason} Make the study with as many objectives: create_study(..., objectives=...).")
    if not all(math.isfinite(number) for number in values):
        failure = DataError(f"The trial's value must be finite, got {value}.")
        _tell(study, trial, state=TrialState.FAIL, reason=str(failure))
        return failure
    _tell(study, trial, list(values))
    if is_stopped():
        raise KeyboardInterrupt
    return None


def _tell(
    study: optuna.Study,
    trial: optuna.Trial,
    values: list[float] | None = None,
    state: TrialState | None = None,
    reason: str | None = None,
) -> None:
    """Finish a trial, unless another worker took this process for dead (a broken connection) and has done so."""
    with reached(study._storage):
        try:
            if reason is not None and "reason" not in trial.user_attrs:
                trial.set_user_attr("reason", reason)
            study.tell(trial, values, state=state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            return
