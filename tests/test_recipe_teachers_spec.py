"""Teachers of recipes as data: written, read, and explained when they cannot be."""

from __future__ import annotations

import pytest

import tsdistill as td
from tests.test_recipe_teachers import KINDS, RECIPE
from tsdistill.errors import ConfigError
from tsdistill.recipe import Recipe, TeacherSpec


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_teacher_survives_toml_and_json(kind: str) -> None:
    recipe = Recipe.from_toml(RECIPE + KINDS[kind])
    assert recipe.teacher.kind == kind
    assert Recipe.from_toml(recipe.to_toml()) == recipe == Recipe.from_json(recipe.to_json())
    moved = recipe.moved(lambda path: f"/there/{path}")
    assert set(moved.paths.values()) == {f"/there/{path}" for path in recipe.paths.values()}
    again = recipe.with_seed(7)
    assert (again.teacher == recipe.teacher) == (kind in ("table", "huggingface", "saved"))


def test_a_trained_teacher_is_written_as_it_was_before_there_were_kinds() -> None:
    plain = Recipe.from_toml(RECIPE + '[teacher]\nmodel = { kind = "linear" }')
    assert plain.teacher == TeacherSpec(model=td.LinearConfig())
    assert set(plain.to_dict()["teacher"]) == {"model", "training"}
    assert Recipe.from_toml(RECIPE + '[teacher]\nkind = "trained"\nmodel = { kind = "linear" }').digest == plain.digest
    assert TeacherSpec().digest == "ef4390658085fcbf"  # what it was


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ('kind = "tabel"', ["kind='tabel'", "Did you mean `table`"]),
        ('kind = "table"\npth = "a.csv"', ["`path` must be given", "Did you mean `path`"]),
        ('path = "a.csv"', ["`path` is not a field of TeacherSpec"]),
        ('kind = "saved"\npath = "https://x:hunter2@y/z"', ["on this machine", "nothing is downloaded"]),
        ('kind = "scikit-learn"\nregressor = "os.system"', ["'ExtraTreesRegressor'", "got regressor='os.system'"]),
        ('kind = "scikit-learn"\nregressor = "KNeighborsRegressor"\nsettings = { a = [1] }', ["settings.a"]),
        ('kind = "ensemble"\nmembers = []', ["at least 1 item"]),
        (
            'kind = "ensemble"\nmembers = [{ kind = "ensemble", members = [{ kind = "table", path = "a.csv" }] }]',
            ["ensembles themselves"],
        ),
        ('kind = "ensemble"\nmembers = [{ trust = 1.0 }]', ["on the ensemble, not on its members"]),
        ('kind = "table"\npath = "a.csv"\ntrust = 0.0', ["greater than 0"]),
    ],
)
def test_a_teacher_that_cannot_be_is_explained(teacher: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_toml(f"{RECIPE}[teacher]\n{teacher}")
    assert [word for word in words if word not in str(caught.value)] == []
    assert "hunter2" not in str(caught.value)
