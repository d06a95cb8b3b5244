"""`tsdistill export-c`: a forecaster as C source, from a shell."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json
from tsdistill.cli.streams import show
from tsdistill.errors import printable


def export_c(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved model, deployed or trainable.")],
    out: Annotated[Path, typer.Option(help="Folder for the C source and its header.")] = Path("tsdistill-c"),
    precision: Annotated[
        str | None, typer.Option(help="Of a trainable model: float32 or int8. A deployed one stays what it is.")
    ] = None,
    name: Annotated[str, typer.Option(help="What files, functions and macros begin with.")] = "forecast",
    max_flash_bytes: Annotated[
        int | None, typer.Option(metavar="N", help="Refuse when weights and constants take more.")
    ] = None,
    max_ram_bytes: Annotated[
        int | None, typer.Option(metavar="N", help="Refuse when the state of a stream takes more.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a saved model as one C99 source and one header, for a microcontroller.

    Examples:
      tsdistill export-c deployed --out firmware/src

      tsdistill export-c student --precision int8 --out firmware/src --max-ram-bytes 65536
    """
    from tsdistill.artifacts import load
    from tsdistill.edge import export_c as write

    wanted: Any = precision
    files = write(
        load(artifact), out, precision=wanted, name=name, max_flash_bytes=max_flash_bytes, max_ram_bytes=max_ram_bytes
    )
    if as_json:
        values = dataclasses.asdict(files)
        typer.echo(json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in values.items()}))
        return
    show(
        f"{files.table_bytes:,} bytes of constants, {files.state_bytes:,} of state, "
        f"{files.n_products:,} products a forecast"
    )
    show(f"Source  {printable(files.source)}\nHeader  {printable(files.header)}")
