"""What verbs are given: a wrong type is one clear error, and a path may be text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tsdistill as td
from tsdistill.data import Task
from tsdistill.errors import ConfigError, OrderError, TsdistillError
from tsdistill.models import Forecaster
from tsdistill.teachers import CachedTeacher, cached
from tsdistill.testing import check_losses, toy_task
from tsdistill.training import TruthObjective, fit

QUICK = td.Training(max_steps=2, precision="float32")
MLP = td.MLPConfig(width=8, depth=1)


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def model(task: Task) -> Forecaster:
    return MLP.build(task.signature).eval()


# By name: a call with one wrong argument, and words of its error.
Call = Callable[[Any, Any], object]
WRONG: dict[str, tuple[Call, list[str]]] = {
    "train task": (lambda _, __: td.train(MLP, "x"), ["`task` must be a Task", "task='x'", "td.Task("]),  # type: ignore[arg-type]
    "train no task": (lambda _, __: td.train(MLP, None), ["`task` must be a Task", "task=None"]),  # type: ignore[arg-type]
    "train training": (lambda _, task: td.train(MLP, task, 5), ["`training` must be a Training", "training=5"]),  # type: ignore[arg-type]
    "train empty training": (lambda _, task: td.train(MLP, task, {}), ["`training`", "training={}"]),  # type: ignore[arg-type]
    "train config": (lambda _, task: td.train("lstm", task), ["`train` must get the config", "a str"]),  # type: ignore[arg-type]
    "train checkpoint": (lambda _, task: td.train(MLP, task, QUICK, checkpoint=7), ["`checkpoint`", "checkpoint=7"]),  # type: ignore[arg-type]
    "fit model": (lambda _, task: fit(MLP, task, QUICK, TruthObjective()), ["`model` must be a Forecaster"]),  # type: ignore[arg-type]
    "fit objective": (lambda model, task: fit(model, task, QUICK, "mse"), ["`objective` must be an Objective"]),  # type: ignore[arg-type]
    "distill task": (lambda model, _: td.distill(model, MLP, None), ["`task` must be a Task", "task=None"]),  # type: ignore[arg-type]
    "distill student": (lambda model, task: td.distill(model, "mlp", task), ["`student`", "ModelConfig", "'mlp'"]),  # type: ignore[arg-type]
    "distill loss": (
        lambda model, task: td.distill(model, MLP, task, losses=td.OutputLoss()),  # type: ignore[arg-type]
        ["`losses` must be a list or a tuple", "an OutputLoss", "[td.OutputLoss()]"],
    ),
    "distill text": (
        lambda model, task: td.distill(model, MLP, task, losses=[td.OutputLoss(), "feature"]),  # type: ignore[list-item]
        ["`losses[1]` must be a Loss", "'feature'"],
    ),
    "distill losses": (lambda model, task: td.distill(model, MLP, task, losses="mse"), ["`losses`", "'mse'"]),  # type: ignore[arg-type]
    "distill training": (lambda model, task: td.distill(model, MLP, task, training=5), ["`training`", "training=5"]),  # type: ignore[arg-type]
    "distill cache": (lambda model, task: td.distill(model, MLP, task, cache=5), ["`cache`", "a str or a Path"]),  # type: ignore[arg-type]
    "prune task": (lambda model, _: td.prune(model, None), ["`task` must be a Task"]),  # type: ignore[arg-type]
    "prune pruning": (lambda model, task: td.prune(model, task, {}), ["`pruning` must be a Pruning", "pruning={}"]),  # type: ignore[arg-type]
    "prune ratio": (lambda model, task: td.prune(model, task, 0.5), ["`pruning`", "0.5", "td.Pruning(ratio"]),  # type: ignore[arg-type]
    "plan task": (lambda model, _: td.plan_pruning(model, None), ["`task` must be a Task"]),  # type: ignore[arg-type]
    "plan pruning": (lambda model, task: td.plan_pruning(model, task, {}), ["`pruning`"]),  # type: ignore[arg-type]
    "sensitivity task": (lambda model, _: td.pruning_sensitivity(model, "x"), ["`task`"]),  # type: ignore[arg-type]
    "sensitivity pruning": (lambda model, task: td.pruning_sensitivity(model, task, {}), ["`pruning`"]),  # type: ignore[arg-type]
    "shrink config": (lambda model, _: td.shrink(model, "mlp"), ["`config`", "MLPConfig"]),  # type: ignore[arg-type]
    "quantize task": (lambda model, _: td.quantize(model, None), ["`task` must be a Task", "task=None"]),  # type: ignore[arg-type]
    "quantize spec": (lambda model, task: td.quantize(model, task, "int8"), ["`quantization`", "'int8'"]),  # type: ignore[arg-type]
    "layers task": (lambda model, _: td.quantization_sensitivity(model, None), ["`task`"]),  # type: ignore[arg-type]
    "layers spec": (lambda model, task: td.quantization_sensitivity(model, task, {}), ["`quantization`"]),  # type: ignore[arg-type]
    "export task": (lambda model, _: td.export(model, "x"), ["`task` must be a Task", "'x'"]),  # type: ignore[arg-type]
    "evaluate task": (lambda model, _: td.evaluate(model, None), ["`task` must be a Task"]),  # type: ignore[arg-type]
    "compare models": (lambda model, task: td.compare([model], task), ["`models` must be a Mapping"]),  # type: ignore[arg-type]
    "compare task": (lambda model, _: td.compare({"m": model}, None), ["`task` must be a Task"]),  # type: ignore[arg-type]
    "solve config": (lambda _, task: td.solve("linear", [task]), ["`config`", "'linear'", "td.LinearConfig()"]),  # type: ignore[arg-type]
    "solve tasks": (lambda _, __: td.solve(td.LinearConfig(), None), ["`tasks`", "tasks=None"]),  # type: ignore[arg-type]
    "run recipe": (lambda _, __: td.run("recipe.toml", "out"), ["`recipe` must be a Recipe", "from_file"]),  # type: ignore[arg-type]
    "search recipe": (lambda _, __: td.search.run({}, "out", n_trials=1), ["`recipe`", "recipe={}"]),  # type: ignore[arg-type]
    "search space": (
        lambda model, task: td.search.objective("lstm", model, task),  # type: ignore[arg-type]
        ["`space` must be a Space", "'lstm'"],
    ),
    "check losses": (lambda model, task: check_losses(["mse"], model, MLP, task), ["`losses[0]`"]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_type_is_one_clear_error(name: str, model: Forecaster, task: Task) -> None:
    call, words = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        call(model, task)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("verb", [td.plan_pruning, td.pruning_sensitivity, td.prune, td.quantize, td.export])
@pytest.mark.parametrize("thing", ["x", None, 5, MLP])
def test_what_is_no_forecaster_is_refused(verb: Callable[..., Any], thing: object, task: Task) -> None:
    with pytest.raises(TsdistillError, match=r"`forecaster` must be a trained forecaster"):
        verb(thing, task)


def test_a_deployed_model_is_still_an_error_of_order(model: Forecaster, task: Task) -> None:
    deployed: Any = td.export(model, task)
    for call in (
        lambda: td.train(deployed, task),
        lambda: td.distill(model, deployed, task),
        lambda: td.prune(deployed, None),  # type: ignore[arg-type]
        lambda: td.plan_pruning(deployed, task),
        lambda: td.quantize(deployed, task),
    ):
        with pytest.raises(OrderError):
            call()


def test_checkpoints_and_caches_are_paths_or_text(tmp_path: Path, task: Task, model: Forecaster) -> None:
    cut = td.Pruning(ratio=0.5, recovery=QUICK)
    results: list[list[Any]] = []
    for kind in (str, Path):
        folder = tmp_path / kind.__name__

        def place(name: str, folder: Path = folder, kind: type[str] | type[Path] = kind) -> Any:
            return kind(folder / name)

        student = td.distill(model, MLP, task, training=QUICK, cache=place("cache"), checkpoint=place("distill"))
        fitted = MLP.build(task.signature)
        fit(fitted, task, QUICK, TruthObjective(), checkpoint=place("fit"))
        results.append(
            [
                td.train(MLP, task, QUICK, checkpoint=place("train")).digest,
                student.digest,
                td.prune(student, task, cut, teacher=model, cache=place("cache"), checkpoint=place("prune")).digest,
                td.solve(td.LinearConfig(), [task], checkpoint=place("solve")).digest,
                fitted.digest,
                check_losses([td.OutputLoss()], model, MLP, task, cache=place("cache")),
                CachedTeacher(model, place("cache")).folder == folder / "cache",
            ]
        )
        names = {file.name for file in folder.iterdir()}
        assert names >= {
            "cache",
            "distill",
            "control-distill",
            "train",
            "prune",
            "control-prune",
            "solve",
            "fit",
        }
        assert len(cached(place("cache"))) > 0
    assert results[0] == results[1]
