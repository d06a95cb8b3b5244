"""Which units stay: a spec's ratio, ranking and criterion applied to the groups of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from tsdistill.errors import UnsupportedError, listed, nearest
from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning.criteria import TINY
from tsdistill.pruning.evidence import Evidence
from tsdistill.pruning.spec import Pruning

DEFAULT = ("units", "heads")
"""Kinds of groups that are cut unless a spec names others."""


def groups_of(model: Forecaster, pruning: Pruning) -> list[WidthGroup]:
    """The groups that a spec names.

    Raises:
        UnsupportedError: the model has none of them, or none of some name.
    """
    groups = model.width_groups()
    kind = model.config.kind
    if not groups or (pruning.groups is None and not any(group.kind in DEFAULT for group in groups)):
        others = sorted({group.kind for group in groups})
        more = f", name its {' and '.join(others)} in `groups`," if others else ","
        raise UnsupportedError(
            f"A {kind!r} model has no units, heads or widths to prune. Leave this step out{more} or distil into a "
            "smaller architecture."
        )
    problems = []
    for name in pruning.groups or ():
        if not any(_fits(name, group) for group in groups):
            known = sorted({group.kind for group in groups} | {group.name for group in groups})
            problems.append(f"`groups` must name what a {kind!r} model has, got {name!r}. {nearest(name, known)}")
    if problems:
        raise UnsupportedError(listed(problems, "groups"))
    return [group for group in groups if any(_fits(name, group) for name in pruning.groups or DEFAULT)]


def _fits(name: str, group: WidthGroup) -> bool:
    return name == group.kind or fnmatchcase(group.name, name)


@dataclass
class UnitRanking:
    """Scores of a model's groups, computed once and then asked for any ratio.

    Args:
        model: Left as it is.
        groups: Those that are cut.
        pruning: How they are ranked.
        evidence: What data show about the model.
    """

    model: Forecaster
    groups: list[WidthGroup]
    pruning: Pruning
    evidence: Evidence

    def __post_init__(self) -> None:
        self._scores: dict[str, Tensor] = {}

    def scores(self, group: WidthGroup) -> Tensor:
        """A score per unit; of a context it only grows, since older units go first."""
        if group.name not in self._scores:
            if not group.slices:
                raise UnsupportedError(
                    f'`ranking` must be "local" for {group.name!r}, whose units have no weights of their own. Leave '
                    "the group out, or rank locally."
                )
            scores = self.pruning.criterion.score(self.model, group, self.evidence)
            self._scores[group.name] = torch.cummax(scores, 0).values if group.ordered else scores
        return self._scores[group.name]

    def counts(self, ratio: float, sizes: Mapping[str, int]) -> dict[str, int]:
        """Units that stay of every group, when `ratio` of the `sizes` that they once had is gone."""
        if self.pruning.ranks_locally:
            return {group.name: max(group.minimum, _left(sizes[group.name], ratio)) for group in self.groups}
        whole = sum(sizes[group.name] for group in self.groups)
        n_gone = sum(group.size for group in self.groups) - _left(whole, ratio)
        # What must stay in any case is not in the running.
        running = []
        for place, group in enumerate(self.groups):
            scores = self.scores(group) / self.scores(group).abs().mean().clamp(min=TINY)
            free = torch.sort(scores[_free(group)]).values[: group.size - group.minimum]
            running += [(float(score), place) for score in free]
        counts = {group.name: group.size for group in self.groups}
        for _, place in sorted(running)[: max(n_gone, 0)]:
            counts[self.groups[place].name] -= 1
        return counts

    def kept(self, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """The units that stay, ascending: those of the highest scores, of a context the last ones."""
        kept = {}
        for group in self.groups:
            n_kept = min(counts.get(group.name, group.size), group.size)
            if group.ordered or n_kept == group.size:
                kept[group.name] = torch.arange(group.size - n_kept, group.size)
            else:
                scores = self.scores(group).clone()
                scores[list(group.pinned)] = torch.inf
                kept[group.name] = torch.sort(scores.topk(n_kept).indices).values
        return kept


def _free(group: WidthGroup) -> list[int]:
    return [unit for unit in range(group.size) if unit not in group.pinned]


def notes_of(groups: list[WidthGroup], counts: Mapping[str, int], ratio: float) -> list[str]:
    """Which groups keep their minimum where the ratio asked for less."""
    return [
        f"{group.name} keeps its minimum of {group.minimum} of {group.size}, where a ratio of {ratio:.3g} leaves "
        f"{_left(group.size, ratio)}"
        for group in groups
        if counts[group.name] == group.minimum and _left(group.size, ratio) < group.minimum
    ]


def _left(size: int, ratio: float) -> int:
    return size - round(size * ratio)
