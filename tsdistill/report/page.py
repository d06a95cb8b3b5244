"""A report as one self-contained page: verdict, tables and interactive plots, readable without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tsdistill.errors import ArtifactError
from tsdistill.files import write_atomic
from tsdistill.report import candidates, words
from tsdistill.report.figures import colours, figures
from tsdistill.report.records import Measurements, Row
from tsdistill.report.text import accuracy, cost, fits_explained, headline, notes, quantiles_explained

if TYPE_CHECKING:
    import jinja2

TEMPLATE = "report.html.j2"


def write_page(report: Measurements, path: Path) -> Path:
    """Render the page and put it in place whole."""
    return put(render(report), path, "report")


def put(page: str, path: Path, name: str) -> Path:
    """Write a page at once, so that no reader sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page)
    except OSError as error:
        raise ArtifactError(
            f"Cannot write the {name} to {path}: {error.strerror or error}. Name a file in a folder you may write to."
        ) from None
    return path


def environment() -> jinja2.Environment:
    """The environment of the templates: every value is escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("tsdistill.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(report: Measurements) -> str:
    """The page as text; every value is escaped, whatever a model or a channel is called."""
    import plotly.offline

    shades = colours(report)
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            report=report,
            title=report.panel or "Forecasters compared",
            headline=headline(report),
            candidates=candidates.cells(report),
            tables={"accuracy": accuracy(report), "cost": cost(report)},
            styles=[_style(row, report, shades[row.name]) for row in report.rows],
            facts=_facts(report),
            explained=[text for text in (quantiles_explained(report), fits_explained(report)) if text],
            timed=any(row.latency_p50_ms is not None for row in report.rows),
            figures=figures(report),
            data=report.to_dict(),
            plotly=plotly.offline.get_plotlyjs(),
        )
    )


def _style(row: Row, report: Measurements, colour: str) -> dict[str, str]:
    is_subject = row.name == report.subject and row.role != "reference"
    return {"role": "subject" if is_subject else row.role, "colour": colour}


def _facts(report: Measurements) -> list[tuple[str, str]]:
    """Details at the foot of the page, name and value."""
    machine = report.machine
    abilities = [name for name in ("vnni", "amx") if machine.get(name)]
    channels = ", ".join(report.channels[:12]) + (
        f" and {len(report.channels) - 12} more" * (len(report.channels) > 12)
    )
    facts = [
        ("Data", f"{report.panel or 'unnamed'}; {len(report.channels)} channels: {channels}"),
        ("Step", report.frequency or "not known"),
        ("Windows", ", ".join(f"{words.count(number)} {part}" for part, number in report.n_windows.items())),
        ("Split", ", ".join(f"{name} {value}" for name, value in report.borders.items())),
        ("Repaired", notes(report) or "nothing"),
        *_nested(report),
        ("Fingerprint", f"{report.fingerprint} (training and validation windows)" if report.fingerprint else "none"),
        (
            "Machine",
            f"{machine.get('cpu', 'not known')}, {machine.get('system', '')}, INT8 instructions: "
            f"{', '.join(abilities) or 'none known'}, {machine.get('threads', 1)} thread",
        ),
        ("Versions", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _nested(report: Measurements) -> list[tuple[str, str]]:
    """Notes that are tables themselves, such as cells filled per channel."""
    tables = {name: value for name, value in report.notes.items() if isinstance(value, dict) and value}
    return [
        (
            name.removeprefix("n_").replace("_", " ").capitalize(),
            ", ".join(f"{key} {words.count(cell) if isinstance(cell, int) else cell}" for key, cell in value.items()),
        )
        for name, value in tables.items()
    ]
