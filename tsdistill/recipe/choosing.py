"""The best of several students within a budget: each is made to the end, and judged as it would be deployed."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tsdistill.data import Task
from tsdistill.errors import ConfigError, DivergenceError, UnsupportedError, must
from tsdistill.evaluation import compare_losses, measure_latency, score
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster, ModelConfig, versions
from tsdistill.models.provenance import machine
from tsdistill.pruning import Pruning, macs_of
from tsdistill.pruning.ranking import groups_of
from tsdistill.recipe.candidates import Budget
from tsdistill.recipe.workspace import Model, as_deployed, as_trainable
from tsdistill.report.candidates import VERB, choice_of
from tsdistill.spec import LineageStep

if TYPE_CHECKING:
    from tsdistill.recipe.pipeline import Stages
    from tsdistill.recipe.spec import Recipe

RULE = "the smallest within one standard error of the best"
"""How a candidate is chosen, as the lineage records it."""

N_LATENCY_RUNS = 100

Models = dict[str, Model]


@dataclass(frozen=True)
class Within:
    """Stages of one candidate, kept apart from those of the others by its name."""

    stages: Stages
    name: str

    @property
    def cache(self) -> Path | None:
        """Folder of the teacher's forecasts, which all candidates share."""
        return self.stages.cache

    def start(self, name: str, config: ModelConfig, task: Task, *, control: bool = False) -> Forecaster | None:
        """What its training goes on from, under the candidate's name."""
        return self.stages.start(f"{self.name}-{name}", config, task, control=control)

    def stage(self, name: str, inputs: dict[str, Any], make: Callable[[Path | None], Model]) -> Model:
        """What `make` gives, under the candidate's name."""
        return self.stages.stage(f"{self.name}-{name}", inputs, make)


def contenders(recipe: Recipe, task: Task) -> dict[str, Recipe]:
    """A recipe with one student for the student's own model and for every candidate, by a name for each.

    A candidate that has nothing to prune competes as it is.
    """
    student = recipe.student
    students = [student.replace(candidates=(), budget=None, keep="better")]
    students += [student.of(candidate) for candidate in student.candidates]
    names = _names([one.model for one in students])
    return {
        name: recipe.replace(student=one, pruning=_pruning(recipe, one.model, task))
        for name, one in zip(names, students, strict=True)
    }


