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

from tsdistill import exporting
from tsdistill.data.panel import Item, Panel
from tsdistill.data.task import Task
from tsdistill.errors import ArtifactError, ConfigError, ShapeError
from tsdistill.evaluation import evaluate, window_losses
from tsdistill.evaluation.significance import compare_losses
from tsdistill.models import Forecaster, LinearConfig, MLPConfig
from tsdistill.report import Comparison, Report, Row, compare
from tsdistill.report.figures import colours, figures
from tsdistill.report.page import render
from tsdistill.report.words import chance, change, error, factor, milliseconds, size
from tsdistill.training import Training, train

NASTY = "</script><script>alert('x')</script>[bold]{{ 7 * 7 }}%{y}"


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
    how = Training(max_steps=5, batch_size=29)
    teacher, student, control = (train(MLPConfig(width=width, depth=1), task, how) for width in (13, 5, 3))
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
        row, found = report.row(name), evaluate(model, task, "test")
        for metric in ("mse", "mae", "mse_raw", "mae_raw", "mase"):
            assert getattr(row, metric) == pytest.approx(found[metric], rel=1e-6), (name, metric)
    control = evaluate(models["student"].control, task, "test")["mse"]
    assert report.row("deployed without teacher").mse == pytest.approx(control, rel=1e-4)


def test_ratios_refer_to_the_torch_row_of_the_reference(report: Report) -> None:
    base = report.rows[0]
    assert (base.mse_ratio, base.size_ratio, base.speedup, base.p_value) == (1.0, 1.0, 1.0, None)
    for row in report.rows:
        assert row.mse_ratio == pytest.approx(row.mse / base.mse)
        assert row.size_ratio == pytest.approx(row.size_bytes / base.size_bytes)
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
    row, found = report.row("deployed"), compare_losses(losses["deployed"], losses["teacher"], horizon=7)
    assert row.mse_difference == pytest.approx(found.mean_difference, rel=1e-3)
    assert row.p_value == pytest.approx(found.p_value, rel=1e-3)
    assert row.p_value is not None
    assert row.p_value_holm is not None
    assert row.p_value <= row.p_value_holm <= 1
    control = window_losses(models["student"].control, task, "test")
    against = next(found for found in report.comparisons if found.other == "deployed without teacher")
    assert against.subject == report.subject == "deployed"
    assert against.relative == pytest.approx(losses["deployed"].mean() / control.mean() - 1, rel=1e-3)
    assert [found.other for found in report.comparisons] == ["deployed without teacher", "seasonal naive", "ridge"]


def test_one_model_in_two_runtimes_is_not_tested_against_itself(report: Report) -> None:
    assert report.row("teacher", "onnx fp32").p_value is None
    assert report.row("teacher", "onnx fp32").mse == pytest.approx(report.rows[0].mse, rel=1e-4)


def test_comparing_leaves_the_models_as_they_were(task: Task, models: dict[str, Any]) -> None:
    student = models["student"]
    before = (student.digest, student.control.digest, len(student.lineage))
    compare({"student": student}, task, latency=False)
    assert (student.digest, student.control.digest, len(student.lineage)) == before


def test_without_latency_there_is_none(task: Task, models: dict[str, Any]) -> None:
    found = compare({"teacher": models["teacher"]}, task, part="validation", latency=False)
    assert {row.latency_p50_ms for row in found.rows} == {row.speedup for row in found.rows} == {None}
    assert found.part == "validation"
    assert found.row("teacher").mse == pytest.approx(evaluate(models["teacher"], task, "validation")["mse"])
    assert "p50" not in found.to_text()
    assert 'id="latency"' not in render(found)


def test_another_reference_can_be_named(task: Task, models: dict[str, Any]) -> None:
    found = compare(models, task, reference="deployed", latency=False)
    assert [row.title for row in found.rows[:3]] == [
        "deployed (onnx fp32)",
        "teacher (onnx fp32)",
        "student (onnx fp32)",
    ]
    assert found.rows[0].mse_ratio == 1.0
    assert found.subject == "deployed"


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
        assert example.start == str(task.panel.items[0].ds[first])  # type: ignore[index]
        forecast = models["teacher"].predict(values[first - 29 : first])[:, number]
        assert example.forecasts["teacher (torch fp32)"] == pytest.approx(forecast, rel=1e-3, abs=1e-3)
        assert set(example.forecasts) == {row.title for row in report.rows}


