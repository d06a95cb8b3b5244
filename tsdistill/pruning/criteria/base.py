"""How much a unit is worth, as data: a criterion scores the units of a width group, and the lowest go first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from tsdistill.errors import UnsupportedError
from tsdistill.models.base import Forecaster
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.pruning.evidence import Evidence
from tsdistill.spec import Family, Member

TINY = torch.finfo(torch.float64).tiny


class Criterion(Member):
    """Base of the frozen specs that say how units are ranked.

    A subclass sets `kind`, a literal that names it in files, and writes `score`. `tsdistill.pruning.register` makes it
    a criterion that recipes can name and searches can draw.
    """

    kind: str
    looks_at_data: ClassVar[bool] = True
    """Whether scores depend on windows of the task, and not on weights alone."""

    of_single_weights: ClassVar[bool] = False
    """Whether it means something for single weights as well, which unstructured pruning ranks by their magnitude."""

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        """One score per unit, (unit,), float64; the lowest go first.

        Args:
            model: Left as it is.
            group: Whose units to score.
            evidence: What training and validation windows show about the model, computed when it is asked for.
        """
        raise NotImplementedError

    @classmethod
    def contract_problems(cls) -> list[str]:
        """A criterion writes `score`."""
        if cls.score is not Criterion.score:
            return []
        return [f"`{cls.__name__}` must write score(model, group, evidence). See `tsdistill.pruning.Criterion`."]


CRITERIA = Family("criterion", Criterion, bare=True)
"""Every criterion; `tsdistill.pruning.criteria` adds the package's own."""

AnyCriterion = Annotated[Criterion, CRITERIA]
"""The type of a field that holds any criterion; `kind` says which."""


def over_slices(values: Mapping[str, Tensor], group: WidthGroup) -> Tensor:
    """Sums of each slice's entries by unit, divided by their mean over units, summed over slices."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for slice_ in group.slices:
        sums = slice_.sums(values, group.size)
        total += sums / sums.mean().clamp(min=TINY)
    return total


def passing_through(group: WidthGroup, evidence: Evidence) -> list[tuple[Slice, Tensor]]:
    """What passes through a group wherever linear layers read it."""
    passing = list(evidence.passing(group))
    if not passing:
        raise UnsupportedError(
            f"`criterion` must be one that can rank {group.name!r}, which no linear layer reads unit by unit. Use "
            '"magnitude", "taylor" or "loss", or leave the group out.'
        )
    return passing
