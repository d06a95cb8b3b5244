"""A linear map from context to horizon, solved in closed form in one pass over the windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from tsdistill.data.task import Batch, Signature, Windows
from tsdistill.models.base import Activations, Forecaster, ModelConfig

CHUNK = 512
"""Windows whose products are formed at once: bounds memory, changes nothing else."""


class LinearConfig(ModelConfig):
    """A ridge regression from a window's mean-subtracted context to its horizon, one for all channels.

    W = argmin |Y - X W|^2 + p * trace(X'X) / context * |W|^2, with the relative penalty p chosen on validation windows.

    Use it first: it takes seconds, it is hard to beat on several benchmarks, and as a student its distillation is
    exact. It cannot tell channels apart.

    Args:
        penalties: Relative penalties to choose from.

    Example:
        >>> LinearConfig().kind
        'linear'

    Source: A. Hoerl and R. Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics
    12(1), 1970, equation 2.1. Differs from the source: the penalty is relative to the mean diagonal of X'X, so that it
    does not change meaning with the number of windows, and the window's own mean takes the place of an intercept.
    """

    kind: Literal["linear"] = "linear"
    penalties: tuple[PositiveFloat, ...] = Field(
        default=(1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), min_length=1
    )

    forecaster: ClassVar[type[Forecaster]]


@dataclass(frozen=True)
class Statistics:
    """What a ridge needs to know of its windows: products of inputs, of inputs and targets, and of targets.

    Args:
        gram: X'X, (context, context), float64.
        cross: X'Y, (context, horizon), float64.
        power: Sum of squared targets.
        n_rows: Windows times channels.
    """

    gram: Tensor
    cross: Tensor
    power: float
    n_rows: int

    @classmethod
    def of(cls, windows: Windows, target: Callable[[Batch], Tensor]) -> Statistics:
        """One pass over the windows; `target` says what a batch should be mapped to, (batch, horizon, channel)."""
        gram = torch.zeros(windows.context, windows.context, dtype=torch.float64)
        cross = torch.zeros(windows.context, windows.horizon, dtype=torch.float64)
        power, n_rows = 0.0, 0
        for batch in windows.batches(CHUNK):
            x, y = batch.context.transpose(1, 2), target(batch).transpose(1, 2)
            centre = x.mean(dim=-1, keepdim=True)
            x, y = (x - centre).flatten(0, 1), (y - centre).flatten(0, 1)
            gram += (x.T @ x).double()
            cross += (x.T @ y).double()
            power += float(y.double().square().sum())
            n_rows += len(x)
        return cls(gram, cross, power, n_rows)

    def solve(self, penalties: tuple[float, ...]) -> list[Tensor]:
        """One weight matrix (context, horizon) per relative penalty, from a single eigendecomposition."""
        values, vectors = torch.linalg.eigh(self.gram)
        values, projected = values.clamp(min=0), vectors.T @ self.cross
        # Never zero: a window set whose channels do not move has an empty Gram matrix and the zero solution.
        unit = max(float(values.mean()), torch.finfo(torch.float64).tiny)
        return [vectors @ (projected / (values + penalty * unit)[:, None]) for penalty in penalties]

    def mean_squared_error(self, weight: Tensor) -> float:
        """Error of a weight matrix on these windows, without another look at them."""
        total = (weight * (self.gram @ weight)).sum() - 2 * (weight * self.cross).sum() + self.power
        return max(float(total), 0.0) / (self.n_rows * weight.shape[1])


class Linear(Forecaster):
    """The forecaster a `LinearConfig` builds; its weights are zero until solved, which forecasts the window's mean."""

    config: LinearConfig

    def __init__(self, config: LinearConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.map = nn.Linear(signature.context, signature.horizon, bias=False)
        nn.init.zeros_(self.map.weight)

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """A linear map has no hidden states."""
        x = self.recent(context)
        centre = x.mean(dim=-1, keepdim=True)
        return Activations(forecast=(self.map(x - centre) + centre).transpose(1, 2))

    def fit_closed_form(
        self, train: Windows, validation: Windows, *, target: Callable[[Batch], Tensor]
    ) -> dict[str, Any]:
        """Solve for every penalty from one pass over the training windows, keep the best on validation."""
        learnt = Statistics.of(train, target)
        judged = Statistics.of(validation, lambda batch: batch.target)
        weights = learnt.solve(self.config.penalties)
        errors = [judged.mean_squared_error(weight) for weight in weights]
        best = min(range(len(errors)), key=errors.__getitem__)
        with torch.no_grad():
            self.map.weight.copy_(weights[best].T)
        return {"penalty": self.config.penalties[best], "validation_mse": errors[best]}


LinearConfig.forecaster = Linear
