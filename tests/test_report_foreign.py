"""Any teacher is a row of a comparison: scored where it can be asked, silent where it cannot, and nothing invented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import tsdistill as td
from tsdistill import exporting
from tsdistill.data import Task
from tsdistill.data.task import Batch
from tsdistill.errors import DataError, ShapeError, UnsupportedError
from tsdistill.models import Forecaster
from tsdistill.report.figures import figures
from tsdistill.report.page import render
from tsdistill.teachers import ForecastTable, RescaledTeacher, Teacher, forecast_frame, from_function
from tsdistill.testing import toy_panel, toy_task

SPLIT = td.Split.fractions(0.6, 0.2, 0.2)


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """The same model is exported once in this file: tracing takes a second, and is not what is tested here."""
    real, kept = exporting.export, {}

    def remembered(model: Forecaster, task: Task) -> Any:
        if model.digest not in kept:
            kept[model.digest] = real(model, task)
        return kept[model.digest]

    with pytest.MonkeyPatch.context() as patch:
        for module in (td, exporting):  # td too, which keeps what it was asked for
            patch.setattr(module, "export", remembered)
        yield


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def ridge(task: Task) -> Forecaster:
    return td.train(td.LinearConfig(), task)


@pytest.fixture(scope="module")
def wrapped(task: Task, ridge: Forecaster) -> Any:
    """A module as another library would have it."""
    axes = ("batch", "channel", "time")
    return td.wrap(ridge.get_submodule("map"), task, input_axes=axes, output_axes=axes)


class Constant:
    """The least that a teacher is."""

    digest = "constant"

    def forecast(self, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.target)


def test_a_foreign_teacher_is_scored_like_a_forecaster_and_has_no_cost(task: Task, ridge: Forecaster) -> None:
    models: dict[str, Forecaster | Teacher] = {
        "teacher": from_function(lambda series, n_steps: series[-24:][:n_steps], task),
        "student": ridge,
    }
    report = td.compare(models, task, n_latency_runs=7)
    teacher, student = report.row("teacher"), report.row("student")
    assert (teacher.runtime, teacher.role, teacher.kind) == ("foreign", "reference", "RefittedTeacher")
    naive = td.models.SeasonalNaiveConfig(period=24).build(task.signature)
    assert teacher.mse == pytest.approx(td.evaluate(naive, task, part="test")["mse"], rel=1e-4)
    assert teacher.mae_raw == pytest.approx(report.row("seasonal naive").mae_raw, rel=1e-4)
    assert [teacher.n_parameters, teacher.size_bytes, teacher.latency_p50_ms, teacher.speedup] == [None] * 4
    assert student.mse_ratio == pytest.approx(student.measured_mse / teacher.measured_mse)
    assert (student.size_ratio, student.speedup) == (None, None)
    assert student.latency_p50_ms is not None
    assert report.verdict[0].startswith("student (onnx fp32) has a ")
    assert "than teacher" in report.verdict[0]
    assert all("teacher (foreign)" in example.forecasts for example in report.examples)
    assert td.Report.from_json(report.to_json()) == report
    assert report.to_frame()["size_bytes"].isna().tolist() == [True, False, False, False]
    assert "<td>foreign</td>" in render(report).replace(' class="runtime"', "")
    assert {trace["name"] for trace in figures(report)["size"]["data"]} == {
        "student (onnx fp32)", "seasonal naive (onnx fp32)", "ridge (onnx fp32)"
    }  # fmt: skip


def test_the_least_teacher_is_compared_alone(task: Task) -> None:
    report = td.compare({"teacher": Constant()}, task, latency=False, part="validation")
    assert report.row("teacher").mse == pytest.approx(float(task.validation.batch(
        torch.arange(len(task.validation))).target.square().mean()), rel=1e-5)  # fmt: skip
    assert report.verdict[0] == f"teacher (foreign) has a validation MSE of {report.row('teacher').mse:.4f}."
    assert figures(report)["size"]["data"]


def test_a_teacher_that_cannot_be_asked_is_an_empty_row_that_says_why(task: Task, ridge: Forecaster) -> None:
    table = ForecastTable.from_frame(forecast_frame(ridge, task, ("train", "validation")), task)
    oracle = td.teachers.TeacherEnsemble([ridge, Constant()], task, "best-per-window")
    report = td.compare({"table": table, "oracle": oracle, "student": ridge}, task, latency=False)
    assert report.reference == "student"
    for name, words in (("table", "(train, validation), got those of the test part"), ("oracle", "training windows")):
        row = report.row(name)
        assert (row.mse, row.mae, row.mse_by_step, row.p_value, row.role) == (None, None, (), None, "model")
        assert words in str(row.remark)
        assert f"{name}: not scored: " in " ".join(report.to_text().split())
    plotted = [trace["name"] for trace in figures(report)["steps"]["data"]]
    assert plotted == ["student", "seasonal naive", "ridge"]
    assert "NaN" not in report.to_json()
    known = td.compare({"table": table, "student": ridge}, task, part="validation", latency=False)
    assert known.row("table").mse == pytest.approx(td.evaluate(ridge, task)["mse"], rel=1e-4)
    with pytest.raises(UnsupportedError, match="`reference` must be able to forecast this part, and 'table' is not"):
        td.compare({"table": table, "student": ridge}, task, reference="table")
    with pytest.raises(UnsupportedError, match="The last of `models`"):
        td.compare({"student": ridge, "table": table}, task)


def test_what_only_teaching_does_to_a_teacher_is_left_out(task: Task, ridge: Forecaster, wrapped: Any) -> None:
    other = Task(task.panel, context=47, horizon=11, split=td.Split.rows(151, 101, 67))
    foreign = td.train(td.LinearConfig(), other)
    models: dict[str, Forecaster | Teacher] = {
        "trusted": td.teachers.TrustedTeacher(wrapped, task),
        "rescaled": RescaledTeacher(foreign, task),
        "student": ridge,
    }
    report = td.compare(models, task, latency=False)
    assert report.row("trusted").mse == pytest.approx(td.evaluate(wrapped, task, part="test")["mse"], rel=1e-4)
    assert "without the trust" in str(report.row("trusted").remark)
    assert report.row("rescaled").runtime == "onnx fp32"
    assert report.row("rescaled").mse == pytest.approx(td.evaluate(foreign, task, part="test")["mse"], rel=1e-4)


def test_teachers_of_other_questions_and_what_is_none_are_refused(task: Task, ridge: Forecaster, wrapped: Any) -> None:
    table = ForecastTable.from_frame(forecast_frame(ridge, task), task)
    shorter = Task(task.panel, context=47, horizon=7, split=SPLIT)
    with pytest.raises(ShapeError, match=r"(?s)'a'.*'b'"):
        td.compare({"a": wrapped, "b": table, "c": td.train(td.LinearConfig(), shorter)}, shorter)
    with pytest.raises(DataError, match="Make it for this task"):
        td.compare({"a": table, "b": ridge}, Task(toy_panel(seed=1), context=47, horizon=11, split=SPLIT))
    with pytest.raises(UnsupportedError, match=r"must have forecast\(batch\) and a digest, got a str"):
        td.compare({"a": "teacher", "b": ridge}, task)  # type: ignore[dict-item]
