"""Several teachers as one, and a teacher that is believed only where it deserves it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tsdistill as td
from tsdistill.data import Batch
from tsdistill.errors import ConfigError, DataError, ShapeError
from tsdistill.losses import OutputLoss
from tsdistill.models import Forecaster, LinearConfig, PatchTSTConfig, SeasonalNaiveConfig
from tsdistill.models.ridge import Statistics, choose
from tsdistill.teachers import CachedTeacher, check_teacher, forecast_frame, shown_by
from tsdistill.teachers.ensemble import simplex_weights
from tsdistill.testing import toy_panel, toy_task
from tsdistill.training import train


class Off:
    """The truth plus a fixed error in each window and channel."""

    def __init__(self, name: str, error: Any) -> None:
        self.digest, self._error = name, error

    def forecast(self, batch: Batch) -> Tensor:
        return batch.target + torch.as_tensor(self._error(batch), dtype=torch.float32)


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


@pytest.fixture(scope="module")
def members(task: td.Task) -> list[Forecaster]:
    return [
        train(LinearConfig(penalties=(1e-3,)), task),
        *(SeasonalNaiveConfig(period=p).build(task.signature) for p in (24, 7)),
    ]


def every(windows: Any) -> Batch:
    return windows.batch(torch.arange(len(windows)))


def error_of(teacher: Any, windows: Any) -> float:
    batch = every(windows)
    return float((teacher.forecast(batch) - batch.target).square().mean())


def test_an_ensemble_of_one_is_its_member(task: td.Task, members: list[Forecaster]) -> None:
    batch = every(task.train)
    for weights in ("equal", "validation", "best-per-window"):
        alone = td.teachers.TeacherEnsemble(members[:1], task, weights)
        torch.testing.assert_close(alone.forecast(batch), members[0].forecast(batch), rtol=0, atol=1e-6)
    alone, config = td.teachers.TeacherEnsemble(members[:1], task), LinearConfig(penalties=(1e-3,))
    students = [td.distill(teacher, config, task, control=False) for teacher in (alone, members[0])]
    torch.testing.assert_close(*(student.state_dict()["map.weight"] for student in students))
    assert alone.digest != members[0].digest


def test_the_mean_is_the_mean_and_knows_all_windows(task: td.Task, members: list[Forecaster]) -> None:
    ensemble = td.teachers.TeacherEnsemble(members, task)
    for windows in (task.train, task.validation):
        batch = every(windows)
        mean = sum(member.forecast(batch) for member in members) / 3
        torch.testing.assert_close(ensemble.forecast(batch), mean)
    assert shown_by(ensemble, every(task.train)).hidden == ()


def test_validation_weighs_no_worse_than_the_best_member_and_the_mean(task: td.Task, members: list[Forecaster]) -> None:
    weighed = td.teachers.TeacherEnsemble(members, task, "validation")
    assert weighed.weights is not None
    assert min(weighed.weights) >= 0
    assert sum(weighed.weights) == pytest.approx(1)
    least = min(
        error_of(teacher, task.validation) for teacher in (*members, td.teachers.TeacherEnsemble(members, task))
    )
    assert error_of(weighed, task.validation) <= least + 1e-6


def test_weights_are_those_of_a_search_over_the_simplex() -> None:
    random = np.random.default_rng(0)
    grid = [np.array([a, b, 1 - a - b]) for a, b in itertools.product(np.linspace(0, 1, 101), repeat=2) if a + b <= 1]
    for _ in range(20):
        errors = random.standard_normal((41, 3)) @ random.standard_normal((3, 3)) + random.standard_normal(3)
        products = errors.T @ errors / 41
        fitted = np.array(simplex_weights(products))
        best = min(weights @ products @ weights for weights in grid)
        assert fitted @ products @ fitted <= best * (1 + 1e-9)
    assert simplex_weights(np.zeros((2, 2))) == (0.5, 0.5)
    twins = np.array([[1.0, 1.0], [1.0, 1.0]])
    assert sum(simplex_weights(twins)) == pytest.approx(1)


def test_the_best_per_window_is_the_oracle_of_training_windows(task: td.Task, members: list[Forecaster]) -> None:
    oracle = td.teachers.TeacherEnsemble(members, task, "best-per-window")
    batch = task.train.batch(torch.tensor([5, 3, 88]))
    forecast = oracle.forecast(batch)
    for window in range(3):
        forecasts = [member.forecast(batch)[window] for member in members]
        errors = [float((candidate - batch.target[window]).square().mean()) for candidate in forecasts]
        torch.testing.assert_close(forecast[window], forecasts[int(np.argmin(errors))])
    for windows in (task.validation, task.test, task.train.subset(torch.arange(2, 9))):
        with pytest.raises(DataError, match="training windows of its task only"):
            oracle.forecast(windows.batch(torch.arange(3)))


def test_an_ensembles_digest_follows_members_and_weights(task: td.Task, members: list[Forecaster]) -> None:
    made = [
        td.teachers.TeacherEnsemble(members, task),
        td.teachers.TeacherEnsemble(members[:2], task),
        td.teachers.TeacherEnsemble(members, task, "validation"),
        td.teachers.TeacherEnsemble(members, task, "best-per-window"),
    ]
    assert len({ensemble.digest for ensemble in made}) == 4
    assert made[0].digest == td.teachers.TeacherEnsemble(list(members), task).digest


def test_tables_teach_together(task: td.Task, members: list[Forecaster]) -> None:
    table = td.teachers.ForecastTable.from_frame(forecast_frame(members[1], task), task)
    td.teachers.TeacherEnsemble([table, members[0]], task)
    with pytest.raises(DataError, match="the windows it covers"):
        td.teachers.TeacherEnsemble([table, members[0]], task, "validation")
    both = td.teachers.ForecastTable.from_frame(forecast_frame(members[1], task, ("train", "validation")), task)
    table_weights, member_weights = (
        td.teachers.TeacherEnsemble([first, members[0]], task, "validation").weights for first in (both, members[1])
    )
    assert table_weights == pytest.approx(member_weights)


def test_wrong_ensembles_are_refused(task: td.Task, members: list[Forecaster]) -> None:
    other = train(LinearConfig(), td.Task(task.panel, context=47, horizon=7, split=task.split))
    with pytest.raises(ShapeError, match="11 steps"):
        td.teachers.TeacherEnsemble([members[0], other], task)
    with pytest.raises(ConfigError, match=r"(?s)`teachers`.*`weights`.*Did you mean `validation`"):
        td.teachers.TeacherEnsemble([], task, "validatoin")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="Make it for this task"):
        check_teacher(td.teachers.TeacherEnsemble(members, task), toy_task(seed=1))


def by_window(batch: Batch) -> Tensor:
    """Twice the baseline's error in windows of even position and channel 0, half of it elsewhere."""
    worse = torch.full((len(batch.index), 1, 3), 0.5)
    worse[batch.index % 2 == 0, :, 0] = 2.0
    return worse


