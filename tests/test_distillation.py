"""Distilling and pruning: what comes out, what is left untouched, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tsdistill.artifacts import load, save
from tsdistill.data import Batch, Task
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError, OrderError, ShapeError, UnsupportedError
from tsdistill.exporting import export
from tsdistill.losses import OutputLoss, TemporalLoss
from tsdistill.models import Forecaster, LinearConfig, LSTMConfig, MLPConfig, PatchTSTConfig, SeasonalNaiveConfig
from tsdistill.models.ridge import Statistics, choose
from tsdistill.pruning import Pruning, prune
from tsdistill.teachers import check_teacher
from tsdistill.testing import toy_task
from tsdistill.training import Training, train

QUICK = Training(epochs=2, batch_size=37, learning_rate=5e-3, precision="float32")
STUDENT = LSTMConfig(widths=(8, 5), patch=11)


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def teacher(task: Task) -> Forecaster:
    return train(PatchTSTConfig(depth=1, width=6, heads=2, patch=11), task, QUICK)


def test_a_student_gets_a_control_and_a_lineage_and_the_teacher_stays(task: Task, teacher: Forecaster) -> None:
    before = teacher.digest
    student = distill(teacher, STUDENT, task, losses=[OutputLoss(), TemporalLoss()], training=QUICK)
    assert teacher.digest == before
    assert student.control is not None
    assert student.control.digest == train(STUDENT, task, QUICK).digest
    assert student.digest != student.control.digest
    step = student.lineage[-1]
    assert (step.verb, step.spec["teacher"], step.data) == ("distill", before, task.fingerprint)
    assert distill(teacher, STUDENT, task, training=QUICK, control=False).control is None


def test_without_the_teachers_share_distilling_is_training(task: Task, teacher: Forecaster) -> None:
    student = distill(teacher, STUDENT, task, losses=[OutputLoss(alpha=0.0)], training=QUICK)
    assert student.control is not None
    assert student.digest == student.control.digest


def test_a_linear_student_is_solved_on_the_blended_targets(task: Task, teacher: Forecaster) -> None:
    config = LinearConfig(penalties=(1e-3,))
    student = distill(teacher, config, task, losses=[OutputLoss(alpha=0.3)], control=False)

    def blend(batch: Batch) -> torch.Tensor:
        return 0.7 * batch.target + 0.3 * teacher.forecast(batch)

    statistics = Statistics.of(task.train, blend)
    plain = choose(statistics, statistics, (1e-3,), (1.0,)).weight
    assert torch.allclose(student.state_dict()["map.weight"].T.double(), plain, atol=1e-3)


def test_a_student_can_go_on_from_its_weights(task: Task, teacher: Forecaster) -> None:
    first = train(STUDENT, task, QUICK)
    before = first.digest
    student = distill(teacher, first, task, training=QUICK.replace(max_steps=1), control=False)
    assert first.digest == before != student.digest
    assert [step.verb for step in student.lineage] == ["train", "distill"]


def test_a_teacher_of_another_question_is_refused(task: Task, teacher: Forecaster) -> None:
    other = Task(task.panel, context=47, horizon=7, split=task.split)
    with pytest.raises(ShapeError, match="the task's 7 steps"):
        distill(teacher, STUDENT, other, training=QUICK)
    shorter = Task(task.panel, context=43, horizon=11, split=task.split)
    with pytest.raises(ShapeError, match=r"context=47.*PrivilegedTeacher"):
        check_teacher(teacher, shorter)


def test_pruning_shrinks_config_parameters_and_control(task: Task, teacher: Forecaster) -> None:
    student = distill(teacher, STUDENT, task, training=QUICK)
    before = student.digest
    spec = Pruning(ratio=0.5, recovery=QUICK.replace(epochs=1))
    smaller = prune(student, task, spec, teacher=teacher)
    assert student.digest == before
    assert isinstance(smaller.config, LSTMConfig)
    assert smaller.config.widths == (4, 3)
    assert type(smaller) is type(student)
    assert smaller.n_parameters < student.n_parameters
    assert smaller.control is not None
    assert smaller.control.config == smaller.config
    assert smaller.lineage[-1].metrics["kept"] == {"layer1.units": "4 of 8", "layer2.units": "3 of 5"}
    again = prune(smaller, task, Pruning(ratio=0.99, recovery=None))
    assert isinstance(again.config, LSTMConfig)
    assert again.config.widths == (1, 1)


def test_the_weakest_units_go(task: Task) -> None:
    model = MLPConfig(width=5, depth=1, hidden=7, dropout=0.0).build(task.signature)
    with torch.no_grad():
        for name in ("blocks.0.expand.weight", "blocks.0.expand.bias"):
            model.state_dict()[name][[1, 4]] *= 1e-3
        model.state_dict()["blocks.0.contract.weight"][:, [1, 4]] *= 1e-3
    smaller = prune(model, task, Pruning(ratio=2 / 7, recovery=None))
    kept = model.state_dict()["blocks.0.expand.weight"][[0, 2, 3, 5, 6]]
    assert torch.equal(smaller.state_dict()["blocks.0.expand.weight"], kept)


def test_nothing_is_removed_at_ratio_zero(task: Task) -> None:
    model = STUDENT.build(task.signature).eval()
    assert prune(model, task, Pruning(ratio=0, recovery=None)).digest == model.digest


def test_what_cannot_be_pruned_or_is_out_of_order_is_refused(task: Task) -> None:
    ridge = train(LinearConfig(), task)
    with pytest.raises(UnsupportedError, match="no units, heads or widths"):
        prune(ridge, task, Pruning())
    deployed = export(ridge)
    for verb in (lambda: prune(deployed, task), lambda: distill(deployed, STUDENT, task)):  # type: ignore[arg-type]
        with pytest.raises(OrderError, match=r"[Ss]wap"):
            verb()


def test_a_control_never_starts_from_what_a_teacher_has_shaped(task: Task, teacher: Forecaster) -> None:
    one_step = QUICK.replace(max_steps=1)
    student = distill(teacher, STUDENT, task, training=one_step)
    again = distill(teacher, student, task, training=one_step)
    assert again.control is not None
    assert [step.verb for step in again.control.lineage] == ["train", "train"]
    student.control = None
    with pytest.raises(OrderError, match="control=False"):
        distill(teacher, student, task, training=one_step)


def test_a_teacher_of_another_horizon_does_not_lead_a_recovery(task: Task, teacher: Forecaster) -> None:
    other = train(LinearConfig(), Task(task.panel, context=47, horizon=1, split=task.split))
    student = STUDENT.build(task.signature)
    with pytest.raises(ShapeError, match="`teacher` must forecast"):
        prune(student, task, Pruning(recovery=QUICK), teacher=other)
    with pytest.raises(OrderError):
        prune(student, task, Pruning(recovery=QUICK), teacher=export(other))  # type: ignore[arg-type]


def test_what_has_no_weights_is_not_distilled(task: Task, teacher: Forecaster) -> None:
    with pytest.raises(UnsupportedError, match="no weights"):
        distill(teacher, SeasonalNaiveConfig(period=7), task)


def test_the_better_of_student_and_control_is_kept_and_the_lineage_says_which(task: Task, tmp_path: Path) -> None:
    blind = PatchTSTConfig(depth=1, width=6, heads=2, patch=11).build(task.signature)
    harmed = distill(blind, STUDENT, task, losses=[OutputLoss(alpha=1)], training=QUICK)
    kept = distill(blind, STUDENT, task, losses=[OutputLoss(alpha=1)], training=QUICK, keep="better")
    assert harmed.control is not None
    assert kept.digest == harmed.control.digest != harmed.digest
    assert kept.control is not None
    assert kept.control is not kept
    assert kept.control.lineage == harmed.control.lineage
    train_step, step = kept.lineage
    assert train_step == harmed.lineage[-1].replace(
        verb="train", spec=train_step.spec, metrics=harmed.control.lineage[-1].metrics
    )
    assert (step.verb, step.spec) == ("distill", {**harmed.lineage[-1].spec, "keep": "better"})
    assert step.metrics == {"kept": "control", "against_control": harmed.lineage[-1].metrics["against_control"]}
    save(kept, tmp_path / "kept")
    alone = load(tmp_path / "kept")
    assert isinstance(alone, Forecaster)
    assert alone.lineage == kept.lineage
    # No teacher has shaped it, so that a control may start from it.
    assert distill(blind, alone, task, training=QUICK.replace(max_steps=1)).control is not None


def test_a_student_that_validation_prefers_is_kept(task: Task) -> None:
    wild, tamed = LinearConfig(penalties=(1e-6,)), train(LinearConfig(), task)
    student = distill(tamed, wild, task, losses=[OutputLoss(alpha=1)])
    kept = distill(tamed, wild, task, losses=[OutputLoss(alpha=1)], keep="better")
    assert kept.digest == student.digest
    assert [step.verb for step in kept.lineage] == ["distill"]
    step = kept.lineage[-1]
    assert (step.spec["keep"], step.metrics["kept"]) == ("better", "student")
    assert step.metrics["against_control"] == student.lineage[-1].metrics["against_control"]
    assert "keep" not in student.lineage[-1].spec
    assert "kept" not in student.lineage[-1].metrics


@pytest.mark.parametrize(
    ("options", "words"),
    [({"keep": "best"}, '"student" or "better"'), ({"keep": "better", "control": False}, "`control`")],
)
def test_a_choice_that_cannot_be_made_is_refused(
    task: Task, teacher: Forecaster, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        distill(teacher, STUDENT, task, training=QUICK, **options)
