"""What `check_losses` shows of terms that work: for every loss, kind of teacher and start of a student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.test_contracts import HEAD_OF
from tsdistill.data import Task
from tsdistill.errors import ShapeError, UnsupportedError
from tsdistill.losses import (
    LOSSES,
    AttentionLoss,
    FeatureLoss,
    Loss,
    OutputLoss,
    SmoothnessLoss,
    TemporalLoss,
    WeightSchedule,
)
from tsdistill.models import (
    DLinearConfig,
    Forecaster,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    PatchTSTConfig,
    PointHead,
    SeasonalNaiveConfig,
)
from tsdistill.teachers import ForecastTable, Tap, forecast_frame, wrap
from tsdistill.testing import check_losses, toy_task
from tsdistill.training import Training, train

STUDENT = LSTMConfig(widths=(5,), patch=11)
TRANSFORMER = PatchTSTConfig(depth=2, width=6, heads=2, patch=7)


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def teacher(task: Task) -> Forecaster:
    return TRANSFORMER.build(task.signature, seed=2)


@pytest.mark.parametrize("loss", LOSSES.examples(), ids=str)
def test_every_loss_works_beside_an_output_loss(loss: Loss, task: Task) -> None:
    head = HEAD_OF.get(loss.kind, PointHead())
    student = PatchTSTConfig(depth=1, width=10, heads=5, patch=11, stride=11, head=head)
    guide = TRANSFORMER.replace(head=head).build(task.signature, seed=2)
    output, check = check_losses([OutputLoss(), loss], guide, student, task)
    assert check.term == str(loss)
    assert output.share + check.share == pytest.approx(1)
    assert (check.n_parameters > 0) == (isinstance(loss, FeatureLoss) and loss.method == "hint")


def test_what_is_given_stays_and_two_looks_agree(task: Task, teacher: Forecaster, tmp_path: Path) -> None:
    student = STUDENT.build(task.signature, seed=3)
    before = student.digest, teacher.digest, student.training
    state = torch.random.get_rng_state()
    losses = [OutputLoss(), FeatureLoss(layers=((0, 0),)), TemporalLoss(weight=0.3)]
    first, second = (check_losses(losses, teacher, student, task, cache=tmp_path) for _ in range(2))
    assert first == second
    assert (student.digest, teacher.digest, student.training) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in (*student.parameters(), *teacher.parameters()))
    assert [check.n_parameters for check in first] == [0, 5 * 6 + 6, 0]
    assert "36 weights of its own" in str(first[1])


def test_a_weight_is_how_hard_a_term_pulls(task: Task, teacher: Forecaster) -> None:
    light, heavy = (check_losses([OutputLoss(), TemporalLoss(weight=w)], teacher, STUDENT, task)[1] for w in (0.1, 0.2))
    assert heavy.value == pytest.approx(2 * light.value)
    assert heavy.share / (1 - heavy.share) == pytest.approx(2 * light.share / (1 - light.share))


def test_a_term_that_comes_in_late_is_judged_at_its_height(task: Task, teacher: Forecaster) -> None:
    late = TemporalLoss(weight=0.2, schedule=WeightSchedule(start=0, end=1, begins=0.5))
    steady = late.replace(schedule=None)
    first, second = (check_losses([OutputLoss(), loss], teacher, STUDENT, task)[1] for loss in (late, steady))
    assert first.share == second.share > 0


def test_a_term_at_rest_on_a_fresh_student_has_to_move_a_shaken_one(task: Task, teacher: Forecaster) -> None:
    check = check_losses([OutputLoss(), SmoothnessLoss()], teacher, DLinearConfig(kernel=7), task)[1]
    assert (check.value, check.share) == (0, 0)


def test_a_table_of_forecasts_is_checked_like_any_teacher(task: Task) -> None:
    table = ForecastTable.from_frame(forecast_frame(train(LinearConfig(), task), task), task)
    (check,) = check_losses([OutputLoss(alpha=1)], table, STUDENT, task, training=Training(seed=5))
    assert check.share == 1
    with pytest.raises(UnsupportedError, match="shows no hidden states"):
        check_losses([FeatureLoss()], table, STUDENT, task)


class Encoder(torch.nn.Module):
    """Somebody else's transformer over five patches of nine steps of a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(9, 8)
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(5 * 8, 11)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(series[:, -45:].unflatten(1, (5, 9)))).flatten(1))


def test_a_foreign_module_is_checked_by_its_insides(task: Task) -> None:
    torch.manual_seed(7)
    series, layers = ("batch*channel", "time"), "encoder.layers.*"
    teacher = wrap(
        Encoder(),
        task,
        input_axes=series,
        output_axes=series,
        hidden=[Tap(path=layers, axes=("batch*channel", "token", "width"))],
        attention=[Tap(path=f"{layers}.self_attn", axes=("batch*channel", "head", "query", "key"), output=1)],
    )
    losses = [OutputLoss(), FeatureLoss(layers="uniform"), AttentionLoss()]
    checks = check_losses(losses, teacher, TRANSFORMER, task)
    assert [check.n_parameters for check in checks] == [0, 2 * (6 * 8 + 8), 0]
    assert all(check.share > 0 for check in checks)


def test_what_distill_refuses_is_refused_in_the_same_words(task: Task, teacher: Forecaster) -> None:
    with pytest.raises(UnsupportedError, match="self-similarity"):
        check_losses([AttentionLoss()], teacher, STUDENT, task)
    with pytest.raises(UnsupportedError, match="no weights"):
        check_losses([OutputLoss()], teacher, SeasonalNaiveConfig(period=7), task)
    with pytest.raises(ShapeError, match="the task's 7 steps"):
        check_losses([OutputLoss()], teacher, MLPConfig(), Task(task.panel, context=47, horizon=7, split=task.split))
