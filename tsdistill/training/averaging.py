"""A moving average of a model's weights."""

from __future__ import annotations

import copy

import torch

from tsdistill.models.base import Forecaster


class Average:
    """The weights a model had at all steps so far, averaged with weights that fall off exponentially.

    mean_t = sum over s <= t of decay^(t - s) * weights_s, over the same sum of decay^(t - s) alone. The weights before
    the first step count for nothing, so that a short run is not dominated by where it started.

    Args:
        model: The model in training; it is copied.
        decay: What an older step weighs against the next one.

    Source: D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, section 7.2 (exponential in
    place of the equal weights of B. Polyak and A. Juditsky, "Acceleration of Stochastic Approximation by Averaging",
    SIAM J. Control and Optimization 30(4), 1992, with Adam's correction of the start). Differs from the source: kept
    corrected from step to step, rather than divided when read.
    """

    def __init__(self, model: Forecaster, decay: float) -> None:
        # Moved to where it is: the weights of a copied LSTM lie apart, and cuDNN would gather them in every call.
        self.model = copy.deepcopy(model).to(model.device).eval()
        self.decay = decay

    def update(self, model: Forecaster, step: int) -> None:
        """Take in the weights after gradient step `step`, from 1."""
        share = (1 - self.decay) / (1 - self.decay**step)
        with torch.no_grad():
            for mean, weights in zip(self.model.parameters(), model.parameters(), strict=True):
                mean.lerp_(weights, share)
            for kept, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
                kept.copy_(buffer)
