"""From a recipe to a deployed model: teacher, student, pruned, deployed, report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tsdistill.artifacts import save
from tsdistill.data import Task
from tsdistill.distillation import distill, refit
from tsdistill.errors import TsdistillError, check_type, lack_of_memory
from tsdistill.evaluation import Method, evaluate, statistical
from tsdistill.exporting import Deployed, export
from tsdistill.files import write_atomic
from tsdistill.formats import read_regular
from tsdistill.models import Forecaster, ModelConfig, versions
from tsdistill.pruning import Pruning, prune
from tsdistill.quantization import quantize, replay
from tsdistill.recipe import choosing
from tsdistill.recipe.spec import Recipe
from tsdistill.recipe.teacher_builder import make_teacher, shown_digest
from tsdistill.recipe.workspace import Model, Workspace, as_deployed, as_trainable, read_mark
from tsdistill.report import Report, compare
from tsdistill.spec import digest_of
from tsdistill.teachers import Teacher
from tsdistill.training import train
from tsdistill.training.loop import OnEpoch
from tsdistill.training.refitting import is_refitted
from tsdistill.training.starting import start_info, warmed

MAX_REPORT_BYTES = 256 * 2**20

FULL_PRECISION = "fp32"


@dataclass(frozen=True)
class Run:
    """What a recipe that was run left: models in the order they were made, the report, and where they are on disk.

    The teacher is a `td.Forecaster` where the recipe trains it or reads a saved one, else what the recipe names.
    """

    recipe: Recipe
    task: Task
    teacher: Teacher
    student: Forecaster
    pruned: Forecaster | None
    deployed: Deployed
    report: Report
    folder: Path

    @property
    def artifact(self) -> Path:
        """Folder of the deployed model."""
        return self.folder / "artifact"

    @property
    def replay(self) -> Recipe:
        """The recipe with what was chosen in place of the choices (form, teacher): run again, it asks no clock."""
        recipe = self.recipe.replace(teacher=self.recipe.teacher.replayed(self.teacher))
        return recipe if recipe.quantization is None else recipe.replace(quantization=replay(self.deployed))


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    cache: str | Path | None = None,
    warm_from: str | Path | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
    on_stage: Callable[[str, Model], None] | None = None,
) -> Run:
    """Run a recipe from data to report and artifact; run it again to continue where it was stopped.

    Teacher, student (and its control), pruned student and deployed model are made in this order, each from the
    training and validation parts; the test part is read once, by the comparison at the end. Each finished stage is
    kept in `out` under a key of everything that shaped it: a changed recipe makes only what it changes.

    Args:
        recipe: What to do.
        out: Folder for everything: `artifact/` to deploy, `report.html` and `report.json`, `recipe.toml`, `log.jsonl`,
            `stages/` with every model.
        cache: Folder of teacher forecasts, to share between runs; by default inside `out`.
        warm_from: Folder of an earlier run, perhaps of last week's rows: teacher and students that are trained by steps
            go on from its weights where architecture, steps and channels are the same, over a tenth of the windows at
            a third of the rate. What does not fit begins anew, and `say` is told.
        progress: Show progress bars; None shows them in a terminal only.
        say: Called with a line for people as stages begin and end.
        on_stage: Called with the name and the model of every stage as it is finished.

    Returns:
        Models, report and paths.

    Raises:
        DataError: the data cannot be used; every problem is listed.
        ConfigError: a part of the recipe does not fit the data.
        ShapeError: the teacher forecasts other steps or channels than the task's.
        ArtifactError: a saved or Hugging Face teacher that cannot be read.
        UnsupportedError: a step that the models cannot take, or INT8 that was demanded and does not pay.
        OrderError: another run holds the folder.
        DivergenceError: training met an infinite or NaN loss.

    Example:
        >>> import tsdistill as td
        >>> result = td.run(td.Recipe.from_file("recipe.toml"), "out")    # doctest: +SKIP
        >>> print(result.report)                                          # doctest: +SKIP
    """
    check_type("recipe", recipe, Recipe, "Read one with td.Recipe.from_file(path)")
    workspace = Workspace(out, cache=cache, say=say, warm_from=warm_from)
    with workspace.locked():
        write_atomic(workspace.folder / "recipe.toml", from_anywhere(recipe).to_toml())
        task = recipe.task.build(recipe.data.load())
        for name in recipe.baselines:
            statistical(name, task)  # refused, if at all, before anything is trained
        teacher = make_teacher(recipe, task, workspace, progress)
        made = make_models(recipe, task, teacher, workspace, progress=progress, on_stage=on_stage)
        models: dict[str, Any] = {"teacher": teacher, **made}
        report = make_report(task, models, workspace, progress, baselines=recipe.baselines)
        deployed = as_deployed(list(models.values())[-1])
        # Errors on rows that it has learnt from would say nothing.
        metrics = None if is_refitted(deployed) else evaluate(deployed, task, part="validation")
        save(deployed, workspace.folder / "artifact", metrics=metrics)
    student = as_trainable(models["student"])
    pruned = as_trainable(models["pruned"]) if "pruned" in models else None
    return Run(recipe, task, teacher, student, pruned, deployed, report, workspace.folder)


class Stages(Protocol):
    """Where the models of a pipeline are made: a `Workspace` keeps finished ones, `InMemory` makes each anew."""

    @property
    def cache(self) -> Path | None:
        """Folder of the teacher's forecasts."""

    def start(self, name: str, config: ModelConfig, task: Task, *, control: bool = False) -> Forecaster | None:
        """What the training of a stage goes on from, with a control if asked; None begins with random weights."""

    def stage(self, name: str, inputs: dict[str, Any], make: Callable[[Path | None], Model]) -> Model:
        """What `make(checkpoint)` gives, made now or kept from an earlier run with the same inputs."""


