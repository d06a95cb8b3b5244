"""The plots of a report as plain plotly data: what a browser draws, made without plotly."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from typing import Any

from tsdistill.report import words
from tsdistill.report.records import ExampleForecast, Measurements, Row

PALETTE = ("#3b6fd4", "#e07b39", "#2a9d6f", "#c2478b", "#8a63d2", "#b8952c", "#2fa3b5", "#d1495b")
GREYS = ("#9aa1ad", "#6f7885")
INK = "ink"
"""Placeholder for the page's text colour, which the page fills in: dark on light or light on dark."""


def colours(report: Measurements) -> dict[str, str]:
    """One colour per name, the same in every plot and table; a control has its student's, baselines are grey."""
    colour_by_name: dict[str, str] = {}
    n_models = 0
    n_baselines = 0
    for row in report.rows:
        if row.name in colour_by_name:
            continue
        if row.role == "baseline":
            colour_by_name[row.name] = GREYS[n_baselines % len(GREYS)]
            n_baselines += 1
        elif row.role == "control":
            colour_by_name[row.name] = colour_by_name.get(row.name.removesuffix(" without teacher"), PALETTE[-1])
        else:
            colour_by_name[row.name] = PALETTE[n_models % len(PALETTE)]
            n_models += 1
    return colour_by_name


def figures(report: Measurements) -> dict[str, Any]:
    """Plotly data and layout by the id of the page element."""
    plots = {"size": _scatter(report, "size_bytes", "bytes"), "steps": _steps(report)}
    if any(row.latency_p50_ms is not None for row in report.rows):
        plots["latency"] = _scatter(report, "latency_p50_ms", "ms, median of one forecast")
    for number, example in enumerate(report.examples):
        plots[f"example-{number}"] = _example(report, example)
    return plots


def _scatter(report: Measurements, column: str, unit: str) -> dict[str, Any]:
    """MSE against a cost on a log axis: down and to the left is better; an arrow stands for an error beyond the top."""
    shades = colours(report)
    rows = [row for row in _whole(report) if getattr(row, column) is not None]
    low, high = _span([math.log10(max(getattr(row, column), 1e-9)) for row in rows], least=0.3)
    base = report.rows[0].measured_mse
    near = [base, *(row.measured_mse for row in rows if not _far(row, report))]
    bottom, top = _span(near, least=max(0.02 * base, 1e-9))
    places = [
        (
            (math.log10(max(getattr(row, column), 1e-9)) - low) / (high - low),
            _TOP if _far(row, report) else (row.measured_mse - bottom) / (top - bottom),
        )
        for row in rows
    ]
    labels = _labels(places, [_label(row, report) for row in rows])
    traces = []
    for row, (_, height), (label, position) in zip(rows, places, labels, strict=True):
        marker = {
            "size": 15 if row.name == report.subject else 11,
            "color": shades[row.name],
            "symbol": "triangle-up-open" if height == _TOP else _symbol(row),
            "line": {"width": 2, "color": shades[row.name]},
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": [getattr(row, column)],
                "y": [bottom + height * (top - bottom)],
                "name": html.escape(row.title),
                "text": [html.escape(label)],
                "textposition": position,
                "customdata": [[html.escape(row.title), _tip(row)]],
                "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[1]}<extra></extra>",
                "cliponaxis": False,
                "marker": marker,
            }
        )
    layout = plain_layout(unit, "MSE", _log_axis(low, high, _bytes if column == "size_bytes" else _plain))
    layout["yaxis"]["range"] = [bottom, top]
    return {"data": traces, "layout": layout}


def _whole(report: Measurements) -> list[Row]:
    """Rows that were scored on every window: errors on some of them only are not comparable on one axis."""
    return [row for row in report.rows if row.n_windows is None and row.mse is not None]


def _far(row: Row, report: Measurements) -> bool:
    """Whether a baseline or control is so far off that a plot to scale would press all others into one line."""
    worst = max(other.measured_mse for other in _whole(report) if other.role in ("reference", "model"))
    return row.role in ("baseline", "control") and row.measured_mse > 1.25 * worst


def _span(values: list[float], least: float) -> tuple[float, float]:
    """Ends of an axis that leave room for labels around the values."""
    low, high = min(values), max(values)
    room = max(0.2 * (high - low), least)
    return low - room, high + room


_TOP = 0.97
"""Height of a mark whose error lies beyond the plot."""

_LETTER = 0.0155
"""Width of a letter, as a share of a plot of the usual size."""

_HEIGHT = 0.05
"""Height of a label, likewise."""

_MARK = 0.02
"""Radius of a mark, likewise."""


