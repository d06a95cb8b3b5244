"""Partial pooling: a ridge of every channel that is drawn to the map of all channels instead of to zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tsdistill.models.ridge import EQUAL, Statistics, choose

STRENGTHS = (1e6, 1e3, 1e2, 3e1, 1e1, 3.0, 1.0, 3e-1, 1e-1, 3e-2, 1e-2, 1e-3, 1e-4)
"""Relative strengths to choose from: from the map of all channels to that of each."""


@dataclass(frozen=True)
class Pooled:
    """A map for every channel, and what was chosen on validation.

    Args:
        weights: (channel, context, horizon), float64.
        penalty: Of the map of all channels.
        alpha: The teacher's share in it.
        strength: Of the pull toward that map, one for all channels.
        own_alpha: The teacher's share in what channels add to it.
        errors: Mean squared error for every share and strength, means over channels, (alpha, strength).
    """

    weights: Tensor
    penalty: float
    alpha: float
    strength: float
    own_alpha: float
    errors: Tensor


def pooled(statistics: Statistics) -> Statistics:
    """Statistics of all channels together, from those of each."""
    sums = {name: tensor.sum(0) for name, tensor in statistics.tensors().items()}
    return Statistics(**sums, n_rows=statistics.n_rows * len(statistics.gram))


def left_by(statistics: Statistics, weight: Tensor) -> Statistics:
    """Statistics of the same windows with what a map (context, horizon) leaves of their targets in place of these."""
    mapped = statistics.gram @ weight
    power = statistics.power - (weight * (2 * statistics.cross - mapped)).sum((-2, -1))
    taught = None if statistics.taught is None else statistics.taught - mapped
    return replace(statistics, cross=statistics.cross - mapped, power=power, taught=taught)


def choose_pooled(
    learnt: Statistics,
    judged: Statistics,
    penalties: Sequence[float],
    alphas: Sequence[float],
    strengths: Sequence[float] = STRENGTHS,
    own_alphas: Sequence[float] | None = None,
) -> Pooled:
    """The maps that are best on the windows to judge by.

    W_c = argmin |Y - X W|^2 + s * trace(X'X) / context * |W - W_all|^2: a ridge of what W_all leaves of the targets.
    One strength is chosen for all channels, as short panels have too little to judge each of them by; of equally good
    ones the greatest.

    Args:
        learnt: What to learn from, of every channel.
        judged: What to judge by, of every channel.
        penalties: Of the map of all channels, to choose from.
        alphas: Shares of the teacher to choose from.
        strengths: Of the pull toward that map, to choose from, the greatest first.
        own_alphas: Shares of the teacher in what channels add; by default `alphas`.
    """
    own_alphas = alphas if own_alphas is None else own_alphas
    whole = choose(pooled(learnt), pooled(judged), penalties, alphas)
    pairs = [
        (left_by(own, whole.weight), left_by(later, whole.weight))
        for own, later in zip(learnt.channels(), judged.channels(), strict=True)
    ]
    errors = torch.stack([choose(*pair, strengths, own_alphas).errors for pair in pairs]).mean(0)
    best = int(torch.nonzero(errors.flatten() <= errors.min() * (1 + EQUAL))[0])
    alpha, strength = (
        values[place] for values, place in zip((own_alphas, strengths), divmod(best, len(strengths)), strict=True)
    )
    added = [choose(*pair, [strength], [alpha]).weight for pair in pairs]
    return Pooled(whole.weight + torch.stack(added), whole.penalty, whole.alpha, float(strength), float(alpha), errors)
