"""Commands that show what there is: datasets, history and cache."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from tsdistill.cli.options import Json


def datasets(as_json: Json = False) -> None:
    """List the data sets that are known by name, and where they come from."""
    from tsdistill.data import datasets as catalogue

    found = [catalogue.info(name) for name in catalogue.names()]
    if as_json:
        typer.echo(json.dumps([entry.to_dict() for entry in found]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what it is", "rows", "channels", "step", "licence", box=None)
    for entry in found:
        table.add_row(
            entry.name, entry.title, str(entry.n_rows), str(entry.n_channels), entry.frequency or "-", entry.licence
        )
    Console().print(table)
    typer.echo(
        "\nFiles are looked for in the folder TSDISTILL_DATA names, then downloaded where there is an official address."
    )


def history(
    path: Annotated[Path, typer.Argument(help="A .history.jsonl file, a checkpoint, or the folder of a saved model.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with plots.")] = None,
    as_json: Json = False,
) -> None:
    """Show how a training run went, or how it goes, epoch by epoch.

    Examples:
      tsdistill history run.safetensors.history.jsonl

      tsdistill history demo/stages/teacher --html history.html
    """
    from rich.console import Console
    from rich.table import Table

    from tsdistill.report import plot_history, read_history
    from tsdistill.report.history import best, headline, table

    title, records = read_history(path)
    place = best(records)
    if html is not None:
        plot_history(records, html, title=title)
    if as_json:
        typer.echo(json.dumps({"title": title, "best_epoch": records[place]["epoch"], "history": records}))
        return
    columns = table(records)
    shown = Table("", *columns, box=None)
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        shown.add_row("*" if number == place else "", *cells)
    typer.echo(f"{title}: {headline(records)}\n")
    Console(width=None if sys.stdout.isatty() else 160).print(shown)
    if html is not None:
        typer.echo(f"\nPage  {html}")
