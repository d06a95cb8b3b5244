"""Who teaches in a recipe, as data: nothing is imported, loaded or run while a recipe is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from tsdistill.artifacts import load
from tsdistill.data import Covariates, Task
from tsdistill.errors import ConfigError, DataError, OrderError, TsdistillError, listed, must, nearest
from tsdistill.models import AnyModelConfig, Forecaster, PatchTSTConfig
from tsdistill.spec import Family, Member
from tsdistill.spec.limits import LARGEST_SETTINGS, MAX_COUNT, MAX_ITEMS, Count, Steps
from tsdistill.teachers import (
    PrivilegedTeacher,
    RescaledTeacher,
    Teacher,
    TeacherEnsemble,
    from_huggingface,
    from_sklearn,
    read_forecasts,
    same_inputs,
    same_scaling,
    task_with,
)
from tsdistill.training import Training


class TeacherBuilder(Protocol):
    """What a teacher spec builds its teacher with: a task, and a place where what is trained is kept."""

    @property
    def task(self) -> Task:
        """What is going to be taught."""

    def trained(self, spec: TeacherSpec) -> Teacher:
        """The teacher that a spec trains, trained now or kept from an earlier run."""

    def member(self, spec: RecipeTeacher, number: int) -> Teacher:
        """A member of an ensemble, counted from 0."""

    def own_task(self, spec: TeacherSpec) -> Task:
        """The task that a spec is trained on, made once for all that see the same."""

    def say(self, line: str) -> None:
        """Tell people what happens."""

    def note(self) -> str:
        """What an earlier run has noted of this teacher; empty where it has not, or it cannot be read."""

    def keep_note(self, text: str) -> None:
        """Note something of this teacher for later runs."""


class RecipeTeacher(Member):
    """Base of the frozen specs that say who teaches in a recipe.

    A subclass sets `kind`, a literal that names it in files, and writes `build`. One that reads files overrides `paths`
    and `moved`, one that draws random numbers `with_seed`. `trust` is how fast the teacher's weight falls where a
    seasonal naive forecast is better on the training part (the sharpness of a `TrustedTeacher`, 1 for the usual one);
    None believes it everywhere.
    """

    late: ClassVar[frozenset[str]] = frozenset({"trust"})
    trains: ClassVar[bool] = False
    """Whether the recipe trains it by gradient steps, so that it is kept as a stage of its own."""

    several: ClassVar[bool] = False
    """Whether it is made of others, which are stages of their own."""

    kind: str
    trust: float | None = Field(default=None, gt=0)

    def build(self, builder: TeacherBuilder) -> Teacher:
        """The teacher, trained, fitted or read from where it is."""
        raise NotImplementedError

    @classmethod
    def contract_problems(cls) -> list[str]:
        """A teacher spec writes `build`."""
        if cls.build is not RecipeTeacher.build:
            return []
        return [f"`{cls.__name__}` must write build(builder). See `tsdistill.recipe.RecipeTeacher`."]

    @property
    def paths(self) -> dict[str, str]:
        """Files and folders that it is read from, by field."""
        return {}

    def moved(self, move: Callable[[str], str]) -> Self:
        """The same teacher with every path replaced by what `move` makes of it."""
        return self

    def with_seed(self, seed: int) -> Self:
        """The same teacher with every random draw taken from another seed."""
        return self

    def replayed(self, teacher: Teacher) -> RecipeTeacher:
        """The spec that makes a teacher of this spec again without asking the clock."""
        return self


TEACHERS = Family("teacher", RecipeTeacher, default="trained")
"""Who can teach in a recipe. A table without a kind is a teacher to be trained, as it was before there were kinds."""

AnyTeacher = Annotated[RecipeTeacher, TEACHERS]
"""The type of a field that holds any teacher of a recipe; `kind` says which."""


class TeacherSpec(RecipeTeacher):
    """A teacher that the recipe trains; what `[teacher]` means unless it names another `kind`.

    It may see what the student does not; see `td.teachers.PrivilegedTeacher`.

    Args:
        model: Its architecture.
        training: How it is trained.
        context: Past steps that it sees; None for the task's.
        covariates: What it looks at besides the channels: "task" for what the task has, None for nothing.
        scaler: "standard", "item", None, or "task" for the task's.
        trust: See `td.teachers.TrustedTeacher`; None believes it everywhere.
    """

    late: ClassVar[frozenset[str]] = frozenset({"kind", "trust", "context", "covariates", "scaler"})
    trains: ClassVar[bool] = True

    kind: Literal["trained"] = "trained"
    model: AnyModelConfig = PatchTSTConfig()
    training: Training = Training()
    context: Steps | None = None
    covariates: Covariates | Literal["task"] | None = "task"
    scaler: Literal["standard", "item", "task"] | None = "task"

    def own_task(self, task: Task) -> Task:
        """The task that it is trained on: the recipe's, or one over the same panel with inputs of its own."""
        context = task.context if self.context is None else self.context
        covariates = task.covariates if self.covariates == "task" else self.covariates
        scaler = task.scaler if self.scaler == "task" else self.scaler
        if (context, covariates, scaler) == (task.context, task.covariates, task.scaler):
            return task
        return task_with(task, context=context, covariates=covariates, scaler=scaler)

    @model_validator(mode="after")
    def _leaves_validation_alone(self) -> Self:
        if self.training.refit is not None:
            raise ValueError("`training.refit` must be left out for a teacher: its students are chosen by validation.")
        return self

    def with_seed(self, seed: int) -> Self:
        """The same teacher trained from another seed."""
        return self.replace(training=self.training.replace(seed=seed))

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Trained on the recipe's task."""
        return builder.trained(self)


