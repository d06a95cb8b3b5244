"""What a report says in words, and how its numbers are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tsdistill.report import Comparison, Report, Row
from tsdistill.report.figures import colours, figures
from tsdistill.report.page import render
from tsdistill.report.words import chance, change, error, factor, milliseconds, size

NASTY = "</script><script>alert('x')</script>[bold]{{ 7 * 7 }}%{y}"


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


def test_a_hundred_columns_are_enough_for_two_tables() -> None:
    headings = [line for line in made().to_text(100).splitlines() if line.startswith("model ")]
    assert len(headings) == 2
    assert len([line for line in made().to_text(60).splitlines() if line.startswith("model ")]) > 2


def test_a_name_is_no_markup() -> None:
    rows = tuple(row.replace(name=NASTY if row.name == "int8" else row.name) for row in made().rows)
    text = made(rows=rows, subject=NASTY, comparisons=()).to_text(300)
    assert NASTY in text


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_numbers_are_written_short(text: str, expected: str) -> None:
    assert text == expected


def test_every_value_on_the_page_is_escaped() -> None:
    rows = tuple(row.replace(name=row.name.replace("int8", NASTY)) for row in made().rows)
    comparisons = tuple(comparison.replace(subject=NASTY) for comparison in made().comparisons)
    nasty = made(
        rows=rows, comparisons=comparisons, subject=NASTY, panel=NASTY, channels=(NASTY,), notes={"fill": NASTY}
    )
    page, clean = render(nasty), render(made())
    assert "alert('x')" not in page
    for mark in ("<script", "</script", "<b>"):
        assert page.count(mark) == clean.count(mark)
    assert "&lt;/script&gt;&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_every_mark_is_within_its_plot_and_no_two_labels_are_one() -> None:
    figure = figures(made())["size"]
    bottom, top = figure["layout"]["yaxis"]["range"]
    left, right = figure["layout"]["xaxis"]["range"]
    for trace in figure["data"]:
        assert bottom < trace["y"][0] < top
        assert left < np.log10(trace["x"][0]) < right
    far = [trace for trace in figure["data"] if trace["marker"]["symbol"] == "triangle-up-open"]
    assert [trace["text"][0] for trace in far] == ["seasonal naive: 1.0000"]


def test_a_control_has_the_colour_of_its_student() -> None:
    shades = colours(made())
    assert shades["int8 without teacher"] == shades["int8"] != shades["teacher"]
    assert len({shades["teacher"], shades["int8"], shades["ridge"], shades["seasonal naive"]}) == 4
