"""The contract of a loss: frozen data that binds to a student and a teacher and then compares their activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tsdistill.data.task import Batch
from tsdistill.errors import ConfigError, check_type, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.spec import Family, Member, Spec, Tuned


@dataclass(frozen=True)
class Example:
    """A few windows as both sides see them: what a loss looks at to find out whether, and how, it can compare.

    Args:
        student: What the student does with them.
        teacher: What the teacher does with them.
        batch: The windows.
    """

    student: Activations
    teacher: Activations
    batch: Batch


class BoundLoss(nn.Module):
    """A loss ready to be computed; its parameters, if any, are trained and saved with the student.

    `forward(student, teacher, batch)` gives a scalar, a mean over elements, and passes no gradient to the teacher.

    Attributes:
        reads: What of the teacher it looks at besides the forecast, as named by `Activations.parts`: "hidden.1",
            "attention.0", "distribution". Nothing else of a teacher is there when the loss is computed.
    """

    reads: frozenset[str] = frozenset()

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The unweighted value of the term."""
        raise NotImplementedError


class WeightSchedule(Spec):
    """How the weight of a loss changes while a student trains, as a factor on it.

    factor = start until `begins`, end from `finishes` on, and a straight line (or half a cosine) between; both are
    shares of all gradient steps.

    Use it to let a teacher guide the beginning and truth decide the end (`start=1, end=0`), or to bring in a term once
    forecasts are sensible (`start=0, end=1`).

    Args:
        start: Factor at the first step.
        end: Factor at the last one.
        begins: Share of the steps after which the factor starts to move, from 0 to 1.
        finishes: Share of the steps after which it stands still again.
        shape: "linear" or "cosine".

    Example:
        >>> WeightSchedule(start=1, end=0, finishes=0.5).factor(0.25)
        0.5
    """

    start: float = Field(default=1.0, ge=0)
    end: float = Field(default=0.0, ge=0)
    begins: float = Field(default=0.0, ge=0, le=1)
    finishes: float = Field(default=1.0, ge=0, le=1)
    shape: Literal["linear", "cosine"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> WeightSchedule:
        if self.finishes < self.begins:
            raise ValueError(must("finishes", f"be at least begins = {self.begins:g}", self.finishes, "Swap the two"))
        if self.start == self.end == 0:
            raise ValueError(must("start", "be above 0 where `end` is 0", 0, "Leave out a loss that is never wanted"))
        return self

    def factor(self, progress: float) -> float:
        """The factor when a share `progress` of all steps is done."""
        if progress <= self.begins:
            return self.start
        if progress >= self.finishes:
            return self.end
        done = (progress - self.begins) / (self.finishes - self.begins)
        if self.shape == "cosine":
            done = 0.5 * (1 - math.cos(math.pi * done))
        return self.start + done * (self.end - self.start)

    def __str__(self) -> str:
        return f"[{self.start:g} -> {self.end:g}]"


SMALL = Tuned(0.0, 0.03, 0.1, 0.3)
"""Weights that a search tries for a term that stands beside an output loss; 0 leaves the term out."""

LARGE = Tuned(0.0, 0.1, 0.3, 1.0)
"""The same for a term of errors as large as the output loss's own."""


class Loss(Member):
    """Base of the frozen specs of what a student should imitate.

    A subclass sets `kind`, a literal that names it in files, and writes `bind` and `formula`.
    `tsdistill.losses.register` makes it a loss that recipes can name and searches can draw.
    """

    left_out_at: ClassVar[tuple[str, float] | None] = ("weight", 0)

    kind: str
    weight: float = Field(default=1.0, gt=0)
    schedule: WeightSchedule | None = None

    @classmethod
    def contract_problems(cls) -> list[str]:
        """A loss writes `bind` and `formula`."""
        missing = [name for name in ("bind", "formula") if getattr(cls, name) is getattr(Loss, name)]
        return [f"`{cls.__name__}` must write {name}. See `tsdistill.losses.Loss`." for name in missing]

    @property
    def needs_teacher(self) -> bool:
        """Whether what the teacher shows changes the loss."""
        return True

    @property
    def sees_attention(self) -> bool:
        """Whether both sides have to show their attention."""
        return False

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Make the loss ready for a student and a teacher, refusing what they cannot serve."""
        raise NotImplementedError

    @property
    def shortest_horizon(self) -> int:
        """Steps that a forecast must have for the loss to be defined."""
        return 1

    @property
    def alphas(self) -> tuple[float, ...] | None:
        """Shares of the teacher in targets whose plain MSE has the same optimum as this term alone; None: none has.

        Where there are several, validation is to choose one of them.
        """
        return None

    @property
    def formula(self) -> str:
        """The term without its weight, as one would write it."""
        raise NotImplementedError

    def __add__(self, other: Loss) -> LossSum:
        return LossSum((self, other))

    def __str__(self) -> str:
        factors = [] if self.weight == 1 else [f"{self.weight:g}"]
        factors += [] if self.schedule is None else [str(self.schedule)]
        return " * ".join([*factors, self.formula])


LOSSES = Family("loss", Loss)
"""Every loss; `tsdistill.losses` adds the package's own."""

AnyLoss = Annotated[Loss, LOSSES]
"""The type of a field that holds any loss, by its `kind`."""


def check_losses_type(losses: object) -> None:
    """ConfigError when `losses` is no sequence of losses.

    Example:
        >>> from tsdistill.losses import OutputLoss
        >>> check_losses_type(OutputLoss())
        Traceback (most recent call last):
        tsdistill.errors.ConfigError: `losses` must be a list or a tuple, got an OutputLoss. Write [td.OutputLoss()].
    """
    check_type("losses", losses, (list, tuple), "Write [td.OutputLoss()]")
    assert isinstance(losses, list | tuple)  # checked above
    for place, loss in enumerate(losses):
        check_type(f"losses[{place}]", loss, Loss, "Pass losses, such as td.OutputLoss() or td.FeatureLoss(weight=0.1)")


class LossSum:
    """Several weighted losses, bound and computed as one.

    Example:
        >>> from tsdistill.losses import OutputLoss, TemporalLoss
        >>> print(OutputLoss(alpha=0.5) + TemporalLoss(weight=0.05))
        MSE(student, 0.5 * teacher + 0.5 * truth) + 0.05 * MSE(diff(student), diff(teacher))
    """

    def __init__(self, terms: Sequence[Loss]) -> None:
        check_losses_type(terms)
        if not terms:
            raise ConfigError("`losses` must hold at least one loss, got losses=[]. Add td.OutputLoss().")
        self.terms = tuple(terms)

    def __add__(self, other: Loss) -> LossSum:
        return LossSum((*self.terms, other))

    def __str__(self) -> str:
        return " + ".join(str(term) for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(term.needs_teacher for term in self.terms)

    @property
    def sees_attention(self) -> bool:
        """Whether any term looks at attention."""
        return any(term.sees_attention for term in self.terms)

    def bind(self, student: Forecaster, example: Example) -> BoundSum:
        """Bind every term to a student and a teacher."""
        return BoundSum(self.terms, student, example)


class BoundSum(nn.Module):
    """The weighted sum of bound losses; `breakdown` of the last call gives the part of each."""

    def __init__(self, terms: Sequence[Loss], student: Forecaster, example: Example) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.names = _names(terms)
        self.bound = nn.ModuleList(term.bind(student, example) for term in terms)
        self.reads = frozenset[str]().union(*(bound.reads for bound in self.bound))  # type: ignore[arg-type]
        # Kept with the state of a run, so that a resumed one goes on with the balance that it began with.
        self.register_buffer("scales", torch.ones(len(self.terms)))
        self.progress = 0.0
        self._parts: dict[str, Tensor] = {}

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The weighted sum, in float32 whatever the models compute in."""
        with torch.autocast(batch.target.device.type, enabled=False):
            values = [bound(student, teacher, batch) for bound in self.bound]
        weighed = [value * weight for value, weight in zip(values, self._weights(), strict=True)]
        self._parts = {name: value.detach() for name, value in zip(self.names, weighed, strict=True)}
        return weighed[0] if len(weighed) == 1 else torch.stack(weighed).sum()

    def breakdown(self) -> dict[str, Tensor]:
        """Weighted value of each term in the last call, by name."""
        return self._parts

    def balance(self, norms: Sequence[float]) -> None:
        """Make weights independent of units: divide each term by the size of its own gradient, relative to the first's.

        Args:
            norms: Size of each term's gradient on the student's weights, without its weight.
        """
        still = [name for name, norm in zip(self.names, norms, strict=True) if not norm > 0]
        if still:
            raise ConfigError(
                f"`balance` must find every term pulling at the start, got no gradient of {', '.join(still)}. Leave "
                'the term out, or use balance="fixed".'
            )
        self.scales = torch.tensor([norms[0] / norm for norm in norms])

    def _weights(self) -> list[Tensor | float]:
        factors = [1.0 if term.schedule is None else term.schedule.factor(self.progress) for term in self.terms]
        if len(self.terms) == 1:
            return [self.terms[0].weight * factors[0]]
        scales = self.scales.unbind()
        return [scale * (term.weight * factor) for scale, term, factor in zip(scales, self.terms, factors, strict=True)]


def _names(terms: Sequence[Loss]) -> list[str]:
    """One name per term: its kind, numbered where a kind occurs twice."""
    names: list[str] = []
    for term in terms:
        seen = sum(name == term.kind or name.startswith(f"{term.kind}-") for name in names)
        names.append(f"{term.kind}-{seen + 1}" if seen else term.kind)
    return names