class ReadTeacher(RecipeTeacher):
    """A teacher that is read from a place on this machine."""

    path: str = Field(min_length=1)

    @model_validator(mode="after")
    def _on_this_machine(self) -> Self:
        if "://" in self.path:
            raise ValueError("`path` must be a file or folder on this machine, not an address: nothing is downloaded.")
        return self

    @property
    def paths(self) -> dict[str, str]:
        """Where it is read from."""
        return {"path": self.path}

    def moved(self, move: Callable[[str], str]) -> Self:
        """The same teacher read from another place."""
        return self.replace(path=move(self.path))


class TableTeacherSpec(ReadTeacher):
    """A table of forecasts that were made anywhere; see `td.teachers.read_forecasts`.

    Args:
        path: A CSV (also gzipped) or Parquet file.
        id: Column of item identifiers.
        time: Column of the stamps that are forecast.
        cutoff: Column of the last stamp before the forecast.
        forecast: Column of the forecasts.
        channel: Column of channel names, where several stand below each other.
        trust: See `td.teachers.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["table"] = "table"
    id: str = "unique_id"
    time: str = "ds"
    cutoff: str = "cutoff"
    forecast: str = "forecast"
    channel: str = "channel"

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Read from the table."""
        columns = {name: getattr(self, name) for name in ("id", "time", "cutoff", "forecast", "channel")}
        try:
            return read_forecasts(self.path, builder.task, **columns)
        except DataError as error:
            raise DataError(f"In the table of forecasts {self.path}: {error}") from None

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A file that need not be there until the recipe runs."""
        return (cls(path="forecasts.csv"),)


class HuggingFaceTeacherSpec(ReadTeacher):
    """A folder that `save_pretrained` wrote; see `td.teachers.from_huggingface`.

    Args:
        path: The folder.
        units: Whether the model was trained on scaled values or raw ones.
        trust: See `td.teachers.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["huggingface"] = "huggingface"
    units: Literal["scaled", "raw"] = "scaled"

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Loaded from the folder."""
        return from_huggingface(self.path, builder.task, units=self.units)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A folder that need not be there until the recipe runs."""
        return (cls(path="teacher"),)


class SavedTeacherSpec(ReadTeacher):
    """A trainable forecaster that `td.save` wrote, of whatever rows; rescaled where its scaler is not the task's.

    One of another context or with covariates is asked about its own windows, as a `PrivilegedTeacher`, which
    the recipe's panel has to give.

    Args:
        path: The artifact's folder.
        trust: See `td.teachers.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["saved"] = "saved"

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Loaded, brought to the task's scale where it was trained on other rows, and asked with its own inputs."""
        model = load(self.path)
        if not isinstance(model, Forecaster):
            raise OrderError(
                f"`teacher.path` must hold a trainable forecaster, and {self.path} holds a deployed one. Save the "
                "forecaster before it is exported or quantized."
            )
        if not same_inputs(model.signature, builder.task):
            return PrivilegedTeacher(model, builder.task)
        alike = same_scaling(model.signature, builder.task.signature)
        return model if alike else RescaledTeacher(model, builder.task)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A folder that need not be there until the recipe runs."""
        return (cls(path="artifact"),)


class RegressorTeacherSpec(RecipeTeacher):
    """A regressor of scikit-learn, fitted anew each time the recipe is run; see `td.teachers.from_sklearn`.

    Args:
        regressor: Which one; there are no others, since a recipe names nothing that would have to be imported.
        settings: Its parameters: numbers, texts and switches.
        n_windows: Windows to fit on.
        seed: What they are drawn with, and the regressor's `random_state`.
        trust: See `td.teachers.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["scikit-learn"] = "scikit-learn"
    regressor: Literal[
        "ExtraTreesRegressor", "HistGradientBoostingRegressor", "KNeighborsRegressor", "RandomForestRegressor"
    ]
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    n_windows: Count = 10_000
    seed: int = Field(default=0, ge=0, lt=2**32)

    @field_validator("settings")
    @classmethod
    def _bounded(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings ask for bounded work: trees, rounds and threads have largest numbers, as everything else has."""
        problems = [
            must(f"settings.{name}", f"be at most {largest:,}", value, "Give a smaller one")
            for name, value in settings.items()
            if isinstance(value, int | float) and value > (largest := LARGEST_SETTINGS.get(name, MAX_COUNT))
        ]
        if len(settings) > MAX_ITEMS:
            problems.append(must("settings", f"hold at most {MAX_ITEMS:,} parameters", len(settings), "Leave some out"))
        if problems:
            raise ValueError(listed(problems, "the regressor"))
        return settings

    def with_seed(self, seed: int) -> Self:
        """The same regressor with another seed."""
        return self.replace(seed=seed)

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Fitted, out of a closed list and with parameters that are plain data."""
        from sklearn import ensemble, neighbors

        known: dict[str, Any] = {
            "ExtraTreesRegressor": ensemble.ExtraTreesRegressor,
            "HistGradientBoostingRegressor": ensemble.HistGradientBoostingRegressor,
            "KNeighborsRegressor": neighbors.KNeighborsRegressor,
            "RandomForestRegressor": ensemble.RandomForestRegressor,
        }
        regressor = known[self.regressor]()
        parameters = regressor.get_params()
        if unknown := [name for name in self.settings if name not in parameters]:
            rule = f"be parameters of {self.regressor}"
            raise ConfigError(must("teacher.settings", rule, unknown, nearest(unknown[0], parameters)))
        seed = {"random_state": self.seed} if "random_state" in parameters else {}
        try:
            fitted = regressor.set_params(**seed, **self.settings)
            return from_sklearn(fitted, builder.task, n_windows=self.n_windows, seed=self.seed)
        except TsdistillError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`teacher.settings` must suit {self.regressor}: {error}") from None

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A forest of a few trees."""
        return (cls(regressor="RandomForestRegressor", settings={"n_estimators": 5}),)


class EnsembleTeacherSpec(RecipeTeacher):
    """Several teachers that teach together; see `td.teachers.TeacherEnsemble`.

    Args:
        members: Who they are: teachers of the other kinds, without trust of their own.
        weights: "equal", "validation" or "best-per-window".
        trust: See `td.teachers.TrustedTeacher`; None believes them everywhere.
    """

    several: ClassVar[bool] = True

    kind: Literal["ensemble"] = "ensemble"
    members: tuple[AnyTeacher, ...] = Field(min_length=1, max_length=MAX_ITEMS)
    weights: Literal["equal", "validation", "best-per-window"] = "equal"

    @model_validator(mode="after")
    def _trusted_together(self) -> Self:
        if any(member.several for member in self.members):
            raise ValueError("`members` must not be ensembles themselves: name their members here.")
        if any(member.trust is not None for member in self.members):
            raise ValueError("`trust` must be set on the ensemble, not on its members: they are weighed as they are.")
        return self

    @property
    def paths(self) -> dict[str, str]:
        """Where its members are read from."""
        return {
            f"members.{number}.{field}": path
            for number, member in enumerate(self.members)
            for field, path in member.paths.items()
        }

    def moved(self, move: Callable[[str], str]) -> Self:
        """The same members read from other places."""
        return self.replace(members=tuple(member.moved(move) for member in self.members))

    def with_seed(self, seed: int) -> Self:
        """The same members with other seeds: one each, so that several of a kind stay several."""
        seeded = (member.with_seed(seed + number) for number, member in enumerate(self.members))
        return self.replace(members=tuple(seeded))

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Its members, asked together."""
        # What is only read comes first: a file that is wrong is found before anything is trained.
        order = sorted(range(len(self.members)), key=lambda number: self.members[number].trains)
        built = {number: builder.member(self.members[number], number) for number in order}
        return TeacherEnsemble([built[number] for number in sorted(built)], builder.task, self.weights)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Two teachers of different kinds."""
        return (cls(members=(TeacherSpec(), SavedTeacherSpec(path="artifact"))),)


TEACHERS.include(
    TeacherSpec,
    TableTeacherSpec,
    HuggingFaceTeacherSpec,
    SavedTeacherSpec,
    RegressorTeacherSpec,
    EnsembleTeacherSpec,
)
