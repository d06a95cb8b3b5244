"""Ridge regression in closed form: what one pass over the windows has to find out, and what is solved from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Windows

CHUNK = 512
"""Windows whose products are formed at once: bounds memory, changes nothing else."""

PIECE = 1 << 20
"""Values of a run of windows that are read at once: bounds memory, changes nothing else."""

SHORT = 16
"""Windows in a run, on average, below which products are formed window by window."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let one thread do what is over in milliseconds.

    An eigendecomposition is hundreds of short steps whose threads wait for each other: on two cores that others use as
    well, two threads took 15 s over what one does in .06 s.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Statistics:
    """What a ridge needs to know of its windows: products of inputs, of inputs and targets, and of targets.

    Each holds one entry for all channels, or one per channel along a first axis of its own; here that axis is `...`.

    Args:
        gram: X'X, (..., context, context), float64.
        cross: X'Y, (..., context, horizon), float64.
        power: Sum of squared targets, (...), float64.
        n_rows: Rows of X behind each entry.
    """

    gram: Tensor
    cross: Tensor
    power: Tensor
    n_rows: int

    @classmethod
    def of(cls, windows: Windows, target: Callable[[Batch], Tensor], *, individual: bool = False) -> Statistics:
        """One pass over the windows, which are centred by their own mean.

        Windows overlap: entry (i + 1, j + 1) of their products is entry (i, j) but for the first and the last window of
        a run. So a run of windows costs about as much as a correlation of its series, not windows * context^2.

        Args:
            windows: What to learn from, or to judge by.
            target: What a batch should be mapped to, (batch, horizon, channel). A function that gives a batch's own
                target, that very tensor, is not asked again: no window is gathered then.
            individual: Keep channels apart.
        """
        n_rows = len(windows) * (1 if individual else windows.series.shape[1])
        probe = windows.batch(torch.arange(1))
        start, context = int(windows.starts[0]), windows.context
        as_stored = torch.equal(probe.context[0], windows.series[start : start + context])
        if not as_stored or len(windows) < SHORT * len(list(_runs(windows.starts, len(windows)))):
            gram, cross, power = _by_windows(windows, target, individual)
        elif target(probe) is probe.target:
            gram, cross, power = _centred(_moments(windows, context + windows.horizon, individual), context)
        else:
            _, cross, power = _by_windows(windows, target, individual, gram=False)
            gram, _, _ = _centred(_moments(windows, context, individual), context)
        return cls(gram, cross, power, n_rows)

    @one_thread()
    def solve(self, penalties: tuple[float, ...]) -> list[Tensor]:
        """One weight matrix (..., context, horizon) per relative penalty, from a single eigendecomposition."""
        values, vectors = torch.linalg.eigh(self.gram)
        values, projected = values.clamp(min=0), vectors.mT @ self.cross
        # Never zero: a window set whose channels do not move has an empty Gram matrix and the zero solution.
        unit = values.mean(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        return [vectors @ (projected / (values + penalty * unit)[..., None]) for penalty in penalties]

    @one_thread()
    def mean_squared_error(self, weight: Tensor) -> Tensor:
        """Error (...) of a weight matrix (..., context, horizon) on these windows, without another look at them."""
        total = (weight * (self.gram @ weight - 2 * self.cross)).sum((-2, -1)) + self.power
        return total.clamp(min=0) / (self.n_rows * weight.shape[-1])


def _by_windows(
    windows: Windows, target: Callable[[Batch], Tensor], individual: bool, *, gram: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The products, formed window by window; without `gram`, zeros stand for it."""
    context, horizon = windows.context, windows.horizon
    axes = (windows.series.shape[1],) if individual else ()
    inputs, both = (torch.zeros(*axes, context, n, dtype=torch.float64) for n in (context, horizon))
    power = torch.zeros(axes, dtype=torch.float64)
    for batch in windows.batches(CHUNK):
        x, y = batch.context.transpose(1, 2), target(batch).transpose(1, 2)
        centre = x.mean(dim=-1, keepdim=True)
        x, y = x - centre, y - centre
        x, y = (x.transpose(0, 1), y.transpose(0, 1)) if individual else (x.flatten(0, 1), y.flatten(0, 1))
        if gram:
            inputs += (x.mT @ x).double()
        both += (x.mT @ y).double()
        power += y.double().square().sum((-2, -1))
    return inputs, both, power


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
    moments = torch.zeros(*axes, length, length, dtype=torch.float64)
    moments[..., 0, :] = lags
    for row in range(1, length):
        moments[..., row, row:] = moments[..., row - 1, row - 1 : -1] + ends[..., row - 1, row - 1 :]
    return moments + moments.triu(1).mT


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
