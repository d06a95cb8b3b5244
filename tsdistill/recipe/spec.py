"""A whole compression run as data: what a search proposes, a job replays and a manifest holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote_plus

from pydantic import Field, field_serializer, model_validator

from tsdistill.data import Covariates, Panel, Reading, Split, Task, datasets, read_file, read_sql
from tsdistill.data.databases import LONGEST, TIME_LIMIT, is_harmless
from tsdistill.errors import ConfigError, listed, must
from tsdistill.evaluation import Method
from tsdistill.losses import AnyLoss, OutputLoss, TemporalLoss
from tsdistill.models import AnyModelConfig, LSTMConfig
from tsdistill.pruning import Pruning
from tsdistill.quantization import AnyQuantization, Auto
from tsdistill.recipe.candidates import DEFAULT, Budget, StudentCandidate
from tsdistill.recipe.teacher import AnyTeacher, TeacherSpec
from tsdistill.spec import Spec
from tsdistill.spec.limits import MAX_ITEMS, Steps
from tsdistill.training import Training

STRUCK = "***"
"""What stands where a password was, in everything that is written."""


class Source(Reading):
    """Where a panel comes from (a data set by name, a file, or a database; exactly one of them), and how it is read.

    Args:
        dataset: Name in the catalogue (`tsdistill datasets` lists them).
        path: A CSV (also gzipped) or Parquet file, or a folder of Parquet files.
        url: Address of a database, or "env:NAME" to read the address from an environment variable. A password in it is
            used and never written anywhere.
        query: SQL that gives the table, with `url`.
        time: Column of time stamps; "none" when rows have none.
        id: Column of item identifiers of a long table.
        target: Value columns; by default every other one.
        frequency: Step width as a pandas offset alias; by default the commonest step.
        fill: "interpolate", "forward" or "zero" to fill gaps and missing values, which are refused otherwise.
        time_zone: Zone of stamps that carry none.
        day_first: Whether 01/02/2024 is the first of February.
        time_format: How stamps are written, such as "%d.%m.%Y", or "s", "ms", "us" or "ns" for numbers from 1970.
        separator: What stands between the cells of a CSV file.
        decimal: What stands before the decimals of a CSV file.
        encoding: How the text of a CSV file is written.
        time_limit: Seconds that the query may take; "none" waits for ever.

    Example:
        >>> Source(dataset="nyc-weather").load().channels[0]
        'EWR_temperature'
    """

    late: ClassVar[frozenset[str]] = Reading.late | {"time_limit"}

    dataset: str | None = None
    path: str | None = None
    url: str | None = Field(default=None, repr=False)
    query: str | None = None
    target: tuple[str, ...] | None = None
    time_limit: Annotated[float, Field(gt=0, le=LONGEST)] | None = TIME_LIMIT

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [name for name in ("dataset", "path", "url") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"A source must name exactly one of dataset, path and url, got {given or 'none of them'}.")
        if any("://" in (value or "") for value in (self.dataset, self.path)):
            raise ValueError("`dataset` and `path` must not hold the address of a database. Give it as `url`.")
        if (self.url is None) != (self.query is None):
            raise ValueError("`url` and `query` must be given together: the database and what to ask it.")
        return self

    @field_serializer("url")
    def _strike_password(self, url: str | None) -> str | None:
        import sqlalchemy

        if url is None or url.startswith("env:"):
            return url
        try:
            parsed = sqlalchemy.make_url(url)
        except (sqlalchemy.exc.ArgumentError, ValueError):
            return STRUCK
        # A password may also stand among the options; those that are known to hold none say which database it is.
        options = {name: value if is_harmless(name) else STRUCK for name, value in parsed.query.items()}
        written = parsed.set(query=options).render_as_string(hide_password=True)
        return written.replace(quote_plus(STRUCK), STRUCK)

    def load(self) -> Panel:
        """Read the panel; every problem with it comes in one error."""
        if self.dataset is not None:
            return datasets.load(self.dataset)
        target = list(self.target) if self.target else None
        if self.path is not None:
            return read_file(self.path, self.reading, target=target)
        limit = self.time_limit
        return read_sql(self._address(), str(self.query), target=target, time_limit=limit, **self.of_frames)

    def _address(self) -> str:
        url = str(self.url)
        if url.startswith("env:"):
            name = url.removeprefix("env:")
            if not os.environ.get(name):
                raise ConfigError(
                    f"`url` names the environment variable {name}, which is not set. Set it to the address."
                )
            return os.environ[name]
        if STRUCK in url:
            raise ConfigError(
                "`url` must hold its password, but it was struck out when this file was written. Put the address into "
                'an environment variable and write url = "env:NAME".'
            )
        return url


class TaskSpec(Spec):
    """Context, horizon, split, scaler and covariates of a recipe's task.

    Args:
        context: Past steps a model sees.
        horizon: Future steps it forecasts.
        split: How to cut each item; by default the data set's own borders, else 70 / 10 / 20 %.
        scaler: "standard", "item" or None.
        covariates: What models may know besides the channels.
        short: "refuse" or "skip" items that are too short for the windows of a part.
    """

    context: Steps = 336
    horizon: Steps = 24
    split: Split | None = None
    scaler: Literal["standard", "item"] | None = "standard"
    covariates: Covariates | None = None
    short: Literal["refuse", "skip"] = "refuse"

    def build(self, panel: Panel) -> Task:
        """The task over a panel."""
        return Task(panel, **{name: getattr(self, name) for name in type(self).model_fields})


class StudentSpec(Spec):
    """Which student, what it imitates, how it is trained, and which of it and its control is kept.

    Args:
        model: Its architecture.
        losses: What it imitates.
        training: How it is trained, and the same student without a teacher beside it.
        keep: "better" goes on with whichever of the two validation prefers, "student" with the student in any case.
        candidates: Students that compete with `model`. Each is distilled, pruned and quantized as the recipe says (one
            that is solved in closed form is not pruned), with `keep="better"`, and the smallest of those whose
            validation error lies within one standard error of the best is deployed, with the reason in the report. By
            default none where `model` is given, else ridges (for all channels, for each, averaged over contexts, over
            means of several steps) and an MLP.
        budget: What the deployed model may cost at most, where there are candidates.
    """

    late: ClassVar[frozenset[str]] = frozenset({"keep", "candidates"})

    model: AnyModelConfig = LSTMConfig()
    losses: tuple[AnyLoss, ...] = Field(default=(OutputLoss(), TemporalLoss()), min_length=1, max_length=MAX_ITEMS)
    training: Training = Training()
    keep: Literal["student", "better"] = "student"
    candidates: tuple[StudentCandidate, ...] = Field(default=(), max_length=MAX_ITEMS)
    budget: Budget | None = None

    @model_validator(mode="before")
    @classmethod
    def _choose_by_default(cls, values: Any) -> Any:
        named = not isinstance(values, dict) or {"model", "candidates", "keep"} & values.keys()
        return values if named else {**values, "candidates": DEFAULT}

    @model_validator(mode="after")
    def _chosen_among(self) -> Self:
        if self.budget is not None and not self.candidates:
            remedy = "List the models to choose from as `candidates`"
            raise ValueError(must("budget", "be left out without candidates", str(self.budget), remedy))
        for candidate in self.candidates:
            self.of(candidate)  # refused here, before a teacher is trained for it
        return self

    @model_validator(mode="after")
    def _solved(self) -> Self:
        # Refused here, before a teacher is trained for it.
        if not self.model.forecaster.closed_form and any(len(loss.alphas or ()) > 1 for loss in self.losses):
            rule = f"be a number for a {self.model.kind!r} model, which is trained by steps"
            raise ValueError(must("alpha", rule, "validation", 'Give one, or take a "linear" model'))
        solvable = self.solvable_losses
        if self.model.forecaster.closed_form and self.model.learns and self.losses != solvable[:1]:
            extra = [loss.kind for loss in self.losses if loss not in solvable[:1]]
            rule = f"be one loss with a closed form for a {self.model.kind!r} model, which is solved"
            remedy = "Keep an output loss of squared errors and leave the others out"
            raise ValueError(must("losses", rule, extra, remedy))
        return self

    def of(self, candidate: StudentCandidate) -> StudentSpec:
        """The student that a candidate stands for: what it does not say is as here."""
        losses = candidate.losses or self.losses
        if candidate.losses is None and candidate.model.forecaster.closed_form:
            losses = (OutputLoss(alpha="validation"),)
        return StudentSpec(
            model=candidate.model, losses=losses, training=candidate.training or self.training, keep="better"
        )

    def with_seed(self, seed: int) -> StudentSpec:
        """The same student, and candidates, with every random draw taken from another seed."""
        candidates = (
            candidate
            if candidate.training is None
            else candidate.replace(training=candidate.training.replace(seed=seed))
            for candidate in self.candidates
        )
        return self.replace(training=self.training.replace(seed=seed), candidates=tuple(candidates))

    def without_refit(self) -> StudentSpec:
        """The same student as validation sees it, before it is fitted again."""
        return self.replace(training=self.training.replace(refit=None))

    @property
    def keeps_better(self) -> bool:
        """Whether the student or its control goes on, whichever validation prefers."""
        return self.keep == "better"

    @property
    def solvable_losses(self) -> tuple[AnyLoss, ...]:
        """The losses that have a closed-form optimum by themselves."""
        return tuple(loss for loss in self.losses if loss.alphas is not None)


class Recipe(Spec):
    """Teacher, student, pruning and quantization over one task; `run` runs it.

    Args:
        name: What reports call it.
        data: Where the panel comes from.
        task: Context, horizon, split.
        teacher: Who teaches: a model to train or, by its `kind`, a table of forecasts, a Hugging Face folder, a saved
            forecaster, a regressor of scikit-learn, or an ensemble of these.
        student: The small one.
        pruning: What to cut from the student; None leaves the step out.
        quantization: How to bring it to INT8; None deploys float32.
        baselines: Statistical methods to add to the report: "ets", "theta", "stl".

    Example:
        >>> recipe = Recipe(data=Source(dataset="nyc-weather"), pruning=None)
        >>> Recipe.from_toml(recipe.to_toml()) == recipe
        True
    """

    name: str = "recipe"
    data: Source
    task: TaskSpec = TaskSpec()
    teacher: AnyTeacher = TeacherSpec()
    student: StudentSpec = StudentSpec()
    pruning: Pruning | None = None
    quantization: AnyQuantization | None = Auto()
    baselines: tuple[Method, ...] = Field(default=(), max_length=MAX_ITEMS)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data; baselines that nobody asked for are left out, so that old recipes stay the same."""
        written = super().to_dict()
        return {name: value for name, value in written.items() if name != "baselines" or value}

    @property
    def paths(self) -> dict[str, str]:
        """Files and folders that the recipe reads, by field."""
        data = {} if self.data.path is None else {"data.path": self.data.path}
        return data | {f"teacher.{field}": path for field, path in self.teacher.paths.items()}

    def moved(self, move: Callable[[str], str]) -> Recipe:
        """The same recipe with every path replaced by what `move` makes of it."""
        data = self.data if self.data.path is None else self.data.replace(path=move(self.data.path))
        return self.replace(data=data, teacher=self.teacher.moved(move))

    def with_seed(self, seed: int) -> Recipe:
        """The same recipe with every random draw taken from another seed."""
        return self.replace(
            teacher=self.teacher.with_seed(seed),
            student=self.student.with_seed(seed),
            pruning=None if self.pruning is None else self.pruning.with_seed(seed),
            quantization=None if self.quantization is None else self.quantization.with_seed(seed),
        )


def default_recipe() -> Recipe:
    """The recipe that `tsdistill run` takes when it is given none: the bundled data, context 336, horizon 24.

    Example:
        >>> default_recipe().task.horizon
        24
    """
    text = (Path(__file__).parent / "default.toml").read_text(encoding="utf-8")
    return Recipe.from_toml(text)


def read_recipe(path: str | Path | None) -> Recipe:
    """A recipe from a TOML or JSON file, its paths relative to that file; None gives the default recipe."""
    if path is None:
        return default_recipe()
    written = Recipe.from_file(path)
    home = Path(os.path.realpath(path)).parent
    recipe = written.moved(lambda place: str(home / place))
    lacking = [
        must(field, "name something that exists", place, "Paths are relative to the recipe")
        for field, place in recipe.paths.items()
        if not Path(written.paths[field]).is_absolute() and not Path(place).exists()
    ]
    if lacking:
        raise ConfigError(listed(lacking, str(path)))
    return recipe
