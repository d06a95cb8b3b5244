"""The same seed gives the same model: no clock, no global random state and no order of a set has a say."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tsdistill as td
from tsdistill.models import Forecaster
from tsdistill.models.provenance import machine
from tsdistill.quantization import judging, replay
from tsdistill.recipe import default_recipe
from tsdistill.testing import toy_task
from tsdistill.training import precision

CPU = torch.device("cpu")
QUICK = td.Training(max_steps=3, batch_size=16, device="cpu")
NET = td.PatchTSTConfig(depth=1, width=8, heads=2, patch=16)


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task(n_rows=257)


@pytest.fixture(scope="module")
def teacher(task: td.Task) -> Forecaster:
    return td.train(NET, task, QUICK)


def no_clock(*_: Any) -> float:
    raise AssertionError("the clock was asked")


def timing(fastest: str) -> Callable[..., dict[str, Any]]:
    """A clock to which one form is by far the fastest."""

    def measured(candidates: dict[str, td.Deployed], *_: Any) -> dict[str, Any]:
        return {
            name: {"graph_bytes": len(model.onnx), "latency_ms": {"1": 1.0 if name == fastest else 9.0}}
            for name, model in candidates.items()
        }

    return measured


Verb = Callable[[td.Task, Forecaster, td.Training], Any]

VERBS: dict[str, Verb] = {
    "train": lambda task, teacher, training: td.train(NET, task, training),
    "train a recurrent one": lambda task, teacher, training: td.train(
        td.LSTMConfig(widths=(5,), patch=16), task, training
    ),
    "distil": lambda task, teacher, training: td.distill(
        teacher, td.MLPConfig(width=8), task, training=training, losses=[td.OutputLoss(), td.TemporalLoss()]
    ),
    "prune": lambda task, teacher, training: td.prune(
        teacher, task, td.Pruning(ratio=0.5, criterion="taylor", recovery=training), teacher=teacher
    ),
    "qat": lambda task, teacher, training: td.Quantization(method="qat", training=training).trained(teacher, task)[0],
}


@pytest.mark.parametrize("verb", VERBS)
def test_two_runs_of_one_seed_are_the_same_to_the_bit(
    verb: str, task: td.Task, teacher: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_step", no_clock)
    models = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002 - the global state is what must not matter
        models.append(VERBS[verb](task, teacher, QUICK))
    first, second = models
    assert first.digest == second.digest
    assert (first.control is None) == (second.control is None)
    assert first.control is None or first.control.digest == second.control.digest
    assert VERBS[verb](task, teacher, QUICK.replace(seed=1)).digest != first.digest


def test_the_lineage_names_processor_and_threads(task: td.Task, teacher: Forecaster, tmp_path: Path) -> None:
    step = td.load(td.save(teacher, tmp_path / "m")).lineage[-1]
    assert step.machine == {"processor": machine()["processor"], "threads": torch.get_num_threads()}
    assert step.machine["processor"]
    assert step.metrics["precision"] == "float32"
    older = {name: value for name, value in step.to_dict().items() if name != "machine"}
    assert type(step).from_dict(older).to_dict() == older


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A clock that finds another precision the faster one each time it is asked."""
    answers: list[str] = []

    def timed(device: torch.device) -> dict[str, Any]:
        answers.append(("bfloat16", "float32")[len(answers) % 2])
        return {"precision": answers[-1], "seconds": {"float32": 2.0, "bfloat16": 1.0}}

    monkeypatch.setattr(precision, "_timed", timed)
    monkeypatch.setattr(precision, "_measured", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return answers


def test_what_is_faster_is_measured_once_and_kept(task: td.Task, clock: list[str], tmp_path: Path) -> None:
    asked = QUICK.replace(precision="fastest")
    models = [td.train(td.MLPConfig(width=5, depth=1), task, asked) for _ in range(2)]
    assert models[0].digest == models[1].digest
    metrics = models[1].lineage[-1].metrics
    assert (metrics["precision"], metrics["precision_measured"]["seconds"]["bfloat16"]) == ("bfloat16", 1.0)
    student = td.distill(models[0], td.MLPConfig(width=3, depth=1), task, training=asked)
    assert student.lineage[-1].metrics["precision"] == student.control.lineage[-1].metrics["precision"] == "bfloat16"  # type: ignore[union-attr]
    assert clock == ["bfloat16"]
    kept = json.loads((tmp_path / "tsdistill" / "precision.json").read_text())
    assert [entry["threads"] for entry in kept.values()] == [torch.get_num_threads()]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{"])
def test_a_damaged_file_is_measured_anew(content: str, clock: list[str], tmp_path: Path) -> None:
    (tmp_path / "precision.json").write_text(content)
    assert precision.measure(CPU, tmp_path)["precision"] == "bfloat16"
    assert precision.measure(CPU, tmp_path)["precision"] == "bfloat16"


def test_where_nothing_can_be_kept_the_process_remembers(clock: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answers = {precision.measure(CPU, tmp_path / "file" / "folder")["precision"] for _ in range(3)}
    assert (answers, clock) == ({"bfloat16"}, ["bfloat16"])


def test_the_clock_is_really_asked_when_it_is_to_be() -> None:
    timed = precision._timed(CPU)
    assert timed["precision"] in timed["seconds"]
    assert timed["seconds"]["float32"] > 0


@pytest.mark.parametrize("form", ["fp32", "weight-only-4", "weight-only-8"])
def test_a_choice_by_time_can_be_made_again_without_it(
    form: str, task: td.Task, teacher: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = td.Quantization(method="auto", max_error_increase=9.0, max_batch_effect=9.0)

    monkeypatch.setattr("tsdistill.quantization.choice.measure", timing(form))
    chosen = td.quantize(teacher, task, spec)
    assert chosen.lineage[-1].metrics["chosen"] == form
    monkeypatch.setattr("tsdistill.quantization.choice.measure", no_clock)
    monkeypatch.setattr(judging, "measure_latency", no_clock)
    again = td.quantize(teacher, task, replay(chosen))
    assert (again.onnx, again.digest) == (chosen.onnx, chosen.digest)
    assert replay(again) == replay(chosen) == spec.replace(forms=(form,))
    names = [row["name"] for row in again.lineage[-1].metrics["candidates"]]
    assert names == ["fp32"] if form == "fp32" else names == ["fp32", form]


def test_a_form_that_misses_the_budget_leaves_float32(task: td.Task, teacher: Forecaster) -> None:
    spec = td.Quantization(
        method="auto", forms=("weight-only-4",), max_error_increase=0.0, max_worst_error_increase=0.0
    )
    deployed = td.quantize(teacher, task, spec)
    rows = {row["name"]: row for row in deployed.lineage[-1].metrics["candidates"]}
    assert deployed.precision == "fp32"
    assert "max_error_increase allows" in rows["weight-only-4"]["refused"][0]


def test_forms_are_data_of_a_recipe() -> None:
    spec = td.Quantization(method="auto", forms=("dynamic", "static-mixed"))
    assert type(spec).from_toml(spec.to_toml()) == spec
    assert "forms" not in td.Quantization(method="auto").to_dict()
    recipe = default_recipe().replace_at({"quantization.forms": ["dynamic"]})
    assert recipe.quantization == td.Quantization(**{**default_recipe().quantization.to_dict(), "forms": ("dynamic",)})  # type: ignore[union-attr]


@pytest.mark.parametrize("forms", [("dynamc",), ("weight-only-8-mixed",), (), "dynamic"])
def test_forms_that_there_are_none_of_are_refused(forms: Any) -> None:
    with pytest.raises(td.errors.ConfigError, match="`forms` must"):
        td.Quantization(method="auto", forms=forms)


def test_only_what_was_quantized_can_be_made_again(task: td.Task, teacher: Forecaster) -> None:
    with pytest.raises(td.errors.ConfigError, match="exported as it is"):
        replay(dataclasses.replace(td.export(teacher, task)))


SCRIPT = """
import tsdistill as td
from tsdistill.testing import toy_task
task, quick = toy_task(n_rows=257), td.Training(max_steps=3, batch_size=16, device="cpu")
teacher = td.train(td.PatchTSTConfig(depth=1, width=8, heads=2, patch=16), task, quick)
losses = [td.OutputLoss(), td.FeatureLoss(weight=0.1), td.TemporalLoss()]
student = td.distill(teacher, td.LSTMConfig(widths=(8,), patch=16), task, training=quick, losses=losses)
pruned = td.prune(student, task, td.Pruning(ratio=0.5, recovery=quick, groups=("units", "context")), teacher=teacher)
deployed = td.quantize(pruned, task, td.Quantization(method="auto", forms=("dynamic",), max_error_increase=9.0))
print(teacher.digest, student.digest, student.control.digest, pruned.digest, deployed.digest)
"""


@pytest.mark.slow
def test_processes_that_hash_differently_make_the_same_models() -> None:
    printed = set()
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
        run = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
        printed.add(run.stdout)
    assert len(printed) == 1
