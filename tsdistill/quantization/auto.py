"""The best form for a forecaster and a machine: every method is tried, measured and held against the budget."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from tsdistill.models.base import Forecaster
from tsdistill.quantization.base import QUANTIZATIONS, Quantization, bits_among
from tsdistill.quantization.dynamic import Dynamic
from tsdistill.quantization.observers import Observer
from tsdistill.quantization.static import Static, convolves
from tsdistill.quantization.weight_only import BlockSize
from tsdistill.spec.limits import Count


class Auto(Quantization):
    """Every method that needs no training is tried, also those that you registered, and the best form is taken.

    Where dynamic or static INT8 misses the error budget, the costliest layers are left in float, as few as it takes. A
    forecaster that no form makes smaller stays in float32. Use it when in doubt; it measures on the machine at hand,
    for that machine. For the fields that all methods have see `Quantization`.

    Args:
        weight_bits: Of dynamic and static forms, 7 or 8 (see `Dynamic`); weight-only ones are tried with 8 and 4.
        per_channel: Of dynamic and static forms.
        block_size: Of weight-only forms.
        n_calibration: Of static forms.
        calibration: Of static forms.
        isolate: Of dynamic forms.

    Example:
        >>> list(Auto().variants())
        ['dynamic', 'static', 'weight-only-8', 'weight-only-4']
    """

    chooses: ClassVar[bool] = True

    method: Literal["auto"] = "auto"
    weight_bits: Annotated[int, bits_among(7, 8)] = 7
    per_channel: bool = True
    block_size: BlockSize = 32
    n_calibration: Count = 128
    calibration: Observer = "min-max"
    isolate: bool = False

    @property
    def bits(self) -> int:
        """Bits of a weight of dynamic and static forms."""
        return self.weight_bits

    @classmethod
    def candidates(cls, budget: Quantization) -> dict[str, Quantization]:
        """None: it is what tries the others."""
        return {}

    def variants(self, forecaster: Forecaster | None = None) -> dict[str, Quantization]:
        """Every form of every method, in the order of the family."""
        return {name: form for member in QUANTIZATIONS for name, form in member.candidates(self).items()}

    def deployed_form(self, forecaster: Forecaster) -> Quantization:
        """Where one form has to stand for it: static where there are convolutions, dynamic elsewhere."""
        form: Quantization = self.exchanged(Static if convolves(forecaster) else Dynamic)
        return form.replace(weight_bits=self.weight_bits)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """As it is, and with bits, calibration and isolation for its forms."""
        return (cls(), cls(weight_bits=8, calibration="percentile", n_calibration=31, isolate=True))
