"""Students that compete with each other, and what the one that is deployed may cost, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from tsdistill.losses import AnyLoss
from tsdistill.models import AnyModelConfig, AveragedLinearConfig, LinearConfig, MLPConfig, MultiResolutionConfig
from tsdistill.spec import Spec
from tsdistill.spec.limits import MAX_ITEMS, Count
from tsdistill.training import Training


class StudentCandidate(Spec):
    """A student that competes with `[student.model]`: its architecture, and what it does not share with that one.

    Args:
        model: Its architecture.
        losses: What it imitates; by default what the recipe's student does. One that is solved in closed form takes
            the share of the teacher that validation prefers.
        training: How it is trained; by default as the recipe's student.

    Example:
        >>> StudentCandidate(model={"kind": "linear"}).model.kind
        'linear'
    """

    model: AnyModelConfig
    losses: tuple[AnyLoss, ...] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)
    training: Training | None = None

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.losses is not None and not self.model.learns:
            raise ValueError(f"`losses` must be left out for a {self.model.kind!r} model, which learns nothing.")
        return self


DEFAULT = (
    StudentCandidate(model=LinearConfig()),
    StudentCandidate(model=LinearConfig(individual=True)),
    StudentCandidate(model=AveragedLinearConfig()),
    StudentCandidate(model=MultiResolutionConfig()),
    StudentCandidate(model=MLPConfig(width=64)),
)
"""What competes with the default student where a recipe names neither a model nor candidates."""


class Budget(Spec):
    """What the deployed model may cost at most; a candidate that costs more is not chosen.

    Args:
        max_size_bytes: Every file that it needs to forecast, as `size_bytes` counts them.
        max_parameters: Numbers that were learnt.
        max_multiplications: Products of numbers in one forecast of all channels, `tsdistill.pruning.macs_of`: for a
            matrix of m x n numbers m * n for every row that it takes (token, channel), for a convolution the numbers
            of its kernel for every step that it gives, for attention 2 * width * n_tokens^2 for every channel and
            block; normalising, activating and adding count nothing. Exact for each architecture and size, the same on
            every machine, and the same in INT8.
        max_latency_ms: Median time of one forecast, one window on one thread of this machine. Only where it is given
            does a clock decide what is deployed.

    Example:
        >>> Budget(max_size_bytes=50_000).max_latency_ms is None
        True
    """

    max_size_bytes: Count | None = None
    max_parameters: Count | None = None
    max_multiplications: Count | None = None
    max_latency_ms: float | None = Field(default=None, gt=0)

    @property
    def limits(self) -> dict[str, float]:
        """What is limited, by the name of the cost."""
        limits = {
            "size_bytes": self.max_size_bytes,
            "n_parameters": self.max_parameters,
            "n_multiplications": self.max_multiplications,
            "latency_ms": self.max_latency_ms,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}

    def excess(self, costs: Mapping[str, float]) -> dict[str, float]:
        """By how much costs (`size_bytes`, `n_parameters`, ...) are above their limits; below 0 within.

        A cost that is not known, or has no limit, is left out.
        """
        return {name: costs[name] - limit for name, limit in self.limits.items() if name in costs}

    def excess_in_words(self, costs: Mapping[str, float]) -> str:
        """What a model costs too much, such as "1,200 bytes, 200 over the budget"; empty where it is within."""
        forms = {
            "size_bytes": ("bytes", ",", ""),
            "n_parameters": ("parameters", ",", ""),
            "n_multiplications": ("multiplications", ",", ""),
            "latency_ms": ("ms", ".3g", " ms"),
        }
        words = []
        for name, excess in self.excess(costs).items():
            if excess > 0:
                unit, digits, again = forms[name]
                words.append(f"{costs[name]:{digits}} {unit}, {excess:{digits}}{again} over the budget")
        return "; ".join(words)
