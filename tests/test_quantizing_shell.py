"""`tsdistill quantize`: a table of forms, a deployed artifact, and errors with codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import tsdistill as td
from tests.recipes import QUICK, toy_csv, toy_recipe
from tsdistill.cli import app
from tsdistill.errors import ConfigError, UnsupportedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy data, a recipe whose budget anything meets and one that asks for gain, a model and one too small for INT8."""
    folder = tmp_path_factory.mktemp("quantizing")
    recipe = toy_recipe(Path(toy_csv(folder)))
    (folder / "recipe.toml").write_text(recipe.to_toml())
    (folder / "strict.toml").write_text(recipe.replace(quantization=td.Quantization()).to_toml())
    task = recipe.task.build(recipe.data.load())
    td.save(td.train(td.MLPConfig(width=7, depth=1), task, QUICK), folder / "model")
    td.save(td.train(td.models.SparseTSFConfig(period=7), task, QUICK), folder / "tiny")
    return folder


def quantize(folder: Path, *options: object, model: str = "model", recipe: str = "recipe.toml") -> Result:
    """In this process: what the program does with an error is tested elsewhere."""
    arguments = ["quantize", folder / model, "--recipe", folder / recipe, *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_auto_shows_every_form_and_leaves_one(folder: Path, tmp_path: Path) -> None:
    options = ("--method", "auto", "--batch-size", 1, "--batch-size", 5, "--out", tmp_path / "out")
    done = quantize(folder, *options)
    assert done.exit_code == 0, done.output
    for name in ("fp32", "dynamic", "ms at 5", "selected"):
        assert name in done.output
    deployed = td.load(tmp_path / "out")
    assert isinstance(deployed, td.Deployed)
    assert deployed.lineage[-1].spec["quantization"]["batch_sizes"] == [1, 5]


def test_what_is_asked_for_takes_the_place_of_the_recipe(folder: Path, tmp_path: Path) -> None:
    done = quantize(folder, "--method", "weight-only", "--bits", 4, "--force", "--json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    output = json.loads(done.output)
    assert (output["precision"], output["chosen"]) == ("int4-weights", "weight-only")
    kept = quantize(folder, "--method", "static", "--keep-float", "embed", "--force", "--json", "--out", tmp_path / "b")
    assert json.loads(kept.output)["candidates"][1]["float_layers"] == ["embed"]


def test_the_old_name_of_force_works_and_says_what_it_is_called_now(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = quantize(folder, "--method", "weight-only", "--take-it", "--out", out, model="tiny", recipe="strict.toml")
    assert done.exit_code == 0, done.output
    assert "--take-it is called --force now" in done.stderr
    assert "--take-it" not in CliRunner().invoke(app, ["quantize", "--help"]).output


def test_sensitivity_is_shown_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    done = quantize(folder, "--sensitivity", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert {"embed", "last"} <= {line.split()[0] for line in done.output.splitlines()}
    assert not (tmp_path / "out").exists()


REFUSED: dict[str, tuple[tuple[object, ...], dict[str, str], type[Exception], str]] = {
    "a layer that is none": (("--method", "static", "--keep-float", "nose"), {}, ConfigError, "nose"),
    "bits that are none": (("--bits", 5), {}, ConfigError, "`weight_bits` must"),
    "a method that is none": (("--method", "statik"), {}, ConfigError, "Did you mean `static`"),
    "an option of another method": (
        ("--method", "static", "--isolate"),
        {},
        ConfigError,
        "`isolate` must be left out with method='static'.*It is a field of method='dynamic', 'qat' and 'auto'",
    ),
    "epochs without training": (
        ("--method", "dynamic", "--epochs", 2),
        {},
        ConfigError,
        "`training` must be left out with method='dynamic'",
    ),
    "larger than float32": (
        ("--method", "static"),
        {"model": "tiny", "recipe": "strict.toml"},
        UnsupportedError,
        "INT8 does not pay .* bytes against",
    ),
}


@pytest.mark.parametrize(("options", "of", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_an_error_and_writes_nothing(
    options: tuple[object, ...],
    of: dict[str, str],
    error: type[Exception],
    words: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    done = quantize(folder, *options, "--out", tmp_path / "out", **of)
    assert isinstance(done.exception, error), done.output
    assert re.search(words, str(done.exception))
    assert list(tmp_path.iterdir()) == []
