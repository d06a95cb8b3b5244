"""What a trial is worth: the validation error of the model that its recipe would deploy."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import BaseTrial

from tsdistill.data import Split, Task, datasets
from tsdistill.errors import ConfigError, TsdistillError, UnsupportedError, check_type, lack_of_memory, listed, must
from tsdistill.evaluation import evaluate
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster
from tsdistill.recipe import InMemory, Recipe, Source, TaskSpec, TeacherSpec, default_recipe, make_models
from tsdistill.search.space import Space
from tsdistill.spec import digest_of
from tsdistill.teachers import PrivilegedTeacher, Teacher
from tsdistill.training import Training

SEARCHED = "tsdistill"
"""Study attribute that holds what its trials have in common."""


class TrialObjective:
    """The function `objective` gives; made once per process, called once per trial."""

    def __init__(
        self,
        space: Space,
        teacher: Teacher,
        task: Task,
        *,
        recipe: Recipe | None,
        max_size_bytes: int | None,
        cache: str | Path | None,
    ) -> None:
        if max_size_bytes is not None and (not isinstance(max_size_bytes, int) or max_size_bytes < 1):
            raise ConfigError(must("max_size_bytes", "be a number of bytes above 0", max_size_bytes, "Leave it out"))
        check_type("space", space, Space, "Pass td.search.Space()")
        check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
        check_type("recipe", recipe, Recipe, "Read one with td.Recipe.from_file(path)", optional=True)
        self.space = space
        self.teacher = teacher
        self.task = task
        self.max_size_bytes = max_size_bytes
        self.recipe = recipe_of(teacher, task) if recipe is None else recipe
        _check_recipe(self.recipe, teacher, task)
        space.check(self.recipe)
        if cache is None:
            # The teacher forecasts the training part once, not once per trial.
            cache = tempfile.mkdtemp(prefix="tsdistill-teacher-")
            weakref.finalize(self, shutil.rmtree, cache, ignore_errors=True)
        self.cache = Path(cache)
        self._agreed: set[str] = set()

    def __call__(self, trial: BaseTrial) -> float:
        """Distil, prune and deploy the recipe of a trial; MSE of what is deployed on the validation part."""
        study = getattr(trial, "study", None)  # a FixedTrial belongs to none
        if study is not None and study.study_name not in self._agreed:
            self.agree(study)
        began = time.perf_counter()
        try:
            recipe = self.space.propose(trial, self.recipe)
            trial.set_user_attr("recipe", recipe.to_json())
            deployed = self._deployed(recipe)
            error = evaluate(deployed, self.task, part="validation")["mse"]
        except TsdistillError as failure:
            trial.set_user_attr("reason", str(failure))
            raise
        details = {
            "size_bytes": deployed.size_bytes,
            "n_parameters": deployed.n_parameters,
            "precision": deployed.precision,
            "seconds": round(time.perf_counter() - began, 2),
        }
        for name, value in details.items():
            trial.set_user_attr(name, value)
        if self.max_size_bytes is not None:
            trial.set_constraint("size_bytes", deployed.size_bytes - self.max_size_bytes)
        return error

    def agree(self, study: optuna.Study) -> None:
        """Refuse a study whose trials answer another question; a new study is marked with this one."""
        trained = self.recipe.teacher.trains
        own_question = {
            **question(self.recipe, self.task, self.space, self.max_size_bytes),
            "teacher": _origin(self.teacher) if trained else self.teacher.digest,
        }
        check_question(study, own_question)
        if study.user_attrs.get(SEARCHED) != own_question:
            study.set_user_attr(SEARCHED, own_question)
        self._agreed.add(study.study_name)

    def _deployed(self, recipe: Recipe) -> Deployed:
        """What the recipe deploys, by the way that every run takes; a control is trained only to be chosen from."""
        try:
            models = make_models(recipe, self.task, self.teacher, InMemory(self.cache), control=False, progress=False)
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


def objective(
    space: Space,
    teacher: Teacher,
    task: Task,
    *,
    recipe: Recipe | None = None,
    max_size_bytes: int | None = None,
    cache: str | Path | None = None,
) -> TrialObjective:
    """A function of a trial for your own `study.optimize(...)`: the validation MSE of the model that would be deployed.

    Each trial is a recipe: it is proposed by the space, its student is distilled (without a control, unless the recipe
    keeps the better of the two), pruned, exported
    or quantized, and scored on the validation part through the runtime that would serve it. The test part is never
    read. A size budget is a constraint of the trial (`trial.set_constraint`), feasible at or below 0, so that the
    sampler learns to stay inside it. The trial keeps `recipe` (JSON), `size_bytes`, `n_parameters`, `precision` and
    `seconds` as user attributes; one that cannot be trained or deployed raises, and keeps the `reason`.

    Use `td.search.optimize` for a total that several processes reach together; use this with
    `study.optimize(..., catch=td.errors.TsdistillError)` for a loop of your own.

    Args:
        space: What varies.
        teacher: Who teaches; trained once, by you.
        task: Data, context and horizon; training and validation part are used.
        recipe: What does not vary, with this task, and with this teacher if it came from `td.train`; others are taken
            as they are. By default the bundled recipe over this task, if its panel is one of the catalogue's.
        max_size_bytes: Bytes the deployed artifact may take.
        cache: Folder of the teacher's forecasts, shared by trials and processes; by default one per process.

    Returns:
        A callable that takes a trial (or an `optuna.trial.FixedTrial`) and gives a float.

    Raises:
        ConfigError: The recipe is for another task or teacher, the space does not fit it, or the study (when called)
            was begun with another task, teacher or budget.
        TsdistillError: When called: training diverged, or the model cannot be deployed.

    Example:
        >>> study.optimize(objective(Space(), teacher, task), n_trials=20)      # doctest: +SKIP
    """
    return TrialObjective(space, teacher, task, recipe=recipe, max_size_bytes=max_size_bytes, cache=cache)


def question(recipe: Recipe, task: Task, space: Space, max_size_bytes: int | None) -> dict[str, Any]:
    """What all trials of a study have in common, as far as it is known before there is a teacher."""
    # The teacher's digest covers what its files hold; their paths may differ between machines.
    teacher = recipe.teacher.moved(lambda path: ".")
    # Candidates are left out of trials, and of what a study was begun with before there were any.
    student = recipe.student.replace(candidates=(), budget=None)
    parts = (recipe.task, teacher, student, recipe.pruning, recipe.quantization)
    return {
        "task (data, context, horizon)": task.fingerprint,
        "recipe": digest_of([None if part is None else part.to_dict() for part in parts]),
        "space": space.digest_over(recipe),
        "size budget": max_size_bytes,
    }


def check_question(study: optuna.Study, own_question: dict[str, Any]) -> None:
    """ConfigError when a study was begun with something else."""
    study_question = study.user_attrs.get(SEARCHED, {})
    others = [
        f"a different {name}"
        for name in own_question
        if name in study_question and study_question[name] != own_question[name]
    ]
    if others:
        raise ConfigError(
            f"The study {study.study_name!r} was begun with {' and '.join(others)}: its trials cannot be compared "
            "with new ones. Give another name (--name), or search as before; best_recipe(study, max_size_bytes=...) "
            "answers for any budget without a new search."
        )


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


def _check_recipe(recipe: Recipe, teacher: Teacher, task: Task) -> None:
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


def _origin(teacher: Teacher) -> str:
    """How a teacher came to be: two machines that train the same one need not agree in the last bit."""
    if isinstance(teacher, PrivilegedTeacher):
        return digest_of(["privileged", _origin(teacher.teacher), teacher.own_task.fingerprint])
    lineage = getattr(teacher, "lineage", ())
    if not lineage:
        return teacher.digest
    return digest_of([[step.verb, step.spec, step.seed, step.data] for step in lineage])
