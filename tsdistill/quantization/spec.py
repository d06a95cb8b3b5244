"""How to quantize a forecaster and how much it may cost, as data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tsdistill.errors import UnsupportedError
from tsdistill.spec import Spec

PLANNED = ("static", "qat", "weight-only")


class Quantization(Spec):
    """How to bring a forecaster to INT8, and what it may cost.

    q = clamp(round(x / scale) + zero_point, low, high) and x' = (q - zero_point) * scale. Weights are rounded once, to
    -64 ... 64 (7 bits) or -127 ... 127 (8 bits) with zero_point 0; activations are rounded to 0 ... 255 while
    forecasting, with scale and zero_point of the range they have in that very batch ("dynamic").

    Use "dynamic" when INT8 is wanted and a refusal should be loud, "auto" when the better of float32 and INT8 is wanted
    on the machine at hand. As "auto" and `require_gain` go by the clock, machines can decide differently about models
    for which INT8 hardly matters.

    Args:
        method: "dynamic" (LSTM and linear layers in INT8) or "auto" (that, or float32 with the reason).
        max_error_increase: Largest share by which the validation MSE may rise over float32.
        require_gain: Refuse INT8 that is not smaller, or slower at batch size 1 on one thread.
        max_latency_increase: Share by which INT8 may be slower all the same, where bytes are worth more than time.
            The least that makes sense is what the clock cannot tell apart, 0.05.
        weight_bits: 7 forecasts the same on every processor. Those without VNNI instructions add products of 8-bit
            weights in 16 bits, which overflow: take 8 only for machines that are known to have them.
        per_channel: One weight scale per output instead of one per layer: a little larger, and more exact.
        isolate: Forecast one window at a time. Dynamic INT8 scales activations over the whole batch, so that batch
            mates move a forecast a little; those of isolated windows cannot, at the price of throughput.

    Raises:
        ConfigError: A field breaks its rule.
        UnsupportedError: A method that is planned and not there yet.

    Example:
        >>> Quantization().method, Quantization(method="auto").max_error_increase
        ('dynamic', 0.02)

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, equation 1 (r = S(q - Z)). Differs from the source: their S, Z are our scale, zero_point;
    activation scales are found anew in every forecast instead of by calibration.
    """

    method: Literal["dynamic", "auto"] = "dynamic"
    max_error_increase: float = Field(default=0.02, ge=0)
    require_gain: bool = True
    max_latency_increase: float = Field(default=0.05, ge=0.05)
    weight_bits: Literal[7, 8] = 7
    per_channel: bool = True
    isolate: bool = False

    @field_validator("method", mode="before")
    @classmethod
    def _is_there(cls, method: Any) -> Any:
        if method in PLANNED:
            raise UnsupportedError(
                f"`method` must be 'dynamic' or 'auto', got method={method!r}, which is not there yet."
            )
        return method
