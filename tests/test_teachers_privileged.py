"""A teacher that sees more than its student is asked about its own windows of the same moments."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tsdistill as td
from tsdistill.data import Batch, Task, Windows
from tsdistill.data.joining import with_validation
from tsdistill.distillation import refit
from tsdistill.errors import DataError, ShapeError, UnsupportedError
from tsdistill.models import CycleNetConfig, Forecaster
from tsdistill.report.foreign import unwrapped
from tsdistill.teachers import PrivilegedTeacher, TeacherEnsemble, TrustedTeacher, adapt, shown_by
from tsdistill.testing import toy_frame, toy_task

SPLIT = td.Split.rows(331, 101, 67)
QUICK = td.Training(max_steps=5, batch_size=37, precision="float32", device="cpu", learning_rate=1e-2)
CALENDAR = td.Covariates(calendar=("time-of-day",))
RIDGE = td.LinearConfig(penalties=(1e-3,))


def task_of(context: int = 29, **options: Any) -> Task:
    frame = options.pop("frame", None)
    panel = td.Panel.from_frame(toy_frame() if frame is None else frame)
    return Task(panel, context=context, horizon=11, split=options.pop("split", SPLIT), **options)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of()


def batch_of(windows: Windows, *index: int) -> Batch:
    return windows.batch(torch.tensor(index) if index else torch.arange(len(windows)))


def raw(forecast: torch.Tensor, windows: Windows, index: torch.Tensor) -> np.ndarray:
    mean, scale = windows.units(index)
    values: np.ndarray = forecast.double().numpy() * scale + mean + windows.offsets(index)
    return values


OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "longer": (RIDGE, {"context": 71}),
    "shorter": (RIDGE, {"context": 13}),
    "calendar": (CycleNetConfig(), {"covariates": CALENDAR}),
    "both": (td.MLPConfig(width=5, depth=1), {"context": 37, "covariates": CALENDAR}),
    "unscaled": (RIDGE, {"scaler": None}),
    "by item": (td.MLPConfig(width=5, depth=1), {"scaler": "item"}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_teacher_says_what_it_says_of_its_own_windows(task: Task, other: str) -> None:
    config, options = OTHERS[other]
    own_task = task_of(**options)
    teacher = td.train(config, own_task, QUICK)
    privileged = adapt(teacher, task)
    # One of fewer steps sees the last of them, as before.
    assert isinstance(privileged, Forecaster if other == "shorter" else PrivilegedTeacher)
    for part in ("train", "validation", "test"):
        windows, own = task.windows(part), own_task.windows(part)
        n_windows = min(len(windows), len(own))
        last, own_last = (torch.arange(len(both) - n_windows, len(both)) for both in (windows, own))
        forecast = raw(privileged.forecast(windows.batch(last)), windows, last)
        expected = raw(teacher.forecast(own.batch(own_last)), own, own_last)
        np.testing.assert_allclose(forecast, expected, rtol=0, atol=2e-4 * task.scale.max())
    errors = [td.evaluate(*pair)["mse_raw"] for pair in ((privileged, task), (teacher, own_task))]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_a_teacher_with_covariates_teaches_a_student_without(task: Task) -> None:
    teacher = td.train(CycleNetConfig(), task_of(covariates=CALENDAR), QUICK)
    student = td.distill(teacher, RIDGE, task, losses=[td.OutputLoss(alpha=1.0)])
    assert student.signature.covariates is None
    step = student.lineage[-1]
    assert (step.spec["teacher_kind"], step.spec["teacher"]) == ("PrivilegedTeacher", adapt(teacher, task).digest)
    assert student.control is not None
    # And one without covariates a student that has some.
    informed = td.distill(td.train(RIDGE, task_of(71)), td.MLPConfig(width=5, depth=1), task_of(covariates=CALENDAR),
                          training=QUICK, losses=[td.OutputLoss()], control=False)  # fmt: skip
    assert informed.signature.covariates == CALENDAR
    small = td.MLPConfig(width=4, depth=1).build(task.signature)
    pruned = td.prune(small, task, td.Pruning(ratio=0.5, recovery=QUICK), teacher=teacher)
    assert pruned.lineage[-1].spec["teacher_kind"] == "PrivilegedTeacher"


def test_windows_that_a_longer_context_does_not_reach_carry_no_lesson(task: Task) -> None:
    privileged = PrivilegedTeacher(td.train(RIDGE, task_of(71)), task)
    assert privileged.n_unreached == 71 - 29
    batch = batch_of(task.train, 3, 41, 42, 100)
    assert privileged.reaches(batch).tolist() == [False, False, True, True]
    forecast = privileged.forecast(batch)
    assert torch.equal(forecast[:2], batch.target[:2])
    assert not torch.equal(forecast[2], batch.target[2])
    assert bool(privileged.reaches(batch_of(task.validation)).all())
    # In an ensemble those who have a lesson share the weight of those who have none.
    plain = td.train(RIDGE, task)
    ensemble = TeacherEnsemble([privileged, plain], task)
    expected = torch.cat([plain.forecast(batch)[:2], (forecast[2:] + plain.forecast(batch)[2:]) / 2])
    torch.testing.assert_close(ensemble.forecast(batch), expected)
    assert bool(ensemble.reaches(batch).all())
    oracle = TeacherEnsemble([privileged, plain], task, "best-per-window")
    torch.testing.assert_close(oracle.forecast(batch)[:2], plain.forecast(batch)[:2])
    alone = TeacherEnsemble([privileged], task)
    torch.testing.assert_close(alone.forecast(batch)[:2], batch.target[:2])
    assert (
        alone.reaches(batch).tolist() == TrustedTeacher(alone, task).reaches(batch).tolist() == [False] * 2 + [True] * 2
    )


def test_the_truth_stands_for_a_lesson_in_training_windows_only() -> None:
    frame = toy_frame(n_rows=499, n_items=2)
    frame = frame.drop(index=frame.index[(frame["unique_id"] == "item 1") & (frame["ds"] < frame["ds"].iloc[280])])
    split = td.Split.last(validation=101, test=67)
    panel = td.Panel.from_frame(frame, target=["load", "wind", "price"])
    short, long = (Task(panel, context=n, horizon=11, split=split, short="skip") for n in (29, 71))
    teacher = td.train(RIDGE, long)
    privileged = PrivilegedTeacher(teacher, short)
    assert not bool(privileged.reaches(batch_of(short.validation)).all())
    with pytest.raises(DataError, match=r"cannot forecast 20 windows of the validation part.*sees 71 steps"):
        td.evaluate(privileged, short)
    # It is weighed on the windows that everybody can forecast.
    weights = TeacherEnsemble([privileged, td.train(RIDGE, short)], short, "validation").weights
    assert sum(weights or ()) == pytest.approx(1)


def test_the_test_part_changes_no_digest_and_no_lesson(task: Task) -> None:
    frame = toy_frame()
    frame.loc[433:, ["load", "wind", "price"]] += 100.0
    made = []
    for data in (toy_frame(), frame):
        short, long = (
            task_of(context, frame=data, covariates=known) for context, known in ((29, None), (71, CALENDAR))
        )
        teacher = td.train(td.MLPConfig(width=5, depth=1), long, QUICK)
        made.append((PrivilegedTeacher(teacher, short), short))
    (first, _), (second, other) = made
    assert first.digest == second.digest
    assert first.shown_digest != second.shown_digest
    assert torch.equal(first.forecast(batch_of(task.train)), second.forecast(batch_of(other.train)))
    assert first.digest != PrivilegedTeacher(first.teacher, task_of(31)).digest


def test_insides_are_shown_where_every_window_has_a_lesson(task: Task) -> None:
    config = td.MLPConfig(width=5, depth=2)
    teacher = td.train(config, task_of(covariates=CALENDAR), QUICK)
    privileged, batch = PrivilegedTeacher(teacher, task), batch_of(task.train, 5, 8)
    own = batch_of(task_of(covariates=CALENDAR).train, 5, 8)
    inside, expected = shown_by(privileged, batch), teacher.activations(own.context, own.future)
    torch.testing.assert_close(inside.hidden, expected.hidden)
    student = td.distill(teacher, td.MLPConfig(width=4, depth=1), task, losses=[td.OutputLoss(), td.FeatureLoss()],
                         training=QUICK, control=False)  # fmt: skip
    assert "hidden" in student.lineage[-1].spec["losses"]
    longer = td.train(config, task_of(37), QUICK)
    assert shown_by(PrivilegedTeacher(longer, task), batch).hidden == ()
    with pytest.raises(UnsupportedError, match="teacher shows no hidden states"):
        td.distill(longer, config, task, losses=[td.OutputLoss(), td.FeatureLoss()], training=QUICK)


def test_a_teacher_of_more_channels_and_more_history_teaches_by_the_task_it_was_trained_for() -> None:
    task = task_of(frame=toy_frame().iloc[40:].drop(columns="price"), split=td.Split.rows(291, 101, 67))
    more = task_of(71)
    teacher = td.train(RIDGE, more)
    with pytest.raises(ShapeError, match=r"lacks \['price'\].*PrivilegedTeacher\(teacher, task, own_task\)"):
        td.distill(teacher, RIDGE, task)
    privileged = PrivilegedTeacher(teacher, task, more)
    assert privileged.n_unreached == 2  # of 42: there are forty rows before
    assert "price" in privileged.remark
    forecast = raw(privileged.forecast(batch_of(task.test, 3)), task.test, torch.tensor([3]))
    expected = raw(teacher.forecast(batch_of(more.test, 3)), more.test, torch.tensor([3]))
    np.testing.assert_allclose(forecast, expected[..., :2], rtol=1e-4)
    td.distill(privileged, RIDGE, task, losses=[td.OutputLoss()], control=False)
    # Columns that are covariates of the task are channels of a teacher of all of them.
    few = task_of(covariates=td.Covariates(past=("price",))).without_covariates()
    assert isinstance(adapt(td.train(RIDGE, task_of()), few), PrivilegedTeacher)


def shifted(hours: int) -> pd.DataFrame:
    frame = toy_frame()
    return frame.assign(ds=frame["ds"] + pd.Timedelta(hours, "h"))


LATER = td.Split.rows(361, 71, 67)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (lambda: task_of(71, frame=toy_frame(seed=1)), ["item 'series'", "'load'", "are others"]),
        (lambda: task_of(71, frame=shifted(10_000)), ["its stamps are others"]),
        (lambda: task_of(71, frame=toy_frame().assign(ds=toy_frame()["ds"].dt.tz_localize(None))), ["time zone"]),
        (lambda: task_of(71, split=LATER), ["train part of `own_task` must end no later", "30 rows more"]),
        (lambda: task_of(71, split=td.Split.rows(301, 141, 57)), ["validation part", "10 rows more"]),
        (lambda: toy_task().with_context(71), ["item"]),
    ],
)  # fmt: skip
def test_own_tasks_that_are_of_other_series_or_reach_into_later_parts_are_refused(
    task: Task, own: Any, words: list[str]
) -> None:
    own_task = own()
    with pytest.raises(DataError) as caught:
        PrivilegedTeacher(RIDGE.build(own_task.signature), task, own_task)
    assert [word for word in words if word not in str(caught.value)] == []


def test_panels_without_stamps_have_to_be_of_equal_length() -> None:
    task = toy_task()
    assert (
        PrivilegedTeacher(RIDGE.build(task.with_context(71).signature), task, task.with_context(71)).n_unreached == 24
    )
    item = dataclasses.replace(task.panel.items[0], values=task.panel.items[0].values[:-1])
    cut = dataclasses.replace(task.panel, items=(item,))
    own_task = Task(cut, context=71, horizon=11, split=td.Split.rows(200, 100, 100))
    with pytest.raises(DataError, match=r"no stamps, and 498 rows in `own_task` where the task has 499"):
        PrivilegedTeacher(RIDGE.build(own_task.signature), task, own_task)


def test_a_teacher_whose_task_does_not_follow_is_explained(task: Task) -> None:
    early = task_of(71, split=td.Split.rows(251, 101, 67))
    teacher = td.train(RIDGE, early)
    with pytest.raises(ShapeError, match=r"other rows.*PrivilegedTeacher\(teacher, task, own_task\).*rescaled"):
        td.distill(teacher, RIDGE, task)
    # Said so, it is rescaled: the same values, by the scaler it was trained with.
    privileged = PrivilegedTeacher(teacher, task)
    batch = batch_of(task.validation, 0, 50)
    own = early.panel.items[0].values
    starts = task.validation.starts[batch.index].numpy() + task.context - 71
    expected = teacher.predict(np.stack([own[start : start + 71] for start in starts]))
    np.testing.assert_allclose(raw(privileged.forecast(batch), task.validation, batch.index), expected, rtol=1e-4)
    with pytest.raises(UnsupportedError, match="`own_task` must be given"):
        PrivilegedTeacher(TeacherEnsemble([td.train(RIDGE, task)], task), task)
    with pytest.raises(ShapeError, match="must forecast the task's 11 steps"):
        PrivilegedTeacher(teacher, task, Task(task.panel, context=29, horizon=7, split=SPLIT))
    with pytest.raises(ShapeError, match="cannot be made of it"):
        adapt(RIDGE.build(task.signature.replace(context=400)), task)
    with pytest.raises(DataError, match="knows the windows of its task only"):
        privileged.forecast(batch_of(toy_task().train, 1))
    with pytest.raises(DataError, match="Make it for this task"):
        td.distill(privileged, RIDGE, task_of(31))


def test_it_teaches_a_student_that_is_fitted_again_on_validation_rows(task: Task) -> None:
    own_task = task_of(71, covariates=CALENDAR)
    teacher = td.train(td.MLPConfig(width=5, depth=1), own_task, QUICK)
    student = td.distill(teacher, RIDGE, task, losses=[td.OutputLoss()], training=td.Training(refit="all"))
    assert [step.verb for step in student.lineage] == ["distill", "refit"]
    assert student.lineage[-1].spec["teacher_kind"] == "PrivilegedTeacher"
    privileged, every = PrivilegedTeacher(teacher, task), with_validation(task).train
    index = torch.arange(331 - 29 - 5, 331 - 29 + 5)  # windows across the border between the parts
    forecast = raw(privileged.forecast(every.batch(index)), every, index)
    own = with_validation(own_task).train
    expected = raw(teacher.forecast(own.batch(index - 42)), own, index - 42)
    np.testing.assert_allclose(forecast, expected, rtol=0, atol=2e-4 * task.scale.max())
    again = refit(td.distill(teacher, RIDGE, task, losses=[td.OutputLoss()]), task, teacher=teacher)
    assert again.digest == student.digest


def test_an_ensemble_of_whoever_there_is_stands_in_a_report(task: Task) -> None:
    members = [td.train(config, task_of(**options), QUICK) for config, options in OTHERS.values()]
    ensemble = TeacherEnsemble(members, task, "validation")
    assert (
        min(td.evaluate(adapt(member, task), task)["mse"] for member in members) >= td.evaluate(ensemble, task)["mse"]
    )
    assert "Linear (with a context of 71 steps)" in repr(ensemble)
    models = {"teacher": ensemble, "privileged": adapt(members[0], task), "trusted": TrustedTeacher(ensemble, task)}
    shown, remarks = unwrapped(models)
    assert shown["teacher"] is shown["trusted"] is ensemble
    assert remarks["teacher"] == ensemble.remark
    assert remarks["privileged"] == "asked with a context of 71 steps"
    assert remarks["trusted"].endswith(f"; {ensemble.remark}")
    assert "with time-of-day.sin, time-of-day.cos" in str(ensemble)
