"""Losses on how a forecast moves along time, against plain versions of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import oracles
from tests.taught import distilled_history, noise, under_autocast, value_of
from tsdistill.data import Task
from tsdistill.errors import ConfigError
from tsdistill.losses import DecompositionLoss, Example, Loss, SmoothnessLoss, TemporalLoss
from tsdistill.models import Activations, LinearConfig
from tsdistill.testing import BATCH, CHANNELS, HORIZON, toy_batch, toy_signature, toy_task

ALL: list[Loss] = [
    TemporalLoss(),
    TemporalLoss(order=2),
    SmoothnessLoss(),
    SmoothnessLoss(measure="total-variation", side="both"),
    DecompositionLoss(trend=5, share=0.3),
]


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.mark.parametrize("measure", ["second-difference", "total-variation"])
@pytest.mark.parametrize("side", ["rougher", "both"])
def test_roughness_equals_its_plain_version(measure: Any, side: Any) -> None:
    loss, from_student, from_teacher = SmoothnessLoss(measure=measure, side=side), noise(1), noise(2)
    student, teacher = (side.forecast.double().numpy() for side in (from_student, from_teacher))
    wanted = oracles.smoothness(student, teacher, loss.order, both=side == "both")
    assert float(value_of(loss, from_student, from_teacher)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("measure", ["second-difference", "total-variation"])
def test_only_a_student_rougher_than_its_teacher_pays(measure: Any) -> None:
    rough, smooth = noise(1), Activations(0.1 * noise(1).forecast)
    one_sided, both = (SmoothnessLoss(measure=measure, side=side) for side in ("rougher", "both"))
    assert float(value_of(one_sided, smooth, rough)) == 0.0
    assert float(value_of(one_sided, rough, smooth)) > 0.1
    assert float(value_of(both, smooth, rough)) == pytest.approx(float(value_of(both, rough, smooth)))


def test_a_second_difference_lets_slopes_be_and_a_total_variation_does_not() -> None:
    slope = torch.arange(HORIZON).float()[None, :, None].expand(BATCH, HORIZON, CHANNELS)
    flat = Activations(torch.zeros(BATCH, HORIZON, CHANNELS))
    assert float(value_of(SmoothnessLoss(), Activations(slope), flat)) == 0.0
    value = value_of(SmoothnessLoss(measure="total-variation"), Activations(3 * slope), flat)
    assert float(value) == pytest.approx(9.0)


@pytest.mark.parametrize(("length", "share"), [(3, 0.5), (5, 0.3), (11, 1.0), (7, 0.0)])
def test_a_decomposition_equals_its_plain_version(length: int, share: float) -> None:
    from_student, from_teacher = noise(1), noise(2)
    student, teacher = (side.forecast.double().numpy() for side in (from_student, from_teacher))
    value = float(value_of(DecompositionLoss(trend=length, share=share), from_student, from_teacher))
    assert value == pytest.approx(oracles.decomposition(student, teacher, length, share), rel=1e-5)


def test_a_level_is_all_trend() -> None:
    outputs = noise(1)
    higher = Activations(outputs.forecast + 2)
    assert float(value_of(DecompositionLoss(trend=5, share=1), higher, outputs)) == pytest.approx(4.0, rel=1e-5)
    assert float(value_of(DecompositionLoss(trend=5, share=0), higher, outputs)) < 1e-10


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_temporal_terms_are_float32_inside_under_bfloat16(loss: Loss) -> None:
    value, wanted = under_autocast(loss, noise(1), noise(2))
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("loss", [SmoothnessLoss(side="both"), DecompositionLoss(trend=5)], ids=str)
def test_a_student_learns_by_each_temporal_term_and_its_part_is_logged(task: Task, loss: Loss) -> None:
    assert all(record[f"loss_{loss.kind}"] > 0 for record in distilled_history(loss, task))


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (SmoothnessLoss(), "0.1 * mean(max(0, mean|diff2(student)| - mean|diff2(teacher)|)^2)"),
        (
            SmoothnessLoss(measure="total-variation", side="both", weight=1),
            "mean((mean|diff(student)| - mean|diff(teacher)|)^2)",
        ),
        (
            DecompositionLoss(weight=2),
            "2 * (0.5 * MSE(trend(student), trend(teacher)) + 0.5 * MSE(rest(student), rest(teacher)); trend 25)",
        ),
    ],
    ids=["smoothness", "both", "decomposition"],
)
def test_temporal_formulas_say_what_is_computed(loss: Loss, wanted: str) -> None:
    assert str(loss) == wanted


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SmoothnessLoss(measure="jerk"), ["`measure`", "total-variation", "jerk"]),
        (lambda: SmoothnessLoss(side="smoother"), ["`side`", "rougher", "smoother"]),
        (lambda: DecompositionLoss(trend=24), ["`trend`", "odd", "24", "Use 25"]),
        (lambda: DecompositionLoss(trend=1), ["trend", "3"]),
        (lambda: DecompositionLoss(share=1.5), ["share", "1.5"]),
    ],
)  # fmt: skip
def test_temporal_losses_that_make_no_sense_are_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("loss", "horizon", "words"),
    [
        (TemporalLoss(order=2), 2, ["`order`", "horizon (2)"]),
        (SmoothnessLoss(), 2, ["`horizon`", "longer than 2", "horizon=2"]),
        (SmoothnessLoss(measure="total-variation"), 1, ["longer than 1", "total-variation"]),
        (DecompositionLoss(trend=13), 11, ["`trend`", "horizon (11)", "trend=13"]),
    ],
    ids=["temporal", "second", "variation", "trend"],
)
def test_a_horizon_too_short_for_a_temporal_term_is_refused(loss: Loss, horizon: int, words: list[str]) -> None:
    student = LinearConfig().build(toy_signature().replace(horizon=horizon))
    with pytest.raises(ConfigError) as caught:
        loss.bind(student, Example(noise(1), noise(2), toy_batch()))
    assert [word for word in words if word not in str(caught.value)] == []
