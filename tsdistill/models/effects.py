"""Effects of what is known ahead: taken off a series before a ridge sees it, and put on its forecasts again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsdistill import clock
from tsdistill.data.task import Batch, Signature, Windows
from tsdistill.models.ridge import LEAST, NormalEquations, Statistics, choose, one_thread

HARMONICS = {"time-of-day": 12, "time-of-week": 21, "time-of-year": 3}
"""Most sines and cosines of a cycle: hours of a day each by itself, hours of a week nearly so, and seasons."""

PENALTIES = (None, 1e-1, 1e-2, 1e-3, 1e-5)
"""Relative penalties of effects to choose from; None for no effects at all."""

MOST = 1 << 12
"""Windows that effects are estimated from: overlapping windows say nearly the same."""

AT_ONCE = 32
"""Windows whose features are formed at once: bounds memory, changes nothing else."""

ROWS = 1 << 14
"""Rows of a series that effects are taken off at once: bounds memory, changes nothing else."""

Penalty = float | None


class Effects(nn.Module):
    """What every channel owes to the features known ahead, the same at every step: zero until it is estimated.

    A calendar cycle comes as sine and cosine of its angle; its harmonics are made of these, so that hours and weekdays
    are not on one line. Planned columns and holidays are taken as they are. Where every item has a scale of its own and
    is served in that of a window, effects are in deviations of the window.
    """

    multiples: Tensor

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        calendar = () if signature.covariates is None else signature.covariates.calendar
        # A cycle of so many steps has half as many harmonics that can be told apart.
        lengths = [clock.steps(entry, signature.frequency) for entry in calendar]
        self.n_harmonics = [
            HARMONICS[entry] if length is None else min(HARMONICS[entry], max(1, length // 2))
            for entry, length in zip(calendar, lengths, strict=True)
        ]
        n_features = 2 * sum(self.n_harmonics) + len(signature.future) - 2 * len(calendar)
        self.by_window = signature.normalisation == "window"
        self.weight = nn.Parameter(torch.zeros(len(signature.channels), n_features))
        multiples = torch.arange(1, max(self.n_harmonics, default=0) + 1, dtype=torch.float32)
        self.register_buffer("multiples", multiples, persistent=False)

    def features(self, future: Tensor) -> Tensor:
        """(..., feature) of a signature -> (..., harmonic or other feature)."""
        parts = []
        for number, n_harmonics in enumerate(self.n_harmonics):
            sine, cosine = future[..., 2 * number : 2 * number + 1], future[..., 2 * number + 1 : 2 * number + 2]
            angles = torch.atan2(sine, cosine) * self.multiples[:n_harmonics]
            parts += [angles.sin(), angles.cos()]
        return torch.cat([*parts, future[..., 2 * len(self.n_harmonics) :]], dim=-1)

    def forward(self, future: Tensor, context: Tensor) -> Tensor:
        """Features (batch, time, feature) and contexts (batch, context, channel) -> effects (batch, time, channel)."""
        effects = functional.linear(self.features(future), self.weight)
        return effects * _deviation(context) if self.by_window else effects

    @one_thread()
    def moments(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """What effects are estimated from: Z'Z (1 or channel, feature, feature) and Z'Y (channel, feature).

        Z are features, and Y targets, less their means over the window, at the steps ahead of evenly spaced windows.
        """
        n_channels, n_features = self.weight.shape
        n_sides = n_channels if self.by_window else 1
        gram = torch.zeros(n_sides, n_features, n_features, dtype=torch.float64)
        cross = torch.zeros(n_channels, n_features, dtype=torch.float64)
        for batch in windows.subset(torch.arange(0, len(windows), -(-len(windows) // MOST))).batches(AT_ONCE):
            assert batch.future is not None
            z = self.features(batch.future)
            z = (z[:, windows.context :] - z[:, : windows.context].mean(1, keepdim=True)).flatten(0, 1).double()
            y = (batch.target - batch.context.mean(1, keepdim=True)).double()
            unit = _deviation(batch.context).double() if self.by_window else torch.ones(1, 1, 1, dtype=torch.float64)
            cross += (y * unit).flatten(0, 1).T @ z
            squares = unit.square().expand(-1, y.shape[1], -1).flatten(0, 1)
            for side in range(n_sides):
                gram[side] += z.T @ (z * squares[:, side, None] if self.by_window else z)
        return gram, cross

    def estimate(self, moments: tuple[Tensor, Tensor], penalties: Sequence[Penalty]) -> None:
        """Set the effects: a ridge of Y on Z.

        Args:
            moments: Z'Z and Z'Y.
            penalties: Relative to the mean diagonal of Z'Z, of every channel or one for all; None for no effects.
        """
        gram, cross = moments
        unit = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=LEAST)[:, None, None]
        solutions: dict[Penalty, Tensor] = {None: torch.zeros_like(cross)}
        for penalty in penalties:
            if penalty is not None and penalty not in solutions:
                ridge = penalty * unit * torch.eye(gram.shape[-1], dtype=gram.dtype)
                solutions[penalty] = torch.cholesky_solve(cross[..., None], torch.linalg.cholesky(gram + ridge))[..., 0]
        own = [*penalties] * (1 if len(penalties) > 1 else len(cross))
        with torch.no_grad():
            self.weight.copy_(torch.stack([solutions[penalty][channel] for channel, penalty in enumerate(own)]))

    def taken_off(self, windows: Windows) -> Windows:
        """The same windows of a series without these effects, and without covariates."""
        if not self.weight.any():
            return windows.without_covariates()
        assert windows.future is not None
        effects = torch.empty_like(windows.series)
        with torch.no_grad():
            for first in range(0, len(effects), ROWS):
                rows = slice(first, first + ROWS)
                effects[rows] = functional.linear(self.features(windows.future[rows]), self.weight)
        if self.by_window:
            return _Without(windows, windows.with_series(effects))
        return windows.with_series(windows.series - effects)

    def statistics(
        self, windows: Windows, teacher: Callable[[Batch], Tensor] | None = None, *, individual: bool
    ) -> Statistics:
        """Those of windows without these effects, which are taken off what a teacher forecasts as well."""
        bare = self.taken_off(windows)
        if teacher is None:
            return Statistics.of(bare, individual=individual)

        def adjusted(batch: Batch) -> Tensor:
            whole = windows.batch(batch.index)
            return teacher(whole) - (whole.target - batch.target)

        return Statistics.of(bare, adjusted, individual=individual)


class _Without(Windows):
    """Windows less effects that are in deviations of the window, so that no series holds what is left."""

    def __init__(self, windows: Windows, effects: Windows) -> None:
        super().__init__(windows.series, windows.starts, windows.context, windows.horizon, scaler=windows.scaler)
        self._effects = effects

    def batch(self, index: Tensor) -> Batch:
        whole, effects = super().batch(index), self._effects.batch(index)
        unit = _deviation(whole.context)
        return Batch(whole.context - unit * effects.context, whole.target - unit * effects.target, index)


def _deviation(context: Tensor) -> Tensor:
    """Standard deviation of every window and channel, (batch, 1, channel)."""
    centred = context - context.mean(1, keepdim=True)
    return centred.square().mean(1, keepdim=True).sqrt()


@dataclass(frozen=True)
class Adjustment:
    """Effects that validation chose, and the statistics of windows without them.

    Args:
        weight: (channel, feature).
        penalties: One for all channels, or one for each.
        learnt: Of training windows.
        judged: Of validation windows.
    """

    weight: Tensor
    penalties: list[Penalty]
    learnt: Statistics
    judged: Statistics


def adjust(effects: Effects, equations: NormalEquations, penalties: Sequence[float], *, individual: bool) -> Adjustment:
    """Set the effects whose ridge is best on validation, by the truth; of equally good ones the smaller effects.

    Chosen once for a student and its control.

    Args:
        effects: Where they are set.
        equations: The windows, and who teaches.
        penalties: Those that the ridge may choose from.
        individual: Choose for every channel.
    """
    key = f"effects {individual} {tuple(penalties)}"
    if key not in equations.choices:
        errors = []
        moments = effects.moments(equations.train)
        for penalty in PENALTIES:
            effects.estimate(moments, [penalty])
            learnt, judged = (
                effects.statistics(windows, individual=individual)
                for windows in (equations.train, equations.validation)
            )
            pairs = zip(learnt.channels(), judged.channels(), strict=True)
            errors.append([float(choose(*pair, penalties, [0.0]).errors.min()) for pair in pairs])
        chosen = [PENALTIES[of_map.index(min(of_map))] for of_map in map(list, zip(*errors, strict=True))]
        effects.estimate(moments, chosen)
        equations.choices[key] = Adjustment(
            effects.weight.detach().clone(),
            chosen,
            effects.statistics(equations.train, equations.teacher, individual=individual),
            effects.statistics(equations.validation, individual=individual),
        )
    adjustment: Adjustment = equations.choices[key]
    with torch.no_grad():
        effects.weight.copy_(adjustment.weight)
    return adjustment
