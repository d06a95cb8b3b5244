"""Heads say what they claim to say, learn it, and refuse settings that make no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tsdistill.distillation import distill
from tsdistill.errors import ConfigError
from tsdistill.losses import Example, OutputLoss
from tsdistill.models import BinnedHead, LinearConfig, MLPConfig, PointHead, QuantileHead
from tsdistill.models.activations import Activations
from tsdistill.testing import BATCH, CHANNELS, HORIZON, toy_batch, toy_signature, toy_task
from tsdistill.training import Training, train

LEVELS = (0.05, 0.3, 0.5, 0.9)
QUICK = Training(epochs=12, batch_size=37, learning_rate=1e-2, precision="float32", patience=None)


def raw_of(head: Any, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(BATCH, CHANNELS, head.n_outputs, HORIZON, generator=torch.Generator().manual_seed(seed))


def test_pinball_equals_its_definition() -> None:
    head = QuantileHead(levels=LEVELS)
    quantiles = torch.randn(BATCH, HORIZON, CHANNELS, len(LEVELS))
    target = toy_batch().target
    total, count = 0.0, 0
    for place, y in np.ndenumerate(target.numpy()):
        for level, q in zip(LEVELS, quantiles[place].tolist(), strict=True):
            total += 2 * (level * (y - q) if y >= q else (1 - level) * (q - y))
            count += 1
    value = head.error(Activations(quantiles[..., 2], distribution=quantiles), target)
    assert float(value) == pytest.approx(total / count, rel=1e-5)


def test_quantiles_rise_from_any_outputs_and_each_output_moves_something() -> None:
    head = QuantileHead(levels=LEVELS)
    raw = raw_of(head).requires_grad_()
    outputs = head.read(raw)
    assert outputs.distribution is not None
    assert bool((outputs.distribution.diff(dim=-1) > 0).all())
    outputs.distribution.square().sum().backward()
    assert raw.grad is not None
    assert bool((raw.grad != 0).all())


def test_a_single_level_is_the_median() -> None:
    head = QuantileHead(levels=(0.5,))
    raw = raw_of(head)
    assert torch.equal(head.read(raw).forecast, raw[:, :, 0])


def test_the_bin_of_a_target_is_the_nearest_centre_and_outer_bins_take_the_rest() -> None:
    head = BinnedHead(n_bins=5, reach=2.0)
    support = torch.linspace(-2, 2, 5).reshape(1, 1, 1, 5)
    target = torch.tensor([-9.0, -0.6, 0.4, 1.6, 9.0]).reshape(1, 5, 1)
    logits = torch.randn(1, 5, 1, 5)
    error = head.error(Activations(target, distribution=logits, support=support), target)
    rows = logits[0, :, 0].log_softmax(-1)
    wanted = -sum(rows[row, place] for row, place in enumerate((0, 1, 2, 4, 4))) / 5
    assert float(error) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("head", [QuantileHead(levels=(0.1, 0.5, 0.9)), BinnedHead(n_bins=41, reach=4.0)], ids=str)
def test_training_by_a_heads_own_error_comes_near_a_point_head(head: Any) -> None:
    task = toy_task()
    point, other = (train(MLPConfig(width=11, depth=1, head=choice), task, QUICK) for choice in (PointHead(), head))
    assert other.lineage[-1].metrics["objective"] == f"{head.measure}(model, truth)"
    errors = [model.lineage[-1].metrics["validation_mse"] for model in (point, other)]
    assert errors[1] < 1.3 * errors[0]
    records = other.lineage[-1].metrics["history"]
    assert min(records, key=lambda record: record["validation_error"])["validation_mse"] == errors[1]


def test_trained_quantiles_cover_about_what_they_promise() -> None:
    task = toy_task(n_rows=997)
    model = train(MLPConfig(width=11, depth=1, head=QuantileHead(levels=(0.1, 0.5, 0.9))), task, QUICK)
    batch = task.validation.batch(torch.arange(len(task.validation)))
    with torch.no_grad():
        quantiles = model.activations(batch.context).distribution
    assert quantiles is not None
    below = [float((batch.target < quantiles[..., level]).float().mean()) for level in range(3)]
    assert below == pytest.approx([0.1, 0.5, 0.9], abs=0.12)


@pytest.mark.parametrize("head", [QuantileHead(levels=LEVELS), BinnedHead(n_bins=13)], ids=lambda head: head.kind)
def test_an_output_loss_blends_the_errors_of_teacher_and_truth(head: Any) -> None:
    student = MLPConfig(width=5, depth=1, head=head).build(toy_signature())
    batch, forecast = toy_batch(), torch.randn(BATCH, HORIZON, CHANNELS)
    inside = student.activations(batch.context)
    taught = Activations(forecast)
    value = OutputLoss(alpha=0.3).bind(student, Example(inside, taught, batch))(inside, taught, batch)
    parts = [float(head.error(inside, target).detach()) for target in (forecast, batch.target)]
    assert float(value.detach()) == pytest.approx(0.3 * parts[0] + 0.7 * parts[1], rel=1e-5)


def test_a_student_with_quantiles_learns_from_a_point_teacher() -> None:
    task = toy_task()
    config = MLPConfig(width=7, depth=1, head=QuantileHead(levels=(0.2, 0.5, 0.8)))
    student = distill(train(LinearConfig(), task), config, task, training=QUICK, control=False)
    history = student.lineage[-1].metrics["history"]
    assert history[-1]["validation_error"] < history[0]["validation_error"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: QuantileHead(levels=(0.5, 0.1)), ["levels", "rising", "(0.5, 0.1)"]),
        (lambda: QuantileHead(levels=(0.1, 0.9)), ["0.5 among them", "(0.1, 0.9)"]),
        (lambda: QuantileHead(levels=(0.0, 0.5)), ["between 0 and 1"]),
        (lambda: QuantileHead(levels=(0.5, 0.5, 0.9)), ["rising"]),
        (lambda: QuantileHead(levels=()), ["levels", "0.5"]),
        (lambda: BinnedHead(n_bins=2, reach=-1.0), ["n_bins", "reach", "-1.0"]),
        (lambda: MLPConfig(head={"kind": "quantil"}), ["quantile", "quantil"]),
    ],
)  # fmt: skip
def test_impossible_heads_are_refused_with_rule_and_value(make: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []
