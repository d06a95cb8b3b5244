"""What all trials of a study have in common, and the refusal of a study that was begun with something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection

from tsdistill.data import Split, Task, datasets
from tsdistill.errors import ConfigError, check_type, listed, must
from tsdistill.models import Forecaster
from tsdistill.recipe import Budget, Recipe, Source, TaskSpec, TeacherSpec, default_recipe
from tsdistill.search.space import Space
from tsdistill.spec import digest_of
from tsdistill.teachers import PrivilegedTeacher, Teacher
from tsdistill.training import Training

SEARCHED = "tsdistill"
"""Study attribute that holds what its trials have in common."""

RANGES = "ranges"
"""What varies, within what a study's trials have in common."""

OBJECTIVES = ("error", "size_bytes", "n_parameters", "n_multiplications", "latency_ms")
"""What a search can minimise."""


def checked_objectives(objectives: Sequence[str]) -> tuple[str, ...]:
    """The objectives, if a search can have them."""
    names = (objectives,) if isinstance(objectives, str) else tuple(objectives)
    if names[:1] != ("error",) or len(set(names)) < len(names) or not set(names) <= set(OBJECTIVES):
        rule = f"begin with 'error' and go on with some of {', '.join(OBJECTIVES[1:])}"
        raise ConfigError(must("objectives", rule, objectives, 'Such as ("error", "size_bytes")'))
    return names


def budget_of(max_size_bytes: int | None, budget: Budget | None) -> Budget | None:
    """One budget out of the two ways to give one."""
    if max_size_bytes is None:
        check_type("budget", budget, Budget, "Pass td.Budget(max_size_bytes=...)", optional=True)
        return budget
    if isinstance(max_size_bytes, bool) or not isinstance(max_size_bytes, int) or max_size_bytes < 1:
        raise ConfigError(must("max_size_bytes", "be a number of bytes above 0", max_size_bytes, "Leave it out"))
    if budget is not None:
        raise ConfigError(must("max_size_bytes", "be left out beside a budget", max_size_bytes, "Put it in the budget"))
    return Budget(max_size_bytes=max_size_bytes)


def check_directions(study: optuna.Study, objectives: Sequence[str]) -> None:
    """ConfigError unless the study minimises as many numbers as there are objectives."""
    directions = study.directions
    if directions != [StudyDirection.MINIMIZE] * len(objectives):
        words = ", ".join(direction.name.lower() for direction in directions)
        raise ConfigError(
            f"The study {study.study_name!r} does not minimise {' and '.join(objectives)}: its directions are {words}. "
            f"Make it with create_study(..., objectives={tuple(objectives)!r}), or give another name."
        )


def question(
    recipe: Recipe,
    task: Task,
    space: Space | Callable[..., Recipe],
    budget: Budget | None,
    objectives: Sequence[str] = ("error",),
) -> dict[str, Any]:
    """What all trials of a study have in common, as far as it is known before there is a teacher."""
    # The teacher's digest covers what its files hold; their paths may differ between machines.
    teacher = recipe.teacher.moved(lambda path: ".")
    # Candidates are left out of trials, and of what a study was begun with before there were any.
    student = recipe.student.replace(candidates=(), budget=None)
    parts = (recipe.task, teacher, student, recipe.pruning, recipe.quantization)
    return {
        "task (data, context, horizon)": task.fingerprint,
        "recipe": digest_of([None if part is None else part.to_dict() for part in parts]),
        "space": space.digest_over(recipe) if isinstance(space, Space) else _name_of(space),
        "size budget": None if budget is None else budget.max_size_bytes,
        "budget": None if budget is None else budget.replace(max_size_bytes=None).to_dict(),
        "set of objectives": list(objectives),
        **({RANGES: space.written(recipe)} if isinstance(space, Space) else {}),
    }


CHANGEABLE = ("size budget", "budget", RANGES)
"""What may change while a study goes on: every trial keeps its costs, whatever their limits were."""


def check_question(study: optuna.Study, own_question: dict[str, Any]) -> None:
    """ConfigError when a study was begun with something else; a wider space and other limits may take its place."""
    study_question = study.user_attrs.get(SEARCHED, {})
    names = [name for name in own_question if name in study_question and name not in CHANGEABLE]
    differing = [name for name in names if study_question[name] != own_question[name]]
    why = ""
    if "space" in differing and RANGES in study_question and RANGES in own_question:
        problems = narrowed(study_question[RANGES], own_question[RANGES])
        if not problems:
            differing.remove("space")
        why = f" ({'; '.join(problems[:3])})"
    if differing:
        others = " and ".join(f"a different {name}{why if name == 'space' else ''}" for name in differing)
        raise ConfigError(
            f"The study {study.study_name!r} was begun with {others}: its trials cannot be compared with new ones as "
            "they are. Give another name (--name) and this study as its warm start (--warm-start), or search as before."
        )


def narrowed(earlier: Mapping[str, Any], ranges: Mapping[str, Any]) -> list[str]:
    """Why a study cannot go on from an earlier space with this one; nothing where it is as wide or wider."""
    problems = []
    for address, before in earlier.items():
        now = ranges.get(address)
        if now is None:
            problems.append(f"{address} varies no more")
        elif isinstance(before, dict) and isinstance(now, dict):
            alike = {**before, "low": 0, "high": 0} == {**now, "low": 0, "high": 0}
            if not alike or now["low"] > before["low"] or now["high"] < before["high"]:
                problems.append(f"{address} is narrower")
        elif before != now and not _holds(now, before):
            # Optuna lets nobody change the choices of an address within a study.
            problems.append(f"{address} has other choices")
    return problems


