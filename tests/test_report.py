"""A report holds the rows it owes, its ratios are right, its words follow its numbers, and its page is safe to open."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.typed import known
from tsdistill import exporting
from tsdistill.data.panel import Item, Panel
from tsdistill.data.task import Task
from tsdistill.errors import ArtifactError, ConfigError, ShapeError
from tsdistill.evaluation import evaluate, window_losses
from tsdistill.evaluation.significance import compare_losses
from tsdistill.models import Forecaster, LinearConfig, MLPConfig
from tsdistill.report import Report, compare
from tsdistill.report.figures import figures
from tsdistill.report.page import render
from tsdistill.report.words import error, milliseconds, size
from tsdistill.training import Training, train


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """The same model is exported once in this file: tracing takes a second, and is not what is tested here."""
    real, kept = exporting.export, {}

    def remembered(forecaster: Forecaster, task: Task) -> Any:
        key = (forecaster.digest, task.fingerprint, forecaster.control is not None)
        if key not in kept:
            kept[key] = real(forecaster, task)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "export", remembered)
        yield


@pytest.fixture(scope="module")
def task() -> Task:
    rng = np.random.default_rng(0)
    hours = np.arange(503)[:, None]
    values = (np.sin(hours * 2 * np.pi / 24 + np.arange(3)) + rng.normal(0, 0.3, (503, 3))) * [1, 10, 100]
    stamps = pd.date_range("2013-01-01", periods=503, freq="h")
    notes = {"fill": "interpolate", "n_filled": 1009, "n_gaps": 0, "n_filled_per_channel": {"a": 1009}, "none": None}
    panel = Panel((Item("x", stamps, values),), channels=("a", "b", "c"), frequency="h", name="toy", notes=notes)
    return Task(panel, context=29, horizon=7)


@pytest.fixture(scope="module")
def models(task: Task) -> dict[str, Any]:
    """A teacher, a student with a control, and the student deployed with its control."""
    training = Training(max_steps=5, batch_size=29)
    teacher, student, control = (train(MLPConfig(width=width, depth=1), task, training) for width in (13, 5, 3))
    student.control = control
    return {"teacher": teacher, "student": student, "deployed": exporting.export(student, task)}


@pytest.fixture(scope="module")
def report(task: Task, models: dict[str, Any]) -> Report:
    return compare(models, task, n_latency_runs=7)


def test_every_row_that_is_owed_is_there(report: Report) -> None:
    assert [(row.name, row.runtime, row.role) for row in report.rows] == [
        ("teacher", "torch fp32", "reference"),
        ("teacher", "onnx fp32", "model"),
        ("student", "onnx fp32", "model"),
        ("deployed", "onnx fp32", "model"),
        ("deployed without teacher", "onnx fp32", "control"),
        ("seasonal naive", "onnx fp32", "baseline"),
        ("ridge", "onnx fp32", "baseline"),
    ]


def test_rows_hold_what_evaluate_says(report: Report, task: Task, models: dict[str, Any]) -> None:
    for name, model in (("teacher", models["teacher"]), ("deployed", models["deployed"])):
        row, scores = report.row(name), evaluate(model, task, "test")
        for metric in ("mse", "mae", "mse_raw", "mae_raw", "mase"):
            assert getattr(row, metric) == pytest.approx(scores[metric], rel=1e-6), (name, metric)
    control = evaluate(models["student"].control, task, "test")["mse"]
    assert report.row("deployed without teacher").mse == pytest.approx(control, rel=1e-4)


def test_ratios_refer_to_the_torch_row_of_the_reference(report: Report) -> None:
    base = report.rows[0]
    assert (base.mse_ratio, base.size_ratio, base.speedup, base.p_value) == (1.0, 1.0, 1.0, None)
    for row in report.rows:
        assert row.mse_ratio == pytest.approx(known(row.mse) / known(base.mse))
        assert row.size_ratio == pytest.approx(known(row.size_bytes) / known(base.size_bytes))
        assert row.latency_p50_ms is not None
        assert base.latency_p50_ms is not None
        assert row.speedup == pytest.approx(base.latency_p50_ms / row.latency_p50_ms)
        assert 0 < row.latency_p50_ms <= (row.latency_p95_ms or 0)
        assert row.n_latency_runs == 7
        assert np.mean(row.mse_by_step) == pytest.approx(row.mse)


def test_bytes_are_those_of_the_files_that_are_needed(
    report: Report, task: Task, models: dict[str, Any], tmp_path: Path
) -> None:
    from tsdistill.artifacts import save

    save(models["teacher"], tmp_path / "teacher")
    on_disk = sum(file.stat().st_size for file in (tmp_path / "teacher").iterdir())
    assert report.rows[0].size_bytes == pytest.approx(on_disk, rel=0.01)
    assert report.row("deployed").size_bytes == models["deployed"].size_bytes
    assert report.row("teacher", "onnx fp32").size_bytes == exporting.export(models["teacher"], task).size_bytes


def test_significance_is_that_of_the_window_losses(report: Report, task: Task, models: dict[str, Any]) -> None:
    losses = {name: window_losses(model, task, "test") for name, model in models.items()}
    row, comparison = report.row("deployed"), compare_losses(losses["deployed"], losses["teacher"], horizon=7)
    assert row.mse_difference == pytest.approx(comparison.mean_difference, rel=1e-3)
    assert row.p_value == pytest.approx(comparison.p_value, rel=1e-3)
    assert row.p_value is not None
    assert row.p_value_holm is not None
    assert row.p_value <= row.p_value_holm <= 1
    control = window_losses(models["student"].control, task, "test")
    against = next(comparison for comparison in report.comparisons if comparison.other == "deployed without teacher")
    assert against.subject == report.subject == "deployed"
    assert against.relative == pytest.approx(losses["deployed"].mean() / control.mean() - 1, rel=1e-3)
    assert [comparison.other for comparison in report.comparisons] == [
        "deployed without teacher",
        "seasonal naive",
        "ridge",
    ]


def test_one_model_in_two_runtimes_is_not_tested_against_itself(report: Report) -> None:
    assert report.row("teacher", "onnx fp32").p_value is None
    assert report.row("teacher", "onnx fp32").mse == pytest.approx(report.rows[0].mse, rel=1e-4)


def test_comparing_leaves_the_models_as_they_were(task: Task, models: dict[str, Any]) -> None:
    student = models["student"]
    before = (student.digest, student.control.digest, len(student.lineage))
    compare({"student": student}, task, latency=False)
    assert (student.digest, student.control.digest, len(student.lineage)) == before


def test_without_latency_there_is_none(task: Task, models: dict[str, Any]) -> None:
    plain = compare({"teacher": models["teacher"]}, task, part="validation", latency=False)
    assert {row.latency_p50_ms for row in plain.rows} == {row.speedup for row in plain.rows} == {None}
    assert plain.part == "validation"
    assert plain.row("teacher").mse == pytest.approx(evaluate(models["teacher"], task, "validation")["mse"])
    assert "p50" not in plain.to_text()
    assert 'id="latency"' not in render(plain)


def test_another_reference_can_be_named(task: Task, models: dict[str, Any]) -> None:
    result = compare(models, task, reference="deployed", latency=False)
    assert [row.title for row in result.rows[:3]] == [
        "deployed (onnx fp32)",
        "teacher (onnx fp32)",
        "student (onnx fp32)",
    ]
    assert result.rows[0].mse_ratio == 1.0
    assert result.subject == "deployed"


def test_the_facts_of_the_task_are_told(report: Report, task: Task) -> None:
    assert (report.panel, report.context, report.horizon, report.channels) == ("toy", 29, 7, ("a", "b", "c"))
    assert report.n_windows == {"train": len(task.train), "validation": len(task.validation), "test": len(task.test)}
    assert report.fingerprint == task.fingerprint
    assert report.notes == {name: value for name, value in task.panel.notes.items() if name != "none"}
    assert {"torch", "onnxruntime", "numpy", "tsdistill"} <= set(report.versions)
    assert report.machine["threads"] == 1


def test_examples_are_real_windows_in_raw_units(report: Report, task: Task, models: dict[str, Any]) -> None:
    values, cut = task.panel.items[0].values, task.borders[0]
    assert [example.channel for example in report.examples] == ["a", "b", "c"]
    for number, example in enumerate(report.examples):
        first = cut.validation + example.window
        assert example.target == pytest.approx(values[first : first + 7, number], rel=1e-4, abs=1e-4)
        assert example.context == pytest.approx(values[first - 29 : first, number], rel=1e-4, abs=1e-4)
        assert example.start == str(known(task.panel.items[0].ds)[first])
        forecast = models["teacher"].predict(values[first - 29 : first])[:, number]
        assert example.forecasts["teacher (torch fp32)"] == pytest.approx(forecast, rel=1e-3, abs=1e-3)
        assert set(example.forecasts) == {row.title for row in report.rows}


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ([], {}, ["`models` must hold at least one forecaster"]),
        (["ridge"], {}, ["a row that is added anyway", "'ridge'"]),
        (["a without teacher"], {}, ["a row that is added anyway"]),
        ([" ", "ridge"], {"reference": "teacher"}, ["3 problems", "have names", "`reference` must name one"]),
        (["teacher"], {"reference": "teecher"}, ["Did you mean `teacher`?"]),
        (["teacher"], {"part": "tset"}, ["`part` must be one of"]),
    ],
)
def test_a_wrong_call_lists_every_problem(
    task: Task, models: dict[str, Any], names: list[str], options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(dict.fromkeys(names, models["teacher"]), task, **options)
    for word in words:
        assert word in str(caught.value)


def test_all_models_that_do_not_fit_are_named_before_anything_is_measured(task: Task, models: dict[str, Any]) -> None:
    other = Task(task.panel, context=29, horizon=11)
    with pytest.raises(ShapeError) as caught:
        compare(models, other)
    for name in models:
        assert f"{name!r}: `horizon` must be the model's 7 steps, got horizon=11" in str(caught.value)


def test_an_unknown_row_is_refused(report: Report) -> None:
    assert report.row("teacher", "onnx fp32").runtime == "onnx fp32"
    with pytest.raises(ConfigError, match="Did you mean `student`"):
        report.row("studnet")


# Data first


def test_a_report_survives_json(report: Report) -> None:
    again = Report.from_json(report.to_json())
    assert again == report
    assert again.verdict == report.verdict
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_report_is_a_frame(report: Report) -> None:
    frame = report.to_frame()
    assert frame["name"].tolist() == [row.name for row in report.rows]
    assert frame["mse"].tolist() == [row.mse for row in report.rows]
    assert {"mae", "mse_raw", "mae_raw", "n_parameters", "size_bytes", "latency_p50_ms", "latency_p95_ms"} <= set(frame)
    assert frame["mse"].dtype == frame["speedup"].dtype == np.float64


# Words


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_text_fits_and_loses_nothing(report: Report, width: int, ascii_only: bool) -> None:
    text = report.to_text(width, ascii_only=ascii_only)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.isascii() == ascii_only
    for row in report.rows:
        for cell in (error(row.mse), error(row.mae_raw), size(row.size_bytes), milliseconds(row.latency_p95_ms)):
            assert cell in text


def test_printing_suits_the_terminal(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert max(len(line) for line in str(report).splitlines()) <= 70
    monkeypatch.setenv("COLUMNS", "300")
    assert max(len(line) for line in str(report).splitlines()) <= 100

    class Plain:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Plain())
    assert str(report).isascii()


def test_rich_prints_it_with_colours(report: Report) -> None:
    file = io.StringIO()
    Console(width=100, force_terminal=True, color_system="truecolor", file=file).print(report)
    assert "deployed without teacher" in file.getvalue()
    assert "\x1b[1m" in file.getvalue()


# The page


def test_the_page_is_whole_and_needs_no_network(report: Report, tmp_path: Path) -> None:
    path = report.to_html(tmp_path / "new" / "report.html")
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "Plotly" in page
    own = page.replace(page[page.index("<script>/*") : page.index("</script>", page.index("<script>/*"))], "")
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", own)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    for row in report.rows:
        assert row.name in own
        assert error(row.mse) in own
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_the_page_holds_the_report_as_data(report: Report) -> None:
    match = re.search(r'id="report-data">(.*?)</script>', render(report), flags=re.DOTALL)
    assert match is not None
    assert Report.from_dict(json.loads(match.group(1))) == report


def test_a_report_replaces_an_older_one_or_leaves_it(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    report.to_html(path)
    assert path.read_text(encoding="utf-8") != "old"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="Cannot write the report to"):
        report.to_html(tmp_path / "file" / "report.html")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "report.html"]


def test_the_figures_are_what_plotly_understands(report: Report) -> None:
    import plotly.graph_objects as go

    drawn = figures(report)
    assert set(drawn) == {"size", "latency", "steps", "example-0", "example-1", "example-2"}
    for figure in drawn.values():
        plain = copy.deepcopy(figure)
        for trace in plain["data"]:
            # The page puts its own text colour in the place of "ink".
            if trace.get("line", {}).get("color") == "ink":
                trace["line"]["color"] = "black"
        assert len(go.Figure(plain).data) == len(figure["data"])
    assert [trace["y"] for trace in drawn["steps"]["data"]] == [
        list(row.mse_by_step) for row in report.rows if row.title != "teacher (onnx fp32)"
    ]


def test_a_perfect_reference_leaves_ratios_out() -> None:
    task = Task(Panel((Item("x", None, np.ones((101, 1))),), channels=("a",)), context=7, horizon=5)
    ridge: Forecaster = train(LinearConfig(), task)
    result = compare({"flat": ridge}, task, latency=False)
    assert result.rows[0].mse == 0
    assert result.rows[0].mse_ratio is None
    assert Report.from_json(result.to_json()) == result
    assert "MSE of 0.0000" in " ".join(result.verdict)
    assert "flat" in render(result)
