"""Training that goes on from the weights of an earlier model: in Python, in a run, at the shell."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import tsdistill as td
from tests.recipes import small_recipe, toy_csv
from tsdistill.cli import app
from tsdistill.errors import ArtifactError, ConfigError, OrderError, ShapeError
from tsdistill.recipe import Workspace
from tsdistill.testing import toy_frame
from tsdistill.training.starting import warmed

CONFIG = td.MLPConfig(width=5, depth=1)
STILL = td.Training(max_steps=1, learning_rate=1e-12, weight_decay=0.0, precision="float32")
SPLIT = td.Split.fractions(0.6, 0.2, 0.2)


def task_of(n_rows: int = 499, **options: Any) -> td.Task:
    frame = toy_frame(n_rows=499).iloc[:n_rows]
    return td.Task(td.Panel.from_frame(frame), **{"context": 47, "horizon": 11, "split": SPLIT, **options})


@pytest.fixture(scope="module")
def earlier() -> td.Forecaster:
    return td.train(CONFIG, task_of(400), td.Training(max_steps=20, precision="float32"))


def test_weights_carry_over_and_scalers_are_the_new_tasks(earlier: td.Forecaster) -> None:
    task = task_of()
    started = td.train(CONFIG, task, STILL, start=earlier)
    assert all(
        torch.allclose(value, started.state_dict()[name], atol=1e-6) for name, value in earlier.state_dict().items()
    )
    assert started.signature.mean == task.signature.mean != earlier.signature.mean
    assert started.lineage[-1].spec["start"] == earlier.digest
    assert "start" not in earlier.lineage[-1].spec


def test_a_student_goes_on_and_its_control_from_the_control(earlier: td.Forecaster) -> None:
    task = task_of()
    teacher = td.train(td.LinearConfig(), task)
    first = copy.deepcopy(earlier)
    with pytest.raises(ConfigError, match="`control` must be False with a start that has none"):
        td.distill(teacher, CONFIG, task, training=STILL, start=first)
    first.control = td.train(CONFIG, task_of(400), td.Training(max_steps=3, precision="float32"))
    student = td.distill(teacher, CONFIG, task, training=STILL, start=first)
    assert student.control is not None
    for model, start in ((student, first), (student.control, first.control)):
        for name, value in start.state_dict().items():
            assert torch.allclose(value, model.state_dict()[name], atol=1e-6)
    assert student.lineage[-1].spec["start"] == first.digest
    with pytest.raises(ConfigError, match="`start` must be None for a student that has weights"):
        td.distill(teacher, student, task, training=STILL, start=first)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"config": td.MLPConfig(width=6, depth=1)}, ConfigError, "`start` must be a mlp of the same config"),
        ({"task": {"context": 46}}, ShapeError, "`start` must have the task's steps and channels (context 46"),
        ({"task": {"horizon": 12}}, ShapeError, "horizon 12"),
        ({"training": td.Training(refit="all")}, ConfigError, "`training.refit` must be None with a start"),
        ({"start": "last week"}, ConfigError, "`start` must be"),
    ],
)
def test_what_does_not_fit_is_refused(
    earlier: td.Forecaster, change: dict[str, Any], kind: type[Exception], words: str
) -> None:
    task = task_of(**change.get("task", {}))
    with pytest.raises(kind) as error:
        td.train(change.get("config", CONFIG), task, change.get("training", STILL), start=change.get("start", earlier))
    assert words in str(error.value)


def test_what_is_solved_has_no_start_and_what_is_deployed_is_none(earlier: td.Forecaster) -> None:
    task = task_of()
    ridge = td.train(td.LinearConfig(), task)
    with pytest.raises(ConfigError, match="`start` must be left out for what is not trained by steps"):
        td.train(td.LinearConfig(), task, start=ridge)
    with pytest.raises(OrderError, match="got a deployed one"):
        td.train(CONFIG, task, STILL, start=td.export(earlier, task_of(400)))  # type: ignore[arg-type]


def test_a_warm_training_takes_a_tenth_of_the_steps() -> None:
    full = td.Training(epochs=10, windows_per_epoch=640, batch_size=64, learning_rate=1e-2, refit="all")
    warm = warmed(full, 5000)
    assert (warm.n_steps(5000), full.n_steps(5000)) == (10, 100)
    assert (warm.epochs, warm.windows_per_epoch, warm.refit) == (1, 640, None)
    assert warm.learning_rate == pytest.approx(3e-3)
    assert warmed(td.Training(max_steps=50), 5000).n_steps(5000) == 5
    assert warmed(td.Training(epochs=1), 30).n_steps(30) == 1  # never none


def test_a_run_goes_on_from_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    recipe = small_recipe(toy_csv(tmp_path / "old", n_rows=450)).replace(pruning=None, quantization=None)
    first = td.run(recipe, tmp_path / "first")
    recipe = small_recipe(toy_csv(tmp_path)).replace(pruning=None, quantization=None)
    lines: list[str] = []
    second = td.run(recipe, tmp_path / "second", warm_from=tmp_path / "first", say=lines.append)
    assert [line for line in lines if "goes on" in line] == [
        "teacher goes on from the earlier run", "student goes on from the earlier run"
    ]  # fmt: skip
    assert isinstance(second.teacher, td.Forecaster)
    assert isinstance(first.teacher, td.Forecaster)
    assert second.teacher.lineage[-1].spec["start"] == first.teacher.digest
    assert second.student.lineage[-1].spec["start"] == first.student.digest
    steps = [model.lineage[-1].metrics["steps"] for model in (first.student, second.student)]
    assert steps[1] < steps[0]
    # The same again makes nothing; another architecture begins anew.
    lines.clear()
    td.run(recipe, tmp_path / "second", warm_from=tmp_path / "first", say=lines.append)
    assert [line for line in lines if "kept" in line] == [
        f"{name} kept from an earlier run" for name in ("teacher", "student", "deployed")
    ]
    lines.clear()
    workspace = Workspace(tmp_path / "third", warm_from=tmp_path / "first", say=lines.append)
    other = recipe.student.model.replace(width=7)
    assert workspace.start("student", other, second.task) is None
    assert lines == ["student begins anew: that of the earlier run does not fit"]
    assert workspace.start("pruned", other, second.task) is None  # there was none
    with pytest.raises(ArtifactError, match="`warm_from` must be another folder"):
        td.run(recipe, tmp_path / "second", warm_from=tmp_path / "second")


def test_at_the_shell(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(small_recipe(toy_csv(tmp_path)).to_toml())
    arguments = ["run", recipe, "--out", tmp_path / "out", "--warm-from", tmp_path / "nowhere"]
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(done.exception, ArtifactError)
    assert "`warm_from` must be the folder of an earlier run" in str(done.exception)
