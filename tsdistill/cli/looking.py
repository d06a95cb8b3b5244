"""Commands that show what there is: datasets, history and cache."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json
from tsdistill.cli.streams import add, console, new_table, show
from tsdistill.errors import printable


def datasets(as_json: Json = False) -> None:
    """List the data sets that are known by name, and where they come from."""
    from tsdistill.data import datasets as catalogue

    entries = [catalogue.info(name) for name in catalogue.names()]
    if as_json:
        typer.echo(json.dumps([entry.to_dict() for entry in entries]))
        return
    table = new_table("name", "what it is", "rows", "channels", "step", "licence")
    for entry in entries:
        add(
            table,
            (entry.name, entry.title, entry.n_rows, entry.n_channels, entry.frequency or "-", entry.licence),
        )
    console().print(table)
    show(
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
    shown = new_table("", *columns)
    for number, cells in enumerate(zip(*columns.values(), strict=True)):
        add(shown, ("*" if number == place else "", *cells))
    show(f"{printable(title)}: {headline(records)}\n")
    console(wide=True).print(shown)
    if html is not None:
        show(f"\nPage  {printable(html)}")


def cache(
    folder: Annotated[Path, typer.Argument(help="Folder of teacher forecasts.")],
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything.")] = False,
    max_bytes: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Remove the longest unused until at most N bytes are left.")
    ] = None,
    unused_for: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Remove what has not been used for so many days.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a cache of teacher forecasts holds, or remove some of it; what is gone is computed again when needed.

    `tsdistill run --out DIR` and `tsdistill search --out DIR` keep theirs in DIR/cache. What a running process is
    filling is left alone, and named.

    Examples:
      tsdistill cache demo/cache

      tsdistill cache demo/cache --unused-for 30
    """
    from tsdistill.errors import ConfigError
    from tsdistill.teachers import cached, clean

    if clear + (max_bytes is not None) + (unused_for is not None) > 1:
        raise ConfigError("Only one of --clear, --max-bytes and --unused-for must be given. Run it twice for two.")
    cleaned: dict[str, Any] = {}
    if clear or max_bytes is not None or unused_for is not None:
        days = None if unused_for is None else timedelta(days=unused_for)
        done = clean(folder, max_bytes=max_bytes, unused_for=days)
        cleaned = done.to_dict()
    entries = cached(folder)
    size = sum(entry.size_bytes for entry in entries)
    if as_json:
        entry_dicts = [entry.to_dict() for entry in entries]
        typer.echo(json.dumps({"folder": str(folder), "size_bytes": size, "entries": entry_dicts, **cleaned}))
        return
    from tsdistill.report import words

    if cleaned:
        gone = cleaned["removed"]
        left = cleaned["n_leftovers"]
        also = f" and {left} leftover{'s' * (left != 1)} of killed runs" if left else ""
        show(f"Removed {_entries(len(gone))}{also}, {words.size(cleaned['freed_bytes'])}.")
        for busy in cleaned["in_use"]:
            show(printable(f"Left alone, in use: {busy['teacher']}-{busy['windows']}"))
    show(f"{printable(folder)}: {_entries(len(entries))}, {words.size(size)}")
    if not entries:
        return
    table = new_table("teacher", "windows", "parts", "size", "last used")
    for entry in entries:
        used = entry.last_used.astimezone().strftime("%Y-%m-%d %H:%M")
        add(table, (entry.teacher, entry.windows, " ".join(entry.parts), words.size(entry.size_bytes), used))
    show()
    console().print(table)


def _entries(n_entries: int) -> str:
    return f"{n_entries} {'entry' if n_entries == 1 else 'entries'}"
