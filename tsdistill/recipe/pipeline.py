"""Cook a recipe: teacher, student, pruned, deployed, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsdistill.artifacts import save
from tsdistill.data import Task
from tsdistill.distillation import distill
from tsdistill.evaluation import Method, evaluate, statistical
from tsdistill.exporting import Deployed, export
from tsdistill.models import Forecaster, versions
from tsdistill.pruning import prune
from tsdistill.quantization import quantize
from tsdistill.recipe.spec import Recipe
from tsdistill.recipe.teacher_builder import make_teacher, shown_digest
from tsdistill.recipe.workspace import Workspace, write_text
from tsdistill.report import Report, compare
from tsdistill.spec import digest_of
from tsdistill.teachers import Teacher


@dataclass(frozen=True)
class Run:
    """What a cooked recipe left: models in the order they were made, the report, and where they are on disk.

    The teacher is a `td.Forecaster` where the recipe trains it or reads a saved one, else what the recipe says.
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


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    cache: Path | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Cook a recipe from data to report and artifact; run it again to continue where it was stopped.

    Teacher, student (and its control), pruned student and deployed model are made in this order, each from the
    training and validation parts; the test part is read once, by the comparison at the end. Each finished stage is
    kept in `out` under a key of everything that shaped it: a changed recipe makes only what it changes.

    Args:
        recipe: What to do.
        out: Folder for everything: `artifact/` to deploy, `report.html` and `report.json`, `recipe.toml`, `log.jsonl`,
            `stages/` with every model.
        cache: Folder of teacher forecasts, to share between runs; by default inside `out`.
        progress: Show progress bars; None shows them in a terminal only.
        say: Called with a line for people as stages begin and end.

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
    workspace = Workspace(out, cache=cache, say=say)
    with workspace.locked():
        write_text(workspace.folder / "recipe.toml", from_anywhere(recipe).to_toml())
        task = recipe.task.build(recipe.data.load())
        for name in recipe.baselines:
            statistical(name, task)  # refused, if at all, before anything is trained
        models = make_models(recipe, task, workspace, progress)
        report = make_report(task, models, workspace, progress, baselines=recipe.baselines)
        deployed = _deployed(list(models.values())[-1])
        save(deployed, workspace.folder / "artifact", metrics=evaluate(deployed, task, split="validation"))
    student = _trainable(models["student"])
    pruned = _trainable(models["pruned"]) if "pruned" in models else None
    return Run(recipe, task, models["teacher"], student, pruned, deployed, report, workspace.folder)


def make_models(recipe: Recipe, task: Task, workspace: Workspace, progress: bool | None = None) -> dict[str, Any]:
    """Every model of a recipe in the order they are made, the deployed one last; finished stages are kept.

    The test part is not read. `run` compares the models afterwards; a retraining job judges the last one.
    """
    teacher = make_teacher(recipe, task, workspace, progress)
    student = _make_student(recipe, task, teacher, workspace, progress)
    pruned = _make_pruned(recipe, task, teacher, student, workspace, progress)
    deployed = _make_deployed(recipe, task, teacher, pruned or student, workspace, progress)
    models: dict[str, Any] = {"teacher": teacher, "student": student}
    if pruned is not None:
        models["pruned"] = pruned
    return {**models, "deployed" if deployed.precision == "fp32" else deployed.precision: deployed}


def _make_student(
    recipe: Recipe, task: Task, teacher: Teacher, workspace: Workspace, progress: bool | None
) -> Forecaster:
    spec = recipe.student
    return _trainable(
        workspace.stage(
            "student",
            {"task": task.fingerprint, "teacher": teacher.digest, **spec.to_dict()},
            lambda checkpoint: distill(
                teacher,
                spec.model,
                task,
                losses=spec.losses,
                training=spec.training,
                keep=spec.keep,
                cache=workspace.cache,
                checkpoint=checkpoint,
                progress=progress,
            ),
        )
    )


def _make_pruned(
    recipe: Recipe, task: Task, teacher: Teacher, student: Forecaster, workspace: Workspace, progress: bool | None
) -> Forecaster | None:
    spec = recipe.pruning
    if spec is None:
        return None
    mentor = teacher if spec.recover_from is None else None
    return _trainable(
        workspace.stage(
            "pruned",
            {"task": task.fingerprint, "teacher": teacher.digest, **_of(student), **spec.to_dict()},
            lambda checkpoint: prune(
                student, task, spec, teacher=mentor, cache=workspace.cache, checkpoint=checkpoint, progress=progress
            ),
        )
    )


def _make_deployed(
    recipe: Recipe, task: Task, teacher: Teacher, model: Forecaster, workspace: Workspace, progress: bool | None
) -> Deployed:
    spec = recipe.quantization
    # Other methods train nothing, and have no use for a teacher.
    mentor = teacher if spec is not None and spec.method == "qat" else None

    def make(checkpoint: Path) -> Deployed:
        if spec is None:
            return export(model, task)
        how: dict[str, Any] = {"cache": workspace.cache, "checkpoint": checkpoint, "progress": progress}
        return quantize(model, task, spec, teacher=mentor, **how)

    inputs = {"task": task.fingerprint, **_of(model), "quantization": None if spec is None else spec.to_dict()}
    if mentor is not None:
        inputs["teacher"] = mentor.digest
    return _deployed(workspace.stage("deployed", inputs, make))


def make_report(
    task: Task,
    models: dict[str, Any],
    workspace: Workspace,
    progress: bool | None = None,
    *,
    baselines: tuple[Method, ...] = (),
) -> Report:
    """Measure once; a finished report of the same models is kept, because latency would differ every time."""
    path, mark = workspace.folder / "report.json", workspace.folder / "stages" / "report.key"
    page = workspace.folder / "report.html"
    shown = {name: _of(model) for name, model in models.items()}
    data = [task.fingerprint, task.test.fingerprint, task.panel.name, str(task.panel.notes)]
    key = digest_of([shown, data, versions()["tsdistill"], *baselines])
    if path.exists() and page.exists() and mark.exists() and mark.read_text().strip() == key:
        return Report.from_json(path.read_text(encoding="utf-8"))
    # Gone before anything is replaced: a mark must never stand beside a report it was not made for.
    mark.unlink(missing_ok=True)
    report = compare(models, task, baselines=baselines, progress=progress)
    write_text(path, report.to_json())
    report.to_html(page)
    write_text(mark, key)
    workspace.log(stage="report")
    return report


def from_anywhere(recipe: Recipe) -> Recipe:
    """The recipe with full paths: it is going to lie in another folder."""
    return recipe.moved(lambda path: str(Path(path).resolve()))


def _of(model: Any) -> dict[str, str | None]:
    """A model and its control, by digest."""
    control = getattr(model, "control", None)
    return {"model": shown_digest(model), "control": None if control is None else control.digest}


def _trainable(model: Any) -> Forecaster:
    if not isinstance(model, Forecaster):
        raise TypeError(f"expected a trainable model, got {type(model).__name__}")
    return model


def _deployed(model: Any) -> Deployed:
    if not isinstance(model, Deployed):
        raise TypeError(f"expected a deployed model, got {type(model).__name__}")
    return model