@dataclass(frozen=True)
class InMemory:
    """Stages that are made when they are asked for and kept nowhere: those of a trial.

    Args:
        cache: Folder of the teacher's forecasts.
    """

    cache: Path | None = None

    def start(self, name: str, config: ModelConfig, task: Task, *, control: bool = False) -> Forecaster | None:
        """Nothing."""
        return None

    def stage(self, name: str, inputs: dict[str, Any], make: Callable[[Path | None], Model]) -> Model:
        """What `make` gives."""
        return make(None)


def make_models(
    recipe: Recipe,
    task: Task,
    teacher: Teacher,
    stages: Stages,
    *,
    control: bool = True,
    progress: bool | None = None,
    on_stage: Callable[[str, Model], None] | None = None,
    on_epoch: OnEpoch | None = None,
    timed: bool = True,
) -> dict[str, Model]:
    """Every model that a recipe makes with a teacher, in order, the deployed one last: student, pruned, deployed.

    The one way from a recipe to what is deployed: runs, retraining jobs and the trials of a search all take it. The
    test part is not read. `run` compares the models afterwards; a retraining job judges the last one.

    Args:
        recipe: What to make.
        task: The recipe's task.
        teacher: The recipe's teacher.
        stages: Where models are made and kept.
        control: Train the same student without a teacher beside it; also done where the recipe keeps the better one.
        progress: Show progress bars; None shows them in a terminal only.
        on_stage: Called with the name and the model of every stage as it is finished; what it raises ends the making.
        on_epoch: Called after every epoch of the student's training, see `td.distill`; not with candidates.
        timed: Take the time of quantized forms also where nothing goes by it; not with candidates.

    Returns:
        Models by name; the last name is the precision of what is deployed, "deployed" for float32. Of several
        candidates, those of the one that was chosen.
    """
    if recipe.student.candidates:
        return _chosen(recipe, task, teacher, stages, progress, on_stage)
    making = _Making(recipe, task, teacher, stages, control or recipe.student.keeps_better, progress, on_epoch, timed)
    models: dict[str, Model] = {}

    def finished(name: str, model: Model) -> None:
        models[name] = model
        if on_stage is not None:
            on_stage(name, model)

    student = smallest = making.student()
    finished("student", student)
    if recipe.student.training.refit is not None:
        smallest = making.refitted(student)
        finished("refitted", smallest)
    if recipe.pruning is not None:
        smallest = making.pruned(smallest, recipe.pruning)
        finished("pruned", smallest)
    deployed = making.deployed(smallest)
    finished("deployed" if deployed.precision == FULL_PRECISION else deployed.precision, deployed)
    return models


def _chosen(
    recipe: Recipe,
    task: Task,
    teacher: Teacher,
    stages: Stages,
    progress: bool | None,
    on_stage: Callable[[str, Model], None] | None,
) -> dict[str, Model]:
    """Every candidate made to the end, and the models of the one to deploy; fitted again only once it is chosen."""
    made: dict[str, dict[str, Model]] = {}
    problems: dict[str, str] = {}
    contenders = choosing.contenders(recipe, task)
    for name, contender in contenders.items():
        first = contender.replace(student=contender.student.without_refit())
        try:
            made[name] = make_models(first, task, teacher, choosing.Within(stages, name), progress=progress)
        except choosing.REFUSED as error:
            problems[name] = str(error)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, TsdistillError) or lack_of_memory(error) is None:
                raise
            problems[name] = "it does not fit into memory"
    if not made:
        raise choosing.none_left(problems)
    name, models = choosing.choose(made, problems, task, recipe.student.budget, stages)
    if contenders[name].student.training.refit is not None:
        final = make_models(contenders[name], task, teacher, choosing.Within(stages, name), progress=progress)
        models = choosing.replaced(models, final)
    if on_stage is not None:
        for name, model in models.items():
            on_stage(name, model)
    return models


