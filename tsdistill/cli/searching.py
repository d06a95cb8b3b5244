"""Commands of a search: run it, and look at what its study holds."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tsdistill.cli.options import Json, Quiet, Set, say
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
MaxParameters = Annotated[int | None, typer.Option(min=1, help="Numbers that the model may have learnt.")]
MaxMultiplications = Annotated[int | None, typer.Option(min=1, help="Multiplications that one forecast may take.")]
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
    max_parameters: MaxParameters = None,
    max_multiplications: MaxMultiplications = None,
    max_ms: MaxMs = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="What to minimise besides the error: size_bytes, n_parameters, n_multiplications, latency_ms; may be "
            "repeated."
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no further trial after so many minutes.")] = None,
    space: Annotated[Path | None, typer.Option(help="A .toml or .json file that names what varies.")] = None,
    name: Name = None,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="FROM", help="Take over the trials of another search: its folder, or STORAGE#NAME."),
    ] = None,
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
        budget=budget_of(max_bytes, max_parameters, max_multiplications, max_ms),
        timeout=None if minutes is None else 60 * minutes,
        warm_start=None if warm_start is None else _other(warm_start),
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
    max_parameters: MaxParameters = None,
    max_multiplications: MaxMultiplications = None,
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

    chosen = best_recipe(
        _study(out, storage, name),
        max_size_bytes=max_bytes,
        max_parameters=max_parameters,
        max_multiplications=max_multiplications,
        max_latency_ms=max_ms,
    )
    recipe = from_anywhere(chosen)
    if file is not None:
        write_atomic(file, recipe.to_toml())
    if as_json:
        typer.echo(recipe.to_json())
    elif file is not None:
        show(f"Recipe  {printable(file)}\nRun     tsdistill run {printable(file)}")
    else:
        show(recipe.to_toml().rstrip())


@searches.command()
def finalists(
    out: Out = DEFAULT_OUT,
    storage: Storage = None,
    name: Name = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many of the best trials.")] = 4,
    seeds: Annotated[int, typer.Option(min=1, help="How often each of them is trained again.")] = 3,
    max_bytes: MaxBytes = None,
    max_parameters: MaxParameters = None,
    max_multiplications: MaxMultiplications = None,
    max_ms: MaxMs = None,
    file: Annotated[Path | None, typer.Option(help="Where the recipe goes; left out: final.toml in --out.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the best trials again over several seeds, with controls, and choose among them by mean and spread.

    The best of many trials is also the luckiest of them. The test part is not read: `tsdistill run` does that once, for
    the recipe that is chosen here.

    Examples:
      tsdistill search finalists --out best-small --k 4 --seeds 3
    """
    from tsdistill.files import write_atomic
    from tsdistill.recipe import Recipe, Workspace, from_anywhere
    from tsdistill.search import finalists as train_again
    from tsdistill.search import shared_teacher
    from tsdistill.search.results import best_trial

    study = _study(out, storage, name)
    limits = budget_of(max_bytes, max_parameters, max_multiplications, max_ms)
    recipe = Recipe.from_json(best_trial(study, limits).user_attrs["recipe"])
    task = recipe.task.build(recipe.data.load())
    progress = None if not quiet else False
    teacher = shared_teacher(recipe, task, out, progress=progress, say=say(quiet))
    final = train_again(
        study,
        teacher,
        task,
        k=k,
        seeds=seeds,
        budget=limits,
        cache=Workspace(out).cache,
        progress=progress,
        say=say(quiet),
    )
    path = out / "final.toml" if file is None else file
    write_atomic(path, from_anywhere(final.recipe).to_toml())
    if as_json:
        typer.echo(json.dumps({"recipe": str(path), "finalists": final.rows}))
        return
    for row in final.rows:
        numbers = ""
        if "mean" in row:
            control = "" if row["control"] is None else f", without a teacher {row['control']:.4f}"
            numbers = f"{row['mean']:.4f} +- {row['spread']:.4f} (searched {row['validation_mse']:.4f}{control}); "
        show(f"trial {row['trial']}: {numbers}{printable(row['reason'])}")
    shown = printable(path)
    show(f"\nRecipe  {shown}\nRun     tsdistill run {shown} --out {printable(out / 'best')}")


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


def _study(out: Path, storage: str | None, name: str | None) -> optuna.Study:
    from tsdistill.search import load_study

    return load_study(name, storage=storage or f"journal:{out / 'study.log'}")


def _other(place: str) -> optuna.Study:
    """The study of another search, by its folder or its storage."""
    from tsdistill.search import load_study

    storage, _, name = place.partition("#")
    if (Path(storage) / "study.log").is_file():
        storage = f"journal:{Path(storage) / 'study.log'}"
    return load_study(name or None, storage=storage)


def budget_of(
    max_bytes: int | None, max_parameters: int | None, max_multiplications: int | None, max_ms: float | None
) -> Budget | None:
    """The limits that a command was given, if any."""
    from tsdistill.recipe import Budget

    if max_bytes is max_parameters is max_multiplications is max_ms is None:
        return None
    return Budget(
        max_size_bytes=max_bytes,
        max_parameters=max_parameters,
        max_multiplications=max_multiplications,
        max_latency_ms=max_ms,
    )
