"""How to quantize a forecaster and how much it may cost, as data."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from tsdistill.errors import listed, must
from tsdistill.losses import AnyLoss, OutputLoss
from tsdistill.spec import Spec
from tsdistill.training import Training

WORST = 5.0
"""The worst step and channel may lose this many times what the mean may."""


class Quantization(Spec):
    """How to bring a forecaster to INT8, and what it may cost.

    q = clamp(round(x / scale) + zero_point, low, high) and x' = (q - zero_point) * scale. Weights are rounded once,
    with zero_point 0; activations are rounded to 0 ... 255 while forecasting, with the range they have in that very
    batch ("dynamic") or the one they had over training windows ("static"), or not at all ("weight-only"). "qat" trains
    on before, so that the forecaster forecasts well with rounded numbers.

    Use "dynamic" for LSTMs, "static" for convolutions, either for transformers and MLPs, "weight-only" when bytes count
    and time does not, "qat" when one of these costs too much accuracy; these refuse loudly what does not pay. "auto"
    measures all of them but "qat" on the machine at hand, for that machine. As "auto" and `require_gain` go by the
    clock, machines can decide differently about models for which INT8 hardly matters.

    Args:
        method: "dynamic" (LSTM and linear layers), "static" (convolutions and linear layers), "weight-only" (all
            layers; products in float), "qat" (trained on while it rounds, then deployed in one of these forms:
            weight-only with 4 bits, static where there are convolutions, dynamic elsewhere), or "auto" (the best of the
            first three and of float32, with the reasons).
        max_error_increase: Largest share by which the validation MSE, and of a quantile head the weighted quantile loss
            as well, may rise over float32.
        max_worst_error_increase: The same for the single step of the horizon and the single channel that suffer most;
            None for five times `max_error_increase`.
        require_gain: Refuse INT8 that is not smaller, or slower on one thread. Without it "auto" ignores the clock and
            takes the first of dynamic, static, mixed and weight-only that keeps to the budget.
        max_latency_increase: Share by which INT8 may be slower all the same, where bytes are worth more than time;
            "auto" takes the smallest form that is no slower than the fastest by more, of which it keeps 0.02 for what
            the clock may err by, and the fastest of those as small but for 2 %. The least that makes sense is what the
            clock cannot tell apart, 0.05. "weight-only" by itself is not held to it.
        max_batch_effect: Largest distance, in standard deviations, by which other windows in a batch of 64 may move a
            forecast of dynamic INT8; `isolate` brings it to 0.
        batch_sizes: Windows at once for which latency counts.
        weight_bits: 7 (default of dynamic and static) forecasts the same on every processor. Those without VNNI
            instructions add products of 8-bit weights in 16 bits, which overflow: take 8 only for machines that are
            known to have them. Weight-only has 8 (default) or 4; "auto" tries both. "qat" has 7 (default), 8 or 4.
        per_channel: One weight scale per output instead of one per layer: a little larger, and more exact. Weight-only
            always has it.
        block_size: Weights that share a scale in 4 bits.
        n_calibration: Training windows, spread over time, that static ranges are found on.
        calibration: Range of an activation: all it was seen to have ("min-max"), without the rarest values
            ("percentile"), the one that keeps most of its distribution ("entropy"), or the one in which rounding and
            clamping together make the smallest squared error ("mse").
        keep_float: Layers that stay in float32, by the names that `quantization_sensitivity` lists.
        training: How "qat" trains, from the forecaster's own weights: short, and at a low rate.
        losses: What "qat" imitates when there is a teacher.
        isolate: Forecast one window at a time. Dynamic INT8 scales activations over the whole batch, so that batch
            mates move a forecast a little; those of isolated windows cannot, at the price of throughput.

    Raises:
        ConfigError: A field breaks its rule.

    Example:
        >>> Quantization().method, Quantization(method="auto").max_error_increase
        ('dynamic', 0.02)
        >>> Quantization(method="weight-only", weight_bits=4).bits
        4

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, equation 1 (r = S(q - Z)). Differs from the source: their S, Z are our scale, zero_point;
    dynamic activation scales are found anew in every forecast instead of by calibration.
    """

    late: ClassVar[frozenset[str]] = frozenset({"training", "losses"})

    method: Literal["dynamic", "static", "weight-only", "qat", "auto"] = "dynamic"
    max_error_increase: float = Field(default=0.02, ge=0)
    max_worst_error_increase: float | None = Field(default=None, ge=0)
    require_gain: bool = True
    max_latency_increase: float = Field(default=0.05, ge=0.05)
    max_batch_effect: float = Field(default=0.25, ge=0)
    batch_sizes: tuple[int, ...] = Field(default=(1,), min_length=1)
    weight_bits: Literal[4, 7, 8] | None = None
    per_channel: bool = True
    block_size: Literal[16, 32, 64, 128] = 32
    n_calibration: int = Field(default=128, ge=1)
    calibration: Literal["min-max", "percentile", "entropy", "mse"] = "min-max"
    keep_float: tuple[str, ...] = ()
    training: Training = Training(epochs=3, learning_rate=5e-4, precision="float32")
    losses: tuple[AnyLoss, ...] = Field(default=(OutputLoss(),), min_length=1)
    isolate: bool = False

    @property
    def bits(self) -> int:
        """Bits of a weight: `weight_bits`, or the method's own number."""
        return self.weight_bits or (8 if self.method == "weight-only" else 7)

    @property
    def worst_error_increase(self) -> float:
        """Largest share by which the MSE of any one step or channel may rise."""
        return (
            WORST * self.max_error_increase if self.max_worst_error_increase is None else self.max_worst_error_increase
        )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        others: dict[str, tuple[int, ...]] = {"weight-only": (4, 8), "qat": (4, 7, 8)}
        weights = others.get(self.method, (7, 8))
        if self.weight_bits is not None and self.weight_bits not in weights:
            rule = f"be {' or '.join(map(str, weights))} when method={self.method!r}"
            problems.append(must("weight_bits", rule, self.weight_bits, "Leave it out for the method's own"))
        if any(size < 1 for size in self.batch_sizes) or len(set(self.batch_sizes)) < len(self.batch_sizes):
            problems.append(must("batch_sizes", "be different numbers of at least 1", self.batch_sizes, "Try (1, 64)"))
        if problems:
            raise ValueError(listed(problems, "Quantization"))
        return self
