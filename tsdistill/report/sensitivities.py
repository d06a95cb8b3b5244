"""How the error grows as units of each group are removed, as one page with curves."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from tsdistill.pruning import PruningSensitivity
from tsdistill.report import words
from tsdistill.report.figures import PALETTE, plain_layout
from tsdistill.report.page import environment, put

TEMPLATE = "sensitivity.html.j2"

ALLOWED = 0.01
"""Growth of the error up to which a share cut counts as spare."""

TOP = 2.0
"""Errors beyond this many times that of the whole model are left out of the plot, to keep the others readable."""


def plot_sensitivity(sensitivity: PruningSensitivity, path: str | Path, *, title: str = "Sensitivity") -> Path:
    """Write one self-contained page with an error curve for every group, and a table of them.

    Args:
        sensitivity: The result of `td.pruning_sensitivity`.
        path: The HTML file to write; its folder is made.
        title: Heading of the page, such as the model's name.

    Returns:
        The path.

    Raises:
        ArtifactError: The page cannot be written.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.pruning import pruning_sensitivity
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> model = MLPConfig(width=5, depth=1).build(task.signature)
        >>> plot_sensitivity(pruning_sensitivity(model, task, ratios=(0.5,)), "sensitivity.html").name
        'sensitivity.html'
    """
    import plotly.offline

    page = (
        environment()
        .get_template(TEMPLATE)
        .render(
            title=title,
            headline=f"Validation {sensitivity.measure} of the whole model: {words.error(sensitivity.error)}",
            measure=sensitivity.measure,
            shares=[f"{ratio:.0%}" for ratio in sensitivity.ratios],
            rows=[(name, _spare(sensitivity, curve), [_growth(sensitivity, error) for error in curve])
                  for name, curve in sensitivity.errors.items()],
            allowed=f"{ALLOWED:.0%}",
            figures={"curves": _figure(sensitivity)},
            data=sensitivity.to_dict(),
            plotly=plotly.offline.get_plotlyjs(),
        )
    )  # fmt: skip
    return put(page, Path(path), "sensitivity")


def _growth(sensitivity: PruningSensitivity, error: float) -> str:
    growth = error / sensitivity.error - 1
    # No sign for what rounds to zero, and no decimals where the error doubles or more.
    return "0.0%" if abs(growth) < 0.0005 else f"{growth:+.1%}" if growth < 1 else f"{growth:+,.0%}"


def _spare(sensitivity: PruningSensitivity, curve: tuple[float, ...]) -> str:
    """The largest share cut up to which the error has grown by no more than is allowed."""
    spare = 0.0
    for ratio, error in sorted(zip(sensitivity.ratios, curve, strict=True)):
        if error > (1 + ALLOWED) * sensitivity.error:
            break
        spare = ratio
    return f"{spare:.0%}"


def _figure(sensitivity: PruningSensitivity) -> dict[str, Any]:
    """The curves in the page's colours; groups of one kind that are many differ by their dashes."""
    traces = sensitivity.figure()["data"]
    for number, trace in enumerate(traces):
        dash = ("solid", "dash", "dot")[number // len(PALETTE) % 3]
        trace |= {
            "name": html.escape(trace["name"]),
            "line": {"color": PALETTE[number % len(PALETTE)], "width": 2, "dash": dash},
            "marker": {"size": 5},
        }
    layout = plain_layout("share of the group cut", f"validation {sensitivity.measure}", {"tickformat": ".0%"})
    errors = [sensitivity.error, *(error for curve in sensitivity.errors.values() for error in curve)]
    low, high = min(errors), min(max(errors), TOP * sensitivity.error)
    room = 0.05 * max(high - low, 0.01 * sensitivity.error)
    layout["yaxis"]["range"] = [low - room, high + room]
    return {"data": traces, "layout": {**layout, "hovermode": "closest", "showlegend": True}}
