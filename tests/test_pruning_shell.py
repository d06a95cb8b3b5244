"""`tsdistill prune`: a plan, a smaller artifact, and errors with codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import tsdistill as td
from tests.recipes import QUICK, toy_csv, toy_recipe
from tsdistill.cli import app
from tsdistill.errors import ConfigError, OrderError, TsdistillError, UnsupportedError
from tsdistill.recipe import read_recipe


def shell(*arguments: object) -> Result:
    """In this process: what the program does with an error is tested elsewhere."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy data, a recipe, and a trained model in two forms."""
    folder = tmp_path_factory.mktemp("pruning")
    recipe = toy_recipe(Path(toy_csv(folder)))
    (folder / "recipe.toml").write_text(recipe.to_toml())
    task = recipe.task.build(recipe.data.load())
    model = td.train(td.MLPConfig(width=7, depth=2, hidden=16), task, QUICK)
    td.save(model, folder / "model")
    td.save(td.export(model, task), folder / "deployed")
    return folder


def toy_recipe_task(folder: Path) -> td.Task:
    recipe = read_recipe(folder / "recipe.toml")
    return recipe.task.build(recipe.data.load())


def prune(folder: Path, *options: object, model: str = "model") -> Result:
    return shell("prune", folder / model, "--recipe", folder / "recipe.toml", "--quiet", *options)


def test_a_plan_is_shown_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    done = prune(folder, "--plan", "--ratio", 0.25, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert [line.split()[:3] for line in done.output.splitlines()[1:3]] == [
        ["block1.hidden", "16", "12"],
        ["block2.hidden", "16", "12"],
    ]
    output = json.loads(prune(folder, "--plan", "--max-parameters", 1400, "--json").output)
    assert output["n_parameters"][1] <= 1400
    assert not (tmp_path / "out").exists()


def test_curves_are_shown_and_written_as_a_page(folder: Path, tmp_path: Path) -> None:
    options = ("--sensitivity", "--groups", "block2.hidden", "--groups", "context", "--criterion", "l1")
    done = prune(folder, *options, "--html", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()[1:3]] == ["block2.hidden", "context"]
    page = (tmp_path / "page.html").read_text()
    inside = re.search(r'id="sensitivity-data">(.*?)</script>', page)
    assert inside
    output = json.loads(prune(folder, *options, "--json").output)
    assert json.loads(inside[1]) == output
    spec = td.Pruning(groups=("block2.hidden", "context"), criterion="l1")
    model, task = td.load(folder / "model"), toy_recipe_task(folder)
    assert isinstance(model, td.Forecaster)
    assert output == td.pruning_sensitivity(model, task, spec).to_dict()


def test_a_smaller_artifact_is_left_and_told_of(folder: Path, tmp_path: Path) -> None:
    options = ("--ratio", 0.5, "--groups", "units", "--groups", "context", "--criterion", "taylor", "--repair")
    done = prune(folder, *options, "--epochs", 1, "--teacher", "self", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "block1.hidden   8 of 16" in done.output
    smaller, whole = td.load(tmp_path / "out"), td.load(folder / "model")
    assert isinstance(smaller, td.Forecaster)
    assert smaller.context == 47 - 24
    assert f"{whole.n_parameters:,} -> {smaller.n_parameters:,}" in done.output
    step = smaller.lineage[-1]
    assert step.spec["teacher"] == whole.digest
    assert (step.spec["criterion"], step.spec["recovery"]["epochs"]) == ("taylor", 1)


def test_json_says_what_was_reached(folder: Path, tmp_path: Path) -> None:
    done = prune(folder, "--max-parameters", 1300, "--epochs", 0, "--json", "--out", tmp_path / "out")
    output = json.loads(done.output)
    assert output["reached"]["max_parameters"] == output["n_parameters"] <= 1300
    assert set(output["validation_mse"]) == {"before", "after"}
    assert output["config"]["kind"] == "mlp"


@pytest.mark.parametrize(
    ("options", "model", "kind", "words"),
    [
        (("--ratio", 1.5), "model", ConfigError, "ratio"),
        (("--max-error-increase", 0.1, "--max-bytes", 9), "model", ConfigError, "stand alone"),
        (("--ratio", 0.5, "--max-bytes", 9), "model", ConfigError, "`ratio` must be None with max_bytes"),
        (("--plan", "--sensitivity"), "model", ConfigError, "Only one of"),
        (("--html", "page.html"), "model", ConfigError, "must come with --sensitivity"),
        (("--groups", "hedas"), "model", UnsupportedError, "hedas"),
        (("--max-parameters", 3, "--epochs", 0), "model", UnsupportedError, "closest"),
        (("--ratio", 0.5), "deployed", OrderError, "Swap the two lines"),
    ],
    ids=["ratio", "targets", "both", "looks", "page", "groups", "reach", "order"],
)
def test_errors_say_what_is_wrong(
    options: tuple[object, ...], model: str, kind: type[TsdistillError], words: str, folder: Path
) -> None:
    done = prune(folder, *options, model=model)
    assert isinstance(done.exception, kind)
    assert words in str(done.exception)
