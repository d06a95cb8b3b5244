"""A chosen model is fitted once more on training and validation rows: exactly, never on test rows, never in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tsdistill as td
from tests.recipes import QUICK, float_recipe
from tests.typed import instance_of
from tsdistill.data.joining import with_validation
from tsdistill.data.panel import Item, Panel
from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, OrderError
from tsdistill.models import AveragedLinearConfig, Forecaster, MLPConfig, ModelConfig, SeasonalNaiveConfig
from tsdistill.recipe import StudentCandidate, TeacherSpec, run
from tsdistill.testing import CONTEXT, HORIZON, toy_panel, toy_task
from tsdistill.training import TruthObjective, fit

MLP = MLPConfig(width=3, depth=1, dropout=0.1)
STEPS = td.Training(epochs=3, batch_size=37, max_steps=15, precision="float32", learning_rate=5e-3)
SPLIT = td.Split.rows(251, 101, 147)


def task_of(values: np.ndarray | None = None) -> Task:
    panel = toy_panel()
    values = panel.items[0].values if values is None else values
    panel = Panel((Item("toy", None, values),), channels=panel.channels, frequency="h", name="toy")
    return Task(panel, context=CONTEXT, horizon=HORIZON, split=SPLIT)


def weights_of(model: Forecaster) -> np.ndarray:
    return np.concatenate([tensor.detach().double().numpy().ravel() for tensor in model.parameters()])


def test_windows_reach_to_the_end_of_the_validation_part_and_no_further() -> None:
    task = task_of()
    every = with_validation(task)
    rows = task.panel.items[0].values
    assert len(every.train) == 251 + 101 - CONTEXT - HORIZON + 1
    last = every.train.batch(torch.tensor([len(every.train) - 1])).target[0, -1].double().numpy()
    assert np.allclose(last * task.scale + task.mean, rows[251 + 101 - 1], atol=1e-4)
    assert every.validation.fingerprint == task.validation.fingerprint
    assert every.fingerprint != task.fingerprint


@pytest.mark.parametrize("individual", [False, True])
def test_a_ridge_is_that_of_all_windows_with_the_penalty_that_was_chosen(individual: bool) -> None:
    task = task_of()
    model = td.train(td.LinearConfig(individual=individual), task)
    final = td.refit(model, task)
    penalties = np.atleast_1d(model.lineage[-1].metrics["penalty"])
    batch = next(iter(with_validation(task).train.batches(10_000)))
    x, y = batch.context.double().numpy(), batch.target.double().numpy()
    x, y = x - x.mean(1, keepdims=True), y - x.mean(1, keepdims=True)
    own = final.state_dict()["map.weight"].double().numpy()
    for number, penalty in enumerate(penalties):
        channels = [number] if individual else range(3)
        rows, targets = (np.concatenate([one[:, :, channel] for channel in channels]) for one in (x, y))
        gram = rows.T @ rows
        ridge = np.linalg.solve(gram + penalty * np.trace(gram) / CONTEXT * np.eye(CONTEXT), rows.T @ targets)
        weight = own[number] if individual else own
        assert np.allclose(weight.reshape(HORIZON, CONTEXT), ridge.T, atol=1e-5)


@pytest.mark.parametrize(
    "config", [td.LinearConfig(), AveragedLinearConfig(contexts=(19, 47)), MLP], ids=lambda c: c.kind
)
def test_test_rows_change_nothing_and_validation_rows_do(config: ModelConfig) -> None:
    values = toy_panel().items[0].values
    fitted = {}
    for name, first in (("as it is", len(values)), ("other test rows", 352), ("other validation rows", 300)):
        changed = values.copy()
        changed[first:] *= 3.0
        fitted[name] = weights_of(td.train(config, task_of(changed), STEPS.replace(refit="all")))
    assert np.array_equal(fitted["as it is"], fitted["other test rows"])
    assert not np.allclose(fitted["as it is"], fitted["other validation rows"])


def test_steps_go_on_to_the_epoch_that_validation_chose() -> None:
    task = task_of()
    model = td.train(MLP, task, STEPS)
    final = td.refit(model, task)
    chosen, again = model.lineage[-1].metrics, final.lineage[-1].metrics
    share = again["n_windows"] / len(task.train)
    assert again["epochs"] == chosen["best_epoch"]
    limit = round(15 * share)
    assert again["steps"] == min(limit, chosen["best_epoch"] * -(-again["n_windows"] // 37))
    assert np.array_equal(weights_of(final), weights_of(td.train(MLP, task, STEPS.replace(refit="all"))))
    assert not np.allclose(weights_of(final), weights_of(model))


@pytest.mark.parametrize("config", [td.LinearConfig(individual=True), AveragedLinearConfig(contexts=(19, 47)), MLP],
                         ids=lambda c: c.kind)  # fmt: skip
def test_a_distilled_student_and_its_control_are_fitted_again(config: ModelConfig) -> None:
    task = task_of()
    teacher = td.train(td.LinearConfig(penalties=(3.0,)), task)
    losses = [td.OutputLoss(alpha=0.5 if config == MLP else "validation")]
    student = td.distill(teacher, config, task, losses=losses, training=STEPS)
    final = td.refit(student, task, teacher=teacher, losses=losses)
    assert [step.verb for step in final.lineage] == ["distill", "refit"]
    assert student.control is not None
    assert final.control is not None
    assert np.array_equal(weights_of(final.control), weights_of(td.refit(student.control, task)))
    at_once = td.distill(teacher, config, task, losses=losses, training=STEPS.replace(refit="all"))
    assert np.array_equal(weights_of(at_once), weights_of(final))
    assert at_once.lineage[-1].spec["teacher"] == teacher.digest


def test_a_control_that_was_kept_is_fitted_again_without_the_teacher() -> None:
    task = task_of()
    bad = td.train(SeasonalNaiveConfig(period=5), task)
    student = td.distill(bad, MLP, task, losses=[td.OutputLoss(alpha=1.0)], training=STEPS, keep="better")
    assert student.lineage[-1].metrics["kept"] == "control"
    final = td.refit(student, task)
    assert student.control is not None
    assert np.array_equal(weights_of(final), weights_of(td.refit(student.control, task)))


def test_a_model_that_learns_nothing_stays_as_it_is() -> None:
    task = task_of()
    assert td.train(SeasonalNaiveConfig(), task, STEPS.replace(refit="all")).lineage[-1].verb == "train"


def test_a_report_has_a_row_of_its_own_for_it(tmp_path: Path) -> None:
    recipe = float_recipe(tmp_path).replace_at({"student.training.refit": "all", "pruning": None})
    candidate = StudentCandidate(model=td.LinearConfig())
    recipe = recipe.replace(student=recipe.student.replace(candidates=(candidate,)))
    result = run(recipe, tmp_path / "out")
    assert [row.name for row in result.report.rows][2:4] == ["student", "refitted"]
    remark = result.report.row("deployed").remark
    assert remark is not None
    assert "fitted again on training and validation rows" in remark
    assert result.report.row("student").remark is None
    assert [step.verb for step in result.deployed.lineage][-3:] == ["refit", "export", "choose"]
    chosen = {row.name: row for row in result.report.candidates}["linear"]
    # What is compared on validation has not learnt from it.
    own = td.evaluate(td.export(instance_of(Forecaster, result.student), result.task), result.task, "validation")
    assert chosen.validation_mse == pytest.approx(own["mse"], rel=1e-5)
    assert json.loads((result.artifact / "manifest.json").read_text())["metrics"] == {}


def test_what_cannot_be_fitted_again_is_refused() -> None:
    task = toy_task()
    model = td.train(MLP, task, QUICK)
    pruned = td.prune(model, task, td.Pruning(ratio=0.34, recovery=None))
    with pytest.raises(OrderError, match="Refit first, then prune"):
        td.refit(pruned, task)
    with pytest.raises(OrderError, match="refit"):
        td.refit(td.export(td.train(td.LinearConfig(), task)), task)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="be the one that the model was trained on"):
        td.refit(model, task_of())
    student = td.distill(td.train(td.LinearConfig(), task), td.LinearConfig(), task, control=False)
    with pytest.raises(ConfigError, match="`teacher` must be given"):
        td.refit(student, task)
    with pytest.raises(ConfigError, match="`refit` must be None here"):
        fit(MLP.build(task.signature), task, QUICK.replace(refit="all"), TruthObjective())
    with pytest.raises(ConfigError, match="left out for a teacher"):
        TeacherSpec(training=QUICK.replace(refit="all"))
