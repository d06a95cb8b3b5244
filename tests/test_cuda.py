"""On a machine with CUDA: what trains there is what trains on the CPU, and all of it comes home. Skipped elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import tsdistill as td
from tests.matrix import ARCHITECTURES, QUICK, task_of
from tsdistill.data import Windows
from tsdistill.losses import AttentionLoss, FeatureLoss, Loss, OutputLoss, SmoothnessLoss, TemporalLoss
from tsdistill.models import Forecaster
from tsdistill.teachers import CachedTeacher
from tsdistill.training import TeacherObjective, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
THERE = QUICK.replace(device="cuda")
TRAINED = [kind for kind, config in ARCHITECTURES.items() if config.learns and not config.forecaster.closed_form]
LOSSES: dict[str, list[Loss]] = {
    "output": [OutputLoss()],
    "temporal": [OutputLoss(), TemporalLoss(), SmoothnessLoss()],
    "hint": [OutputLoss(), FeatureLoss()],
    "cka": [OutputLoss(), FeatureLoss(method="cka")],
    "relational": [OutputLoss(), FeatureLoss(method="relational")],
    "attention": [OutputLoss(), AttentionLoss()],
}


def still(kind: str) -> td.models.ModelConfig:
    """An architecture that drops nothing out: random numbers differ between devices."""
    config = ARCHITECTURES[kind]
    return config.replace(dropout=0.0) if hasattr(config, "dropout") else config


def close(here: Forecaster, there: Forecaster, task: td.Task, tolerance: float = 1e-2) -> None:
    """Forecasts of two models in standard deviations; convolutions and LSTMs may compute in short floats there."""
    batch = task.validation.batch(torch.arange(16))
    assert here.device == there.device == CPU
    assert (here.forecast(batch) - there.forecast(batch)).abs().max() < tolerance


@pytest.mark.parametrize("kind", TRAINED)
def test_a_model_trained_there_is_the_one_trained_here(kind: str) -> None:
    task = task_of(kind)
    here, there = (
        td.train(still(kind), task, training, progress=False) for training in (QUICK.replace(device="cpu"), THERE)
    )
    close(here, there, task)


@pytest.mark.parametrize("kind", TRAINED)
def test_short_floats_train_every_architecture(kind: str) -> None:
    task = task_of(kind)
    model = td.train(still(kind), task, THERE.replace(precision="bfloat16"), progress=False)
    assert np.isfinite(td.evaluate(model, task, part="validation")["mse"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("balance", ["fixed", "start"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "asked with every batch"])
@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
def test_a_student_learns_there_what_it_learns_here(losses: list[Loss], kept: bool, balance: Any) -> None:
    task = task_of("patchtst")
    teacher = td.train(still("patchtst"), task, QUICK, progress=False)
    students: list[Forecaster] = []
    for training, device in ((QUICK.replace(device="cpu"), CPU), (THERE, CUDA)):
        student = still("patchtst").build(task.signature, 1)
        cached_teacher = CachedTeacher(teacher, max_bytes=2**30 if kept else 0, device=device)
        objective = TeacherObjective(losses, cached_teacher, balance=balance)
        fit(student, task, training, objective, progress=False)
        students.append(student)
    close(students[0], students[1], task)
    assert teacher.device == CPU


def test_teachers_inside_of_others_are_asked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("patchtst")
    members = [td.train(still(kind), task, QUICK, progress=False) for kind in ("patchtst", "tcn")]
    trusted = td.teachers.TrustedTeacher(td.teachers.TeacherEnsemble(members, task), task)
    places: list[str] = []
    for kind in {type(member) for member in members}:
        asked = kind.activations

        def watched(self: Forecaster, context: torch.Tensor, *rest: Any, asked: Any = asked, **options: Any) -> Any:
            places.append(context.device.type)
            return asked(self, context, *rest, **options)

        monkeypatch.setattr(kind, "activations", watched)
    forecasts = []
    for device in (CPU, CUDA):
        places.clear()
        outputs = CachedTeacher(trusted, device=device).outputs(task.train)
        forecasts.append(outputs.of(task.train.batch(torch.arange(64))).forecast)
        assert set(places) == {device.type}
    torch.testing.assert_close(*forecasts, atol=5e-3, rtol=0)


def test_what_is_moved_by_hand_forecasts_and_teaches() -> None:
    task = task_of("lstm")
    teacher = td.train(still("lstm"), task, QUICK, progress=False)
    there = copy.deepcopy(teacher).to(CUDA)
    scores = [td.evaluate(model, task, part="validation")["mse"] for model in (teacher, there)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-2)
    student = td.distill(there, still("mlp"), task, training=THERE, control=False, progress=False)
    assert student.device == CPU
    exported = td.export(there, task)
    history = task.panel.items[0].values[None, : task.context].astype(np.float32)
    np.testing.assert_allclose(exported.predict(history), teacher.predict(history), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["patchtst", "lstm", "tcn", "mlp"])
def test_pruned_and_rounded_models_recover_there(kind: str) -> None:
    task = task_of(kind)
    teacher = td.train(still(kind), task, THERE, progress=False)
    smaller = td.prune(teacher, task, td.Pruning(ratio=0.4, recovery=THERE), teacher=teacher, progress=False)
    assert smaller.n_parameters < teacher.n_parameters
    spec = td.Quantization(method="qat", training=THERE, require_gain=False, max_error_increase=9.0)
    assert td.quantize(smaller, task, spec, teacher=teacher, progress=False).precision == "int8"


def test_windows_on_the_device_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("cyclenet")
    windows, index = task.train, torch.tensor([3, 0, 11])
    here, there = windows.batch(index), windows.on(CUDA).batch(index)
    for name in ("context", "target", "future"):
        assert getattr(there, name).is_cuda
        assert torch.equal(getattr(here, name), getattr(there, name).cpu())
    assert there.index is index
    monkeypatch.setattr("tsdistill.data.windows.CARRIED_BYTES", 8)
    assert windows.on(CUDA) is windows


def test_overlapping_runs_are_read_without_being_laid_out() -> None:
    series = torch.randn(100_003, 3)
    windows = Windows(series, torch.arange(90_000), 336, 96).on(CUDA)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    batch = windows.batch(torch.tensor([5, 89_999]))
    assert torch.equal(batch.context[1].cpu(), series[89_999 : 89_999 + 336])
    assert torch.cuda.max_memory_allocated() - before < series.nbytes
