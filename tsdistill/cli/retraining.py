"""Commands for models that are kept fresh: retrain and rollback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json, Quiet, Set, reads, say
from tsdistill.cli.streams import show

REFUSED = 9
"""Exit code of data that did not pass its gate."""

stores = typer.Typer(help="What a retraining job serves.", no_args_is_help=True)


def retrain(
    job: Annotated[Path, typer.Argument(help="A .toml or .json job file.")],
    as_of: Annotated[str | None, typer.Option(metavar="TIME", help="Use rows up to and including this time.")] = None,
    assign: Set = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 when nothing was promoted.")] = False,
    accept_data: Annotated[
        bool, typer.Option("--accept-data", help="Go on with data that its gate stops; the verdict keeps that.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Retrain on fresh data, judge the new model against the served one, and serve the better one.

    Data that does not pass the job's [data_gate] ends with exit code 9 before anything is trained.

    Prints one line: what was decided and why. Stopped at any moment, it leaves what is served whole, and continues
    when it is started again with the same data.

    Examples:
      tsdistill retrain job.toml

      tsdistill retrain job.toml --as-of "2013-12-01 03:00" --json

      tsdistill retrain job.toml --set student.model.width=32 --set gate.margin=0.02
    """
    from tsdistill.retrain import Job, run_job

    verdict = run_job(
        Job.from_file(job).assigned(assign or ()),
        as_of=as_of,
        accept_data=accept_data,
        progress=None if not quiet else False,
        say=say(quiet),
    )
    show(json.dumps(verdict.to_dict()) if as_json else verdict)
    if verdict.decision == "refused":
        sys.exit(REFUSED)
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


@stores.command("export")
def export_store(
    store: Annotated[Path, typer.Argument(help="The store of a retraining job.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    which: Annotated[str, typer.Option(help="current or previous.")] = "current",
) -> None:
    """Copy the served model out of a store, whole and checked, also while a job promotes another one.

    Example:
      tsdistill store export store served
    """
    from tsdistill.errors import printable
    from tsdistill.retrain import export_model

    show(printable(export_model(store, folder, which=which)))


@reads
def check_data(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file, or a folder of Parquet.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A profile (JSON), a store, or a model that a retraining job promoted."),
    ] = None,
    save_profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the profile of this data, to check later data against.")
    ] = None,
    as_json: Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Compare a table with the profile of data that is known to be sound.

    Ends with exit code 9 when something would stop a retraining job.

    Examples:
      tsdistill check-data january.csv --save-profile january.json

      tsdistill check-data february.csv --against january.json
    """
    from tsdistill.data import Reading, read_file
    from tsdistill.errors import ConfigError, printable
    from tsdistill.files import write_atomic
    from tsdistill.quality import check_data as checked
    from tsdistill.quality import profile_of
    from tsdistill.retrain.inspecting import profile_at

    if against is None and save_profile is None:
        raise ConfigError("--against or --save-profile must be given. Name what to compare with, or where to write.")
    panel = read_file(file, Reading(**reading))
    report = None if against is None else checked(panel, profile_at(against))
    if report is not None:
        findings = [finding.to_dict() for finding in report.findings]
        content = {"passed": report.passed, "n_new": report.n_new, "findings": findings}
        show(json.dumps(content) if as_json else report)
    if report is not None and not report.passed:
        sys.exit(REFUSED)
    if save_profile is not None:
        write_atomic(save_profile, profile_of(panel).to_json() + "\n")
        if not as_json:
            show(f"Profile  {printable(save_profile)}")
