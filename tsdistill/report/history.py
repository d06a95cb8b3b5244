"""The history of a training run, epoch by epoch: a table for a terminal and a page with plots."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsdistill import manifest
from tsdistill.errors import ArtifactError, ConfigError
from tsdistill.report import words
from tsdistill.report.figures import PALETTE, plain_layout
from tsdistill.report.page import environment, put
from tsdistill.training import history as files
from tsdistill.training.checkpoint import read_progress

TEMPLATE = "history.html.j2"

Record = Mapping[str, Any]

_HEADINGS = {
    "epoch": "epoch",
    "step": "steps",
    "validation_mse": "validation MSE",
    "validation_error": "validation error",
    "learning_rate": "learning rate",
    "examples_per_s": "windows/s",
    "seconds": "seconds",
    "precision": "precision",
}


def read_history(path: str | Path) -> tuple[str, list[dict[str, Any]]]:
    """The name of a run, and one record per epoch, oldest first.

    Args:
        path: A `.history.jsonl` file, the checkpoint it stands beside, or the folder of a saved model, whose last
            trained step is taken.

    Raises:
        ArtifactError: There is no history there, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        for step in reversed(manifest.read(path)[0].lineage):
            metrics = step.get("metrics")
            records = metrics.get("history") if isinstance(metrics, dict) else None
            if not records:
                continue
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                raise ArtifactError(f"The history in {path} is no list of epochs. Save the model again.")
            return f"{path.resolve().name}: {step.get('verb')}", records
        raise ArtifactError(f"The model in {path} was not trained by steps, so it has no history.")
    if path.suffix == ".jsonl":
        return path.name.removesuffix(".jsonl").removesuffix(".history"), files.read(path)
    beside = files.beside(path)
    return path.name, files.read(beside) if beside.exists() else read_progress(path).history


def plot_history(history: Sequence[Record] | str | Path, path: str | Path, *, title: str | None = None) -> Path:
    """Write one self-contained page with loss, validation error, learning rate and speed over the epochs.

    Args:
        history: `forecaster.lineage[-1].metrics["history"]`, or a path as for `read_history`.
        path: The HTML file to write; its folder is made.
        title: Heading of the page.

    Returns:
        The path.

    Raises:
        ConfigError: The history has no epochs.
        ArtifactError: There is no history at that path, or the page cannot be written.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> from tsdistill.training import Training, train
        >>> model = train(MLPConfig(width=5, depth=1), toy_task(), Training(max_steps=2, precision="float32"))
        >>> plot_history(model.lineage[-1].metrics["history"], "history.html").name
        'history.html'
    """
    name = "training"
    if isinstance(history, str | Path):
        name, history = read_history(history)
    page = _render(history, title or name)
    return put(page, Path(path), "history")


def table(history: Sequence[Record]) -> dict[str, list[str]]:
    """Cells as text by heading; a column for every number that some epoch has."""
    names = list(dict.fromkeys(name for record in history for name in record))
    parts = [name for name in names if name.startswith("loss_")]
    order = ["epoch", "step", *parts, *list(_HEADINGS)[2:]]
    return {
        _HEADINGS.get(name, name.replace("_", " ", 1)): [_cell(name, record.get(name)) for record in history]
        for name in order
        if name in names
    }


def best(history: Sequence[Record]) -> int:
    """Position of the epoch whose weights are kept."""
    if not history:
        raise ConfigError("`history` must hold at least one epoch, got history=[]. Wait for the first one to end.")
    return min(range(len(history)), key=lambda place: _selection_error(history[place]))


def headline(history: Sequence[Record]) -> str:
    """A summary in one line."""
    last = history[-1]
    kept = history[best(history)]
    noun = "epoch" if len(history) == 1 else "epochs"
    return (
        f"{len(history)} {noun}, {words.count(last['step'])} steps; best in epoch {kept['epoch']} with a validation "
        f"error of {words.error(_selection_error(kept))}"
        if "step" in last
        else f"{len(history)} {noun}; best in epoch {kept['epoch']}"
    )


def _selection_error(record: Record) -> float:
    """The error that decides which weights are kept: a head's own where it is not the MSE."""
    return float(record.get("validation_error", record["validation_mse"]))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("epoch", "step"):
        return words.count(value)
    if name == "learning_rate":
        return f"{value:.3g}"
    if name == "examples_per_s":
        return words.count(round(value))
    return words.error(value) if isinstance(value, float) and name != "seconds" else str(value)


def _render(history: Sequence[Record], title: str) -> str:
    import plotly.offline

    columns = table(history)
    place = best(history)
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            title=title,
            headline=headline(history),
            table=list(columns),
            rows=list(zip(*columns.values(), strict=True)),
            best=place,
            figures=_figures(history, place),
            records=[dict(record) for record in history],
            plotly=plotly.offline.get_plotlyjs(),
        )
    )


def _figures(history: Sequence[Record], place: int) -> dict[str, Any]:
    """Plotly data and layout by the id of the page element."""
    names = list(dict.fromkeys(name for record in history for name in record))
    errors = [name for name in names if name.startswith(("validation_", "loss_"))]
    errors.sort(key=lambda name: not name.startswith("validation_"))
    traces = []
    for number, name in enumerate(errors):
        is_validation = name.startswith("validation_")
        line = {"color": PALETTE[number % len(PALETTE)], "width": 2, "dash": "solid" if is_validation else "dot"}
        traces.append(_curve(history, name, line))
    kept = history[place]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [kept["epoch"]],
            "y": [_selection_error(kept)],
            "name": "kept",
            "marker": {"symbol": "star", "size": 13, "color": PALETTE[0]},
            "hoverinfo": "skip",
        }
    )
    layout = plain_layout("epoch", "scaled error", _epochs(history))
    plots = {"errors": {"data": traces, "layout": {**layout, "hovermode": "x unified", "showlegend": True}}}
    for id_, name, unit in (("rate", "learning_rate", "learning rate"), ("speed", "examples_per_s", "windows/s")):
        if name in names or id_ == "rate":
            line = {"color": PALETTE[0], "width": 2}
            layout = plain_layout("epoch", unit, _epochs(history))
            layout["yaxis"]["rangemode"] = "tozero"
            plots[id_] = {"data": [_curve(history, name, line)], "layout": layout}
    return plots


def _curve(history: Sequence[Record], name: str, line: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(history) < 40 else "lines",
        "x": [record["epoch"] for record in history],
        "y": [record.get(name) for record in history],
        "name": html.escape(_HEADINGS.get(name, name.replace("_", " ", 1))),
        "line": line,
        "marker": {"size": 5},
        "hovertemplate": "%{y:.4g}",
        "cliponaxis": False,
    }


def _epochs(history: Sequence[Record]) -> dict[str, Any]:
    """An axis of whole epochs."""
    return {"tickformat": "d", "dtick": 1} if len(history) < 15 else {"tickformat": "d"}
