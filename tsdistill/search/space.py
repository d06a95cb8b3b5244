"""What a search may vary: a frozen spec that turns a trial into a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from optuna.trial import BaseTrial
from pydantic import BeforeValidator, Field, field_validator, model_validator

from tsdistill.errors import ConfigError, listed, must
from tsdistill.losses import AnyLoss, OutputLoss, TemporalLoss
from tsdistill.models import LSTMConfig, MLPConfig, ModelConfig, PatchTSTConfig
from tsdistill.pruning import Pruning
from tsdistill.quantization import Quantization
from tsdistill.recipe import Recipe
from tsdistill.spec import Spec


class Range(Spec):
    """Every number from `low` to `high`, both included.

    Args:
        low: The smallest.
        high: The largest.
        log: Draw evenly in factors instead of in steps, for rates and widths.

    Example:
        >>> Range(low=1e-4, high=1e-2, log=True).high
        0.01
    """

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(must("low", f"be at most high = {self.high:g}", self.low, "Swap them"))
        if self.log and self.low <= 0:
            raise ValueError(must("low", "be above 0 with log=true", self.low, "Raise it, or draw without log"))
        return self


def _numbers(value: Any) -> Range | tuple[float, ...]:
    """A range, choices or one number, with one sentence for everything else."""
    if isinstance(value, Range):
        return value
    if isinstance(value, dict):
        return Range(**value)
    among = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not among or len(set(map(str, among))) < len(among) or any(not _is_number(each) for each in among):
        raise ValueError(f"It must be a number, several of them (each once) or a Range(low=, high=), got {value!r}.")
    return among


def _counts(value: Any) -> Range | tuple[int, ...]:
    """The same for whole numbers of at least 1."""
    among = _numbers(value)
    ends = (among.low, among.high) if isinstance(among, Range) else among
    if any(end < 1 or end != int(end) for end in ends):
        raise ValueError(f"It must hold whole numbers of at least 1, got {list(ends)}.")
    return among if isinstance(among, Range) else tuple(int(each) for each in among)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Numbers = Annotated[Range | tuple[float, ...], BeforeValidator(_numbers)]
"""A range, some numbers to choose from, or one number."""

Counts = Annotated[Range | tuple[int, ...], BeforeValidator(_counts)]
"""The same for whole numbers of at least 1."""


class LSTMSpace(Spec):
    """LSTM students: units per layer, layers, steps in a patch; the rest as in a recipe whose student is an LSTM."""

    kind: Literal["lstm"] = "lstm"
    width: Counts = (16, 32, 64, 128)
    depth: Counts = (1, 2)
    patch: Counts = (12, 24, 48)

    def draw(self, trial: BaseTrial, like: ModelConfig) -> ModelConfig:
        """The student of a trial."""
        base = like if isinstance(like, LSTMConfig) else LSTMConfig()
        width, depth = _count(trial, "lstm_width", self.width), _count(trial, "lstm_depth", self.depth)
        return LSTMConfig(
            widths=(width,) * depth,
            patch=_count(trial, "lstm_patch", self.patch),
            dropout=base.dropout,
            channel_embedding=base.channel_embedding,
            shortcut=base.shortcut,
        )


class MLPSpace(Spec):
    """MLP students: width and number of blocks; the rest as in a recipe whose student is an MLP."""

    kind: Literal["mlp"] = "mlp"
    width: Counts = (16, 32, 64, 128)
    depth: Counts = (1, 2, 3)

    def draw(self, trial: BaseTrial, like: ModelConfig) -> ModelConfig:
        """The student of a trial."""
        base = like if isinstance(like, MLPConfig) else MLPConfig()
        return MLPConfig(
            width=_count(trial, "mlp_width", self.width),
            depth=_count(trial, "mlp_depth", self.depth),
            dropout=base.dropout,
            channel_embedding=base.channel_embedding,
            shortcut=base.shortcut,
        )


class PatchTSTSpace(Spec):
    """Small transformer students: width, number of blocks, steps in a patch (patches do not overlap)."""

    kind: Literal["patchtst"] = "patchtst"
    width: Counts = (16, 32)
    depth: Counts = (1, 2)
    patch: Counts = (16, 24, 48)

    def draw(self, trial: BaseTrial, like: ModelConfig) -> ModelConfig:
        """The student of a trial."""
        base = like if isinstance(like, PatchTSTConfig) else PatchTSTConfig()
        patch = _count(trial, "patchtst_patch", self.patch)
        return PatchTSTConfig(
            width=_count(trial, "patchtst_width", self.width),
            depth=_count(trial, "patchtst_depth", self.depth),
            heads=base.heads[0],
            patch=patch,
            stride=patch,
            dropout=base.dropout,
            channel_embedding=base.channel_embedding,
        )


AnyStudentSpace = Annotated[LSTMSpace | MLPSpace | PatchTSTSpace, Field(discriminator="kind")]


class Space(Spec):
    """What a search may vary in a recipe: the student, what it imitates, how fast it learns and what is pruned.

    Data, task and teacher stay as they are, and so does everything that is not named here. None leaves a part as the
    recipe has it. Use the defaults on a machine with a few cores; narrow them when you know more.

    Numbers are a `Range`, a tuple of choices, or one number.

    Args:
        students: Architectures to choose from, each with its own sizes; None keeps the recipe's student.
        alpha: Share of the teacher in the `OutputLoss`, from 0 to 1.
        temporal: Weight of the `TemporalLoss`; 0 leaves the term out.
        ratio: Share of units to prune, below 1; 0 leaves the step out. None over a recipe that prunes to a target.
        learning_rate: Highest step size of the student's training.
        methods: Ways to quantize to choose from, see `Quantization`.

    Raises:
        ConfigError: A choice that no recipe could have; every problem is listed.

    Example:
        >>> space = Space(students=(LSTMSpace(width=(8, 16)),), alpha=0.5, temporal=None)
        >>> Space.from_toml(space.to_toml()) == space
        True
    """

    students: tuple[AnyStudentSpace, ...] | None = (LSTMSpace(), MLPSpace(), PatchTSTSpace())
    alpha: Numbers | None = Range(low=0, high=1)
    temporal: Numbers | None = (0.0, 0.03, 0.1, 0.3)
    ratio: Numbers | None = (0.0, 0.25, 0.5)
    learning_rate: Numbers | None = Range(low=5e-4, high=1e-2, log=True)
    methods: tuple[Literal["dynamic", "static", "weight-only", "auto"], ...] | None = Field(default=None, min_length=1)

    @field_validator("students")
    @classmethod
    def _one_of_each(cls, students: tuple[AnyStudentSpace, ...] | None) -> tuple[AnyStudentSpace, ...] | None:
        kinds = [student.kind for student in students or ()]
        if students is not None and (not kinds or len(set(kinds)) < len(kinds)):
            remedy = "Give one of each, or none at all (None) to keep the recipe's student"
            raise ValueError(must("students", "hold every kind at most once, and one at least", kinds, remedy))
        return students

    @model_validator(mode="after")
    def _in_bounds(self) -> Self:
        bounds: list[tuple[str, float, float, str]] = [
            ("alpha", 0, 1, "lie between 0 and 1"),
            ("temporal", 0, float("inf"), "be at least 0"),
            ("ratio", 0, 1 - 1e-9, "be at least 0 and below 1"),
            ("learning_rate", 1e-12, float("inf"), "be above 0"),
        ]
        problems = []
        for name, low, high, rule in bounds:
            among = getattr(self, name)
            ends = () if among is None else (among.low, among.high) if isinstance(among, Range) else among
            problems += [must(name, rule, end, "Narrow it") for end in ends if not low <= end <= high]
        if problems:
            raise ValueError(listed(problems, "Space"))
        return self

    def check(self, recipe: Recipe) -> None:
        """Refuse what no trial over this recipe could do; every problem in one `ConfigError`."""
        context, horizon, problems = recipe.task.context, recipe.task.horizon, []
        for student in self.students or ():
            longest = _largest(student.patch) if not isinstance(student, MLPSpace) else 0
            if longest > context:
                name = f"students.{student.kind}.patch"
                problems.append(must(name, f"be at most context = {context}", longest, "Shorten it"))
        if self.students is None and recipe.student.model.kind not in PRUNABLE:
            kind = recipe.student.model.kind
            problems.append(
                f"`students` must be given when the recipe's student has nothing to train by steps, got {kind!r}. Name "
                "architectures in the space, or distil this student with tsdistill run."
            )
        kinds = [each.kind for each in self.students] if self.students is not None else [recipe.student.model.kind]
        if "static" in (self.methods or ()) and "lstm" in kinds:
            rule = "leave out 'static' where students are LSTMs, which ONNX Runtime cannot run that way"
            problems.append(must("methods", rule, self.methods, "Use 'dynamic' or 'auto'"))
        order = next((loss.order for loss in recipe.student.losses if isinstance(loss, TemporalLoss)), 1)
        if self.temporal is not None and _largest(self.temporal) > 0 and horizon <= order:
            problems.append(
                must("temporal", f"be 0 with a horizon of {horizon}", self.temporal, "There are no moves to imitate")
            )
        if self.ratio is not None and recipe.pruning is not None and recipe.pruning.targets:
            rule = f"be None where the recipe prunes to {' and '.join(recipe.pruning.targets)}, which finds the ratio"
            problems.append(must("ratio", rule, self.ratio, "Leave out one of the two"))
        if problems:
            raise ConfigError(listed(problems, "the space over this recipe"))

    def propose(self, trial: BaseTrial, recipe: Recipe) -> Recipe:
        """The recipe of a trial: `recipe` with what the trial draws put in its place.

        INT8 is proposed without `require_gain`, because that goes by the clock: the same trial could then be deployed
        in one form today and in another tomorrow. Accuracy (`max_error_increase`) still has its say, and the bytes are
        what the search measures anyway.

        Args:
            trial: An Optuna trial, or an `optuna.trial.FixedTrial` of a finished trial's parameters, which gives that
                trial's recipe again.
            recipe: Where everything comes from that is not varied.

        Returns:
            A recipe that `tsdistill.run` can cook.

        Example:
            >>> from optuna.trial import FixedTrial
            >>> from tsdistill.recipe import default_recipe
            >>> drawn = {"student": "mlp", "mlp_width": 16, "mlp_depth": 1, "ratio": 0.0, "learning_rate": 1e-3}
            >>> Space(alpha=None, temporal=None).propose(FixedTrial(drawn), default_recipe()).student.model.width
            16
        """
        student, pruning, quantization = recipe.student, recipe.pruning, recipe.quantization
        model: Any = student.model
        if self.students is not None:
            spaces: dict[str, AnyStudentSpace] = {space.kind: space for space in self.students}
            model = spaces[trial.suggest_categorical("student", list(spaces))].draw(trial, model)
        losses = student.losses
        if self.alpha is not None:
            losses = _with_alpha(losses, _number(trial, "alpha", self.alpha))
        if self.temporal is not None:
            losses = _with_temporal(losses, _number(trial, "temporal", self.temporal))
        training = student.training
        if self.learning_rate is not None:
            training = training.replace(learning_rate=_number(trial, "learning_rate", self.learning_rate))
        if self.ratio is not None:
            ratio = _number(trial, "ratio", self.ratio)
            pruning = (pruning or Pruning()).replace(ratio=ratio) if ratio > 0 else None
        if self.methods is not None:
            method = trial.suggest_categorical("method", self.methods)
            base = quantization or Quantization()
            # Bits of the recipe's method may be none of the drawn one's.
            quantization = base.replace(method=method, weight_bits=base.weight_bits if method == base.method else None)
        if quantization is not None:
            quantization = quantization.replace(require_gain=False)
        return recipe.replace(
            student=student.replace(model=model, losses=losses, training=training),
            pruning=pruning,
            quantization=quantization,
        )


PRUNABLE = ("lstm", "mlp", "patchtst")
"""Kinds that are trained by steps and have units to prune."""


def _with_alpha(losses: tuple[AnyLoss, ...], alpha: float) -> tuple[AnyLoss, ...]:
    """The same losses with another share of the teacher; an output loss is put first if there is none."""
    if not any(isinstance(loss, OutputLoss) for loss in losses):
        return (OutputLoss(alpha=alpha), *losses)
    return tuple(loss.replace(alpha=alpha) if isinstance(loss, OutputLoss) else loss for loss in losses)


def _with_temporal(losses: tuple[AnyLoss, ...], weight: float) -> tuple[AnyLoss, ...]:
    """The same losses with another weight of the temporal term, or without it."""
    first = next((loss for loss in losses if isinstance(loss, TemporalLoss)), TemporalLoss())
    others = tuple(loss for loss in losses if not isinstance(loss, TemporalLoss))
    if weight > 0:
        return (*others, first.replace(weight=weight))
    return others or (OutputLoss(),)


def _number(trial: BaseTrial, name: str, among: Range | tuple[float, ...]) -> float:
    if isinstance(among, Range):
        return trial.suggest_float(name, among.low, among.high, log=among.log)
    return float(trial.suggest_categorical(name, among))


def _count(trial: BaseTrial, name: str, among: Range | tuple[int, ...]) -> int:
    if isinstance(among, Range):
        return trial.suggest_int(name, int(among.low), int(among.high), log=among.log)
    return int(trial.suggest_categorical(name, among))


def _largest(among: Range | tuple[float, ...]) -> float:
    return among.high if isinstance(among, Range) else max(among)