def _names(configs: list[ModelConfig]) -> list[str]:
    """The kind of each, with the fields that are not at their default where there are several of it, or its place."""
    kinds = [config.kind for config in configs]
    names = []
    for config in configs:
        fields = sorted(config.minimal().keys() - {"kind"}) if kinds.count(config.kind) > 1 else []
        names.append("-".join((config.kind, *fields)))
    return [
        name if names.count(name) == 1 else f"{name}-{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def _pruning(recipe: Recipe, config: ModelConfig, task: Task) -> Pruning | None:
    """The recipe's pruning, where the model has something to cut."""
    if recipe.pruning is None or config.forecaster.closed_form:
        return None
    try:
        groups_of(config.build(task.signature), recipe.pruning)
    except UnsupportedError:
        return None
    except ConfigError:  # it does not fit the task, which is told when it is trained
        pass
    return recipe.pruning


def choose(
    made: Mapping[str, Models],
    problems: Mapping[str, str],
    task: Task,
    budget: Budget | None,
    stages: Stages,
) -> tuple[str, Models]:
    """The candidate to deploy, and its models.

    Its student carries the whole record of the choice in its lineage; what is deployed, whose manifest counts towards
    its size, carries the rule and the names only.
    """
    spec = {"rule": RULE, "budget": {} if budget is None else budget.to_dict(), "candidates": [*made, *problems]}
    deployed = {name: _marked(_last(models), spec, name) for name, models in made.items()}

    def make(checkpoint: Path | None) -> Model:
        choice = _choice(deployed, task, budget, problems)
        step = LineageStep(
            verb=VERB,
            spec=spec,
            data=task.fingerprint,
            metrics=choice,
            versions=versions(),
            machine=machine(),
        )
        return copy.deepcopy(as_trainable(made[choice["chosen"]]["student"])).with_step(step)

    digests = {name: model.digest for name, model in deployed.items()}
    student = stages.stage("chosen", {"task": task.fingerprint, **spec, **digests, "problems": dict(problems)}, make)
    record = choice_of(student)
    assert record is not None  # the stage has just been made, or is kept as it was made
    name = record["chosen"]
    models = dict(made[name])
    return name, {**models, "student": student, list(models)[-1]: deployed[name]}


def replaced(chosen: Models, final: Models) -> Models:
    """The models of a choice with those that were fitted again, pruned and deployed after it in their place."""
    mark = _last(chosen).lineage[-1]
    deployed = _last(final)
    marked = dataclasses.replace(deployed, lineage=(*deployed.lineage, mark))
    return {**final, "student": chosen["student"], list(final)[-1]: marked}


def _marked(model: Deployed, spec: dict[str, Any], name: str) -> Deployed:
    """A candidate as it would be deployed if it were chosen."""
    step = LineageStep(verb=VERB, spec=spec, metrics={"chosen": name})
    return dataclasses.replace(model, lineage=(*model.lineage, step))


REFUSED = (ConfigError, DivergenceError, UnsupportedError)
"""What rules a candidate out and leaves the others: it does not fit the task, or cannot be made."""


def none_left(problems: Mapping[str, str]) -> ConfigError:
    """No candidate could be made."""
    reasons = " ".join(f"{name}: {problem}" for name, problem in problems.items())
    return ConfigError(f"`student.candidates` must hold one that can be made for this task. {reasons}")


def _choice(
    deployed: Mapping[str, Deployed], task: Task, budget: Budget | None, problems: Mapping[str, str]
) -> dict[str, Any]:
    """Which candidate, and a line for each with the reason."""
    scores = {name: score(model, task, "validation") for name, model in deployed.items()}
    losses = {name: own.window_losses for name, own in scores.items()}
    mse = {name: float(own.mean()) for name, own in losses.items()}
    size = {name: model.size_bytes for name, model in deployed.items()}
    latency = {
        name: times.p50_ms for name, times in measure_latency(forecast_calls(deployed), n_runs=N_LATENCY_RUNS).items()
    }
    over = {}
    for name, model in deployed.items():
        costs = {"size_bytes": size[name], "n_parameters": model.n_parameters, "latency_ms": latency[name]}
        if budget is not None and budget.max_multiplications is not None:
            costs["n_multiplications"] = multiplications(model)
        if budget is not None and (excess := budget.excess_in_words(costs)):
            over[name] = excess
    within = [name for name in deployed if name not in over]
    if not within:
        nearest = min(over, key=lambda name: size[name])
        rule = "be one that a candidate meets"
        raise ConfigError(
            must("student.budget", rule, str(budget), f"The smallest is {nearest}: {over[nearest]}. Raise it")
        )
    best = min(within, key=mse.__getitem__)
    standard_errors = {}
    for name in within:
        test = compare_losses(losses[name], losses[best], horizon=task.horizon, times=scores[best].times)
        statistic = test.statistic
        standard_errors[name] = abs(test.mean_difference / statistic) if statistic and math.isfinite(statistic) else 0.0
    alike = [name for name in within if mse[name] - mse[best] <= standard_errors[name]]
    chosen = min(alike, key=lambda name: (size[name], mse[name]))
    rows = []
    for name, model in deployed.items():
        rows.append(
            {
                "name": name,
                "validation_mse": mse[name],
                "relative": mse[name] / mse[best] - 1 if mse[best] else 0.0,
                "standard_error": standard_errors[name] / mse[best] if name in standard_errors and mse[best] else None,
                "size_bytes": size[name],
                "latency_p50_ms": latency[name],
                "n_parameters": model.n_parameters,
                "precision": model.precision,
                "taught": is_taught(model),
                "reason": over.get(name) or _reason(name, chosen, best, alike, mse, size),
            }
        )
    rows += [
        {"name": name, "reason": f"could not be made: {problem.rstrip('.')}"} for name, problem in problems.items()
    ]
    return {"chosen": chosen, "best": best, "candidates": rows}


def _reason(
    name: str, chosen: str, best: str, alike: list[str], mse: Mapping[str, float], size: Mapping[str, int]
) -> str:
    """Why a candidate within the budget was chosen or not."""
    if name == chosen:
        if name == best:
            return "chosen: nothing has a lower validation error, and nothing smaller comes within one standard error"
        return f"chosen: the smallest of those within one standard error of {best}, which has the lowest error"
    if name in alike:
        larger = size[name] / size[chosen] if size[chosen] else math.inf
        return f"within one standard error of the best, and {larger:.1f} times as large as {chosen}"
    above = 100 * (mse[name] / mse[best] - 1) if mse[best] else math.inf
    return f"its error is {above:.1f} % above that of {best}, by more than one standard error"


def is_taught(model: Forecaster | Deployed) -> bool:
    """Whether a teacher shaped a model: in a step whose result was not replaced by its control, by a share above 0."""
    for step in model.lineage:
        share = step.metrics.get("alpha", 1.0)
        shares = share if isinstance(share, list) else [share]
        is_own = step.spec.get("recover_from") is not None  # recovered from itself before it was pruned
        if "teacher" in step.spec and not is_own and step.metrics.get("kept") != "control" and any(shares):
            return True
    return False


def forecast_calls(deployed: Mapping[str, Deployed]) -> dict[str, Callable[[], object]]:
    """One forecast of each model, of a window that its artifact holds."""
    calls: dict[str, Callable[[], object]] = {}
    for name, model in deployed.items():
        inputs = {port: values[:1] for port, values in model.golden.items() if port in ("context", "future", "past")}
        calls[name] = functools.partial(model.predictor.outputs, **inputs)
    return calls


_counted: dict[tuple[str, str], int] = {}


def multiplications(model: Deployed) -> int:
    """Products of numbers in one forecast of a deployed model, of which the form changes nothing."""
    key = (model.config.digest, model.signature.digest)
    if key not in _counted:
        with torch.device("meta"):
            _counted[key] = macs_of(model.config.build(model.signature))
    return _counted[key]


def _last(models: Models) -> Deployed:
    return as_deployed(list(models.values())[-1])