def _labels(places: list[tuple[float, float]], texts: list[str]) -> list[tuple[str, str]]:
    """Text and position of each mark's label; a mark has no label where every position would cover something."""
    occupied = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    labels = []
    for (x, y), text in zip(places, texts, strict=True):
        width = _LETTER * len(text)
        rise = _MARK + _HEIGHT / 2
        centres = {
            "top center": (x, y + rise),
            "bottom center": (x, y - rise),
            "middle right": (x + _MARK + width / 2, y),
            "middle left": (x - _MARK - width / 2, y),
        }
        for position, (across, up) in centres.items():
            box = (across - width / 2, up - _HEIGHT / 2, across + width / 2, up + _HEIGHT / 2)
            inside = box[0] > -0.05 and box[2] < 1.05 and box[1] > 0 and box[3] < 1
            if inside and not any(_overlap(box, other) for other in occupied):
                occupied.append(box)
                labels.append((text, position))
                break
        else:
            labels.append(("", "top center"))
    return labels


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    margin = 1e-3
    return (
        one[0] < other[2] - margin
        and other[0] < one[2] - margin
        and one[1] < other[3] - margin
        and other[1] < one[3] - margin
    )


def _log_axis(low: float, high: float, label: Callable[[float], str]) -> dict[str, Any]:
    """A log axis between two powers of ten, with few enough ticks to read."""
    steps = (1, 2, 5) if high - low < 1.6 else (1, 3) if high - low < 3.5 else (1,)
    exponents = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    shown = [tick for tick in ticks if low <= math.log10(tick) <= high]
    ticked = {"tickvals": shown, "ticktext": [label(tick) for tick in shown], "tickangle": 0}
    return {"type": "log", "range": [low, high], **ticked}


def _plain(value: float) -> str:
    return f"{value:g}"


def _bytes(value: float) -> str:
    return words.size(round(value)).replace(".0 ", " ")


def _label(row: Row, report: Measurements) -> str:
    """The name, and the runtime where one name has several rows; and the error where the plot cannot show it."""
    several = sum(other.name == row.name for other in report.rows) > 1
    name = f"{row.name} ({row.runtime.split()[0]})" if several else row.name
    return f"{name}: {words.error(row.mse)}" if _far(row, report) else name


def _symbol(row: Row) -> str:
    symbols = {"reference": "star", "baseline": "diamond-open", "control": "circle-open"}
    return symbols.get(row.role, "circle")


def _tip(row: Row) -> str:
    parts = [f"MSE {words.error(row.mse)}", words.size(row.size_bytes), f"{words.count(row.n_parameters)} weights"]
    if row.latency_p50_ms is not None:
        parts.append(f"{words.milliseconds(row.latency_p50_ms)} ms")
    return ", ".join(parts)


def _steps(report: Measurements) -> dict[str, Any]:
    """MSE at each step of the horizon; a model run by two runtimes is drawn once."""
    shades = colours(report)
    drawn = set()
    traces = []
    for row in _whole(report):
        if row.name in drawn:
            continue
        drawn.add(row.name)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines" if report.horizon > 1 else "markers",
                "x": list(range(1, len(row.mse_by_step) + 1)),
                "y": list(row.mse_by_step),
                "name": html.escape(row.name),
                "line": _line(row, shades[row.name]),
                "hovertemplate": "step %{x}: %{y:.4g}",
            }
        )
    layout = plain_layout("steps ahead", "MSE", {})
    return {"data": traces, "layout": {**layout, "hovermode": "x unified", "showlegend": True}}


def _line(row: Row, colour: str) -> dict[str, Any]:
    dash = {"control": "dot", "baseline": "dash"}.get(row.role, "solid")
    return {"color": colour, "width": 2, "dash": dash}


def _example(report: Measurements, example: ExampleForecast) -> dict[str, Any]:
    """One window of one channel: the context, the target, and the forecasts; most of them shown on demand."""
    shades = colours(report)
    drawn = set()
    past = list(range(1 - len(example.context), 1))
    steps = list(range(1, len(example.target) + 1))
    last = example.context[-1:]
    traces = [
        _series(past, example.context, "past", {"color": INK, "width": 1.2}, opacity=0.45),
        # Drawn from the last observed value on, so that past, target and forecasts connect.
        _series([0, *steps], (*last, *example.target), "what happened", {"color": INK, "width": 2}),
    ]
    for row in report.rows:
        forecast = example.forecasts.get(row.title)
        if row.name in drawn or forecast is None:
            continue
        drawn.add(row.name)
        trace = _series([0, *steps], (*last, *forecast), row.name, _line(row, shades[row.name]))
        if row.name not in (report.reference, report.subject):
            trace["visible"] = "legendonly"
        traces.append(trace)
    layout = plain_layout("steps from now", "raw units", {"zeroline": True})
    return {"data": traces, "layout": {**layout, "hovermode": "x unified", "showlegend": True}}


def _series(x: list[int], y: Any, name: str, line: dict[str, Any], opacity: float = 1.0) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": list(y),
        "name": html.escape(name),
        "line": line,
        "opacity": opacity,
        "hovertemplate": "%{y:.4g}",
    }


def plain_layout(x: str, y: str, xaxis: dict[str, Any]) -> dict[str, Any]:
    """Axes with names and a transparent background: the page fills in its colours."""
    return {
        "xaxis": {"title": {"text": x, "standoff": 8}, "zeroline": False, "automargin": True, **xaxis},
        "yaxis": {"title": {"text": y, "standoff": 8}, "zeroline": False, "automargin": True},
        "margin": {"l": 48, "r": 24, "t": 16, "b": 40},
        "showlegend": False,
        "legend": {"orientation": "h", "y": -0.22, "x": 0, "font": {"size": 11}},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