@pytest.mark.parametrize(
    ("names", "how", "words"),
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
    task: Task, models: dict[str, Any], names: list[str], how: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(dict.fromkeys(names, models["teacher"]), task, **how)
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


def made(**changes: Any) -> Report:
    """A report by hand: a teacher, a student, its control and two baselines."""
    base = {"mae": 0.5, "mse_raw": 4.0, "mae_raw": 1.5, "latency_p95_ms": 9.0}
    rows = [
        Row(name="teacher", runtime="torch fp32", role="reference", mse=0.5, n_parameters=1009, size_bytes=1_300_000,
            latency_p50_ms=4.7, mse_ratio=1.0, size_ratio=1.0, speedup=1.0, **base),
        Row(name="teacher", runtime="onnx fp32", mse=0.5, n_parameters=1009, size_bytes=1_310_000,
            latency_p50_ms=2.35, mse_ratio=1.0, size_ratio=1.0077, speedup=2.0, **base),
        Row(name="int8", runtime="onnx int8", mse=0.5055, n_parameters=101, size_bytes=91_000, latency_p50_ms=0.47,
            mse_ratio=1.011, size_ratio=0.07, speedup=10.0, mse_difference=0.0055, low=-0.001, high=0.012,
            p_value=0.31, p_value_holm=0.62, **base),
        Row(name="int8 without teacher", runtime="onnx int8", role="control", mse=0.5097, n_parameters=101,
            size_bytes=91_000, **base),
        Row(name="ridge", runtime="onnx fp32", role="baseline", mse=0.6, n_parameters=11, size_bytes=5_000, **base),
        Row(name="seasonal naive", runtime="onnx fp32", role="baseline", mse=1.0, n_parameters=0, size_bytes=999,
            **base),
    ]  # fmt: skip
    values: dict[str, Any] = {
        "context": 29,
        "horizon": 7,
        "channels": ("a",),
        "split": "test",
        "n_windows": {"test": 101},
        "reference": "teacher",
        "subject": "int8",
        "rows": tuple(rows),
        "comparisons": (
            Comparison(
                subject="int8", other="int8 without teacher", relative=-0.008, low=-0.02, high=0.01, p_value=0.31
            ),
            Comparison(subject="int8", other="ridge", relative=-0.158, low=-0.2, high=-0.1, p_value=0.0001),
        ),
    }
    return Report(**{**values, **changes})


def test_the_verdict_says_what_the_numbers_say() -> None:
    assert list(made().verdict) == [
        "int8 (onnx int8) has a 1.1 % higher test MSE than teacher (0.5055 against 0.5000; 95 % interval -0.2 % to "
        "+2.4 %, not significant, p=0.31), is 14.3 times smaller (91.0 kB against 1.3 MB) and is 10.0 times faster "
        "(0.470 ms against 4.70 ms).",
        "Against the same student trained without a teacher (MSE 0.5097), int8 has a 0.8 % lower MSE (not significant, "
        "p=0.31): this does not show that the teacher made a difference.",
        "int8 has a lower MSE than ridge (-15.8 %; significant, p<0.001).",
        "teacher exported as it is takes 2.35 ms (onnx fp32); against that int8 is 5.00 times as fast.",
    ]


def comparison(other: str, relative: float, p_value: float | None) -> tuple[Comparison, ...]:
    return (Comparison(subject="int8", other=other, relative=relative, p_value=p_value),)


TEACHER, TEACHER_ONNX, INT8 = made().rows[:3]
WASTEFUL = INT8.replace(size_ratio=2.0, speedup=0.25)
CONTROL = "int8 without teacher"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"comparisons": comparison(CONTROL, -0.03, 0.01)}, "significant, p=0.010): the teacher helped."),
        ({"comparisons": comparison(CONTROL, 0.03, 0.01)}, "significant, p=0.010): the teacher did harm."),
        ({"comparisons": comparison(CONTROL, -0.03, None)}, "(not tested)."),
        ({"comparisons": comparison(CONTROL, 0.0, 1.0)}, "int8 forecasts as the same student trained without a"),
        ({"comparisons": comparison("ridge", 0.03, None)}, "does not have a lower MSE than ridge (+3.0 %; not tested)"),
        ({"comparisons": comparison("ridge", 0.03, None)}, "it takes at least 28 of them (4 horizons)"),
        ({"rows": (TEACHER.replace(mse=0.7), *made().rows[1:])}, "teacher itself (MSE 0.7000) does not beat ridge"),
        ({"rows": (TEACHER, TEACHER_ONNX, WASTEFUL)}, "is 2.00 times larger (91.0"),
        ({"rows": (TEACHER, TEACHER_ONNX, WASTEFUL)}, "is 4.00 times slower ("),
        ({"rows": made().rows[:2], "subject": "teacher"}, "teacher (onnx fp32) has a test MSE of 0.5000 in 1.3 MB,"),
    ],
)  # fmt: skip
def test_the_verdict_follows_the_numbers(changes: dict[str, Any], words: str) -> None:
    assert words in "\n".join(made(**changes).verdict)


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_text_fits_and_loses_nothing(report: Report, width: int, ascii_only: bool) -> None:
    text = report.to_text(width, ascii_only=ascii_only)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.isascii() == ascii_only
    for row in report.rows:
        for cell in (error(row.mse), error(row.mae_raw), size(row.size_bytes), milliseconds(row.latency_p95_ms)):
            assert cell in text


