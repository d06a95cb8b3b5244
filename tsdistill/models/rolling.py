"""Rolling origins for ridge regressions: sums per block of time, from which any choice is judged without a refit."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tsdistill.data.task import Windows
from tsdistill.models.ridge import LEAST, NormalEquations, Statistics, one_thread

Centre = Literal["window"] | int
"""What is subtracted from a window: the mean of the whole window, or of its last steps."""

CHEAP = 128
"""Steps of a context up to which every penalty is tried: a solution takes the cube of them."""


@dataclass(frozen=True)
class Block:
    """A block of time: what it teaches, and what it is judged by when earlier blocks have taught.

    Args:
        whole: Statistics of every window.
        later: Statistics of the windows whose targets share no row with those of an earlier block; None without any.
    """

    whole: Statistics
    later: Statistics | None


def blocks(windows: Windows, n_blocks: int) -> list[Block]:
    """Statistics of windows, all channels together, in blocks of time; every run of windows is cut into as many.

    Runs are those of windows that follow each other step by step, such as those of one item. A block that no run
    reaches is left out.
    """
    seams: list[list[Tensor]] = [[] for _ in range(n_blocks)]
    bodies: list[list[Tensor]] = [[] for _ in range(n_blocks)]
    for first, end in _runs(windows.starts):
        edges = torch.linspace(first, end, n_blocks + 1).round().long().tolist()
        for number, (begin, stop) in enumerate(itertools.pairwise(edges)):
            middle = begin if begin == first else min(begin + windows.horizon - 1, stop)
            seams[number].append(torch.arange(begin, middle))
            bodies[number].append(torch.arange(middle, stop))
    result = []
    for seam, body in zip(seams, bodies, strict=True):
        later = _sums(windows, torch.cat(body))
        present = [sums for sums in (_sums(windows, torch.cat(seam)), later) if sums is not None]
        if present:
            result.append(Block(functools.reduce(operator.add, present), later))
    return result


def rolling_parts(
    equations: NormalEquations, channel: int | None, n_blocks: int
) -> tuple[list[Block], Statistics, Statistics]:
    """What a closed form chooses by: all blocks, the validation part last; sums of all training windows; of validation.

    Of one channel, or of all together where `channel` is None.
    """
    parts = (equations.train, equations.validation)
    if channel is not None:
        parts = (channel_of(parts[0], channel), channel_of(parts[1], channel))
    learnt = blocks(parts[0], n_blocks)
    # Targets of the validation part share no row with those of training windows.
    judged = Statistics.of(parts[1])
    whole = functools.reduce(operator.add, (block.whole for block in learnt))
    return [*learnt, Block(judged, judged)], whole, judged


def channel_of(windows: Windows, channel: int) -> Windows:
    """The same windows of one channel, as views of the same series, without covariates."""
    return Windows(windows.series[:, channel : channel + 1], windows.starts, windows.context, windows.horizon)


@dataclass(frozen=True)
class Centred:
    """Statistics of the last steps of windows less their centre c'x, and of targets less the same.

    `weights` are c, over all steps of x.
    """

    gram: Tensor
    cross: Tensor
    power: Tensor
    weights: Tensor

    @classmethod
    def of(cls, statistics: Statistics, context: int, centre: Centre, target: Tensor) -> Centred:
        """The sums of `statistics`, with `target` as the sums of steps and targets (the truth's or a teacher's)."""
        n_steps = context if centre == "window" else min(centre, context)
        weights = torch.zeros(statistics.gram.shape[-1], dtype=torch.float64)
        weights[-n_steps:] = 1 / n_steps
        # Sums over windows of c'x with x, y and itself: the centre is taken away from the sums, not from windows.
        with_x, with_y = statistics.gram @ weights, weights @ target
        with_itself = weights @ with_x
        own = with_x[-context:]
        gram = (statistics.gram[-context:, -context:] - own).sub_(own[:, None]).add_(with_itself)
        cross = (target[-context:] - with_y).sub_(own[:, None]).add_(with_itself)
        power = statistics.power - 2 * with_y.sum() + target.shape[-1] * with_itself
        return cls(gram, cross, power, weights)

    def solved(self, penalty: float) -> Tensor:
        """W = argmin |y - W'z|^2 + p * trace(Z'Z) / context * |W|^2, (context, horizon)."""
        least = max(LEAST, torch.finfo(self.gram.dtype).tiny ** 0.75)
        ridge = penalty * self.gram.diagonal().mean().clamp(min=least)
        regular = self.gram.clone()
        regular.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(regular)
        if not failed:
            return torch.cholesky_solve(self.cross, factor)
        # Rounding has left a direction without length a negative one: a channel that hardly moves.
        values, vectors = torch.linalg.eigh(self.gram)
        return vectors @ ((vectors.mT @ self.cross) / (values.clamp(min=0) + ridge)[:, None])

    def combined(self, features: Tensor) -> Centred:
        """The same of weighted means of the steps, (feature, context), the weights of each adding up to 1.

        The centre of such means is that of the steps, so that means of centred steps are centred means.
        """
        return replace(self, gram=features @ self.gram @ features.T, cross=features @ self.cross)

    def squared_error(self, weight: Tensor) -> float:
        """Sum of squared errors of W over these windows."""
        return float((weight * (self.gram @ weight - 2 * self.cross)).sum() + self.power)

    def single(self) -> Centred:
        """The same in float32."""
        return Centred(self.gram.float(), self.cross.float(), self.power.float(), self.weights.float())


@one_thread()
def solve(statistics: Statistics, context: int, centre: Centre, penalty: float, *, taught: bool = False) -> Tensor:
    """A ridge of some context and centre, as a map of whole windows centred by their own mean, (longest, horizon).

    With z the last `context` steps of a window x and c the weights of the centre: forecast = W' (z - c'x) + c'x. It is
    written as one map of x, so that maps of several contexts and centres can be averaged.

    Args:
        statistics: What to learn from, of windows at least as long.
        context: Steps that it looks at.
        centre: What they are centred by.
        penalty: Relative to the mean diagonal of Z'Z.
        taught: Learn from the forecasts of a teacher in place of the truth.
    """
    target = statistics.taught if taught else statistics.cross
    assert target is not None
    sums = Centred.of(statistics, context, centre, target)
    inner = sums.solved(penalty)
    outer = sums.weights[:, None] * (1 - inner.sum(0))
    outer[-context:] += inner
    return outer


@one_thread()
def squared_error(weight: Tensor, judged: Statistics) -> float:
    """Sum of squared errors of a map (longest, horizon) over the windows behind some statistics."""
    return float((weight * (judged.gram @ weight - 2 * judged.cross)).sum() + judged.power)


@one_thread()
def rolling_errors(
    parts: Sequence[Block],
    context: int,
    centre: Centre,
    penalties: Sequence[float],
    features: Tensor | None = None,
) -> tuple[list[float], int]:
    """Squared error for each penalty over rolling origins, summed, and the number of values behind it.

    Every block but the first is forecast by a ridge of the blocks before it. Penalties are compared in float32, which
    is twice as fast; the one that is chosen is solved for in float64. With `features` the ridge sees those means of
    steps in place of the steps.
    """
    origins, n_values = _origins(parts, context, centre, features)
    return [_error(origins, penalty) for penalty in penalties], n_values


@one_thread()
def best_penalty(
    parts: Sequence[Block], context: int, centre: Centre, penalties: Sequence[float], start: float | None = None
) -> tuple[float, float]:
    """The penalty that rolling origins prefer, and its mean squared error; most of the others need not be tried.

    Errors fall and rise again along growing penalties: from `start`, such as the choice of a ridge with a similar
    context, one walks to the better neighbour until there is none. Of several valleys that of `start` is taken; they
    were met in short series only, whose short contexts are cheap enough to try every penalty.
    """
    origins, n_values = _origins(parts, context, centre)
    tried: dict[int, float] = {}

    def error(number: int) -> float:
        if number not in tried:
            tried[number] = _error(origins, grid[number]) if 0 <= number < len(grid) else float("inf")
        return tried[number]

    grid = sorted(penalties)
    if context <= CHEAP:
        best = min(range(len(grid)), key=error)
        return grid[best], error(best) / n_values
    best = grid.index(start) if start in grid else len(grid) // 2
    while error(better := min((best - 1, best + 1), key=error)) < error(best):
        best = better
    return grid[best], error(best) / n_values


def _origins(
    parts: Sequence[Block], context: int, centre: Centre, features: Tensor | None = None
) -> tuple[list[tuple[Centred, Centred]], int]:
    """For every origin what was learnt before it and what it is judged by, and the number of values behind all."""
    origins = []
    n_values = 0
    before = parts[0].whole
    for part in parts[1:]:
        if part.later is not None:
            n_values += part.later.n_rows * part.later.cross.shape[-1]
            learnt = Centred.of(before, context, centre, before.cross)
            judged = Centred.of(part.later, context, centre, part.later.cross)
            if features is not None:
                learnt, judged = learnt.combined(features), judged.combined(features)
            origins.append((learnt.single(), judged.single()))
        before = before + part.whole
    return origins, n_values


def _error(origins: Sequence[tuple[Centred, Centred]], penalty: float) -> float:
    return sum(judged.squared_error(learnt.solved(penalty)) for learnt, judged in origins)


def _sums(windows: Windows, index: Tensor) -> Statistics | None:
    return Statistics.of(windows.subset(index)) if len(index) else None


def _runs(starts: Tensor) -> list[tuple[int, int]]:
    """First position and end of every run of windows that follow each other step by step."""
    breaks = (torch.nonzero(starts.diff() != 1).flatten() + 1).tolist()
    edges = [0, *breaks, len(starts)]
    return list(itertools.pairwise(edges))