def _holds(now: Any, before: Any) -> bool:
    """Whether what varies now holds a value that was set, and not drawn, before."""
    if not isinstance(before, list) or len(before) != 1:
        return False
    (value,) = before
    if isinstance(now, dict):
        return isinstance(value, int | float) and now["low"] <= value <= now["high"]
    return value in now


LEARNING = {"CmaEsSampler": optuna.samplers.CmaEsSampler}
"""Samplers that learn from one value and from nothing else."""


def check_sampler(study: optuna.Study, objectives: Sequence[str], budget: Budget | None) -> None:
    """ConfigError for a sampler of Optuna's that cannot do what is asked; one that learns nothing can do anything."""
    sampler = study.sampler
    sampler = getattr(sampler, "_base_sampler", sampler)  # of a PartialFixedSampler
    name = next((name for name, kind in LEARNING.items() if isinstance(sampler, kind)), None)
    limits = {} if budget is None else budget.limits
    if name is None or (len(objectives) == 1 and not limits):
        return
    rule = "be one that can do several objectives" if len(objectives) > 1 else f"keep limits ({', '.join(limits)})"
    remedy = "Leave it out for TPE, or take NSGAIISampler, NSGAIIISampler or GPSampler"
    raise ConfigError(must("sampler", rule, name, remedy))


def recipe_of(teacher: Teacher, task: Task) -> Recipe:
    """The bundled recipe with this task and teacher in it, for panels that have a name in the catalogue."""
    if task.panel.name not in datasets.names() or not isinstance(teacher, Forecaster):
        raise ConfigError(
            "`recipe` must be given unless the panel comes from td.datasets and the teacher from td.train, got "
            f"recipe=None, a panel {task.panel.name!r} and a teacher of type {type(teacher).__name__}. A recipe says "
            "where the data comes from, so that the result can be run: td.Recipe(data={'path': 'my.csv'}, ...)."
        )
    trainings = [step.spec["training"] for step in teacher.lineage if "training" in step.spec]
    training = Training.from_dict(trainings[-1]) if trainings else Training()
    base = default_recipe()
    return base.replace(
        name=task.panel.name,
        data=Source(dataset=task.panel.name),
        task=TaskSpec(
            context=task.context,
            horizon=task.horizon,
            split=None if task.split == _usual_split(task) else task.split,
            scaler=task.scaler,
            covariates=task.covariates,
            short=task.short,
        ),
        teacher=TeacherSpec(model=teacher.config, training=training, **_own_inputs(teacher, task)),
    )


def _own_inputs(teacher: Forecaster, task: Task) -> dict[str, Any]:
    """What a trained teacher sees that the task does not have, as fields of its spec."""
    own = teacher.signature
    inputs: dict[str, Any] = {"context": own.context} if own.context > task.context else {}
    if own.covariates is not None and own.covariates != task.covariates:
        inputs["covariates"] = own.covariates
    return inputs


def check_recipe(recipe: Recipe, teacher: Teacher, task: Task) -> None:
    """The recipe has to describe the very task and teacher of the search, or the result would be run with others."""
    compared: dict[str, tuple[Any, Any]] = {
        "task.context": (recipe.task.context, task.context),
        "task.horizon": (recipe.task.horizon, task.horizon),
        "task.scaler": (recipe.task.scaler, task.scaler),
        "task.covariates": (recipe.task.covariates, task.covariates),
        "task.short": (recipe.task.short, task.short),
        "task.split": (recipe.task.split or _usual_split(task), task.split),
    }
    remedies = {"task": "Make the task with recipe.task.build(panel)"}
    lineage = teacher.lineage if isinstance(teacher, Forecaster) else ()
    if lineage:
        compared["teacher.trust"] = (recipe.teacher.trust, None)
        remedies["teacher"] = "Give the recipe the model and training of the teacher"
    # A recipe cannot describe later training of other teachers, or what a folder holds.
    if [step.verb for step in lineage] == ["train"] and isinstance(recipe.teacher, TeacherSpec):
        training = Training.from_dict(lineage[0].spec["training"])
        compared["teacher.model"] = (recipe.teacher.model, teacher.config)  # type: ignore[attr-defined]
        compared["teacher.training"] = (recipe.teacher.training, training)
        own_inputs = _own_inputs(teacher, task)  # type: ignore[arg-type]
        compared |= {f"teacher.{name}": (getattr(recipe.teacher, name), value) for name, value in own_inputs.items()}
    problems = [
        must(f"recipe.{name}", f"be the {name.split('.')[0]}'s ({actual!r})", value, remedies[name.split(".")[0]])
        for name, (value, actual) in compared.items()
        if value != actual
    ]
    if problems:
        raise ConfigError(listed(problems, "the recipe for this search"))


def _usual_split(task: Task) -> Split:
    return task.panel.split or Split.fractions(0.7, 0.1, 0.2)


def origin(teacher: Teacher) -> str:
    """How a teacher came to be: two machines that train the same one need not agree in the last bit."""
    if isinstance(teacher, PrivilegedTeacher):
        return digest_of(["privileged", origin(teacher.teacher), teacher.own_task.fingerprint])
    lineage = getattr(teacher, "lineage", ())
    if not lineage:
        return teacher.digest
    return digest_of([[step.verb, step.spec, step.seed, step.data] for step in lineage])


def _name_of(suggest: Callable[..., Recipe]) -> str:
    return f"{getattr(suggest, '__module__', '')}.{getattr(suggest, '__qualname__', type(suggest).__qualname__)}"
