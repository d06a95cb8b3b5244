"""A foundation model as the teacher of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from tsdistill.recipe.teacher import TEACHERS, ReadTeacher, TeacherBuilder
from tsdistill.spec.limits import Steps
from tsdistill.teachers import PrivilegedTeacher, Teacher, from_foundation


class FoundationTeacherSpec(ReadTeacher):
    """A folder with a foundation model; see `td.teachers.from_foundation`.

    Args:
        path: The folder.
        point: "median" of its quantiles or "mean" of the distribution that they outline.
        channels: Whether it sees channels "apart" or "together".
        context: Past steps that it sees; None for the task's. With more than those, the first windows of a series carry
            no lesson, and quantiles are not shown.
        trust: See `td.teachers.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["foundation"] = "foundation"
    point: Literal["median", "mean"] = "median"
    channels: Literal["apart", "together"] = "apart"
    context: Steps | None = None

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Loaded from the folder, and asked with the context it is to see."""
        task = builder.task
        context = task.context if self.context is None else self.context
        own_task = task if context == task.context else task.without_covariates().with_context(context)
        teacher = from_foundation(self.path, own_task, point=self.point, channels=self.channels)
        return teacher if own_task is task else PrivilegedTeacher(teacher, task, own_task)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A folder that need not be there until the recipe runs."""
        return (cls(path="chronos-bolt-small"),)


TEACHERS.include(FoundationTeacherSpec)