@dataclass(frozen=True)
class _Making:
    """What every stage of a pipeline needs; a stage asks for the teacher where its spec needs one."""

    recipe: Recipe
    task: Task
    teacher: Teacher
    stages: Stages
    control: bool
    progress: bool | None
    on_epoch: OnEpoch | None = None
    timed: bool = True

    def student(self) -> Forecaster:
        spec = self.recipe.student.without_refit()
        start = self.stages.start("student", spec.model, self.task, control=self.control)
        training = spec.training if start is None else warmed(spec.training, len(self.task.train))

        def make(checkpoint: Path | None) -> Forecaster:
            if not spec.model.learns:  # there is nothing for a teacher to shape
                return train(spec.model, self.task, spec.training, on_epoch=self.on_epoch)
            return distill(
                self.teacher,
                spec.model,
                self.task,
                losses=spec.losses,
                training=training,
                start=start,
                control=self.control,
                keep=spec.keep,
                cache=self.stages.cache,
                checkpoint=checkpoint,
                progress=self.progress,
                on_epoch=self.on_epoch,
            )

        inputs = {**self._inputs(self.teacher), **spec.to_dict(), **start_info(start)}
        return as_trainable(self.stages.stage("student", inputs, make))

    def refitted(self, student: Forecaster) -> Forecaster:
        def make(checkpoint: Path | None) -> Forecaster:
            return refit(
                student,
                self.task,
                teacher=self.teacher,
                losses=self.recipe.student.losses,
                cache=self.stages.cache,
                progress=self.progress,
            )

        inputs = {**self._inputs(self.teacher), **_digests(student), **self.recipe.student.without_refit().to_dict()}
        return as_trainable(self.stages.stage("refitted", inputs, make))

    def pruned(self, student: Forecaster, spec: Pruning) -> Forecaster:
        teacher = self.teacher if spec.needs_teacher else None

        def make(checkpoint: Path | None) -> Forecaster:
            return prune(student, self.task, spec, teacher=teacher, **self._options(checkpoint))

        inputs = {**self._inputs(self.teacher), **_digests(student), **spec.to_dict()}
        return as_trainable(self.stages.stage("pruned", inputs, make))

    def deployed(self, model: Forecaster) -> Deployed:
        spec = self.recipe.quantization
        teacher = self.teacher if spec is not None and spec.needs_teacher else None

        def make(checkpoint: Path | None) -> Deployed:
            if spec is None:
                return export(model, self.task)
            options = self._options(checkpoint)
            return quantize(model, self.task, spec, teacher=teacher, timed=self.timed, **options)

        written = None if spec is None else spec.to_dict()
        inputs = {**self._inputs(teacher), **_digests(model), "quantization": written}
        return as_deployed(self.stages.stage("deployed", inputs, make))

    def _inputs(self, teacher: Teacher | None) -> dict[str, Any]:
        return {"task": self.task.fingerprint, **({} if teacher is None else {"teacher": teacher.digest})}

    def _options(self, checkpoint: Path | None) -> dict[str, Any]:
        return {"cache": self.stages.cache, "checkpoint": checkpoint, "progress": self.progress}


def make_report(
    task: Task,
    models: dict[str, Any],
    workspace: Workspace,
    progress: bool | None = None,
    *,
    baselines: tuple[Method, ...] = (),
) -> Report:
    """Measure once; a finished report of the same models is kept, because latency would differ every time."""
    path = workspace.folder / "report.json"
    mark = workspace.folder / "stages" / "report.key"
    page = workspace.folder / "report.html"
    shown = {name: _digests(model) for name, model in models.items()}
    data = [task.fingerprint, task.test.fingerprint, task.panel.name, str(task.panel.notes)]
    key = digest_of([shown, data, versions()["tsdistill"], *baselines])
    if page.exists() and read_mark(mark) == key and (report := _kept_report(path)) is not None:
        return report
    # Gone before anything is replaced: a mark must never stand beside a report it was not made for.
    mark.unlink(missing_ok=True)
    report = compare(models, task, baselines=baselines, progress=progress)
    write_atomic(path, report.to_json())
    report.to_html(page)
    write_atomic(mark, key)
    workspace.log(stage="report")
    return report


def _kept_report(path: Path) -> Report | None:
    """An earlier run's report, if it is whole."""
    try:
        return Report.from_json(read_regular(path, MAX_REPORT_BYTES).decode("utf-8"))
    except (OSError, ValueError):
        return None


def from_anywhere(recipe: Recipe) -> Recipe:
    """The recipe with full paths: it is going to lie in another folder."""
    return recipe.moved(lambda path: os.path.realpath(path))


def _digests(model: Any) -> dict[str, str | None]:
    """A model and its control, by digest."""
    control = getattr(model, "control", None)
    return {"model": shown_digest(model), "control": None if control is None else control.digest}
