"""A foundation model in a recipe, and the table that stands for it where its libraries cannot be installed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import tsdistill as td
from tests.foundation import posed, recipe_with
from tsdistill.cli import main
from tsdistill.errors import ArtifactError, ConfigError, UnsupportedError
from tsdistill.recipe import FoundationTeacherSpec, Recipe, read_recipe, write_teacher

ROOT = Path(__file__).resolve().parents[1]
TRAINED = 'model = { kind = "linear" }\ntrust = 1.0'


def shell(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tsdistill", *map(str, words)])
        patch.setattr(signal, "signal", lambda *_: None)
        main()


def test_it_survives_toml_and_json_and_has_its_path(tmp_path: Path) -> None:
    folder = posed(tmp_path / "model", "Chronos2Model")
    recipe = recipe_with(tmp_path, 'kind = "foundation"\npath = "model"\ncontext = 512\npoint = "mean"')
    assert recipe.teacher == FoundationTeacherSpec(path=str(folder), context=512, point="mean")
    assert Recipe.from_toml(recipe.to_toml()) == recipe == Recipe.from_json(recipe.to_json())
    assert recipe.paths["teacher.path"] == str(folder)
    assert recipe.with_seed(7).teacher == recipe.teacher


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('path = "https://x/y"', "nothing is downloaded"),
        ('path = "model"\npoint = "mode"', "must be 'median' or 'mean'"),
        ('path = "model"\ncontext = 0', "must be greater"),
        ("", "`path` must be given"),
    ],
)
def test_a_spec_that_cannot_be_is_explained(lines: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe_with(tmp_path, f'kind = "foundation"\n{lines}')


def test_a_folder_that_cannot_teach_stops_a_run_before_anything_is_trained(tmp_path: Path) -> None:
    (posed(tmp_path / "model", "Chronos2Model") / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="got no weights"):
        td.run(recipe_with(tmp_path, 'kind = "foundation"\npath = "model"'), tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "artifact").exists()


def test_a_teachers_table_holds_what_the_teacher_forecasts_of_every_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    direct = recipe_with(tmp_path, TRAINED)
    shell("forecasts", tmp_path / "recipe.toml", "--out", tmp_path / "forecasts.csv", "--quiet")
    assert "Linear" in (shown := capsys.readouterr().out)
    assert "forecasts.csv" in shown
    table = recipe_with(tmp_path, 'kind = "table"\npath = "forecasts.csv"\ntrust = 1.0')
    teacher = td.teachers.read_forecasts(tmp_path / "forecasts.csv", table.task.build(table.data.load()))
    assert teacher.parts == ("train", "validation", "test")
    task = direct.task.build(direct.data.load())
    ridge = td.train(td.LinearConfig(), task)
    for part in teacher.parts:
        windows = task.windows(part)
        batch = windows.batch(torch.arange(len(windows)))
        torch.testing.assert_close(teacher.forecast(batch), ridge.forecast(batch), rtol=1e-4, atol=1e-5)


def test_parts_are_chosen_and_other_tables_refused_before_anything_is_made(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, TRAINED)
    shell("forecasts", tmp_path / "recipe.toml", "--out", tmp_path / "a.csv", "--part", "train", "--quiet")
    both = tmp_path / "b.csv.gz"
    shell("forecasts", tmp_path / "recipe.toml", "--out", both, "--part", "train", "--part", "validation", "--quiet")
    assert 0 < len(pd.read_csv(tmp_path / "a.csv")) < len(pd.read_csv(both))
    with pytest.raises(UnsupportedError, match=r"must end in \.csv"):
        write_teacher(recipe, tmp_path / "a.pickle")
    for parts in (("test",), (), ("train", "tset")):
        with pytest.raises(ConfigError, match="`parts` must be"):
            write_teacher(recipe, tmp_path / "c.csv", parts=parts)  # type: ignore[arg-type]
    assert not (tmp_path / "c.csv").exists()


def test_the_example_is_a_recipe_and_stands_in_the_guide(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "foundation-model.toml").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "guides" / "foundation-models.md").read_text(encoding="utf-8")
    assert text in guide
    (tmp_path / "recipe.toml").write_text(text)
    (tmp_path / "load.csv").write_text("ds,y\n")
    posed(tmp_path / "chronos-bolt-small", "ChronosBoltModelForForecasting")
    assert isinstance(read_recipe(tmp_path / "recipe.toml").teacher, FoundationTeacherSpec)
