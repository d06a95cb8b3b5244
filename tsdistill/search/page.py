"""A study as one page: the front, the history, what mattered and what every address did to the error."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tsdistill.report.figures import plain_layout
from tsdistill.report.page import environment, put
from tsdistill.search.results import front, standing
from tsdistill.search.table import described

TEMPLATE = "study.html.j2"

PLOTS = (
    ("front", "Error against bytes", "Every finished trial; those on the line are in the table above."),
    ("history", "As the search went on", "The error of every trial, and the best until then."),
    ("importance", "What mattered", "How much of the spread of errors an address explains (fANOVA)."),
    ("slice", "Address by address", "The error of every trial over what it drew."),
)

FEWEST = 4
"""Finished trials below which importances mean nothing."""


def plot_study(study: optuna.Study, path: str | Path) -> Path:
    """Write one self-contained page about a study: front, history, importances, slices.

    Args:
        study: A study with at least one finished trial.
        path: The HTML file to write; its folder is made.

    Returns:
        The path.

    Raises:
        OrderError: No trial is finished yet.
        ArtifactError: The page cannot be written.

    Example:
        >>> plot_study(study, "study.html")     # doctest: +SKIP
    """
    import plotly.offline

    rows = front(study)
    figures = _figures(study, rows)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    n_finished = sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states)
    page = (
        environment()
        .get_template(TEMPLATE)
        .render(
            title=study.study_name,
            headline=f"{n_finished} finished trials, {states.count(TrialState.PRUNED)} of them stopped early, "
            f"{states.count(TrialState.FAIL)} failed; {standing(study)}",
            headings=["trial", "validation MSE", "bytes", "parameters", "form", "drawn"],
            rows=[
                (
                    row["trial"],
                    f"{row['validation_mse']:.4f}",
                    f"{row['size_bytes']:,}",
                    f"{row['n_parameters']:,}",
                    row["precision"],
                    described(row["params"]),
                )
                for row in rows
            ],
            plots=[plot for plot in PLOTS if plot[0] in figures],
            figures=figures,
            data=rows,
            plotly=plotly.offline.get_plotlyjs(),
        )
    )
    return put(page, Path(path), "study")


def _figures(study: optuna.Study, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Plain plotly data by plot; a plot that the trials are too few for is left out."""
    from optuna import visualization

    def error(trial: FrozenTrial) -> float:
        return trial.values[0]

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    figures: dict[str, Any] = {"front": _front(finished, rows)}
    # Optuna draws the best value until then only where the study itself says what is best.
    options: dict[str, Any] = {"target": error} if len(study.directions) > 1 else {}
    options["target_name"] = "validation MSE"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of addresses that only some kinds have
        figures["history"] = _plain(visualization.plot_optimization_history(study, **options))
        addresses = _shared(finished)
        if addresses:
            figures["slice"] = _plain(visualization.plot_slice(study, params=addresses, **options))
        if addresses and len(finished) >= FEWEST:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            importances = visualization.plot_param_importances(study, params=addresses, evaluator=evaluator, **options)
            figures["importance"] = _plain(importances)
    return figures


def _shared(finished: list[FrozenTrial]) -> list[str]:
    """Addresses that every finished trial drew, with more than one value among them."""
    shared = set.intersection(*(set(trial.params) for trial in finished))
    return sorted(name for name in shared if len({str(trial.params[name]) for trial in finished}) > 1)


def _front(finished: list[FrozenTrial], rows: list[dict[str, Any]]) -> dict[str, Any]:
    sized = [trial for trial in finished if "size_bytes" in trial.user_attrs]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "trial",
                "x": [trial.user_attrs["size_bytes"] for trial in sized],
                "y": [trial.values[0] for trial in sized],
                "text": [f"trial {trial.number}" for trial in sized],
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "front",
                "x": [row["size_bytes"] for row in rows],
                "y": [row["validation_mse"] for row in rows],
            },
        ],
        "layout": {**plain_layout("bytes", "validation MSE", {"type": "log"}), "showlegend": True},
    }


def _plain(figure: Any) -> dict[str, Any]:
    """The data of one of Optuna's figures, in the page's layout; of several plots side by side each keeps its axes."""
    plain = json.loads(figure.to_json())
    layout = plain_layout("", "validation MSE", {})
    for name, axis in plain["layout"].items():
        if name.startswith(("xaxis", "yaxis")):
            title = axis.get("title", {}).get("text", "")  # an address is longer than its plot is wide
            layout[name] = {**layout.get(name, {}), **axis, "title": title.rpartition(".")[2], "automargin": True}
    return {"data": plain["data"], "layout": {**layout, "hovermode": "closest"}}
