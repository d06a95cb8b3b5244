"""Recipes: whole compression runs as data, and `run`, the one way from a recipe to a deployed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsdistill.deprecation import moved_names
from tsdistill.recipe.auto_candidates import default_candidates
from tsdistill.recipe.auto_teacher import AutoTeacher, AutoTeacherSpec
from tsdistill.recipe.candidates import Budget, StudentCandidate
from tsdistill.recipe.foundation_teacher import FoundationTeacherSpec
from tsdistill.recipe.pipeline import InMemory, Run, Stages, from_anywhere, make_models, make_report, run
from tsdistill.recipe.spec import Recipe, Source, StudentSpec, TaskSpec, default_recipe, read_recipe
from tsdistill.recipe.teacher import (
    TEACHERS,
    AnyTeacher,
    EnsembleTeacherSpec,
    HuggingFaceTeacherSpec,
    RecipeTeacher,
    RegressorTeacherSpec,
    SavedTeacherSpec,
    TableTeacherSpec,
    TeacherBuilder,
    TeacherSpec,
)
from tsdistill.recipe.teacher_builder import auto_teacher, make_teacher, write_teacher
from tsdistill.recipe.workspace import Workspace

register = TEACHERS.register
"""Make a teacher spec of your own one that recipes can name. See `Family`."""

__all__ = [
    "TEACHERS",
    "AnyTeacher",
    "AutoTeacher",
    "AutoTeacherSpec",
    "Budget",
    "EnsembleTeacherSpec",
    "FoundationTeacherSpec",
    "HuggingFaceTeacherSpec",
    "InMemory",
    "Recipe",
    "RecipeTeacher",
    "RegressorTeacherSpec",
    "Run",
    "SavedTeacherSpec",
    "Source",
    "Stages",
    "StudentCandidate",
    "StudentSpec",
    "TableTeacherSpec",
    "TaskSpec",
    "TeacherBuilder",
    "TeacherSpec",
    "Workspace",
    "auto_teacher",
    "default_candidates",
    "default_recipe",
    "from_anywhere",
    "make_models",
    "make_report",
    "make_teacher",
    "read_recipe",
    "register",
    "run",
    "write_teacher",
]

MOVED = {
    "write_text": "tsdistill.files.write_atomic",
}
"""Names of version 0.1, each with its place now; they go with version 0.3."""

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = moved_names(__name__, MOVED)