def test_trust_falls_where_the_baseline_is_better(task: td.Task) -> None:
    teacher, baseline = Off("teacher", by_window), Off("baseline", lambda _: 1.0)
    batch = task.train.batch(torch.tensor([4, 7, 1, 20]))
    expected = torch.ones(4, 3)
    expected[[0, 3], 0] = 0.25  # half the error, so a quarter of its square
    for sharpness, value in ((1.0, expected), (2.0, expected**2), (float("inf"), (expected == 1).float())):
        trusted = td.teachers.TrustedTeacher(teacher, task, baseline=baseline, sharpness=sharpness)
        torch.testing.assert_close(trusted.trust(batch), value)
        blend = batch.target + value[:, None] * (teacher.forecast(batch) - batch.target)
        torch.testing.assert_close(trusted.forecast(batch), blend)
    assert bool((td.teachers.TrustedTeacher(Off("truth", lambda _: 0.0), task).trust(batch) == 1).all())
    assert bool((td.teachers.TrustedTeacher(baseline, task, baseline=Off("t", lambda _: 0.0)).trust(batch) == 0).all())


def test_alpha_times_trust_reaches_the_closed_form(task: td.Task) -> None:
    teacher, baseline = Off("teacher", by_window), Off("baseline", lambda _: 1.0)
    trusted = td.teachers.TrustedTeacher(teacher, task, baseline=baseline)
    config = LinearConfig(penalties=(1e-3,))
    student = td.distill(trusted, config, task, losses=[OutputLoss(alpha=0.8)], control=False)

    def blend(batch: Batch) -> Tensor:
        share = 0.8 * trusted.trust(batch)[:, None]
        return share * teacher.forecast(batch) + (1 - share) * batch.target

    statistics = Statistics.of(task.train, blend)
    plain = choose(statistics, statistics, (1e-3,), (1.0,)).weight
    torch.testing.assert_close(student.state_dict()["map.weight"].T.double(), plain, rtol=0, atol=1e-3)


def test_a_trusted_teacher_shows_its_insides_and_is_cached(task: td.Task) -> None:
    inner = PatchTSTConfig(depth=1, width=6, heads=2, patch=11).build(task.signature).eval()
    trusted = td.teachers.TrustedTeacher(inner, task)
    batch = task.train.batch(torch.arange(5))
    inside = shown_by(trusted, batch, attention=True)
    torch.testing.assert_close(inside.forecast, trusted.forecast(batch))
    torch.testing.assert_close(inside.hidden[0], inner.activations(batch.context).hidden[0])
    outputs = CachedTeacher(trusted).outputs(task.train, {"hidden.0"}).of(batch)
    torch.testing.assert_close(outputs.forecast, inside.forecast, rtol=0, atol=5e-3)
    weekly = SeasonalNaiveConfig(period=7).build(task.signature)
    others = [
        td.teachers.TrustedTeacher(inner, task, sharpness=2),
        td.teachers.TrustedTeacher(inner, task, baseline=weekly),
    ]
    assert len({inner.digest, *(made.digest for made in (trusted, *others))}) == 4


def test_trust_is_known_of_training_windows_only(task: td.Task, members: list[Forecaster]) -> None:
    trusted = td.teachers.TrustedTeacher(members[0], task)
    for windows in (task.validation, task.test):
        with pytest.raises(DataError, match="training windows of its task only"):
            trusted.forecast(windows.batch(torch.arange(3)))
    with pytest.raises(DataError, match="Make it for this task"):
        check_teacher(trusted, td.Task(toy_panel(seed=1), context=47, horizon=11, split=task.split))
    with pytest.raises(ConfigError, match=r"(?s)`baseline`.*`sharpness`"):
        td.teachers.TrustedTeacher(members[0], task, baseline="naive", sharpness=0)  # type: ignore[arg-type]
