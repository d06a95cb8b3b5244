"""The shell: what it prints, which codes it gives, and that nothing shows a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import tsdistill as td
from tests.recipes import small_recipe, toy_csv


def shell(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tsdistill.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy data, a recipe and the finished run of it."""
    folder = tmp_path_factory.mktemp("shell")
    toy_csv(folder)
    (folder / "recipe.toml").write_text(small_recipe(Path("toy.csv")).to_toml())
    done = shell("run", folder / "recipe.toml", "--out", folder / "out", "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "seasonal naive" in done.stdout
    assert "without teacher" in done.stdout
    return folder


def test_help_teaches() -> None:
    top = shell("--help").stdout
    for word in ("run", "predict", "verify", "datasets", "cache", "search", "retrain", "Exit codes"):
        assert word in top
    assert "tsdistill run my.toml" in shell("run", "--help").stdout


def test_nothing_asked_gives_the_help_and_no_error() -> None:
    done = shell()
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.rstrip() == shell("--help").stdout.rstrip()


def test_the_version_is_printed() -> None:
    done = shell("--version")
    assert (done.returncode, done.stdout.strip()) == (0, td.__version__)


def test_a_run_in_json_is_one_object(folder: Path) -> None:
    done = shell("run", folder / "recipe.toml", "--out", folder / "out", "--seed", 3, "--json")
    output = json.loads(done.stdout)
    assert output["artifact"].endswith("artifact")
    assert {"teacher", "ridge"} <= {row["name"] for row in output["rows"]}
    assert "seed = 3" in (folder / "out" / "recipe.toml").read_text()


def test_predict_continues_the_file(folder: Path) -> None:
    done = shell("predict", folder / "out" / "artifact", folder / "toy.csv")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].split(",")[-3:] == ["load", "wind", "price"]
    assert len(lines) == 1 + 11
    assert "2024-01-21 19:00:00" in lines[1]
    trainable = shell("predict", folder / "out" / "stages" / "student", folder / "toy.csv", "--json")
    assert len(json.loads(trainable.stdout)) == 11
    written = shell("predict", folder / "out" / "artifact", folder / "toy.csv", "--out", folder / "forecast.csv")
    assert written.returncode == 0
    assert (folder / "forecast.csv").read_text() == done.stdout


def test_predict_rolls_through_the_file(folder: Path) -> None:
    once = shell("predict", folder / "out" / "artifact", folder / "toy.csv").stdout.splitlines()
    done = shell("predict", folder / "out" / "artifact", folder / "toy.csv", "--rolling", 24)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    place = lines[0].split(",").index("cutoff")
    cutoffs = list(dict.fromkeys(line.split(",")[place] for line in lines[1:]))
    assert len(lines) == 1 + 11 * len(cutoffs)
    assert cutoffs == sorted(cutoffs)
    last = [",".join(cell for number, cell in enumerate(line.split(",")) if number != place) for line in lines[-11:]]
    stamps = [line.split(",")[:-3] for line in once[1:]]
    assert [line.split(",")[:-3] for line in last] == stamps


def test_predict_takes_the_channels_of_the_model_and_no_other_column(tmp_path: Path) -> None:
    """Also for a model of one channel `y`, whose table may be wide or long."""
    rows = pd.read_csv(toy_csv(tmp_path))[["ds", "load"]].rename(columns={"load": "y"})
    long = pd.concat([rows.assign(unique_id=name) for name in ("first", "second")])
    for name, frame, n_rows, more in (("wide", rows, 3, ()), ("long", long, 6, ("--id", "unique_id"))):
        task = td.Task(td.Panel.from_frame(frame), context=17, horizon=3)
        td.save(td.train(td.LinearConfig(), task), tmp_path / name)
        frame.assign(place="Boston", noise=1.5).to_csv(tmp_path / "more.csv", index=False)
        done = shell("predict", tmp_path / name, tmp_path / "more.csv", *more)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1 + n_rows


def test_verify_finds_a_flipped_byte(folder: Path, tmp_path: Path) -> None:
    import shutil

    assert shell("verify", folder / "out" / "artifact").returncode == 0
    assert shell("verify", folder / "out" / "stages" / "teacher").returncode == 0
    copy = Path(shutil.copytree(folder / "out" / "artifact", tmp_path / "copy"))
    content = bytearray((copy / "model.onnx").read_bytes())
    content[100] ^= 1
    (copy / "model.onnx").write_bytes(bytes(content))
    done = shell("verify", copy)
    assert done.returncode == 5
    assert "model.onnx" in done.stderr


def test_datasets_are_listed() -> None:
    assert {entry["name"] for entry in json.loads(shell("datasets", "--json").stdout)} >= {"nyc-weather", "etth1"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "missing.toml"], 2, ["missing.toml"]),
        (["run", "--sed", "3"], 2, ["--sed"]),
        (["bake"], 2, ["bake"]),
        (["predict", "missing", "toy.csv"], 5, ["missing"]),
        (["predict", "out/artifact", "missing.csv"], 4, ["missing.csv"]),
        (["predict", "out/artifact", "toy.csv", "--time", "date"], 4, ["date"]),
        (["predict", "out/artifact", "toy.csv", "--fill", "guess"], 2, ["--fill", "interpolate"]),
        (["verify", "."], 5, ["manifest.json"]),
    ],
)
def test_errors_are_one_paragraph_and_a_code(folder: Path, arguments: list[str], code: int, words: list[str]) -> None:
    done = shell(*arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert [word for word in words if word not in done.stderr] == []
