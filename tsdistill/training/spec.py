"""How long, how fast and how exactly to train."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from tsdistill.spec import Spec


class Training(Spec):
    """How to train by gradient steps; the same for teachers, students, recovery after pruning and fine-tuning.

    Args:
        epochs: Passes over the training windows, at most.
        max_steps: Gradient steps, at most; None for no such limit.
        batch_size: Windows per step; every window brings all its channels.
        learning_rate: Highest step size of AdamW.
        weight_decay: AdamW's decoupled decay, on matrices only.
        schedule: "cosine" (linear warm-up, then down to zero along a cosine) or "constant" (after the warm-up).
        warmup: Share of all steps spent warming up.
        patience: Epochs without a better validation error after which to stop; None never stops early.
        clip_norm: Largest gradient norm.
        precision: "float32", "bfloat16" (autocast; weights stay float32) or "auto": the faster of the two in a probe
            of a few steps, recorded in the lineage.
        seed: Of the initial weights, the order of windows and dropout.
        device: "auto" takes CUDA when there is some.

    Example:
        >>> Training(epochs=5, learning_rate=3e-3).precision
        'auto'

    Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019 (AdamW, algorithm 2); cosine
    schedule: "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5. Differs from the source: no
    restarts, a linear warm-up first.
    """

    epochs: int = Field(default=10, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    patience: int | None = Field(default=3, ge=1)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def n_steps(self, n_windows: int) -> int:
        """Gradient steps of a whole run over `n_windows` training windows."""
        steps = self.epochs * math.ceil(n_windows / self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def rate(self, step: int, n_steps: int) -> float:
        """Step size of gradient step `step` (from 0) of `n_steps`."""
        warm = max(1, round(self.warmup * n_steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - warm) / max(1, n_steps - warm)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
