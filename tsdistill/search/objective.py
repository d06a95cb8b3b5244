"""What a trial is worth: the validation error of the model that its recipe would deploy."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from tsdistill.data import Task
from tsdistill.errors import ConfigError, TsdistillError, UnsupportedError, check_type, lack_of_memory, must
from tsdistill.evaluation import evaluate, measure_latency
from tsdistill.exporting import Deployed
from tsdistill.files import lock
from tsdistill.recipe import Budget, InMemory, Recipe, make_models
from tsdistill.recipe.choosing import N_LATENCY_RUNS, forecast_calls, multiplications
from tsdistill.search.question import (
    SEARCHED,
    budget_of,
    check_directions,
    check_question,
    check_recipe,
    check_sampler,
    checked_objectives,
    origin,
    question,
    recipe_of,
)
from tsdistill.search.space import Space
from tsdistill.search.warm import take_over
from tsdistill.search.watching import Watch
from tsdistill.teachers import Teacher

KEPT = ("size_bytes", "n_parameters", "n_multiplications", "precision", "seconds", "latency_ms")
"""What a trial writes down of its model; a trial of the same recipe takes it over."""

Suggest = Callable[[BaseTrial, Recipe], Recipe]
"""A function of your own in place of a `Space`: it draws from the trial, and gives the recipe to try."""


class TrialObjective:
    """The function `objective` gives; made once per process, called once per trial."""

    def __init__(
        self,
        space: Space | Suggest,
        teacher: Teacher,
        task: Task,
        *,
        recipe: Recipe | None,
        max_size_bytes: int | None,
        cache: str | Path | None,
        objectives: Sequence[str] = ("error",),
        budget: Budget | None = None,
        warm_start: optuna.Study | None = None,
    ) -> None:
        if not isinstance(space, Space) and (isinstance(space, type) or not callable(space)):
            check_type("space", space, Space, "Pass td.search.Space(), or a function (trial, recipe) -> recipe")
        check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
        check_type("recipe", recipe, Recipe, "Read one with td.Recipe.from_file(path)", optional=True)
        self.space = space
        self.teacher = teacher
        self.task = task
        self.objectives = checked_objectives(objectives)
        self.budget = budget_of(max_size_bytes, budget)
        self.recipe = recipe_of(teacher, task) if recipe is None else recipe
        check_recipe(self.recipe, teacher, task)
        if isinstance(space, Space):
            space.check(self.recipe)
        if cache is None:
            # The teacher forecasts the training part once, not once per trial.
            cache = tempfile.mkdtemp(prefix="tsdistill-teacher-")
            weakref.finalize(self, shutil.rmtree, cache, ignore_errors=True)
        self.cache = Path(cache)
        check_type("warm_start", warm_start, optuna.Study, "Pass td.search.load_study(...)", optional=True)
        if warm_start is not None and not isinstance(space, Space):
            raise ConfigError(
                "`warm_start` must be left out with a function of your own: only a Space can be replayed."
            )
        self.source = warm_start
        self._agreed: set[str] = set()

    def __call__(self, trial: BaseTrial) -> float | tuple[float, ...]:
        """Distil, prune and deploy the recipe of a trial; MSE of what is deployed on the validation part.

        With several objectives the error comes first, and the costs follow in their order.
        """
        study = getattr(trial, "study", None)  # a FixedTrial belongs to none
        if study is not None and study.study_name not in self._agreed:
            self.agree(study)
        began = time.perf_counter()
        try:
            recipe = self._proposed(trial)
            written = recipe.to_json()
            trial.set_user_attr("recipe", written)
            trial.set_user_attr("kind", recipe.student.model.kind)
            twin = None if study is None else _twin(study, written, self._costs)
            if twin is not None:
                kept = {name: twin.user_attrs[name] for name in KEPT if name in twin.user_attrs}
                return self._finish(trial, twin.values[0], {**kept, "same_as": twin.number})
            deployed = self._deployed(recipe, trial)
            error = evaluate(deployed, self.task, part="validation")["mse"]
            details = {
                "size_bytes": deployed.size_bytes,
                "n_parameters": deployed.n_parameters,
                "n_multiplications": multiplications(deployed),
                "precision": deployed.precision,
                "seconds": round(time.perf_counter() - began, 2),
                **({"latency_ms": self._latency(deployed)} if self._is_timed else {}),
            }
        except TsdistillError as failure:
            trial.set_user_attr("reason", str(failure))
            raise
        return self._finish(trial, error, details)

    def agree(self, study: optuna.Study) -> None:
        """Refuse a study whose trials answer another question; a new study is marked with this one."""
        check_directions(study, self.objectives)
        trained = self.recipe.teacher.trains
        own_question = {
            **question(self.recipe, self.task, self.space, self.budget, self.objectives),
            "teacher": origin(self.teacher) if trained else self.teacher.digest,
        }
        check_sampler(study, self.objectives, self.budget)
        check_question(study, own_question)
        if study.user_attrs.get(SEARCHED) != own_question:
            study.set_user_attr(SEARCHED, own_question)
        if isinstance(self.space, Space) and self.source is not None:
            take_over(study, self.source, self.space, self.recipe, own_question, self.budget, self.objectives)
        mark = self.space.mark(self.recipe) if isinstance(self.space, Space) else {}
        if mark and not study.get_trials(deepcopy=False):
            study.enqueue_trial(mark)
        self._agreed.add(study.study_name)

    @property
    def _costs(self) -> set[str]:
        """What has to be known of a model: its bytes, and what is minimised or limited."""
        return {"size_bytes", *self.objectives[1:], *(self.budget.limits if self.budget is not None else ())}

    @property
    def _is_timed(self) -> bool:
        return "latency_ms" in self._costs

    def _proposed(self, trial: BaseTrial) -> Recipe:
        """The recipe of a trial; ConfigError where the trial was asked for something outside the space."""
        asked = dict(getattr(trial, "_fixed_params", {}))  # what `study.enqueue_trial` was given
        try:
            recipe = self._suggested(trial)
        except ValueError as error:  # Optuna's, of a choice that there is not
            if not asked or isinstance(error, TsdistillError):
                raise
            outside = [str(error)]
        else:
            outside = [problem for name, value in asked.items() if (problem := _outside(trial, name, value))]
        if outside:
            rule = "be in the space of the search"
            raise ConfigError(
                must("enqueue_trial", rule, asked, f"Widen the space, or enqueue others ({'; '.join(outside)})")
            )
        return recipe

    def _suggested(self, trial: BaseTrial) -> Recipe:
        if isinstance(self.space, Space):
            return self.space.propose(trial, self.recipe)
        recipe = self.space(trial, self.recipe)
        check_type("recipe", recipe, Recipe, "Return one from your function (trial, recipe) -> recipe")
        shared = ("data", "task", "teacher")
        changed = [name for name in shared if getattr(recipe, name) != getattr(self.recipe, name)]
        if changed:
            raise ConfigError(f"All trials must share {', '.join(shared)}, and your function changed {changed[0]}.")
        return recipe

    def _finish(self, trial: BaseTrial, error: float, details: dict[str, Any]) -> float | tuple[float, ...]:
        """Write down what a trial's model costs; the values of the trial."""
        for name, value in details.items():
            trial.set_user_attr(name, value)
        for name, excess in (self.budget.excess(details) if self.budget is not None else {}).items():
            trial.set_constraint(name, excess)
        if len(self.objectives) == 1:
            return error
        return (error, *(float(details[name]) for name in self.objectives[1:]))

    def _deployed(self, recipe: Recipe, trial: BaseTrial) -> Deployed:
        """What the recipe deploys, by the way that every run takes; a control is trained only to be chosen from."""
        single = len(self.objectives) == 1  # Optuna defines no pruning for several
        watch = Watch(trial, recipe, self.task, by_size=not self._is_timed) if single else None
        try:
            models = make_models(
                recipe,
                self.task,
                self.teacher,
                InMemory(self.cache),
                control=False,
                progress=False,
                on_epoch=None if watch is None else watch.on_epoch,
                on_stage=None if watch is None else watch.on_stage,
                timed=False,
            )
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, TsdistillError) or lack_of_memory(error) is None:
                raise
            raise UnsupportedError(
                f"A {recipe.student.model.kind} student of this size does not fit into memory. Lower batch_size or the "
                "sizes in the space."
            ) from None
        deployed = list(models.values())[-1]
        assert isinstance(deployed, Deployed)  # a pipeline ends in one
        return deployed

    def _latency(self, deployed: Deployed) -> float:
        """Median milliseconds of one forecast on one thread; of several processes one measures at a time."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with lock(self.cache / "latency.lock"):
            return measure_latency(forecast_calls({"one": deployed}), n_runs=N_LATENCY_RUNS)["one"].p50_ms


def objective(
    space: Space | Suggest,
    teacher: Teacher,
    task: Task,
    *,
    recipe: Recipe | None = None,
    objectives: Sequence[str] = ("error",),
    max_size_bytes: int | None = None,
    budget: Budget | None = None,
    cache: str | Path | None = None,
) -> TrialObjective:
    """A function of a trial for your own `study.optimize(...)`: the validation MSE of the model that would be deployed.

    Each trial is a recipe: it is proposed by the space, its student is distilled (without a control, unless the recipe
    keeps the better of the two), pruned, exported or quantized, and scored on the validation part through the runtime
    that would serve it. The test part is never read. A limit of the budget is a constraint of the trial
    (`trial.set_constraint`), feasible at or below 0, so that the sampler learns to stay inside it. After every epoch
    the student's validation error is reported, so that the study's pruner can stop the trial. A trial whose recipe was
    tried before takes over what came of it. The trial keeps `recipe` (JSON), `size_bytes`, `n_parameters`,
    `n_multiplications`, `precision` and `seconds` as user attributes, and `latency_ms` where time counts; one that
    cannot be trained or deployed raises, and keeps the `reason`.

    Use `td.search.optimize` for a total that several processes reach together; use this with
    `study.optimize(..., catch=td.errors.TsdistillError)` for a loop of your own.

    Args:
        space: What varies; or a function `(trial, recipe) -> recipe` of your own that draws from the trial.
        teacher: Who teaches; trained once, by you.
        task: Data, context and horizon; training and validation part are used.
        recipe: What does not vary, with this task, and with this teacher if it came from `td.train`; others are taken
            as they are. By default the bundled recipe over this task, if its panel is one of the catalogue's.
        objectives: What is minimised: "error", which comes first, and any of "size_bytes", "n_parameters",
            "n_multiplications" and "latency_ms". A study of several has no single best: see `front`.
        max_size_bytes: Bytes the deployed artifact may take; the same as `budget=Budget(max_size_bytes=...)`.
        budget: Limits of bytes, parameters, multiplications and time (`td.recipe.Budget`). Where time counts, every
            trial is timed.
        cache: Folder of the teacher's forecasts, shared by trials and processes; by default one per process.

    Returns:
        A callable that takes a trial (or an `optuna.trial.FixedTrial`) and gives a float, or one for each objective.

    Raises:
        ConfigError: The recipe is for another task or teacher, the space does not fit it, or the study (when called)
            was begun with another task, teacher or budget.
        TsdistillError: When called: training diverged, or the model cannot be deployed.

    Example:
        >>> study.optimize(objective(Space(), teacher, task), n_trials=20)      # doctest: +SKIP
    """
    return TrialObjective(
        space,
        teacher,
        task,
        recipe=recipe,
        objectives=objectives,
        max_size_bytes=max_size_bytes,
        budget=budget,
        cache=cache,
    )


def _outside(trial: BaseTrial, name: str, value: Any) -> str:
    """Why a value that a trial was asked for is not in the space; empty if it is. Optuna itself only warns."""
    if name not in trial.params:
        return f"{name} was not drawn"
    among = trial.distributions[name]
    return "" if among._contains(among.to_internal_repr(value)) else f"{name}: {value!r} is not within {among}"


def _twin(study: optuna.Study, written: str, costs: set[str]) -> FrozenTrial | None:
    """A finished trial of the same recipe, with every cost that is asked for."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if trial.user_attrs.get("recipe") == written and costs <= trial.user_attrs.keys():
            return trial
    return None
