"""Recipes: whole compression runs as data, and `run`, which cooks them."""

from __future__ import annotations

from tsdistill.recipe.pipeline import Run, from_anywhere, make_models, make_report, run
from tsdistill.recipe.spec import Recipe, Source, StudentSpec, TaskSpec, default_recipe, read_recipe
from tsdistill.recipe.teacher import (
    EnsembleTeacherSpec,
    HuggingFaceTeacherSpec,
    RegressorTeacherSpec,
    SavedTeacherSpec,
    TableTeacherSpec,
    TeacherSpec,
)
from tsdistill.recipe.teacher_builder import make_teacher
from tsdistill.recipe.workspace import Workspace, write_text

__all__ = [
    "EnsembleTeacherSpec",
    "HuggingFaceTeacherSpec",
    "Recipe",
    "RegressorTeacherSpec",
    "Run",
    "SavedTeacherSpec",
    "Source",
    "StudentSpec",
    "TableTeacherSpec",
    "TaskSpec",
    "TeacherSpec",
    "Workspace",
    "default_recipe",
    "from_anywhere",
    "make_models",
    "make_report",
    "make_teacher",
    "read_recipe",
    "run",
    "write_text",
]
