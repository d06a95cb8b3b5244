"""`tsdistill quantize --form` makes an earlier choice again, without a clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tsdistill as td
from tests.recipes import toy_csv, toy_recipe
from tsdistill.cli import app
from tsdistill.errors import ConfigError


def test_a_form_that_is_named_is_taken_and_an_unknown_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(Path(toy_csv(tmp_path)))
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    task = recipe.task.build(recipe.data.load())
    td.save(td.MLPConfig(width=7, depth=1).build(task.signature), tmp_path / "model")

    def quantized(*options: str) -> str:
        paths = [str(tmp_path / name) for name in ("model", "recipe.toml", "out")]
        arguments = ["quantize", paths[0], "--recipe", paths[1], "--out", paths[2], "--json", *options]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return str(json.loads(done.output)["chosen"])

    def clock(*_: object, **__: object) -> None:
        raise AssertionError("the clock was asked")

    monkeypatch.setattr("tsdistill.quantization.judging.measure_latency", clock)
    assert quantized("--method", "auto", "--form", "weight-only-8") == "weight-only-8"
    with pytest.raises(ConfigError, match=r"`forms` must name forms that can be tried, got .*'wieght-only'"):
        quantized("--method", "auto", "--form", "wieght-only")
    with pytest.raises(ConfigError, match="forms"):
        quantized("--method", "dynamic", "--form", "static")
