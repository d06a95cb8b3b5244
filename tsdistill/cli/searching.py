"""Commands of a search: run it, and look at what its study holds."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tsdistill.cli.options import Json, Quiet, Set, reads, say
from tsdistill.cli.streams import show
from tsdistill.errors import printable

if TYPE_CHECKING:
    import optuna

    from tsdistill.recipe import Budget

DEFAULT_OUT = Path("tsdistill-search")

Out = Annotated[Path, typer.Option(help="Folder for teacher, study and best.toml.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="journal:FILE, sqlite:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/BASE, mysql+pymysql://..., "
        "grpc://HOST:PORT of a search-server, or env:NAME for a variable that holds one of these; left out: a journal "
        "in --out.",
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the study; left out: the recipe's.")]
MaxBytes = Annotated[int | None, typer.Option(min=1, help="Bytes the deployed artifact may take.")]
MaxMs = Annotated[float | None, typer.Option(help="Milliseconds that one forecast may take; every trial is timed.")]


class _Searches(TyperGroup):
    """`tsdistill search RECIPE` searches; `tsdistill search status` and the others show."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


searches = typer.Typer(
    cls=_Searches, help="Search for the best small model, and look at a search.", rich_markup_mode=None
)


@searches.command("run")
def search(
    recipe: Annotated[Path | None, typer.Argument(help="A .toml or .json recipe; left out: the bundled data.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Finished trials the study shall have in the end.")] = 20,
    storage: Storage = None,
    out: Out = DEFAULT_OUT,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine, which share its cores.")] = 1,
    max_bytes: MaxBytes = None,
    max_parameters: Annotated[int | None, typer.Option(min=1, help="Numbers that the model may have learnt.")] = None,
    max_ms: MaxMs = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="What to minimise besides the error: size_bytes, n_parameters, latency_ms; may be repeated."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no further trial after so many minutes.")] = None,
    space: Annotated[Path | None, typer.Option(help="A .toml or .json file that names what varies.")] = None,
    name: Name = None,
    seed: Annotated[int, typer.Option(min=0, help="What the sampler draws from.")] = 0,
    assign: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search for the best small model: trials over a recipe, judged on validation data only.

    Stopped at any moment, it goes on when it is started again, until the study has --trials finished trials. Started on
    several machines with one storage in PostgreSQL, MySQL or a search-server, they share the trials. `tsdistill search
    status`, `best`, `front` and `export` show what a study holds, also while it runs.

    Examples:
      tsdistill search --trials 20 --workers 2 --max-bytes 60000 --out best-small

      tsdistill search my.toml --trials 200 --storage env:STUDIES

      tsdistill search front --out best-small
    """
    from tsdistill.recipe import read_recipe
    from tsdistill.search import Space, leaders, table
    from tsdistill.search import run as run_search
    from tsdistill.spec import assigned

    result = run_search(
        assigned(read_recipe(recipe), assign or ()),
        out,
        n_trials=trials,
        space=Space.from_file(space) if space else None,
        storage=storage,
        name=name,
        workers=workers,
        objectives=("error", *(objective or ())),
        budget=_budget(max_bytes, max_parameters, max_ms),
        timeout=None if minutes is None else 60 * minutes,
        seed=seed,
        progress=None if not quiet else False,
        say=say(quiet),
    )
    best = leaders(result.study)
    if as_json:
        numbers = {"study": result.study.study_name, "recipe": str(result.path), **result.counts, "best": best}
        typer.echo(json.dumps(numbers))
        return
    title = printable(result.study.study_name)
    show(f"{title}: {result.counts['n_finished']} trials, {result.counts['n_failed']} failed\n")
    show(table(best))
    path = printable(result.path)
    show(f"\nRecipe  {path}\nRun     tsdistill run {path} --out {printable(out / 'best')}")


@searches.command()
def status(out: Out = DEFAULT_OUT, storage: Storage = None, name: Name = None, as_json: Json = False) -> None:
    """Show how far a search is, and how fast.

    Examples:
      tsdistill search status --out best-small

      tsdistill search status --storage env:STUDIES --name nyc-weather
    """
    from tsdistill.search import leaders

    study = _study(out, storage, name)
    trials = study.get_trials(deepcopy=False)
    states = Counter(trial.state.name.lower() for trial in trials)
    seconds = sorted(
        trial.duration.total_seconds() for trial in trials if trial.duration is not None and trial.state.name != "FAIL"
    )
    median = seconds[len(seconds) // 2] if seconds else None
    best = leaders(study, 1)
    if as_json:
        typer.echo(json.dumps({"study": study.study_name, "trials": states, "median_seconds": median, "best": best}))
        return
    show(f"{printable(study.study_name)}: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    if median is not None:
        show(f"A trial takes {median:.1f} s (median)")
    if best:
        show(f"Best {best[0]['validation_mse']:.4f} in {best[0]['size_bytes']:,} bytes, trial {best[0]['trial']}")


@searches.command()
def best(
    out: Out = DEFAULT_OUT,
    storage: Storage = None,
    name: Name = None,
    max_bytes: MaxBytes = None,
    max_ms: MaxMs = None,
    file: Annotated[Path | None, typer.Option(help="Write the recipe there instead of printing it.")] = None,
    as_json: Json = False,
) -> None:
    """Give the recipe of the best trial, within a budget if you name one.

    Examples:
      tsdistill search best --out best-small --max-bytes 20000 --file small.toml
    """
    from tsdistill.files import write_atomic
    from tsdistill.recipe import from_anywhere
    from tsdistill.search import best_recipe

    recipe = from_anywhere(best_recipe(_study(out, storage, name), max_size_bytes=max_bytes, max_latency_ms=max_ms))
    if file is not None:
        write_atomic(file, recipe.to_toml())
    if as_json:
        typer.echo(recipe.to_json())
    elif file is not None:
        show(f"Recipe  {printable(file)}\nRun     tsdistill run {printable(file)}")
    else:
        show(recipe.to_toml().rstrip())


@searches.command()
def front(out: Out = DEFAULT_OUT, storage: Storage = None, name: Name = None, as_json: Json = False) -> None:
    """Show the trials that no other one beats in both error and cost, the smallest first.

    Examples:
      tsdistill search front --out best-small
    """
    from tsdistill.search import front as front_of
    from tsdistill.search import table

    rows = front_of(_study(out, storage, name))
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        show(table(rows))


@searches.command()
def export(
    file: Annotated[
        Path, typer.Argument(help="A .html page with plots, or a .csv, .json or .parquet table of trials.")
    ],
    out: Out = DEFAULT_OUT,
    storage: Storage = None,
    name: Name = None,
) -> None:
    """Write a study to a file: a page with plots, or a table of its trials.

    Examples:
      tsdistill search export study.html --out best-small

      tsdistill search export trials.csv --storage env:STUDIES --name nyc-weather
    """
    from tsdistill.errors import ConfigError, UnsupportedError, must
    from tsdistill.files import write_atomic
    from tsdistill.search import plot_study

    kind = file.suffix.lower()
    if kind == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UnsupportedError("Writing Parquet needs pyarrow: pip install 'tsdistill[parquet]'.")
    if kind not in (".html", ".csv", ".json", ".parquet"):
        raise ConfigError(must("file", "end in .html, .csv, .json or .parquet", str(file), "Name another one"))
    study = _study(out, storage, name)
    if kind == ".html":
        plot_study(study, file)
    else:
        frame = study.trials_dataframe()
        if kind == ".parquet":
            import io

            for column in frame.columns[frame.dtypes == "object"]:  # of several types, which Parquet has no column for
                frame[column] = frame[column].astype("string")
            buffer = io.BytesIO()
            frame.to_parquet(buffer)
            write_atomic(file, buffer.getvalue())
        elif kind == ".csv":
            write_atomic(file, frame.to_csv(index=False))
        else:
            write_atomic(file, frame.to_json(orient="records", date_format="iso"))
    show(f"{file.suffix[1:]}  {printable(file)}")


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
    max_parameters: Annotated[int | None, typer.Option(min=1, help="Numbers that the model may have learnt.")] = None,
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
        budget=_budget(_bytes(max_bytes), max_parameters, max_ms),
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


def _study(out: Path, storage: str | None, name: str | None) -> optuna.Study:
    from tsdistill.search import load_study

    return load_study(name, storage=storage or f"journal:{out / 'study.log'}")


def _budget(max_bytes: int | None, max_parameters: int | None, max_ms: float | None) -> Budget | None:
    from tsdistill.recipe import Budget

    if max_bytes is max_parameters is max_ms is None:
        return None
    return Budget(max_size_bytes=max_bytes, max_parameters=max_parameters, max_latency_ms=max_ms)
