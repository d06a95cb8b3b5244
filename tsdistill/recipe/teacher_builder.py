"""A recipe's teacher, built from its spec: trained in the workspace, or read from where the recipe points."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from tsdistill.data import Task
from tsdistill.models import Forecaster
from tsdistill.recipe.spec import Recipe
from tsdistill.recipe.teacher import RecipeTeacher, TeacherSpec
from tsdistill.recipe.workspace import Workspace
from tsdistill.spec import digest_of
from tsdistill.teachers import ForecastTable, PrivilegedTeacher, Teacher, TeacherEnsemble, TrustedTeacher
from tsdistill.training import train


def make_teacher(recipe: Recipe, task: Task, workspace: Workspace, progress: bool | None = None) -> Teacher:
    """The recipe's teacher for a task, trained or kept in this workspace, or read; trials of a search share it so.

    Teachers from files are read every time, so that the digest is that of the present content. Stages and cached
    forecasts are kept under it, so that a table or folder that has changed is never mixed up with the old one.
    """
    return _Builder(task, workspace, progress).build(recipe.teacher)


@dataclass(frozen=True)
class _Builder:
    """Builds a teacher, and the members of an ensemble, each under a stage's name of its own."""

    task: Task
    workspace: Workspace
    progress: bool | None
    stage: str = "teacher"

    def build(self, spec: RecipeTeacher) -> Teacher:
        """The teacher of a spec, weighed by trust where the spec asks for it."""
        teacher = spec.build(self) if spec.trains else self._read(spec)
        return teacher if spec.trust is None else TrustedTeacher(teacher, self.task, sharpness=spec.trust)

    def trained(self, spec: TeacherSpec) -> Forecaster:
        """Trained now, or kept from an earlier run with the same spec."""
        # Trust changes nothing about the training.
        inputs = {"task": self.task.fingerprint, **spec.replace(trust=None).to_dict()}
        teacher = self.workspace.stage(
            self.stage,
            inputs,
            lambda checkpoint: train(
                spec.model, self.task, spec.training, checkpoint=checkpoint, progress=self.progress
            ),
        )
        if not isinstance(teacher, Forecaster):
            raise TypeError(f"expected a trainable model, got {type(teacher).__name__}")
        return teacher

    def member(self, spec: RecipeTeacher, number: int) -> Teacher:
        """A member of an ensemble; its stages are numbered from 1."""
        return replace(self, stage=f"{self.stage}-{number + 1}").build(spec)

    def _read(self, spec: RecipeTeacher) -> Teacher:
        """A teacher that comes from elsewhere, or is fitted at once."""
        self.workspace.say(f"{self.stage} ...")
        began = time.perf_counter()
        teacher = spec.build(self)
        seconds = round(time.perf_counter() - began, 2)
        self.workspace.log(stage=self.stage, kind=spec.kind, digest=teacher.digest, **spec.paths, seconds=seconds)
        self.workspace.say(f"{self.stage} is {teacher!r}")
        return teacher


def shown_digest(teacher: Any) -> str:
    """Digest of all that a report can show of a teacher: of a table's forecasts for the test part too."""
    if isinstance(teacher, ForecastTable):
        return teacher.shown_digest
    if isinstance(teacher, PrivilegedTeacher):
        return digest_of([teacher.shown_digest, shown_digest(teacher.teacher)])
    if isinstance(teacher, TrustedTeacher):
        return digest_of([teacher.digest, shown_digest(teacher.teacher)])
    if isinstance(teacher, TeacherEnsemble):
        return digest_of([teacher.digest, *map(shown_digest, teacher.teachers)])
    return str(teacher.digest)
