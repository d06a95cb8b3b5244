"""A recipe's teacher: trained in the workspace, or read from where the recipe says."""

from __future__ import annotations

import time
from typing import Any

from tsdistill.artifacts import load
from tsdistill.data import Task
from tsdistill.errors import ConfigError, DataError, OrderError, TsdistillError, must, nearest
from tsdistill.models import Forecaster
from tsdistill.recipe.spec import Recipe
from tsdistill.recipe.teacher import (
    EnsembleTeacherSpec,
    HuggingFaceTeacherSpec,
    RegressorTeacherSpec,
    SavedTeacherSpec,
    TableTeacherSpec,
    TeacherSpec,
)
from tsdistill.recipe.workspace import Workspace
from tsdistill.spec import digest_of
from tsdistill.teachers import (
    ForecastTable,
    RescaledTeacher,
    Teacher,
    TeacherEnsemble,
    TrustedTeacher,
    from_huggingface,
    from_sklearn,
    read_forecasts,
    same_scaling,
)
from tsdistill.training import train


def make_teacher(recipe: Recipe, task: Task, workspace: Workspace, progress: bool | None = None) -> Teacher:
    """The recipe's teacher for a task, trained or kept in this workspace, or read; trials of a search share it so.

    What is read is read every time, so that its digest is that of what lies there now: stages and cached forecasts are
    kept under it, and a table or folder that has changed never meets those of the old one.
    """
    return _made(recipe.teacher, task, workspace, progress, "teacher")


def _made(spec: Any, task: Task, workspace: Workspace, progress: bool | None, stage: str) -> Teacher:
    teacher: Teacher
    if isinstance(spec, TeacherSpec):
        teacher = _trained(spec, task, workspace, progress, stage)
    else:
        workspace.say(f"{stage} ...")
        began = time.perf_counter()
        if isinstance(spec, EnsembleTeacherSpec):
            # What is only read comes first: a file that is wrong is found before anything is trained.
            order = sorted(range(len(spec.members)), key=lambda place: isinstance(spec.members[place], TeacherSpec))
            made = {n: _made(spec.members[n], task, workspace, progress, f"{stage}-{n + 1}") for n in order}
            teacher = TeacherEnsemble([made[n] for n in sorted(made)], task, spec.weights)
        else:
            teacher = _read(spec, task)
        seconds = time.perf_counter() - began
        workspace.log(stage=stage, kind=spec.kind, digest=teacher.digest, **spec.paths, seconds=round(seconds, 2))
        workspace.say(f"{stage} is {teacher!r}")
    return teacher if spec.trust is None else TrustedTeacher(teacher, task, sharpness=spec.trust)


def _trained(spec: TeacherSpec, task: Task, workspace: Workspace, progress: bool | None, stage: str) -> Forecaster:
    # Trust changes nothing about the training.
    inputs = {"task": task.fingerprint, **spec.replace(trust=None).to_dict()}
    found = workspace.stage(
        stage,
        inputs,
        lambda checkpoint: train(spec.model, task, spec.training, checkpoint=checkpoint, progress=progress),
    )
    if not isinstance(found, Forecaster):
        raise TypeError(f"expected a trainable model, got {type(found).__name__}")
    return found


def _read(spec: Any, task: Task) -> Teacher:
    """A teacher that comes from elsewhere, or is fitted at once."""
    if isinstance(spec, TableTeacherSpec):
        columns = {name: getattr(spec, name) for name in ("id", "time", "cutoff", "forecast", "channel")}
        try:
            return read_forecasts(spec.path, task, **columns)
        except DataError as error:
            raise DataError(f"In the table of forecasts {spec.path}: {error}") from None
    if isinstance(spec, HuggingFaceTeacherSpec):
        return from_huggingface(spec.path, task, units=spec.units)
    if isinstance(spec, SavedTeacherSpec):
        return _loaded(spec, task)
    return _fitted(spec, task)


def _loaded(spec: SavedTeacherSpec, task: Task) -> Teacher:
    """A saved forecaster, brought to the task's scale where it was trained on other rows."""
    model = load(spec.path)
    if not isinstance(model, Forecaster):
        raise OrderError(
            f"`teacher.path` must hold a trainable forecaster, and {spec.path} holds a deployed one. Save the "
            "forecaster before it is exported or quantized."
        )
    return model if same_scaling(model.signature, task.signature) else RescaledTeacher(model, task)


def _fitted(spec: RegressorTeacherSpec, task: Task) -> Teacher:
    """A regressor out of a closed list, with parameters that are plain data."""
    from sklearn import ensemble, neighbors

    known = {
        "ExtraTreesRegressor": ensemble.ExtraTreesRegressor,
        "HistGradientBoostingRegressor": ensemble.HistGradientBoostingRegressor,
        "KNeighborsRegressor": neighbors.KNeighborsRegressor,
        "RandomForestRegressor": ensemble.RandomForestRegressor,
    }
    regressor = known[spec.regressor]()
    parameters = regressor.get_params()
    if unknown := [name for name in spec.settings if name not in parameters]:
        rule = f"be parameters of {spec.regressor}"
        raise ConfigError(must("teacher.settings", rule, unknown, nearest(unknown[0], parameters)))
    seed = {"random_state": spec.seed} if "random_state" in parameters else {}
    try:
        return from_sklearn(
            regressor.set_params(**seed, **spec.settings), task, n_windows=spec.n_windows, seed=spec.seed
        )
    except TsdistillError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`teacher.settings` must suit {spec.regressor}: {error}") from None


def shown_digest(teacher: Any) -> str:
    """Digest of all that a report can show of a teacher: of a table's forecasts for the test part too."""
    if isinstance(teacher, ForecastTable):
        return teacher.shown_digest
    if isinstance(teacher, TrustedTeacher):
        return digest_of([teacher.digest, shown_digest(teacher.teacher)])
    if isinstance(teacher, TeacherEnsemble):
        return digest_of([teacher.digest, *map(shown_digest, teacher.teachers)])
    return str(teacher.digest)
