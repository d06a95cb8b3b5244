"""The contract of a loss: frozen data that binds to a student and a teacher and then compares their activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from tsdistill.data.task import Batch
from tsdistill.errors import ConfigError
from tsdistill.models.base import Activations, Forecaster
from tsdistill.spec import Spec


class BoundLoss(nn.Module):
    """A loss ready to be computed; its parameters, if any, are trained and saved with the student.

    `forward(student, teacher, batch)` gives a scalar, a mean over elements, and passes no gradient to the teacher.
    """

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The unweighted value of the term."""
        raise NotImplementedError


class Loss(Spec):
    """Base of the frozen specs that say what a student should imitate.

    A subclass sets `kind`, a literal that names it in files, writes `bind` and `formula`, and sets `reads_insides`
    when it looks at more than forecasts.
    """

    kind: str
    weight: float = Field(default=1.0, gt=0)

    reads_insides: ClassVar[bool] = False

    def bind(self, student: Forecaster) -> BoundLoss:
        """Make the loss ready for a student."""
        raise NotImplementedError

    def target(self, truth: Tensor, teacher: Tensor) -> Tensor | None:
        """The target whose plain MSE has the same optimum as this term alone, where there is one."""
        return None

    @property
    def formula(self) -> str:
        """The term without its weight, as one would write it."""
        raise NotImplementedError

    def __add__(self, other: Loss) -> LossSum:
        return LossSum((self, other))

    def __str__(self) -> str:
        return self.formula if self.weight == 1 else f"{self.weight:g} * {self.formula}"


class LossSum:
    """Several weighted losses, bound and computed as one.

    Example:
        >>> from tsdistill.losses import OutputLoss, TemporalLoss
        >>> print(OutputLoss(alpha=0.5) + TemporalLoss(weight=0.05))
        MSE(student, 0.5 * teacher + 0.5 * truth) + 0.05 * MSE(diff(student), diff(teacher))
    """

    def __init__(self, terms: Sequence[Loss]) -> None:
        if not terms:
            raise ConfigError("`losses` must hold at least one loss, got losses=[]. Add td.OutputLoss().")
        self.terms = tuple(terms)

    def __add__(self, other: Loss) -> LossSum:
        return LossSum((*self.terms, other))

    def __str__(self) -> str:
        return " + ".join(str(term) for term in self.terms)

    def bind(self, student: Forecaster) -> BoundSum:
        """Bind every term to a student."""
        return BoundSum(self.terms, student)


class BoundSum(nn.Module):
    """The weighted sum of bound losses; `breakdown` of the last call says what each weighed in."""

    def __init__(self, terms: Sequence[Loss], student: Forecaster) -> None:
        super().__init__()
        self.weights = [term.weight for term in terms]
        self.names = _names(terms)
        self.bound = nn.ModuleList(term.bind(student) for term in terms)
        self._parts: dict[str, Tensor] = {}

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The weighted sum."""
        values = [
            weight * bound(student, teacher, batch) for weight, bound in zip(self.weights, self.bound, strict=True)
        ]
        self._parts = {name: value.detach() for name, value in zip(self.names, values, strict=True)}
        return torch.stack(values).sum()

    def breakdown(self) -> dict[str, Tensor]:
        """Weighted value of each term in the last call, by name."""
        return self._parts


def _names(terms: Sequence[Loss]) -> list[str]:
    """One name per term: its kind, numbered where a kind occurs twice."""
    names: list[str] = []
    for term in terms:
        seen = sum(name == term.kind or name.startswith(f"{term.kind}-") for name in names)
        names.append(f"{term.kind}-{seen + 1}" if seen else term.kind)
    return names
