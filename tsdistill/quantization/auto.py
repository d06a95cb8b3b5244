"""The best form for a forecaster and a machine: every method is tried, measured and held against the budget."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tsdistill.errors import must, nearest
from tsdistill.models.base import Forecaster
from tsdistill.quantization.base import FULL, MIXED, OUTLIERS, QUANTIZATIONS, Quantization, bits_among
from tsdistill.quantization.dynamic import Dynamic
from tsdistill.quantization.observers import Observer
from tsdistill.quantization.static import Static, convolves
from tsdistill.quantization.weight_only import BlockSize
from tsdistill.spec.limits import MAX_ITEMS, Count


class Auto(Quantization):
    """Every method that needs no training is tried, also those that you registered, and the best form is taken.

    Where INT8 misses the error budget, the inputs with the largest weights are left in float, or the costliest layers,
    as few as it takes. A forecaster that no form makes smaller stays in float32. Use it when in doubt; it measures on
    the machine at hand, for that machine. For the fields that all methods have see `Quantization`.

    Args:
        weight_bits: Of dynamic and static forms, 7 or 8 (see `Dynamic`); weight-only ones are tried with 8 and 4.
        per_channel: Of dynamic and static forms.
        block_size: Of weight-only forms.
        n_calibration: Of static forms.
        calibration: Of static forms.
        isolate: Of dynamic forms.
        forms: The forms to choose from, by their names in the table of an earlier choice; by default all. A single one
            is taken without looking at the clock, and float32 where it breaks the error budget or saves no bytes: what
            was once chosen by time is so made again (`tsdistill.quantization.replay`).

    Example:
        >>> list(Auto().variants())
        ['dynamic', 'static', 'weight-only-8', 'weight-only-4']
        >>> Auto(forms=("dynamic-mixed",)).named_form
        'dynamic-mixed'
    """

    late: ClassVar[frozenset[str]] = frozenset({"forms"})

    chooses: ClassVar[bool] = True

    method: Literal["auto"] = "auto"
    weight_bits: Annotated[int, bits_among(7, 8)] = 7
    per_channel: bool = True
    block_size: BlockSize = 32
    n_calibration: Count = 128
    calibration: Observer = "min-max"
    isolate: bool = False
    forms: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _check_forms(self) -> Self:
        if self.forms is None:
            return self
        known = [FULL]
        for name, form in self._all().items():
            known += [name, *_partial(name, form)]
        if unknown := [name for name in self.forms if name not in known]:
            raise ValueError(must("forms", "name forms that can be tried", unknown, nearest(unknown[0], known)))
        return self

    @property
    def named_form(self) -> str | None:
        """The one form that is asked for by name."""
        return self.forms[0] if self.forms is not None and len(self.forms) == 1 else None

    def may_try(self, name: str) -> bool:
        """Whether a form is among those to choose from."""
        return self.forms is None or name in self.forms

    @property
    def bits(self) -> int:
        """Bits of a weight of dynamic and static forms."""
        return self.weight_bits

    @classmethod
    def candidates(cls, budget: Quantization) -> dict[str, Quantization]:
        """None: it is what tries the others."""
        return {}

    def variants(self, forecaster: Forecaster | None = None) -> dict[str, Quantization]:
        """Every form of every method that is to be tried, in the order of the family."""
        return {
            name: form for name, form in self._all().items()
            if any(map(self.may_try, [name, *_partial(name, form)]))
        }  # fmt: skip

    def _all(self) -> dict[str, Quantization]:
        # A form is tried within the budget, whatever forms it stands among.
        budget = self if self.forms is None else self.replace(forms=None)
        return {name: form for member in QUANTIZATIONS for name, form in member.candidates(budget).items()}

    def deployed_form(self, forecaster: Forecaster) -> Quantization:
        """Where one form has to stand for it: static where there are convolutions, dynamic elsewhere."""
        form: Quantization = self.exchanged(Static if convolves(forecaster) else Dynamic)
        return form.replace(weight_bits=self.weight_bits)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """As it is, and with bits, calibration and isolation for its forms."""
        return (cls(), cls(weight_bits=8, calibration="percentile", n_calibration=31, isolate=True))


def _partial(name: str, form: Quantization) -> list[str]:
    """Names of the forms that leave some of it in float, in the order in which they are tried."""
    outliers = [f"{name}{OUTLIERS}"] if "outliers" in type(form).model_fields else []
    return outliers + ([f"{name}{MIXED}"] if form.mixes_layers else [])
