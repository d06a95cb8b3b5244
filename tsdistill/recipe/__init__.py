"""Recipes: whole compression runs as data, and `run`, the one way from a recipe to a deployed model."""

from __future__ import annotations

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
from tsdistill.recipe.teacher_builder import make_teacher
from tsdistill.recipe.workspace import Workspace

register = TEACHERS.register
"""Make a teacher spec of your own one that recipes can name. See `Family`."""

__all__ = [
    "TEACHERS",
    "AnyTeacher",
    "EnsembleTeacherSpec",
    "HuggingFaceTeacherSpec",
    "InMemory",
    "Recipe",
    "RecipeTeacher",
    "RegressorTeacherSpec",
    "Run",
    "SavedTeacherSpec",
    "Source",
    "Stages",
    "StudentSpec",
    "TableTeacherSpec",
    "TaskSpec",
    "TeacherBuilder",
    "TeacherSpec",
    "Workspace",
    "default_recipe",
    "from_anywhere",
    "make_models",
    "make_report",
    "make_teacher",
    "read_recipe",
    "register",
    "run",
]
