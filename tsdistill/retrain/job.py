"""A retraining job as data: where fresh data comes from, the recipe, how it is judged, where it is served."""

from __future__ import annotations

import contextvars
import datetime as dt
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import Field, model_validator

from tsdistill.data import Panel, Split
from tsdistill.errors import ConfigError, DataError, must
from tsdistill.quality import DataGate
from tsdistill.recipe import Recipe, Source, default_recipe
from tsdistill.retrain.gate import Gate
from tsdistill.spec import SCHEMA_VERSION, Spec, assigned
from tsdistill.spec.limits import Count, Seed

if TYPE_CHECKING:
    import pandas as pd

JUDGE_HORIZONS = 8
"""Newest steps held out by default, in horizons: enough windows for a test of significance."""

VALIDATION_SHARE = 10
"""By default one row in ten of those before the held out ones is used for selection."""

_beside: contextvars.ContextVar[Path | None] = contextvars.ContextVar("beside", default=None)


class Job(Spec):
    """What a scheduled retraining does each time: fresh data, a recipe, a gate and a store.

    Paths (`store`, `data.path`, `recipe`) are relative to the job's file, or to the working folder for a job made in
    Python; those of a teacher are relative to the file that the recipe is written in. The recipe's own `data` and
    `task.split` are replaced: the job says where data comes from, and cuts it so that the newest `judge` steps are seen
    by neither training nor selection.

    Use it for a model that is served and has to follow its data. To run a recipe once, use `tsdistill.run`.

    Args:
        store: Folder of the served model, the one before it, the runs and the history.
        data: Where the fresh data is read from; it needs time stamps.
        recipe: A recipe, or the path of its TOML or JSON file; by default the recipe of `tsdistill run`.
        judge: Newest steps held out to judge by; 8 horizons by default.
        validation: Steps before them used for selection (early stopping, INT8 or not); by default a tenth of the rows,
            at least `judge`.
        gate: When the candidate replaces the incumbent.
        data_gate: What fresh data is checked for before anything is trained on it.
        refit: Fit the student again on the validation rows as well, once everything is chosen (`td.refit`), so that
            what is served has learnt from the newest rows but those that judge it. A teacher that has no forecasts of
            those rows makes the job go on without, and the verdict says so.
        keep_runs: Run folders kept in the store; older ones are removed. Served models are kept apart from them.
        seed: Draw everything from this seed instead of the recipe's.
        report: Also write `report.html` of the candidate on the judging windows into the run's folder.
        public_key: A PEM file: only what the owner of this key has signed is promoted, compared with, rolled back to;
            the store keeps the key and demands it.
        private_key: A PEM file that a promoted model is signed with.

    Raises:
        ConfigError: a field breaks its rule; every problem is listed.

    Example:
        >>> job = Job(store="store", data={"dataset": "nyc-weather"}, judge=168)
        >>> job.recipe.data.dataset, job.gate.must_beat_naive
        ('nyc-weather', True)
    """

    late: ClassVar[frozenset[str]] = frozenset({"data_gate"})

    store: str = Field(min_length=1)
    data: Source
    recipe: Recipe
    judge: Count | None = None
    validation: Count | None = None
    gate: Gate = Gate()
    data_gate: DataGate = DataGate()
    refit: bool = True
    keep_runs: Count = 5
    seed: Seed | None = None
    report: bool = True
    public_key: str | None = None
    private_key: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_recipe(cls, values: Any) -> Any:
        """The recipe from wherever it is, with the job's data in place of its own."""
        if not isinstance(values, dict):
            return values
        values = {**values, "data": _source(values["data"])} if "data" in values else values
        recipe = values.get("recipe")
        if recipe is None:
            recipe = default_recipe()
        if isinstance(recipe, str | Path):
            place = (_beside.get() or Path()) / recipe
            recipe = Recipe.from_file(place).moved(lambda path: str(place.parent / path))
        if isinstance(recipe, Recipe):
            recipe = {name: getattr(recipe, name) for name in Recipe.model_fields}
        if isinstance(recipe, Mapping):
            version = recipe.get("schema_version", SCHEMA_VERSION)
            if version != SCHEMA_VERSION:
                raise ValueError(must("recipe.schema_version", f"be {SCHEMA_VERSION}", version, "Update tsdistill"))
            data = values.get("data")
            # Data that is wrong is complained of once, where it stands.
            data = data if isinstance(data, Source) else Source(dataset="nyc-weather")
            recipe = {name: value for name, value in recipe.items() if name != "schema_version"} | {"data": data}
        return {**values, "recipe": recipe}

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        horizon = self.recipe.task.horizon
        short = [
            must(name, f"be at least the recipe's horizon of {horizon} steps", value, "Hold out more")
            for name in ("judge", "validation")
            if (value := getattr(self, name)) is not None and value < horizon
        ]
        if short:
            raise ValueError(" ".join(short))
        return self

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a `.toml` or `.json` file; paths in it are relative to it."""
        beside = Path(os.path.realpath(path)).parent
        token = _beside.set(beside)
        try:
            job = super().from_file(path)
        finally:
            _beside.reset(token)
        data = job.data
        if data.path is not None:
            data = data.replace(path=str(beside / data.path))
        recipe = job.recipe.moved(lambda path: str(beside / path))
        keys = {name: str(beside / path) for name in ("public_key", "private_key") if (path := getattr(job, name))}
        return job.replace(store=str(beside / job.store), data=data, recipe=recipe, **keys)

    def assigned(self, texts: Sequence[str]) -> Self:
        """The job with what `ADDRESS=VALUE` texts put in place: of its own fields, else of its recipe's.

        Raises:
            ConfigError: a text is no assignment, an address leads nowhere, or a field refuses its value.

        Example:
            >>> job = Job(store="store", data={"dataset": "nyc-weather"})
            >>> job.assigned(["student.model.width=32", "gate.margin=0.02"]).recipe.student.model.widths
            (32, 32)
        """
        job = self
        for text in texts:
            first = text.partition("=")[0].partition(".")[0].strip()
            if first in type(self).model_fields:
                job = assigned(job, [text])
            else:
                job = job.replace(recipe=assigned(job.recipe, [text]))
        return job

    def load(self, as_of: str | dt.datetime | pd.Timestamp | None = None) -> Panel:
        """The fresh data, with rows up to and including `as_of` and nothing learnt from later ones."""
        panel = self.data.load()
        if any(item.ds is None for item in panel.items):
            raise DataError(
                "A retraining job needs data with time stamps; these have none. Name their column with `time`."
            )
        return panel if as_of is None else panel.until(as_of)

    def cut(self, panel: Panel) -> Cut:
        """Where training, selection and judging part, counted back from the newest row."""
        newest = max(panel.items, key=lambda item: (_last(item), len(item)))
        stamps, task = newest.ds, self.recipe.task
        if stamps is None:
            raise DataError("A retraining job needs data with time stamps.")
        n_rows, judge = len(stamps), self.judge or JUDGE_HORIZONS * task.horizon
        validation = self.validation or max(judge, (n_rows - judge) // VALIDATION_SHARE)
        needed = judge + validation + task.context + task.horizon
        if n_rows < needed:
            raise DataError(
                f"The data must have at least {needed} rows up to {stamps[-1]} ({task.context + task.horizon} to train "
                f"on, {validation} to select by, {judge} to judge by), got {n_rows}. Wait for more, or lower judge, "
                "validation or the recipe's context."
            )
        judged_from, validated_from = stamps[n_rows - judge], stamps[n_rows - judge - validation]
        return Cut(
            split=Split.dates(written(validated_from), written(judged_from)),
            seen_until=written(stamps[n_rows - judge - 1]),
            judged_from=written(judged_from),
            as_of=written(stamps[-1]),
        )


class Cut(NamedTuple):
    """How fresh data is cut: the split, and the stamps that say which rows were seen by what.

    Args:
        split: Training, validation, and the judging windows as the test part.
        seen_until: Newest row that training and selection see.
        judged_from: First row that is judged.
        as_of: Newest row there is.
    """

    split: Split
    seen_until: str
    judged_from: str
    as_of: str


def _source(data: Any) -> Any:
    """The source if it is sound; what would make an error message repeat an address with its password is refused."""
    if not isinstance(data, Mapping):
        if isinstance(data, Source):
            return data
        raise ValueError('`data` must be a table, such as [data] with path = "fresh.csv".')
    if not isinstance(data.get("url"), str | None):
        raise ValueError("`url` must be text: the address of a database, or env:NAME.")
    try:
        return Source(**data)
    except ConfigError:
        return data


def written(stamp: pd.Timestamp) -> str:
    """A stamp as text that sorts and compares: in UTC when it has a zone."""
    return str((stamp if stamp.tzinfo is None else stamp.tz_convert("UTC")).isoformat())


def moment(text: str) -> dt.datetime:
    """A written stamp as a time that can be compared with any other one; without a zone it is taken as UTC."""
    try:
        when = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ConfigError(must("stamp", "be an ISO time", text, "The store was changed by hand; restore it")) from None
    return when if when.tzinfo is not None else when.replace(tzinfo=dt.UTC)


def _last(item: Any) -> Any:
    return item.ds[-1]
