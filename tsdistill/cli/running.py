"""The command that runs a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json, Quiet, Set, say
from tsdistill.cli.streams import show
from tsdistill.errors import printable


def run(
    recipe: Annotated[Path | None, typer.Argument(help="A .toml or .json recipe; left out: the bundled data.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report, artifact and finished stages.")] = Path("tsdistill-run"),
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draw everything from this seed instead of the recipe's.")
    ] = None,
    warm_from: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run whose weights training goes on from.")
    ] = None,
    assign: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe: train a teacher, distil, prune, quantize, compare, save.

    Stopped at any moment, it continues from there when it is started again with the same --out. A changed recipe makes
    only what it changes.

    Examples:
      tsdistill run --out demo

      tsdistill run my.toml --out my-run --seed 1 --json

      tsdistill run --set student.model.width=32 --set pruning=none

      tsdistill run my.toml --out this-week --warm-from last-week
    """
    from tsdistill.quantization import candidate_table
    from tsdistill.recipe import read_recipe
    from tsdistill.recipe import run as run_recipe
    from tsdistill.spec import assigned

    chosen = assigned(read_recipe(recipe), assign or ())
    if seed is not None:
        chosen = chosen.with_seed(seed)
    progress = None if not quiet else False
    result = run_recipe(chosen, out, warm_from=warm_from, progress=progress, say=say(quiet))
    if as_json:
        typer.echo(json.dumps({"artifact": str(result.artifact), **result.report.to_dict()}))
        return
    show(result.report)
    if forms := candidate_table(result.deployed):
        show(f"\nForms that could be deployed, on validation data\n{forms}")
    artifact = printable(result.artifact)
    show(f"\nReport    {printable(result.folder / 'report.html')}\nArtifact  {artifact}")
    show(f"Forecast  tsdistill predict {artifact} FILE.csv")


def forecasts(
    recipe: Annotated[Path, typer.Argument(help="A .toml or .json recipe with data, task and teacher.")],
    out: Annotated[Path, typer.Option(help="The table: .csv, .csv.gz or .parquet.")] = Path("forecasts.parquet"),
    part: Annotated[
        list[str] | None,
        typer.Option(help="train, validation or test; may be repeated. Left out: all three."),
    ] = None,
    assign: Set = None,
    quiet: Quiet = False,
) -> None:
    """Write what a recipe's teacher forecasts as a table, which teaches where the teacher itself cannot run.

    For a teacher whose libraries do not fit beside others: run this in an environment that has them, then say kind =
    "table" and path = "forecasts.parquet" under [teacher]. Forecasts of the test part teach nothing; they give the
    teacher its row in the report.

    Examples:
      tsdistill forecasts my.toml --out forecasts.parquet

      tsdistill forecasts my.toml --out forecasts.csv --part train --part validation
    """
    from tsdistill.recipe import read_recipe, write_teacher
    from tsdistill.spec import assigned

    parts: Any = part or ("train", "validation", "test")
    chosen = assigned(read_recipe(recipe), assign or ())
    teacher = write_teacher(chosen, out, parts=parts, progress=None if not quiet else False, say=say(quiet))
    show(f"{teacher!r}\nTable  {printable(out)}")
