"""How long, how fast and how exactly to train."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from tsdistill.spec import Range, Spec, Tuned
from tsdistill.spec.limits import Count, Epochs, Seed

ONE_CYCLE_START = 25
"""The highest learning rate over the first one of a one-cycle schedule."""


class Training(Spec):
    """How to train by gradient steps; the same for teachers, students, recovery after pruning and fine-tuning.

    Args:
        epochs: Passes over the training windows, at most.
        max_steps: Gradient steps, at most; None for no such limit.
        batch_size: Windows per batch; every window brings all its channels. Processes that train together share it.
        accumulate: Batches per gradient step: a step takes the mean over all their windows, as one batch of
            `accumulate * batch_size` windows would, in the memory of one. A loss that compares the windows of a batch
            with each other still sees `batch_size` of them.
        windows_per_epoch: Train on this many windows drawn anew every epoch, so that early stopping can look in more
            often than once in a pass over a large set; None takes all.
        learning_rate: Highest step size of AdamW.
        weight_decay: AdamW's decoupled decay, on matrices only.
        schedule: "cosine" (linear warm-up, then down to zero along a cosine), "one-cycle" (up from a 25th of the
            learning rate along a cosine, then down to zero along another; try a higher rate with it, and a longer
            warm-up) or "constant" (after the warm-up).
        warmup: Share of all steps spent warming up.
        patience: Epochs without a better validation error after which to stop; None never stops early.
        average: Decay per step of a moving average of the weights, such as 0.999. Validation then scores the averaged
            weights, and they are what is kept. None keeps the weights as they are.
        clip_norm: Largest gradient norm.
        precision: "float32", "bfloat16" (autocast; weights stay float32), "auto": float32 on CPUs, bfloat16 on
            accelerators that have units for it; or "fastest": whichever of the two takes less time on this machine.
            That is measured once per processor, number of threads and version of torch, kept as `precision.json` in
            the user's cache and recorded in the lineage with its times, so that the same seed still gives the same
            model there. On a processor with AMX or AVX512-BF16 it can be worth asking for.
        seed: Of the initial weights, the order of windows and dropout.
        refit: "all" fits the chosen model once more on training and validation rows, with everything that validation
            chose (`td.refit`); None leaves it. What comes of it cannot be compared on validation any more.
        device: "auto" takes CUDA when there is some.

    Example:
        >>> Training(epochs=5, learning_rate=3e-3).precision
        'auto'

    Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019 (AdamW, algorithm 2); cosine
    schedule: "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5. Differs from the source: no
    restarts, a linear warm-up first. One cycle: L. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural
    Networks Using Large Learning Rates", 2018, section 3. Differs from the source: cosines take the place of straight
    lines, and momentum stays as it is. The source of `average` stands at `tsdistill.training.averaging`.
    """

    epochs: Epochs = 10
    max_steps: Count | None = None
    batch_size: Count = 64
    accumulate: Count = 1
    windows_per_epoch: Count | None = None
    learning_rate: Annotated[float, Tuned(Range(5e-4, 1e-2, log=True))] = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    patience: Count | None = 3
    average: float | None = Field(default=None, gt=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16", "fastest"] = "auto"
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    refit: Literal["all"] | None = None

    @property
    def windows_per_step(self) -> int:
        """Windows of one gradient step; the last step of an epoch may have fewer."""
        return self.batch_size * self.accumulate

    def n_steps(self, n_windows: int) -> int:
        """Gradient steps of a whole run over `n_windows` training windows."""
        n_windows = n_windows if self.windows_per_epoch is None else min(n_windows, self.windows_per_epoch)
        steps = self.epochs * math.ceil(n_windows / self.windows_per_step)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def rate(self, step: int, n_steps: int) -> float:
        """Step size of gradient step `step` (from 0) of `n_steps`."""
        warm = max(1, round(self.warmup * n_steps))
        if step < warm:
            if self.schedule == "one-cycle":
                return self.learning_rate * (1 - (1 - 1 / ONE_CYCLE_START) * _fall(step / warm))
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * _fall((step - warm) / max(1, n_steps - warm))


def _fall(done: float) -> float:
    """Half a cosine, from 1 at the beginning to 0 when all is done."""
    return 0.5 * (1 + math.cos(math.pi * done))
