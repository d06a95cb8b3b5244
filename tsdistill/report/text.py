"""A report for the terminal: two tables and the verdict, in colour where there is colour."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tsdistill.errors import printable
from tsdistill.report import candidates
from tsdistill.report.records import Measurements, Row
from tsdistill.report.verdict import verdict
from tsdistill.report.words import chance, change, count, error, factor, milliseconds, share, size, versus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDEST = 100
"""Columns a report takes at most, however wide the terminal is."""


def for_terminal(report: Measurements) -> str:
    """`to_text` as standard output can show it."""
    width = min(shutil.get_terminal_size(fallback=(WIDEST, 24)).columns, WIDEST)
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    return to_text(report, width, ascii_only=not encoding.startswith("utf"))


def to_text(report: Measurements, width: int = WIDEST, *, ascii_only: bool = False) -> str:
    """The report as plain text without colours."""
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for part in renderables(report, width, ascii_only=ascii_only):
        console.print(part)
    text = "\n".join(line.rstrip() for line in file.getvalue().splitlines())
    return text.encode("ascii", "replace").decode() if ascii_only else text


def renderables(report: Measurements, width: int = WIDEST, *, ascii_only: bool = False) -> Iterator[RenderableType]:
    """The parts of the report for rich, from top to bottom."""
    from rich.text import Text

    yield Text(printable(f"{report.panel or 'data'}: {headline(report)}"), style="bold")
    yield Text("")
    yield from _tables(report, accuracy(report), width, ascii_only)
    yield from _tables(report, cost(report), width, ascii_only)
    if report.candidates:
        yield _candidates(report, ascii_only)
        yield Text("")
    for number, paragraph in enumerate(verdict(report)):
        yield Text(f"{printable(paragraph)}\n", style="bold" if number == 0 else "")
    yield Text(printable(footnote(report)), style="dim")


def headline(report: Measurements) -> str:
    """What was compared, in one line, after the name of the data."""
    n_channels = len(report.channels)
    return (
        f"context {report.context}, horizon {report.horizon}, {n_channels} "
        f"channel{'s' if n_channels != 1 else ''}, {count(report.n_windows[report.part])} {report.part} windows"
    )


def footnote(report: Measurements) -> str:
    """The meaning of the columns, and how they were measured."""
    parts = [
        "MSE and MAE: scaled data, every window, step and channel. raw: the data's own units. p: equal MSE to the "
        f"reference {report.reference}, by window losses, robust to their autocorrelation, Holm-adjusted in the table."
    ]
    parts += [text for text in (quantiles_explained(report), fits_explained(report)) if text]
    timed = next((row.n_latency_runs for row in report.rows if row.n_latency_runs), None)
    if timed:
        parts.append(f"Latency: one window, raw values in and out, one thread, {timed} runs in turns.")
    if cpu := report.machine.get("cpu"):
        parts.append(f"{cpu}.")
    if filled := notes(report):
        parts.append(f"Data: {filled}.")
    return " ".join(parts)


def notes(report: Measurements) -> str:
    """What was repaired in the data, in one line: what is not zero, and no tables."""
    plain = {name: value for name, value in report.notes.items() if value and not isinstance(value, dict | list)}
    return ", ".join(_note(name, value) for name, value in plain.items())


def _note(name: str, value: object) -> str:
    if name == "remark":
        return str(value)
    return f"{name.removeprefix('n_').replace('_', ' ')} {count(value) if isinstance(value, int) else value}"


def accuracy(report: Measurements) -> dict[str, list[str]]:
    """Cells by heading: how well each row forecasts."""
    rows = report.rows
    cells = {}
    if any(row.n_windows is not None for row in rows):
        whole = report.n_windows[report.part]
        cells["windows"] = [count(whole if row.n_windows is None else row.n_windows) for row in rows]
    cells |= {
        "MSE": [error(row.mse) for row in rows],
        "change": [versus(row, change(row.mse_ratio)) for row in rows],
        "p": [chance(row.p_value_holm) for row in rows],
        "MAE": [error(row.mae) for row in rows],
        "MASE": [error(row.mase) for row in rows],
        "raw MSE": [error(row.mse_raw) for row in rows],
        "raw MAE": [error(row.mae_raw) for row in rows],
    }
    return {**cells, **_quantiles(rows)}


def _quantiles(rows: tuple[Row, ...]) -> dict[str, list[str]]:
    """Columns about quantiles, where a row has some; the nominal coverage in the heading if it is one for all."""
    cells: dict[str, list[str]] = {}
    if any(row.wql is not None for row in rows):
        cells["WQL"] = [error(row.wql) for row in rows]
    nominal = {row.nominal_coverage for row in rows if row.nominal_coverage is not None}
    if len(nominal) == 1:
        cells[f"coverage {_percent(nominal.pop())}"] = [share(row.coverage) for row in rows]
    elif nominal:
        cells["coverage"] = [
            share(row.coverage) + (f" of {_percent(row.nominal_coverage)}" if row.nominal_coverage else "")
            for row in rows
        ]
    if any(row.crossing_rate is not None for row in rows):
        cells["crossing"] = [share(row.crossing_rate) for row in rows]
    return cells


def _percent(nominal: float) -> str:
    return f"{100 * nominal:g} %"


def quantiles_explained(report: Measurements) -> str:
    """What the columns about quantiles mean; nothing where there are none."""
    if not report.levels:
        return ""
    levels = ", ".join(f"{level:g}" for level in report.levels)
    return (
        f"WQL: weighted quantile loss over the levels {levels}, raw units; a forecast without quantiles stands for "
        "each of them, which makes it the absolute error over the size of the targets (for symmetric levels). "
        "coverage: targets within a row's outermost symmetric levels, of the share that is named. crossing: "
        "neighbouring levels in the wrong order."
    )


def cost(report: Measurements) -> dict[str, list[str]]:
    """Cells by heading: what each row costs."""
    rows = report.rows
    cells = {
        "weights": [count(row.n_parameters) for row in rows],
        "bytes": [size(row.size_bytes) for row in rows],
        "smaller": [versus(row, factor(1 / row.size_ratio if row.size_ratio else None)) for row in rows],
    }
    if any(row.latency_p50_ms is not None for row in rows):
        cells |= {
            "p50 ms": [milliseconds(row.latency_p50_ms) for row in rows],
            "p95 ms": [milliseconds(row.latency_p95_ms) for row in rows],
            "faster": [versus(row, factor(row.speedup)) for row in rows],
        }
    return cells


def fits_explained(report: Measurements) -> str:
    """How statistical methods were scored, and the remarks of all rows."""
    parts = []
    some = [row for row in report.rows if row.n_windows is not None]
    if some:
        names = ", ".join(row.name for row in some)
        parts.append(
            f"{names}: refitted to each window, scored on {count(some[0].n_windows or 0)} evenly spread ones of "
            f"{count(report.n_windows[report.part])}; change and p against {report.reference} on the same windows."
        )
        if runs := some[0].n_latency_runs:
            parts.append(f"Their latency: {runs} runs, apart from the others.")
    parts += [f"{row.name}: {row.remark}." for row in report.rows if row.remark]
    return " ".join(parts)


def _tables(
    report: Measurements, cells: dict[str, list[str]], width: int, ascii_only: bool
) -> Iterator[RenderableType]:
    """One table where the columns fit side by side, else as many as it takes, each with the names."""
    from rich.text import Text

    names = min(max(len(printable(row.name)) for row in report.rows), max(12, width // 4))
    used = names + max(len(printable(row.runtime)) for row in report.rows) + _GAP
    groups: list[list[str]] = [[]]
    left = width - used
    for heading, column in cells.items():
        needed = max(len(cell) for cell in (heading, *column)) + _GAP
        if groups[-1] and needed > left:
            groups.append([])
            left = width - used
        groups[-1].append(heading)
        left -= needed
    for headings in groups:
        yield _table(report, {heading: cells[heading] for heading in headings}, names, ascii_only)
        yield Text("")


_GAP = 3
"""Columns between two cells: padding and rule."""


def _table(report: Measurements, cells: dict[str, list[str]], names: int, ascii_only: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ASCII if ascii_only else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("model", overflow="fold", max_width=names)
    table.add_column("runtime", no_wrap=True)
    for heading in cells:
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(report.rows):
        numbers = (Text(column[place]) for column in cells.values())
        table.add_row(Text(printable(row.name)), Text(printable(row.runtime)), *numbers, style=_style(row, report))
    return table


def _candidates(report: Measurements, ascii_only: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = candidates.cells(report)
    table = Table(box=box.ASCII if ascii_only else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(columns):
        table.add_column(heading, justify="right" if place > 1 else "left", overflow="fold")
    for row, line in zip(report.candidates, zip(*columns.values(), strict=True), strict=True):
        table.add_row(*(Text(printable(cell)) for cell in line), style="bold" if row.chosen else "")
    return table


def _style(row: Row, report: Measurements) -> str:
    if row.name == report.subject and row.role != "reference":
        return "bold"
    return "dim" if row.role in ("baseline", "control") else ""
