"""The verbs of tsdistill for a shell and for cron.

Heavy modules are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tsdistill import __version__
from tsdistill.cli_pruning import prune
from tsdistill.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DivergenceError,
    OrderError,
    ShapeError,
    TsdistillError,
    UnsupportedError,
)

EXIT_CODES: dict[type[TsdistillError], int] = {
    ConfigError: 2,
    DataError: 4,
    ShapeError: 4,
    ArtifactError: 5,
    UnsupportedError: 6,
    OrderError: 6,
    DivergenceError: 7,
}
"""What the shell gets for each kind of error; the other codes stand in `EPILOG`."""

EPILOG = (
    "Exit codes: 0 done, 2 wrong option, recipe or job, 3 incumbent kept (retrain --exit-code), 4 data that cannot be "
    "used, 5 artifact or disk, 6 unsupported, out of order or busy, 7 training diverged, 130 interrupted, 143 "
    "terminated, 1 a fault of tsdistill itself."
)

app = typer.Typer(
    help="Train large forecasters, distil them into small ones, prune, quantize and ship them.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(prune)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text for people.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options of the command line as a whole."""


@app.command()
def run(
    recipe: Annotated[Path | None, typer.Argument(help="A .toml or .json recipe; left out: the bundled data.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report, artifact and finished stages.")] = Path("tsdistill-run"),
    seed: Annotated[
        int | None, typer.Option(min=0, help="Draw everything from this seed instead of the recipe's.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Cook a recipe: train a teacher, distil, prune, quantize, compare, save.

    Stopped at any moment, it continues from there when it is started again with the same --out. A changed recipe makes
    only what it changes.

    Examples:
      tsdistill run --out demo

      tsdistill run my.toml --out my-run --seed 1 --json
    """
    from tsdistill.recipe import read_recipe
    from tsdistill.recipe import run as cook

    chosen = read_recipe(recipe)
    if seed is not None:
        chosen = chosen.with_seed(seed)
    result = cook(chosen, out, progress=None if not quiet else False, say=_say(quiet))
    if as_json:
        typer.echo(json.dumps({"artifact": str(result.artifact), **result.report.to_dict()}))
        return
    typer.echo(str(result.report))
    for reason in result.deployed.lineage[-1].metrics.get("refused", []):
        typer.echo(f"\nINT8 was refused, float32 is deployed: {reason}.")
    typer.echo(f"\nReport    {result.folder / 'report.html'}\nArtifact  {result.artifact}")
    typer.echo(f"Forecast  tsdistill predict {result.artifact} FILE.csv")


@app.command()
def search(
    recipe: Annotated[Path | None, typer.Argument(help="A .toml or .json recipe; left out: the bundled data.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Finished trials the study shall have in the end.")] = 20,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="journal:FILE, sqlite:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/BASE, or env:NAME for a "
            "variable that holds one of these; left out: a journal in --out.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for teacher, study and best.toml.")] = Path("tsdistill-search"),
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine, which share its cores.")] = 1,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Bytes the deployed artifact may take.")] = None,
    space: Annotated[Path | None, typer.Option(help="A .toml or .json file that says what varies.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study; left out: the recipe's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What the sampler draws from.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for the best small model: trials over a recipe, judged on validation data only.

    Stopped at any moment, it goes on when it is started again, until the study has --trials finished trials. Started on
    several machines with one PostgreSQL storage, they share the trials.

    Examples:
      tsdistill search --trials 20 --workers 2 --max-bytes 60000 --out found

      tsdistill search my.toml --trials 200 --storage env:STUDIES
    """
    from tsdistill.recipe import read_recipe
    from tsdistill.search import Space, leaders, table
    from tsdistill.search import run as look

    found = look(
        read_recipe(recipe),
        out,
        n_trials=trials,
        space=Space.from_file(space) if space else None,
        storage=storage,
        name=name,
        workers=workers,
        max_size_bytes=max_bytes,
        seed=seed,
        progress=None if not quiet else False,
        say=_say(quiet),
    )
    best = leaders(found.study, max_size_bytes=max_bytes)
    if as_json:
        typer.echo(
            json.dumps({"study": found.study.study_name, "recipe": str(found.path), **found.counts, "best": best})
        )
        return
    typer.echo(f"{found.study.study_name}: {found.counts['n_finished']} trials, {found.counts['n_failed']} failed\n")
    typer.echo(table(best))
    typer.echo(f"\nRecipe  {found.path}\nCook    tsdistill run {found.path} --out {out / 'best'}")


@app.command()
def predict(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the model's channels; the newest rows are used.")],
    time: Annotated[str, typer.Option(help="Column of time stamps.")] = "ds",
    id: Annotated[str | None, typer.Option(help="Column of item identifiers of a long table.")] = None,
    fill: Annotated[
        Literal["interpolate", "forward", "zero"] | None, typer.Option(help="How to fill gaps and missing values.")
    ] = None,
    future: Annotated[Path | None, typer.Option(help="File with the planned columns of the steps to forecast.")] = None,
    quantiles: Annotated[bool, typer.Option("--quantiles", help="Every level of a quantile head.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a CSV file instead of standard output.")] = None,
    as_json: Json = False,
) -> None:
    """Forecast the steps after the last row of a file, in raw units.

    Examples:
      tsdistill predict demo/artifact newest.csv --time date > forecast.csv
      tsdistill predict artifact sales.csv --future prices.csv --quantiles
    """
    from tsdistill.data import read_csv, read_parquet

    model = _load(artifact)
    planned = list(getattr(model.signature.covariates, "future", ()))

    def table(path: Path, target: list[str] | None) -> Any:
        read = read_parquet if path.suffix in (".parquet", ".pq") else read_csv
        return read(path, time=time, id=id, target=target, fill=fill).to_frame()

    history = table(file, [*model.signature.channels, *model.signature.past, *planned])
    ahead = table(future, planned or None) if future is not None else None
    forecast = model.predict(history, ahead, quantiles=quantiles)
    if as_json:
        typer.echo(forecast.to_json(orient="records", date_format="iso"))
        return
    if out is None:
        typer.echo(forecast.to_csv(index=False), nl=False)
        return
    from tsdistill.recipe import write_text

    write_text(out, forecast.to_csv(index=False))


@app.command()
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


@app.command()
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


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    as_json: Json = False,
) -> None:
    """Check every digest of an artifact and replay its golden windows on this machine."""
    from tsdistill import manifest, runtime

    if manifest.read(artifact)[0].kind == "deployed":
        found = runtime.verify(artifact)
    else:
        from tsdistill.artifacts import verify as verify_trainable

        found = verify_trainable(artifact)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo("\n".join(f"{name:24} {value}" for name, value in found.items()))


@app.command()
def retrain(
    job: Annotated[Path, typer.Argument(help="A .toml or .json job file.")],
    as_of: Annotated[str | None, typer.Option(metavar="TIME", help="Use rows up to and including this time.")] = None,
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
    """
    from tsdistill.retrain import Job, run_job

    verdict = run_job(Job.from_file(job), as_of=as_of, progress=None if not quiet else False, say=_say(quiet))
    typer.echo(json.dumps(verdict.to_dict()) if as_json else str(verdict))
    if exit_code and verdict.decision != "promoted":
        sys.exit(3)


@app.command()
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
    typer.echo(json.dumps(verdict.to_dict()) if as_json else str(verdict))


def _load(artifact: Path) -> Any:
    """A deployed model through the runtime, without torch; a trainable one through td.load."""
    from tsdistill import manifest, runtime

    if manifest.read(artifact)[0].kind == "deployed":
        return runtime.load(artifact)
    from tsdistill.artifacts import load

    return load(artifact)


def _say(quiet: bool) -> Any:
    """Lines about stages on standard error, in a terminal only: a nightly job keeps log.jsonl instead."""
    if quiet or not sys.stderr.isatty():
        return None
    return lambda line: typer.echo(line, err=True)


def main() -> None:
    """Run the command line; every error becomes one paragraph and an exit code."""
    # A polite kill unwinds like Ctrl-C, so that locks are released and half-written files removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    interrupted = "Interrupted. Start the same command again to continue."
    try:
        code = app(standalone_mode=False)  # typer gives back the code of an Exit, which it makes of Ctrl-C as well
        if code == 130:
            _fail(interrupted, code)
        if code:
            sys.exit(code)
    except TsdistillError as error:
        _fail(str(error), next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))
    except KeyboardInterrupt:
        _fail(interrupted, 130)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # nothing was asked for, so the help is the answer
            typer.echo(error.format_message())  # type: ignore[attr-defined]
            sys.exit(2)
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error of the option parser
            _fail(f"{error.format_message()} Try --help.", 2)
        if type(error).__name__ == "Abort":
            _fail(interrupted, 130)
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        if isinstance(error, OSError):
            _fail(f"{error.strerror or error}: {error.filename or 'the disk or network'}.", 5)
        if os.environ.get("TSDISTILL_TRACEBACK"):
            raise
        _fail(
            f"tsdistill itself failed ({type(error).__name__}: {error}). Set TSDISTILL_TRACEBACK=1 to see where, and "
            "report it.",
            1,
        )


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
