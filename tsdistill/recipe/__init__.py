"""Recipes: whole compression runs as data, and `run`, which cooks them."""

from __future__ import annotations

from tsdistill.recipe.cooking import Run, make_models, make_report, make_teacher, run
from tsdistill.recipe.spec import Recipe, Source, StudentSpec, TaskSpec, TeacherSpec, default_recipe, read_recipe
from tsdistill.recipe.workspace import Workspace, write_text

__all__ = [
    "Recipe",
    "Run",
    "Source",
    "StudentSpec",
    "TaskSpec",
    "TeacherSpec",
    "Workspace",
    "default_recipe",
    "make_models",
    "make_report",
    "make_teacher",
    "read_recipe",
    "run",
    "write_text",
]
