"""A forecaster of another scale is refused as a teacher, and teaches rescaled what it says of the same raw values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tsdistill as td
from tests.typed import instance_of
from tsdistill.data import Task
from tsdistill.errors import ShapeError, UnsupportedError
from tsdistill.teachers import RescaledTeacher, check_teacher
from tsdistill.teachers.base import at
from tsdistill.testing import toy_frame

SPLIT = td.Split.rows(331, 101, 67)
QUICK = td.Training(max_steps=2, batch_size=37, precision="float32", device="cpu")


def task_of(first: int = 0, covariates: td.Covariates | None = None, **options: Any) -> Task:
    """The toy panel with hourly stamps from a row on, the same validation and test rows whatever that is."""
    df = toy_frame()
    split = td.Split.rows(331 - first, 101, 67)
    panel = td.Panel.from_frame(df.iloc[first:])
    return Task(panel, context=47, horizon=11, split=split, covariates=covariates, **options)


@pytest.fixture(scope="module")
def every() -> Task:
    return task_of()


@pytest.fixture(scope="module")
def last() -> Task:
    """The last training rows only, and so another scaler."""
    return task_of(181)


def test_a_teacher_of_all_rows_teaches_a_student_of_the_last_ones_if_it_is_rescaled(every: Task, last: Task) -> None:
    teacher = td.train(td.MLPConfig(width=5, depth=1), every, QUICK)
    assert not np.allclose(every.scale, last.scale, rtol=1e-3)
    for refused in (
        lambda: td.distill(teacher, td.LinearConfig(), last),
        lambda: td.prune(td.MLPConfig(width=4, depth=1).build(last.signature), last, teacher=teacher),
        lambda: td.teachers.TeacherEnsemble([teacher], last),
        lambda: td.teachers.TrustedTeacher(teacher, last),
    ):
        with pytest.raises(ShapeError, match=r"scaled as those of the task.*td\.teachers\.RescaledTeacher"):
            refused()
    rescaled = RescaledTeacher(teacher, last)
    batch = last.validation.batch(torch.arange(7))
    raw = batch.context.double().numpy() * last.scale + last.mean
    expected = np.asarray(teacher.predict(raw))
    forecast = rescaled.forecast(batch).double().numpy() * last.scale + last.mean
    np.testing.assert_allclose(forecast, expected, rtol=1e-4)
    student = td.distill(rescaled, td.LinearConfig(), last, losses=[td.OutputLoss()], control=False)
    assert student.lineage[-1].spec["teacher"] == rescaled.digest
    assert student.lineage[-1].spec["teacher_kind"] == "RescaledTeacher"
    assert td.evaluate(rescaled, last)["mse"] == pytest.approx(td.evaluate(teacher, last)["mse"], rel=1e-4)
    inside = rescaled.show(batch)
    assert len(inside.hidden) == len(teacher.activations(batch.context).hidden)
    td.teachers.TrustedTeacher(rescaled, last)


def test_scalers_that_differ_by_rounding_are_one(every: Task) -> None:
    teacher = td.LinearConfig().build(every.signature)
    signature = every.signature
    for factor, refused in ((1 + 1e-9, False), (1 + 1e-4, True)):
        teacher.signature = signature.replace(scale=tuple(value * factor for value in signature.scale))
        if refused:
            with pytest.raises(ShapeError, match="scaled as those"):
                check_teacher(teacher, every)
        else:
            check_teacher(teacher, every)
        assert RescaledTeacher(teacher, every).digest != teacher.digest
    teacher.signature = signature.replace(mean=tuple(value + 1.0 for value in signature.mean))
    with pytest.raises(ShapeError, match="scaled as those"):
        check_teacher(teacher, every)


def test_covariates_are_rescaled_too(every: Task) -> None:
    known = td.Covariates(calendar=("time-of-day",), future=("price",), past=("wind",))
    whole, part = task_of(covariates=known), task_of(181, covariates=known)
    teacher = td.train(td.MLPConfig(width=5, depth=1), whole, QUICK.replace(max_steps=23, learning_rate=0.05))
    with pytest.raises(ShapeError, match="scaled as those"):
        check_teacher(teacher, part)
    # The validation parts hold the same hours, scaled otherwise.
    part_batch, whole_batch = (task.validation.batch(torch.arange(11, 24)) for task in (part, whole))
    rescaled, naively = (
        source.forecast(part_batch).double().numpy() * part.scale + part.mean
        for source in (RescaledTeacher(teacher, part), teacher)
    )
    expected = teacher.forecast(whole_batch).double().numpy() * whole.scale + whole.mean
    np.testing.assert_allclose(rescaled, expected, rtol=0, atol=1e-3)
    assert np.abs(naively - expected).max() > 5e-3
    with pytest.raises(ShapeError, match=r"must have the covariates \['time-of-day"):
        RescaledTeacher(teacher, Task(part.panel, context=47, horizon=11, split=part.split, covariates=td.Covariates(
            past=("wind", "price"))))  # fmt: skip


def test_what_cannot_be_rescaled_is_refused(every: Task, last: Task) -> None:
    item = task_of(scaler="item")
    with pytest.raises(UnsupportedError, match="a scaler per item"):
        RescaledTeacher(td.LinearConfig().build(every.signature), item)
    with pytest.raises(UnsupportedError, match="must be a trainable forecaster"):
        RescaledTeacher(object(), every)  # type: ignore[arg-type]
    shorter = Task(every.panel, context=47, horizon=7, split=SPLIT)
    with pytest.raises(ShapeError, match="11 steps"):
        RescaledTeacher(td.LinearConfig().build(shorter.signature), every)
    with pytest.raises(ShapeError, match="Rescale it for this task"):
        check_teacher(RescaledTeacher(td.LinearConfig().build(every.signature), last), every)


def test_forecasters_inside_of_teachers_are_copied_to_a_device_and_stay_where_they_are(every: Task, last: Task) -> None:
    config = td.MLPConfig(width=5, depth=1)
    teacher, there = config.build(every.signature), torch.device("meta")
    rescaled = RescaledTeacher(teacher, last)
    ensemble = td.teachers.TeacherEnsemble([rescaled, config.build(last.signature)], last)
    moved = at(ensemble, there)
    assert isinstance(moved, td.teachers.TeacherEnsemble)
    assert isinstance(moved.teachers[0], RescaledTeacher)
    for member in (moved.teachers[0].forecaster, moved.teachers[1]):
        assert instance_of(td.Forecaster, member).device == there
    for member in (teacher, ensemble.teachers[1]):
        assert instance_of(td.Forecaster, member).device == torch.device("cpu")
    assert at(teacher, None) is at(teacher, torch.device("cpu")) is teacher


def test_a_teacher_that_is_not_ours_stays_itself_whatever_it_holds(every: Task) -> None:
    class Foreign(torch.nn.Module):
        digest = "foreign"

        def __init__(self) -> None:
            super().__init__()
            self.forecaster = td.MLPConfig(width=5, depth=1).build(every.signature)

        def forecast(self, batch: td.data.Batch) -> torch.Tensor:
            return self.forecaster.forecast(batch)

    foreign = Foreign()
    assert at(foreign, torch.device("meta")) is foreign
    assert foreign.forecaster.device == torch.device("cpu")
