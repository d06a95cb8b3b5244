"""Who teaches in a recipe, as data: nothing is imported, loaded or run while a recipe is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tsdistill.models import AnyModelConfig, PatchTSTConfig
from tsdistill.spec import Spec
from tsdistill.training import Training


class _Teaching(Spec):
    """What every teacher of a recipe has: a kind, perhaps a path, and perhaps trust.

    `trust` is how fast the teacher's say falls where a seasonal naive forecast is better on the training part (the
    sharpness of a `td.TrustedTeacher`, 1 for the usual one); None believes it everywhere.
    """

    late: ClassVar[frozenset[str]] = frozenset({"trust"})

    trust: float | None = Field(default=None, gt=0)

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


class TeacherSpec(_Teaching):
    """A teacher that the recipe trains; what `[teacher]` means unless it says another `kind`.

    Args:
        model: Its architecture.
        training: How it is trained.
        trust: See `td.TrustedTeacher`; None believes it everywhere.
    """

    late: ClassVar[frozenset[str]] = frozenset({"kind", "trust"})

    kind: Literal["trained"] = "trained"
    model: AnyModelConfig = PatchTSTConfig()
    training: Training = Training()

    def with_seed(self, seed: int) -> Self:
        """The same teacher trained from another seed."""
        return self.replace(training=self.training.replace(seed=seed))


class _Read(_Teaching):
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


class TableTeacherSpec(_Read):
    """A table of forecasts that were made anywhere; see `td.read_forecasts`.

    Args:
        path: A CSV (also gzipped) or Parquet file.
        id: Column of item identifiers.
        time: Column of the stamps that are forecast.
        cutoff: Column of the last stamp before the forecast.
        forecast: Column of the forecasts.
        channel: Column of channel names, where several stand below each other.
        trust: See `td.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["table"] = "table"
    id: str = "unique_id"
    time: str = "ds"
    cutoff: str = "cutoff"
    forecast: str = "forecast"
    channel: str = "channel"


class HuggingFaceTeacherSpec(_Read):
    """A folder that `save_pretrained` wrote; see `td.teachers.from_huggingface`.

    Args:
        path: The folder.
        units: Whether the model was trained on scaled values or raw ones.
        trust: See `td.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["huggingface"] = "huggingface"
    units: Literal["scaled", "raw"] = "scaled"


class SavedTeacherSpec(_Read):
    """A trainable forecaster that `td.save` wrote, of whatever rows; rescaled where its scaler is not the task's.

    Args:
        path: The artifact's folder.
        trust: See `td.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["saved"] = "saved"


class RegressorTeacherSpec(_Teaching):
    """A regressor of scikit-learn, fitted anew each time the recipe is cooked; see `td.teachers.from_sklearn`.

    Args:
        regressor: Which one; there are no others, since a recipe names nothing that would have to be imported.
        settings: Its parameters: numbers, texts and switches.
        n_windows: Windows to fit on.
        seed: What they are drawn with, and the regressor's `random_state`.
        trust: See `td.TrustedTeacher`; None believes it everywhere.
    """

    kind: Literal["scikit-learn"] = "scikit-learn"
    regressor: Literal[
        "ExtraTreesRegressor", "HistGradientBoostingRegressor", "KNeighborsRegressor", "RandomForestRegressor"
    ]
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    n_windows: int = Field(default=10_000, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)

    def with_seed(self, seed: int) -> Self:
        """The same regressor with another seed."""
        return self.replace(seed=seed)


def _with_kind(teacher: Any) -> Any:
    """A table that does not say its kind is a teacher to be trained, as it was before there were kinds."""
    return {"kind": "trained", **teacher} if isinstance(teacher, Mapping) else teacher


_Single = TeacherSpec | TableTeacherSpec | HuggingFaceTeacherSpec | SavedTeacherSpec | RegressorTeacherSpec
AnyMember = Annotated[_Single, Field(discriminator="kind"), BeforeValidator(_with_kind)]


class EnsembleTeacherSpec(_Teaching):
    """Several teachers that teach together; see `td.TeacherEnsemble`.

    Args:
        members: Who they are: teachers of the other kinds, without trust of their own.
        weights: "equal", "validation" or "best-per-window".
        trust: See `td.TrustedTeacher`; None believes them everywhere.
    """

    kind: Literal["ensemble"] = "ensemble"
    members: tuple[AnyMember, ...] = Field(min_length=1)
    weights: Literal["equal", "validation", "best-per-window"] = "equal"

    @model_validator(mode="after")
    def _trusted_together(self) -> Self:
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
        return self.replace(members=tuple(each.with_seed(seed + number) for number, each in enumerate(self.members)))


AnyTeacherSpec = Annotated[_Single | EnsembleTeacherSpec, Field(discriminator="kind"), BeforeValidator(_with_kind)]
