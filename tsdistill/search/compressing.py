"""One call from data and a budget to a deployed model: a teacher, a search, finalists, a choice with its reasons."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tsdistill.data import Panel, datasets
from tsdistill.errors import ConfigError, UnsupportedError, check_type, must
from tsdistill.evaluation import evaluate
from tsdistill.files import write_atomic
from tsdistill.losses import OutputLoss
from tsdistill.models import LinearConfig
from tsdistill.pruning import Pruning
from tsdistill.recipe import AutoTeacherSpec, Budget, Recipe, Source, StudentCandidate, TaskSpec, Workspace
from tsdistill.recipe import run as run_recipe
from tsdistill.recipe.pipeline import Run
from tsdistill.recipe.spec import StudentSpec
from tsdistill.search.defaults import Ranges, default_space
from tsdistill.search.results import front
from tsdistill.search.space import KIND, Space
from tsdistill.search.storage import create_study
from tsdistill.search.study import checked_timeout, optimize
from tsdistill.search.table import described
from tsdistill.search.worker import shared_teacher
from tsdistill.tables.roles import ID, TIME
from tsdistill.training import Training

KINDS = ("linear", "averaged-linear", "multi-resolution", "mlp", "lstm")
"""Students that are tried, in this order at first: solved ones take seconds and set the mark."""

TEACHER_SHARE, SEARCH_SHARE = 0.3, 0.4
"""Of the time; what is left is for the finalists, which are trained again with a control, and the report."""

MAX_FINALISTS = 4

MAX_TRIALS = 1000
"""More than the time of any such call bears: it ends by the clock."""


@dataclass(frozen=True)
class Compression:
    """What `compress` gives.

    Args:
        run: The run that trained the finalists, chose among them and read the test part: models, report, artifact.
        study: Every trial of the search before it.
        front: The trials that no other one beats in error and bytes, the smallest first.
        reasons: For every trial that is not a finalist why it is none.
    """

    run: Run
    study: optuna.Study
    front: list[dict[str, Any]]
    reasons: dict[int, str]

    @property
    def artifact(self) -> Path:
        """Folder of the deployed model."""
        return self.run.artifact


def compress(
    data: Recipe | Panel | Source | str | Path,
    out: str | Path,
    *,
    budget: Budget | None = None,
    max_error_increase: float | None = None,
    minutes: float = 10.0,
    context: int | None = None,
    horizon: int = 24,
    seed: int = 0,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> Compression:
    """Make the best small forecaster within a budget: teacher, search, pruning, quantization, choice.

    A teacher makes itself (`AutoTeacherSpec`), trials over students from a ridge to an LSTM are distilled, pruned and
    quantized until their time is over, and those that validation prefers are trained again with a control. Deployed is
    the smallest within one standard error of the best. A student that validation finds worse than a ridge within the
    budget is no finalist. The test part is read once, for the report.

    Use it when you have a file and a limit, and no opinion yet. With opinions, write a recipe, or search.

    Args:
        data: A recipe whose data, task and teacher are taken; or a panel, which is copied to `out` unless it is a data
            set of the catalogue; or a CSV or Parquet file, a `td.recipe.Source`, the name of a data set.
        out: Folder of everything: `artifact/` to deploy, `report.html`, `front.json`, the study.
        budget: What the deployed model may cost; None sets no limit.
        max_error_increase: How much its validation error may lie above the teacher's, as a share of it.
        minutes: Time for all of it, about; training that has begun is ended.
        context: Past steps that a model sees; by default fourteen horizons, or what the shortest item bears.
        horizon: Steps to forecast. A recipe has its own context and horizon.
        seed: What everything draws from.
        progress: Show progress bars; None shows them in a terminal only.
        say: Called with a line for people now and then.

    Returns:
        The run with report and artifact, the study, its front, and a reason for every trial that was not taken.

    Raises:
        DataError: The data cannot be used.
        ConfigError: A setting breaks its rule.
        UnsupportedError: Nothing meets the budget, or nothing is accurate enough; the message says by how much the
            nearest misses.

    Example:
        >>> import tsdistill as td
        >>> small = td.compress("sales.csv", "small", budget=td.Budget(max_size_bytes=50_000))   # doctest: +SKIP
        >>> print(small.run.report)                                                              # doctest: +SKIP
    """
    check_type("budget", budget, Budget, "Pass td.Budget(max_size_bytes=...)", optional=True)
    if max_error_increase is not None and not max_error_increase >= 0:
        raise ConfigError(must("max_error_increase", "be a share from 0 on", max_error_increase, "Such as 0.05"))
    began, seconds = time.monotonic(), 60 * checked_timeout(minutes)
    folder = Path(out)
    workspace = Workspace(folder, say=say)
    recipe = _recipe(data, folder, context, horizon, minutes).with_seed(seed)
    task = recipe.task.build(recipe.data.load())
    teacher = shared_teacher(recipe, task, folder, progress=progress, say=say)
    limit = None
    if max_error_increase is not None:
        limit = (1 + max_error_increase) * evaluate(teacher, task, part="validation")["mse"]

    study = create_study(recipe.name, storage=f"journal:{folder / 'study.log'}", seed=seed)
    space = _space(recipe)
    if not study.trials:
        for start in _starts(space.ranges(recipe)):
            study.enqueue_trial(start)
    left = seconds - (time.monotonic() - began)
    optimize(
        study,
        space,
        teacher,
        task,
        n_trials=MAX_TRIALS,
        recipe=recipe,
        budget=budget,
        cache=workspace.cache,
        timeout=max(left * SEARCH_SHARE / (1 - TEACHER_SHARE), 1.0),
        progress=progress,
    )
    left = seconds - (time.monotonic() - began)
    chosen, reasons = _finalists(study, budget, limit, left)
    # Of several each is pruned if it can be; a single one as its trial was.
    pruning = recipe.pruning if len(chosen) > 1 else chosen[0].pruning
    final = recipe.replace(student=_student(chosen, budget), pruning=pruning)
    made = run_recipe(final, folder, progress=progress, say=say)
    rows = front(study)
    write_atomic(folder / "front.json", json.dumps(rows, indent=1))
    return Compression(made, study, rows, reasons)


def _recipe(data: Any, folder: Path, context: int | None, horizon: int, minutes: float) -> Recipe:
    """The data and its task as a recipe with an automatic teacher."""
    if isinstance(data, Recipe):
        return data.replace(student=StudentSpec(model=LinearConfig(), losses=(OutputLoss(),)))
    if isinstance(data, Panel):
        panel, source = data, _kept(data, folder)
    elif isinstance(data, Source):
        panel, source = data.load(), data
    else:
        check_type("data", data, (str, Path), "Pass a recipe, a panel, a td.recipe.Source, or a file")
        known = str(data) in datasets.names()
        source = Source(dataset=str(data)) if known else Source(path=str(Path(data).absolute()))
        panel = source.load()
    rows = min(len(item.values) for item in panel.items)
    steps = min(14 * horizon, rows // 8) if context is None else context
    return Recipe(
        name=panel.name,
        data=source,
        task=TaskSpec(context=max(steps, 1), horizon=horizon, split=None if source.dataset else panel.split),
        teacher=AutoTeacherSpec(minutes=TEACHER_SHARE * minutes),
        student=StudentSpec(
            model=LinearConfig(),
            losses=(OutputLoss(),),
            training=Training(epochs=4, windows_per_epoch=4096, learning_rate=2e-3, patience=2),
        ),
        pruning=Pruning(ratio=0.25),
    )


def _kept(panel: Panel, folder: Path) -> Source:
    """A panel as something that a recipe can name: a data set of the catalogue, or a file of its own."""
    if panel.name in datasets.names() and _is_same(panel, datasets.load(panel.name)):
        return Source(dataset=panel.name)
    frame = panel.to_frame()
    path = folder.absolute() / "panel.csv"
    write_atomic(path, frame.to_csv(index=False))
    has_time = panel.items[0].ds is not None
    source = Source(
        path=str(path),
        time=TIME if has_time else "none",
        id=ID if panel.named else None,
        target=panel.channels,
        frequency=panel.frequency if has_time else None,
    )
    if not _is_same(panel, source.load()):
        raise ConfigError("`data` must be a panel that a CSV file holds as it is. Keep it in a file, and name that.")
    return source


def _is_same(one: Panel, other: Panel) -> bool:
    """Whether two panels hold the same series at the same times, values to the last digits that text keeps."""
    return (one.channels, len(one.items)) == (other.channels, len(other.items)) and all(
        a.values.shape == b.values.shape
        and np.allclose(a.values, b.values, rtol=1e-12, atol=0)
        and (a.ds is None) == (b.ds is None)
        and (a.ds is None or b.ds is None or bool((a.ds == b.ds).all()))
        for a, b in zip(one.items, other.items, strict=True)
    )


def _space(recipe: Recipe) -> Space:
    """The default space of the students that are tried."""
    ranges = default_space(recipe)
    kinds = tuple(kind for kind in KINDS if kind in ranges[KIND])
    wanted = (*(f"student.model.{kind}." for kind in kinds), "student.losses.output.", "student.training.")
    return Space(vary={KIND: kinds, **{name: among for name, among in ranges.items() if name.startswith(wanted)}})


def _starts(ranges: Ranges) -> list[dict[str, Any]]:
    """What is tried first: every kind of student, those that are solved for all channels and for each."""
    starts: list[dict[str, Any]] = []
    for kind in cast("tuple[str, ...]", ranges[KIND]):
        address = f"student.model.{kind}.individual"
        starts += [{KIND: kind, address: value} for value in (False, True)] if address in ranges else [{KIND: kind}]
    return starts


def _finalists(
    study: optuna.Study, budget: Budget | None, limit: float | None, seconds: float
) -> tuple[list[Recipe], dict[int, str]]:
    """The trials to train again, the best first, and why every other one is not."""
    reasons: dict[int, str] = {}
    fitting: list[FrozenTrial] = []
    for trial in study.trials:
        if trial.state != TrialState.COMPLETE:
            if trial.state in (TrialState.FAIL, TrialState.PRUNED):
                reasons[trial.number] = trial.user_attrs.get("reason", "stopped early: others were better by then")
            continue
        excess = "" if budget is None else budget.excess_in_words(trial.user_attrs)
        if excess:
            reasons[trial.number] = f"{described(trial.params)}: {excess}"
        else:
            fitting.append(trial)
    if not fitting:
        raise UnsupportedError(
            "No model fits the budget: " + ("; ".join(list(reasons.values())[:4]) or "no trial was finished")
            + ". Raise the budget, or give it more minutes."
        )  # fmt: skip
    fitting.sort(key=lambda trial: (trial.values[0], trial.user_attrs["size_bytes"]))
    ridge = min((trial.values[0] for trial in fitting if trial.params.get(KIND) == "linear"), default=None)
    if limit is not None and fitting[0].values[0] > limit:
        raise UnsupportedError(
            f"No model within the budget is accurate enough: the best, {described(fitting[0].params)}, has "
            f"a validation MSE of {fitting[0].values[0]:.4f}; max_error_increase allows {limit:.4f}. Raise one."
        )
    chosen: list[FrozenTrial] = []
    for trial in fitting:
        # Trained again, with a control beside it; half of what is left has to do for all but the first.
        cost = 2 * trial.user_attrs["seconds"]
        if limit is not None and trial.values[0] > limit:
            reasons[trial.number] = f"its error, {trial.values[0]:.4f}, is above what max_error_increase allows"
        elif ridge is not None and trial.values[0] > ridge:
            reasons[trial.number] = f"its error, {trial.values[0]:.4f}, is above that of a ridge, {ridge:.4f}"
        elif "same_as" in trial.user_attrs:
            reasons[trial.number] = f"the same as trial {trial.user_attrs['same_as']}"
        elif chosen and _is_beaten(trial, chosen):
            reasons[trial.number] = "a trial with less error is no larger"
        elif chosen and (len(chosen) == MAX_FINALISTS or cost > seconds / 2):
            reasons[trial.number] = "others with less error took the time that was left"
        else:
            chosen.append(trial)
            seconds -= cost
    return [Recipe.from_json(trial.user_attrs["recipe"]) for trial in chosen], reasons


def _is_beaten(trial: FrozenTrial, better: list[FrozenTrial]) -> bool:
    return any(other.user_attrs["size_bytes"] <= trial.user_attrs["size_bytes"] for other in better)


def _student(chosen: list[Recipe], budget: Budget | None) -> StudentSpec:
    """The finalists as students that compete."""
    first, *others = (recipe.student for recipe in chosen)
    if not others:
        return first.replace(keep="better")
    candidates = tuple(
        StudentCandidate(model=student.model, losses=student.losses, training=student.training) for student in others
    )
    return first.replace(candidates=candidates, budget=budget)
