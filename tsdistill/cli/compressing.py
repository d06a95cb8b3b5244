"""The command that makes the best small forecaster for a file in one call."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json, Quiet, reads, say
from tsdistill.cli.searching import MaxMs, MaxMultiplications, MaxParameters, budget_of
from tsdistill.cli.streams import show
from tsdistill.errors import printable


@reads
def compress(
    *,
    data: Annotated[
        str, typer.Argument(help="A CSV or Parquet file, the name of a data set, or a recipe (.toml, .json).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for artifact, report and study.")] = Path("tsdistill-compress"),
    max_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What the artifact may take, such as 50000 or 50kB.")
    ] = None,
    max_parameters: MaxParameters = None,
    max_multiplications: MaxMultiplications = None,
    max_ms: MaxMs = None,
    max_error_increase: Annotated[
        float | None, typer.Option(min=0, help="Share by which its validation error may lie above the teacher's.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for all of it, about.")] = 10.0,
    context: Annotated[int | None, typer.Option(min=1, help="Past steps that a model sees.")] = None,
    horizon: Annotated[int, typer.Option(min=1, help="Steps to forecast.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="What everything draws from.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    reading: dict[str, Any],
) -> None:
    """Make the best small forecaster for a file within a budget, in one call.

    Trains a teacher, searches students from a ridge to an LSTM, prunes and quantizes them, trains the best again with a
    control, and deploys the smallest of those that validation cannot distinguish from the best.

    Examples:
      tsdistill compress sales.csv --max-bytes 50kB --minutes 10

      tsdistill compress nyc-weather --max-ms 0.5 --minutes 5 --out small
    """
    from tsdistill.data import datasets
    from tsdistill.recipe import Source, read_recipe
    from tsdistill.search import compress as compress_data
    from tsdistill.search import table

    source: Any
    if data.lower().endswith((".toml", ".json")):
        source = read_recipe(data)
    else:
        place = {"dataset": data} if data in datasets.names() else {"path": os.path.abspath(data)}
        source = Source.from_dict({**place, **reading})
    made = compress_data(
        source,
        out,
        budget=budget_of(_bytes(max_bytes), max_parameters, max_multiplications, max_ms),
        max_error_increase=max_error_increase,
        minutes=minutes,
        context=context,
        horizon=horizon,
        seed=seed,
        progress=None if not quiet else False,
        say=say(quiet),
    )
    if as_json:
        numbers = {"front": made.front, "rejected": made.reasons, **made.run.report.to_dict()}
        typer.echo(json.dumps({"artifact": str(made.artifact), **numbers}))
        return
    show(made.run.report)
    show(f"\nWhat a byte is worth, on validation data\n{table(made.front)}")
    artifact = printable(made.artifact)
    show(f"\nReport    {printable(out / 'report.html')}\nArtifact  {artifact}")
    show(f"Why not   {printable(out / 'study.log')}: tsdistill search export trials.csv --out {printable(out)}")


def _bytes(size: str | None) -> int | None:
    """A number of bytes, with a unit or without."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from tsdistill.errors import ConfigError, must

    if size is None:
        return None
    try:
        return int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError:
        raise ConfigError(must("--max-bytes", "be a number of bytes", size, "Such as 50000, 50kB or 1MiB")) from None
