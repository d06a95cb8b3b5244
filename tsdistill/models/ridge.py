"""Ridge regression in closed form: what one pass over the windows has to find out, and what is solved from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Windows
from tsdistill.errors import DivergenceError, ShapeError

ROWS = 1 << 13
"""Windows times channels whose products are formed at once: bounds memory, changes nothing else."""

PIECE = 1 << 20
"""Values of a run of windows that are read at once: bounds memory, changes nothing else."""

SHORT = 16
"""Windows in a run, on average, below which products are formed window by window."""

LEAST = 1e-100
"""Least size of a Gram matrix: its inverse can be squared, and is far beyond that of any data."""

EQUAL = 1e-9
"""Relative difference of validation errors up to which candidates are equally good."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let one thread do what consists of many short steps, whose threads would wait for each other.

    On two cores that others use as well, two threads took 15 s over an eigendecomposition that one does in .06 s, and
    4.6 s over products of windows that one forms in .5 s. Statistics add up, so that many cores are put to use by
    as many processes, each with a part of a panel.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Statistics:
    """What a ridge needs of its windows: sums, so that those of two sets of windows add up to those of both.

    Each holds one entry for all channels, or one per channel along a first axis of its own; here that axis is `...`.
    `sum(parts)` adds many.

    Args:
        gram: X'X, (..., context, context), float64.
        cross: X'Y, (..., context, horizon), float64.
        power: Sum of squared targets, (...), float64.
        n_rows: Rows of X behind each entry.
        taught: X'T, T what a teacher forecasts, shaped like `cross`; None without a teacher. The targets of
            distillation, (1 - alpha) * Y + alpha * T, are linear in alpha: this serves them all.
    """

    gram: Tensor
    cross: Tensor
    power: Tensor
    n_rows: int
    taught: Tensor | None = None

    @classmethod
    def of(
        cls, windows: Windows, teacher: Callable[[Batch], Tensor] | None = None, *, individual: bool = False
    ) -> Statistics:
        """One pass over the windows, which are centred by their own mean.

        Windows overlap: entry (i + 1, j + 1) of their products is entry (i, j) but for the first and the last window of
        a run. So a run of windows costs about as much as a correlation of its series, not windows * context^2, and only
        for the forecasts of a teacher are windows gathered.

        Args:
            windows: What to learn from, or to judge by.
            teacher: What a teacher forecasts for a batch, (batch, horizon, channel).
            individual: Keep channels apart.

        Raises:
            ShapeError: the teacher forecasts another shape.
            DivergenceError: the teacher forecasts something infinite or NaN.
        """
        n_rows = len(windows) * (1 if individual else windows.series.shape[1])
        probe = windows.batch(torch.arange(1))
        start = int(windows.starts[0])
        as_stored = type(windows).batch is Windows.batch and torch.equal(
            probe.context[0], windows.series[start : start + windows.context]
        )
        if as_stored and len(windows) >= SHORT * len(list(_runs(windows.starts, len(windows)))):
            moments = _moments(windows, windows.context + windows.horizon, individual)
            gram, cross, power = _centred(moments, windows.context)
        else:
            gram, cross, power = _by_windows(windows, lambda batch: batch.target, individual)
        taught = None if teacher is None else _by_windows(windows, teacher, individual, cross_only=True)[1]
        if taught is not None and not bool(taught.isfinite().all()):
            raise DivergenceError(
                "`teacher` must forecast finite numbers, got infinite or NaN ones for some training windows. Look at "
                "its forecasts of the training part."
            )
        return cls(gram, cross, power, n_rows, taught)

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of the windows of both."""
        if not isinstance(other, Statistics):
            return NotImplemented
        own, added = self.tensors(), other.tensors()
        shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (own, added)]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"Statistics must have the same entries to be added, got {shapes[0]} and {shapes[1]}. Form both with "
                "the same context, horizon and channels, both with a teacher or both without."
            )
        return Statistics(**{name: own[name] + added[name] for name in own}, n_rows=self.n_rows + other.n_rows)

    def __radd__(self, other: int) -> Statistics:
        """Nothing at all is 0, where a sum begins."""
        return self if other == 0 else NotImplemented

    def tensors(self) -> dict[str, Tensor]:
        """What it holds, by name."""
        named = {"gram": self.gram, "cross": self.cross, "power": self.power, "taught": self.taught}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def channels(self) -> Iterator[Statistics]:
        """The statistics of each channel where they are kept apart, else those of all."""
        if self.gram.ndim == 2:
            yield self
            return
        for number in range(len(self.gram)):
            tensors = {name: tensor[number] for name, tensor in self.tensors().items()}
            yield Statistics(**tensors, n_rows=self.n_rows)


@dataclass(frozen=True)
class NormalEquations:
    """Statistics of training and validation windows, formed when they are first needed and then kept.

    Args:
        train: What to learn from.
        validation: What to judge by, always with the truth.
        teacher: Forecasts of a teacher for a batch of training windows, (batch, horizon, channel), or None.
        alphas: Shares of the teacher to choose from.
        kept: What was formed, by whether channels are apart.
        choices: What an architecture chose by these windows, by a name of its own: a student's are its control's too.
    """

    train: Windows
    validation: Windows
    teacher: Callable[[Batch], Tensor] | None = None
    alphas: tuple[float, ...] = (0.0,)
    kept: dict[bool, tuple[Statistics, Statistics]] = field(default_factory=dict, repr=False)
    choices: dict[str, Any] = field(default_factory=dict, repr=False)

    def statistics(self, *, individual: bool) -> tuple[Statistics, Statistics]:
        """Those to learn from and those to judge by."""
        if individual not in self.kept:
            self.kept[individual] = (
                Statistics.of(self.train, self.teacher, individual=individual),
                Statistics.of(self.validation, individual=individual),
            )
        return self.kept[individual]

    def untaught(self) -> NormalEquations:
        """The same without a teacher, from the same pass over the windows."""
        return replace(self, alphas=(0.0,))


@dataclass(frozen=True)
class Choice:
    """The best of all candidates.

    Args:
        weight: (context, horizon), float64.
        alpha: The teacher's share.
        penalty: Relative to the mean diagonal of X'X.
        errors: Mean squared error of every candidate on the windows to judge by, (alpha, penalty).
    """

    weight: Tensor
    alpha: float
    penalty: float
    errors: Tensor


@one_thread()
def choose(learnt: Statistics, judged: Statistics, penalties: Sequence[float], alphas: Sequence[float]) -> Choice:
    """Solve for every share of the teacher and every penalty, and keep what forecasts the windows to judge by best.

    W(a, p) = V diag(1 / (lambda + p * mean(lambda))) V' ((1 - a) X'Y + a X'T), X'X = V diag(lambda) V'

    In the basis V the error of W is a quadratic form in what the penalty leaves of each direction, and in (1 - a, a).
    So one eigendecomposition and one product per pair of targets serve all candidates, and only the best is formed.
    Of candidates that are equally good (a teacher that equals the truth) the one with less of the teacher is taken.
    """
    targets = [learnt.cross] if learnt.taught is None or not any(alphas) else [learnt.cross, learnt.taught]
    values, vectors = torch.linalg.eigh(learnt.gram)
    values = values.clamp(min=0)
    # Never zero: a window set whose channels do not move has an empty Gram matrix and the zero solution.
    unit = values.mean().clamp(min=LEAST)
    left = 1 / (values + torch.tensor(penalties, dtype=values.dtype)[:, None] * unit)  # (penalty, context)
    shares = torch.tensor([[1 - alpha, alpha][: len(targets)] for alpha in alphas], dtype=values.dtype)
    sides = vectors.mT @ torch.stack(targets)  # (side, context, horizon)
    seen, wanted = vectors.mT @ judged.gram @ vectors, vectors.mT @ judged.cross
    pairs = seen * (sides[:, None] @ sides.mT)  # (side, side, context, context)
    square = torch.einsum("as,at,stp->ap", shares, shares, ((left @ pairs) * left).sum(-1))
    product = shares @ (sides * wanted).sum(-1) @ left.mT
    errors = (square - 2 * product + judged.power).clamp(min=0) / (judged.n_rows * learnt.cross.shape[-1])
    best = int(torch.nonzero(errors.flatten() <= errors.min() * (1 + EQUAL))[0])
    alpha, penalty = divmod(best, len(penalties))
    weight = vectors @ (left[penalty][:, None] * torch.einsum("s,sih->ih", shares[alpha], sides))
    return Choice(weight, float(alphas[alpha]), float(penalties[penalty]), errors)


def _by_windows(
    windows: Windows, target: Callable[[Batch], Tensor], individual: bool, *, cross_only: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Gram, cross and power, formed window by window; with `cross_only`, zeros stand for the other two."""
    n_channels, context, horizon = windows.series.shape[1], windows.context, windows.horizon
    axes = (n_channels,) if individual else ()
    gram, cross = (torch.zeros(*axes, context, n, dtype=torch.float64) for n in (context, horizon))
    power = torch.zeros(axes, dtype=torch.float64)
    for batch in windows.batches(max(1, ROWS // n_channels)):
        forecast = target(batch)  # a teacher may use all threads
        if forecast.shape != batch.target.shape:
            raise ShapeError(
                f"`teacher` must forecast {tuple(batch.target.shape)} (batch, horizon, channel), got "
                f"{tuple(forecast.shape)}. Check its horizon and the order of its axes."
            )
        with one_thread():
            x, y = batch.context.transpose(1, 2).double(), forecast.transpose(1, 2).double()
            centre = x.mean(dim=-1, keepdim=True)
            x, y = x - centre, y - centre
            x, y = (x.transpose(0, 1), y.transpose(0, 1)) if individual else (x.flatten(0, 1), y.flatten(0, 1))
            cross += x.mT @ y
            if not cross_only:
                gram += x.mT @ x
                power += y.square().sum((-2, -1))
    return gram, cross, power


def _runs(starts: Tensor, longest: int) -> Iterator[tuple[int, int]]:
    """First start and number of every run of windows that follow each other step by step, at most `longest` each."""
    breaks = torch.nonzero(starts.diff() != 1).flatten() + 1
    edges = [0, *breaks.tolist(), len(starts)]
    for begin, end in itertools.pairwise(edges):
        for first in range(begin, end, longest):
            yield int(starts[first]), min(longest, end - first)


@one_thread()
def _moments(windows: Windows, length: int, individual: bool) -> Tensor:
    """Sum over windows of z z', (..., length, length), z the first `length` steps less a constant per run.

    The first row is a correlation of the series with itself; each further one follows from the row before by taking
    away what the first window had and adding what the last one has.
    """
    n_channels = windows.series.shape[1]
    axes = (n_channels,) if individual else ()
    lags = torch.zeros(*axes, length, dtype=torch.float64)
    ends = torch.zeros(*axes, length - 1, length - 1, dtype=torch.float64)
    for start, n_windows in _runs(windows.starts, max(PIECE // n_channels, length)):
        s = windows.series[start : start + n_windows + length - 1].T.double()
        s = s - s.mean(dim=-1, keepdim=True)
        size = 1 << s.shape[1].bit_length()
        spectrum = torch.fft.rfft(s[:, :n_windows], size).conj() * torch.fft.rfft(s, size)
        first, last = s[:, : length - 1], s[:, n_windows:]
        if individual:
            lags += torch.fft.irfft(spectrum, size)[:, :length]
            ends += last[:, :, None] * last[:, None, :] - first[:, :, None] * first[:, None, :]
        else:
            lags += torch.fft.irfft(spectrum.sum(0), size)[:length]
            ends += last.T @ last - first.T @ first
    # Diagonals become columns, along which the recursion is a sum from above.
    changes = _skewed(torch.nn.functional.pad(ends, (0, length + 1)), length)
    columns = torch.cat([lags[..., None, :], changes], dim=-2).cumsum(-2)
    moments = torch.zeros(*axes, length, 2 * length, dtype=torch.float64)
    _skewed(moments, length).copy_(columns)
    upper = moments[..., :length]
    return upper + upper.triu(1).mT


def _skewed(rows: Tensor, length: int) -> Tensor:
    """A view of rows (..., row, 2 * length) in which entry (i, d) is (i, i + d), for d below `length`."""
    strides = (*rows.stride()[:-2], rows.stride(-2) + 1, 1)
    return rows.as_strided((*rows.shape[:-1], length), strides)


@one_thread()
def _centred(moments: Tensor, context: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gram, cross and power of windows less their context's mean, from the moments of windows as they are.

    Taking the mean away is a linear map, so that it can be done to the sums instead of to every window.
    """
    gram, cross, after = (
        moments[..., :context, :context],
        moments[..., :context, context:],
        moments[..., context:, context:],
    )
    with_mean = gram.mean(-1, keepdim=True)  # sum over windows of x * mean(x)
    of_means = with_mean.mean(-2, keepdim=True)
    power = after.diagonal(dim1=-2, dim2=-1).sum(-1) - 2 * cross.mean(-2).sum(-1)
    power = power + cross.shape[-1] * of_means[..., 0, 0]
    cross = cross - with_mean
    return gram - with_mean - with_mean.mT + of_means, cross - cross.mean(-2, keepdim=True), power
