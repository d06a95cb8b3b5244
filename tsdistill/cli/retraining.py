"""Commands for models that are kept fresh: retrain and rollback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from tsdistill.cli.options import Json, Quiet, Set, say
from tsdistill.cli.streams import show


def retrain(
    job: Annotated[Path, typer.Argument(help="A .toml or .json job file.")],
    as_of: Annotated[str | None, typer.Option(metavar="TIME", help="Use rows up to and including this time.")] = None,
    assign: Set = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 when nothing was promoted.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Retrain on fresh data, judge the new model against the served one, and serve the better one.

    Prints one line: what was decided and why. Stopped at any moment, it leaves what is served whole, and continues
    when it is started again with the same data.

    Examples:
      tsdistill retrain job.toml

      tsdistill retrain job.toml --as-of "2013-12-01 03:00" --json

      tsdistill retrain job.toml --set student.model.width=32 --set gate.margin=0.02
    """
    from tsdistill.retrain import Job, run_job

    verdict = run_job(
        Job.from_file(job).assigned(assign or ()), as_of=as_of, progress=None if not quiet else False, say=say(quiet)
    )
    show(json.dumps(verdict.to_dict()) if as_json else verdict)
    if exit_code and verdict.decision != "promoted":
        sys.exit(3)


def rollback(
    store: Annotated[Path, typer.Argument(help="The store of a retraining job.")],
    as_json: Json = False,
) -> None:
    """Serve the previous model of a store again; the one served now becomes the previous one.

    Example:
      tsdistill rollback store
    """
    from tsdistill.retrain import rollback as roll_back

    verdict = roll_back(store)
    show(json.dumps(verdict.to_dict()) if as_json else verdict)
