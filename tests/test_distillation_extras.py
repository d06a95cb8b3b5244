"""Balanced and scheduled losses, cached insides, and what a student's lineage says of its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tsdistill.data import Task
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError, UnsupportedError
from tsdistill.losses import AttentionLoss, FeatureLoss, Loss, OutputLoss, TemporalLoss, WeightSchedule
from tsdistill.losses import feature as hints
from tsdistill.losses.base import Example
from tsdistill.models import Forecaster, InvertedTransformerConfig, LSTMConfig, MLPConfig, PatchTSTConfig
from tsdistill.teachers import CachedTeacher
from tsdistill.testing import toy_task
from tsdistill.training import TeacherObjective, Training, fit, train

QUICK = Training(epochs=2, batch_size=61, precision="float32", learning_rate=3e-3, device="cpu")
STUDENT = LSTMConfig(widths=(5,), patch=11)


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def teacher(task: Task) -> Forecaster:
    return train(PatchTSTConfig(depth=2, width=6, heads=2, patch=7), task, QUICK)


def test_a_transformer_teaches_an_lstm_what_it_holds_and_where_it_looks(
    task: Task, teacher: Forecaster, tmp_path: Path
) -> None:
    losses = [OutputLoss(), FeatureLoss(), AttentionLoss(source="self-similarity")]
    student = distill(teacher, STUDENT, task, losses=losses, training=QUICK, cache=tmp_path)
    first = student.lineage[-1].metrics["history"][0]
    assert {"loss_output", "loss_feature", "loss_attention"} <= set(first)
    assert {path.name.split(".", 1)[1] for path in tmp_path.glob("*.npy")} == {"forecast.npy", "hidden.1.npy"}
    again = distill(teacher, STUDENT, task, losses=losses, training=QUICK)
    assert torch.equal(
        again.get_parameter("last.weight"), student.get_parameter("last.weight")
    )  # in memory or from files: the same numbers


def test_what_does_not_fit_is_asked_of_the_teacher_again_to_the_same_end(task: Task, teacher: Forecaster) -> None:
    weights: list[torch.Tensor] = []
    for max_bytes in (0, 10**9):
        cached_teacher = CachedTeacher(teacher, max_bytes=max_bytes)
        live = cached_teacher.outputs(task.train, {"hidden.1"}).live
        assert live == ({"hidden.1"} if max_bytes == 0 else set())
        student = STUDENT.build(task.signature)
        metrics = fit(student, task, QUICK, TeacherObjective([OutputLoss(), FeatureLoss()], cached_teacher))
        assert metrics.get("asked_every_batch") == (["hidden.1"] if max_bytes == 0 else None)
        weights.append(student.get_parameter("last.weight").detach())
    assert torch.allclose(weights[0], weights[1], atol=1e-3)


@pytest.mark.parametrize("cached", [1, 1000], ids=["a window at a time", "a few at a time"])
def test_a_hint_is_the_same_in_parts(
    cached: int, task: Task, teacher: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = STUDENT.build(task.signature)
    gradients: list[torch.Tensor] = []
    (batch,) = task.train.subset(torch.arange(23)).batches(23)
    with torch.no_grad():
        taught = teacher.activations(batch.context)
    for size in (10**9, cached):
        monkeypatch.setattr(hints, "CACHED", size)
        torch.manual_seed(0)
        pupil = student.activations(batch.context)
        term = FeatureLoss().bind(student, Example(pupil, taught, batch))
        term(pupil, taught, batch).backward()
        gradient = term.get_parameter("projectors.0.weight").grad
        assert gradient is not None
        gradients.append(gradient)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients)


def test_a_projector_is_trained_and_resumed(task: Task, teacher: Forecaster, tmp_path: Path) -> None:
    options: dict[str, Any] = {"losses": [OutputLoss(), FeatureLoss()], "control": False}
    whole = distill(teacher, STUDENT, task, training=QUICK.replace(epochs=3), **options)
    objective = TeacherObjective([OutputLoss(), FeatureLoss()], CachedTeacher(teacher))
    student = STUDENT.build(task.signature)
    objective.bind(student, task.train)
    before = [parameter.detach().clone() for parameter in objective.parameters()]
    fit(student, task, QUICK, objective)
    after = list(objective.parameters())
    assert before
    assert len(after) == len(before)
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert whole.lineage[-1].metrics["epochs"] == 3


def test_balanced_terms_pull_as_their_weights_say(task: Task, teacher: Forecaster) -> None:
    losses = [OutputLoss(), TemporalLoss(weight=0.25)]
    objective = TeacherObjective(losses, CachedTeacher(teacher), balance="start")
    student = STUDENT.build(task.signature)
    objective.bind(student, task.train)
    first, second = objective._pulls(student, task.train)
    scales = objective.sum.scales.tolist()
    assert second * scales[1] == pytest.approx(first * scales[0], rel=1e-4)
    assert scales[0] == 1
    spec = (
        distill(teacher, STUDENT, task, losses=losses, training=QUICK, balance="start", control=False).lineage[-1].spec
    )
    assert spec["balance"] == "start"
    with pytest.raises(ConfigError, match="balance"):
        TeacherObjective(losses, CachedTeacher(teacher), balance="later")  # type: ignore[arg-type]


def test_a_schedule_moves_the_weight_of_its_term(task: Task, teacher: Forecaster) -> None:
    fading = TemporalLoss(weight=0.5, schedule=WeightSchedule(start=1, end=0, finishes=0.5))
    objective = TeacherObjective([OutputLoss(), fading], CachedTeacher(teacher))
    student = STUDENT.build(task.signature).eval()
    objective.bind(student, task.train)
    batch = task.train.batch(torch.arange(7))
    parts = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        objective.at(progress)
        parts.append(float(objective(student, batch)[1]["temporal"]))
    assert parts[1] == pytest.approx(parts[0] / 2)
    assert parts[2:] == [0, 0]
    assert str(fading) == "0.5 * [1 -> 0] * MSE(diff(student), diff(teacher))"


def test_the_lineage_says_whether_the_teacher_helped(task: Task, teacher: Forecaster) -> None:
    student = distill(teacher, STUDENT, task, training=QUICK)
    comparison = student.lineage[-1].metrics["against_control"]
    assert comparison["relative"] == pytest.approx(
        comparison["validation_mse"] / comparison["control_validation_mse"] - 1
    )
    assert comparison["better"] == ("student" if comparison["relative"] < 0 else "control")
    alone = distill(teacher, STUDENT, task, training=QUICK, control=False)
    assert "against_control" not in alone.lineage[-1].metrics


@pytest.mark.parametrize(
    ("loss", "student", "words"),
    [
        (AttentionLoss(), STUDENT, "'lstm'.*self-similarity"),
        (AttentionLoss(source="self-similarity"), MLPConfig(width=5, depth=1), "several tokens"),
        (
            AttentionLoss(source="self-similarity"),
            InvertedTransformerConfig(depth=1, width=6, heads=2),
            "got channels .student. and time",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    task: Task, teacher: Forecaster, loss: Loss, student: LSTMConfig, words: str
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        distill(teacher, student, task, losses=[OutputLoss(), loss], training=QUICK, control=False)


def test_a_layer_map_out_of_range_lists_its_pairs(task: Task, teacher: Forecaster) -> None:
    loss = FeatureLoss(layers=((0, 1), (0, 2)))
    with pytest.raises(ConfigError, match=r"layers\[1\].*below 1 and a teacher's below 2"):
        distill(teacher, STUDENT, task, losses=[loss], training=QUICK, control=False)


def test_a_channel_mixing_side_is_compared_over_the_mean_of_channels(task: Task, teacher: Forecaster) -> None:
    student = InvertedTransformerConfig(depth=1, width=6, heads=2)
    losses = [OutputLoss(), FeatureLoss(method="cka")]
    made = distill(teacher, student, task, losses=losses, training=QUICK, control=False)
    assert made.lineage[-1].metrics["history"][0]["loss_feature"] > 0
