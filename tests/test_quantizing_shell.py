"""`tsdistill quantize`: a table of forms, a deployed artifact, and errors with codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import tsdistill as td
from tests.test_recipe import QUICK, toy_csv, toy_recipe
from tsdistill.cli import app
from tsdistill.errors import ConfigError, UnsupportedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy data, a recipe whose budget anything meets, and a trained model."""
    folder = tmp_path_factory.mktemp("quantizing")
    recipe = toy_recipe(Path(toy_csv(folder)))
    (folder / "recipe.toml").write_text(recipe.to_toml())
    task = recipe.task.build(recipe.data.load())
    td.save(td.train(td.MLPConfig(width=7, depth=1), task, QUICK), folder / "model")
    return folder


def quantize(folder: Path, *options: object) -> Result:
    """In this process: what the program does with an error is tested elsewhere."""
    arguments = ["quantize", folder / "model", "--recipe", folder / "recipe.toml", *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_auto_shows_every_form_and_leaves_one(folder: Path, tmp_path: Path) -> None:
    options = ("--method", "auto", "--batch-size", 1, "--batch-size", 5, "--out", tmp_path / "out")
    done = quantize(folder, *options)
    assert done.exit_code == 0, done.output
    for name in ("fp32", "dynamic", "ms at 5", "taken"):
        assert name in done.output
    deployed = td.load(tmp_path / "out")
    assert isinstance(deployed, td.Deployed)
    assert deployed.lineage[-1].spec["quantization"]["batch_sizes"] == [1, 5]


def test_what_is_asked_for_takes_the_place_of_the_recipe(folder: Path, tmp_path: Path) -> None:
    done = quantize(folder, "--method", "weight-only", "--bits", 4, "--take-it", "--json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert (found["precision"], found["chosen"]) == ("int4-weights", "weight-only")
    kept = quantize(
        folder, "--method", "static", "--keep-float", "embed", "--take-it", "--json", "--out", tmp_path / "b"
    )
    assert json.loads(kept.output)["candidates"][1]["float_layers"] == ["embed"]


def test_sensitivity_is_shown_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    done = quantize(folder, "--sensitivity", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert {"embed", "last"} <= {line.split()[0] for line in done.output.splitlines()}
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_is_an_error(folder: Path, tmp_path: Path) -> None:
    done = quantize(folder, "--method", "static", "--keep-float", "nose", "--out", tmp_path / "out")
    assert isinstance(done.exception, ConfigError)
    done = quantize(folder, "--method", "dynamic", "--max-error-increase", 0, "--out", tmp_path / "out")
    assert done.exception is None or isinstance(done.exception, UnsupportedError)
    assert isinstance(quantize(folder, "--bits", 5).exception, ConfigError)