def test_a_hundred_columns_are_enough_for_two_tables() -> None:
    headings = [line for line in made().to_text(100).splitlines() if line.startswith("model ")]
    assert len(headings) == 2
    assert len([line for line in made().to_text(60).splitlines() if line.startswith("model ")]) > 2


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


def test_a_name_is_no_markup() -> None:
    rows = tuple(row.replace(name=NASTY if row.name == "int8" else row.name) for row in made().rows)
    text = made(rows=rows, subject=NASTY, comparisons=()).to_text(300)
    assert NASTY in text


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (size(999), "999 B"),
        (size(1_000), "1.0 kB"),
        (size(91_234), "91.2 kB"),
        (size(999_949), "1.0 MB"),
        (size(123_456_789), "123 MB"),
        (change(1.0114), "+1.1 %"),
        (change(0.9999), "+0.0 %"),
        (change(None), "-"),
        (factor(14.24), "14.2x"),
        (factor(0.5), "0.50x"),
        (factor(123.4), "123x"),
        (factor(0.00076), "0.00076x"),
        (chance(0.0001), "<0.001"),
        (chance(0.0123), "0.012"),
        (chance(0.314), "0.31"),
        (chance(1.0), "1.00"),
        (milliseconds(0.10749), "0.107"),
        (milliseconds(123.4), "123"),
        (milliseconds(1883.2), "1,883"),
        (error(0.00012346), "0.0001235"),
        (error(12.3), "12.3000"),
        (error(12345.6), "1.235e+04"),
        (error(None), "-"),
    ],
)
def test_numbers_are_written_short(found: str, expected: str) -> None:
    assert found == expected


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
    found = re.search(r'id="report-data">(.*?)</script>', render(report), flags=re.DOTALL)
    assert found is not None
    assert Report.from_dict(json.loads(found.group(1))) == report


def test_every_value_on_the_page_is_escaped() -> None:
    rows = tuple(row.replace(name=row.name.replace("int8", NASTY)) for row in made().rows)
    comparisons = tuple(found.replace(subject=NASTY) for found in made().comparisons)
    nasty = made(
        rows=rows, comparisons=comparisons, subject=NASTY, panel=NASTY, channels=(NASTY,), notes={"fill": NASTY}
    )
    page, clean = render(nasty), render(made())
    assert "alert('x')" not in page
    for mark in ("<script", "</script", "<b>"):
        assert page.count(mark) == clean.count(mark)
    assert "&lt;/script&gt;&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


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

    found = figures(report)
    assert set(found) == {"size", "latency", "steps", "example-0", "example-1", "example-2"}
    for figure in found.values():
        plain = copy.deepcopy(figure)
        for trace in plain["data"]:
            # The page puts its own text colour in the place of "ink".
            if trace.get("line", {}).get("color") == "ink":
                trace["line"]["color"] = "black"
        assert len(go.Figure(plain).data) == len(figure["data"])
    assert [trace["y"] for trace in found["steps"]["data"]] == [
        list(row.mse_by_step) for row in report.rows if row.title != "teacher (onnx fp32)"
    ]


def test_every_mark_is_within_its_plot_and_no_two_labels_are_one() -> None:
    found = figures(made())["size"]
    bottom, top = found["layout"]["yaxis"]["range"]
    left, right = found["layout"]["xaxis"]["range"]
    for trace in found["data"]:
        assert bottom < trace["y"][0] < top
        assert left < np.log10(trace["x"][0]) < right
    far = [trace for trace in found["data"] if trace["marker"]["symbol"] == "triangle-up-open"]
    assert [trace["text"][0] for trace in far] == ["seasonal naive: 1.0000"]


def test_a_control_has_the_colour_of_its_student() -> None:
    shades = colours(made())
    assert shades["int8 without teacher"] == shades["int8"] != shades["teacher"]
    assert len({shades["teacher"], shades["int8"], shades["ridge"], shades["seasonal naive"]}) == 4


def test_a_perfect_reference_leaves_ratios_out() -> None:
    task = Task(Panel((Item("x", None, np.ones((101, 1))),), channels=("a",)), context=7, horizon=5)
    ridge: Forecaster = train(LinearConfig(), task)
    found = compare({"flat": ridge}, task, latency=False)
    assert found.rows[0].mse == 0
    assert found.rows[0].mse_ratio is None
    assert Report.from_json(found.to_json()) == found
    assert "MSE of 0.0000" in " ".join(found.verdict)
    assert "flat" in render(found)
