"""What every method of quantization is: a spec with a common budget, and the family that the methods make up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from torch import nn

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, Problem, UnsupportedError, listed, must
from tsdistill.models.base import Forecaster
from tsdistill.quantization.fake_quantized import Rounding
from tsdistill.quantization.float_graph import FloatGraph
from tsdistill.quantization.layers import WEIGHTS, Ability
from tsdistill.spec import Family, Member, Spec
from tsdistill.spec.limits import MAX_ITEMS, Width
from tsdistill.teachers import Teacher

FULL = "fp32"
"""Name of the candidate that everything is held against."""

MIXED = "-mixed"
"""How the name of a form ends that leaves the costliest layers in float."""

WORST = 5.0
"""The worst step and channel may lose this many times what the mean may."""

OUTLIERS = "-outliers"
"""How the name of a form ends that leaves the inputs with the largest weights in float."""

MODULES: Mapping[str, type[nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "Conv": nn.Conv1d}
"""The modules that become operators which not every method can round."""

DEFAULTS_OF_0_1: Mapping[str, Any] = {
    "per_channel": True,
    "block_size": 32,
    "n_calibration": 128,
    "calibration": "min-max",
    "isolate": False,
}
"""Fields that version 0.1 wrote whatever the method, and the values at which they asked for nothing."""


class Quantization(Member):
    """How to bring a forecaster to few bits, and what it may cost: `Quantization(method="static", ...)`.

    q = clamp(round(x / scale) + zero_point, low, high) and x' = (q - zero_point) * scale. Weights are rounded once,
    with zero_point 0; activations are rounded to 0 ... 255 while forecasting, with the range they have in that very
    batch ("dynamic") or the one they had over training windows ("static"), or not at all ("weight-only"). "qat" trains
    on before, so that the forecaster forecasts well with rounded numbers.

    Use "dynamic" for LSTMs, "static" for convolutions, either for transformers and MLPs, "weight-only" for GRUs and
    wherever bytes count and time does not, "qat" when one of these costs too much accuracy; these refuse with an error
    what does not pay. "auto" measures all of them but "qat" on the machine at hand, for that machine. As "auto" and
    `require_gain` go by the clock, machines can decide differently about models for which INT8 hardly matters; `forms`
    of "auto" makes a form again that was chosen before, without the clock.

    Each method is a class with fields of its own beside the common ones below: `Dynamic`, `Static`, `WeightOnly`, `QAT`
    and `Auto` in `tsdistill.quantization`. Calling `Quantization` makes one of the class that `method` names.

    A method of your own is a subclass with a literal `method` and a `graph`; `tsdistill.quantization.register` makes it
    one that recipes can name, and that "auto" tries.

    Args:
        method: "dynamic" (LSTM and linear layers), "static" (convolutions and linear layers), "weight-only" (all
            layers; products in float), "qat" (trained on while it rounds, then deployed in one of these forms), or
            "auto" (the best of the first three and of float32, with the reasons).
        max_error_increase: Largest share by which the validation MSE, and of a quantile head the weighted quantile loss
            as well, may rise over float32.
        max_worst_error_increase: The same for the single step of the horizon and the single channel that suffer most;
            None for five times `max_error_increase`.
        require_gain: Refuse INT8 that is not smaller, or slower on one thread. Without it "auto" ignores the clock and
            takes the first of dynamic, static, mixed and weight-only that keeps to the budget.
        max_latency_increase: Share by which INT8 may be slower all the same, where bytes are worth more than time;
            "auto" takes the smallest form that is no slower than the fastest by more, of which it keeps 0.02 for what
            the clock may err by, and the fastest of those as small but for 2 %. The least that makes sense is what the
            clock cannot tell apart, 0.05. 0.02 ms more are always allowed: nobody notices them, and of small models
            they would decide. "weight-only" by itself is not held to it.
        max_batch_effect: Largest distance, in standard deviations, by which other windows in a batch of 64 may move a
            forecast of a form that mixes them, as dynamic INT8 does; its `isolate` brings it to 0.
        batch_sizes: Windows at once for which latency counts.
        keep_float: Layers that stay in float32, by the names that `quantization_sensitivity` lists.

    Raises:
        ConfigError: A field breaks its rule, belongs to another method, or the method is unknown.

    Example:
        >>> Quantization().method, Quantization(method="auto").max_error_increase
        ('dynamic', 0.02)
        >>> Quantization(method="weight-only", weight_bits=4)
        WeightOnly(method='weight-only', max_error_increase=0.02, ... block_size=32, outliers=0)
        >>> Quantization(method="dynamic", calibration="mse")
        Traceback (most recent call last):
        tsdistill.errors.ConfigError: `calibration` must be left out with method='dynamic', got calibration='mse'. ...

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, equation 1 (r = S(q - Z)). Differs from the source: their S, Z are our scale, zero_point;
    dynamic activation scales are found anew in every forecast instead of by calibration.
    """

    ability: ClassVar[Ability] = Ability(tuple(WEIGHTS))
    """The layers of an ONNX graph that the method can round, and why not the others."""

    chooses: ClassVar[bool] = False
    """Whether it takes the best of several forms, float32 among them, instead of making the one that was asked for."""

    held_to_latency: ClassVar[bool] = True
    """Whether a form that is slower than float32 is refused; not where it is asked for bytes alone."""

    mixes_layers: ClassVar[bool] = True
    """Whether leaving the costliest layers in float is worth trying when a form misses the error budget."""

    method: str
    max_error_increase: float = Field(default=0.02, ge=0)
    max_worst_error_increase: float | None = Field(default=None, ge=0)
    require_gain: bool = True
    max_latency_increase: float = Field(default=0.05, ge=0.05)
    max_batch_effect: float = Field(default=0.25, ge=0)
    batch_sizes: tuple[Width, ...] = Field(default=(1,), min_length=1, max_length=MAX_ITEMS)
    keep_float: tuple[str, ...] = ()

    def __new__(cls, /, *_: Any, **values: Any) -> Self:
        """An object of the class that `method` names, which Python then initialises."""
        member: type[Any] = _member_of(values) if cls is Quantization else cls
        made: Self = super().__new__(member)
        return made

    def __init__(self, /, **values: Any) -> None:
        # What is another method's is one more problem among all others of the spec.
        misplaced = {name: _methods_with(name) for name in values if name not in type(self).model_fields}
        problems = [
            Problem((name,), self._misplaced(name, values[name], methods))
            for name, methods in misplaced.items()
            if methods
        ]
        try:
            super().__init__(**{name: value for name, value in values.items() if not misplaced.get(name)})
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(listed([str(problem) for problem in problems], type(self).__name__), tuple(problems))

    @classmethod
    def _misplaced(cls, name: str, value: object, methods: list[str]) -> str:
        """That a field is another method's, and whose."""
        *others, last = map(repr, methods)
        remedy = (
            f"It is a field of method={', '.join(others)} and {last}" if others else f"It is a field of method={last}"
        )
        return must(name, f"be left out with method={QUANTIZATIONS.kind_of(cls)!r}", value, remedy)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict()`, also what version 0.1 wrote: every field, whatever the method."""
        member = _member_of(values) if cls is Quantization else cls
        own = {
            name: value
            for name, value in values.items()
            if name in member.model_fields or name not in DEFAULTS_OF_0_1 or value != DEFAULTS_OF_0_1[name]
        }
        return super().from_dict(own)

    def replace(self, **values: Any) -> Self:
        """A copy with some fields changed; with another method, a spec of its class that keeps what both have."""
        method = values.get(QUANTIZATIONS.tag, self.method)
        if method == self.method:
            return super().replace(**values)
        replaced: Self = self.exchanged(QUANTIZATIONS[method]).replace(**values)
        return replaced

    def exchanged(self, cls: type[Spec], **values: Any) -> Any:
        """A spec of another method that keeps what was set and both have, but for the bits: those go by the method."""
        kept = {name: value for name, value in self.minimal().items() if name in cls.model_fields}
        kept = {name: value for name, value in kept.items() if name not in (QUANTIZATIONS.tag, "weight_bits")}
        return cls(**{**kept, **values})

    @property
    def named_form(self) -> str | None:
        """The one form that a method which chooses is asked for by name; it then does not look at the clock."""
        return None

    def may_try(self, name: str) -> bool:
        """Whether a method which chooses may try the form of a name, such as "dynamic-mixed"."""
        return True

    @property
    def bits(self) -> int:
        """Bits of a weight in the deployed form."""
        return 8

    @property
    def precision(self) -> str:
        """How the deployed form names itself: "int8", "int8-weights" or "int4-weights"."""
        return "int8"

    @property
    def is_isolated(self) -> bool:
        """Whether the deployed form forecasts one window at a time."""
        return False

    @property
    def n_outliers(self) -> int:
        """Inputs of every wide linear layer, those with the largest weights, that the deployed form has in float."""
        return 0

    @property
    def needs_teacher(self) -> bool:
        """Whether it trains, so that a teacher can teach."""
        return False

    @property
    def seed(self) -> int | None:
        """The seed of its training; None where nothing is drawn."""
        return None

    def with_seed(self, seed: int) -> Self:
        """The same spec; what it trains is drawn from another seed."""
        return self

    @property
    def worst_error_increase(self) -> float:
        """Largest share by which the MSE of any one step or channel may rise."""
        if self.max_worst_error_increase is None:
            return WORST * self.max_error_increase
        return self.max_worst_error_increase

    @classmethod
    def candidates(cls, budget: Quantization) -> dict[str, Quantization]:
        """The forms of this method that "auto" tries within a budget, by their names in its table; perhaps none."""
        form: Quantization = budget.exchanged(cls)
        return {form.method: form}

    def deployed_form(self, forecaster: Forecaster) -> Quantization:
        """The spec of the form that a forecaster is deployed in; it differs where a method makes another one's form."""
        return self

    def variants(self, forecaster: Forecaster) -> dict[str, Quantization]:
        """The forms that are made of a forecaster without training, by name."""
        form = self.deployed_form(forecaster)
        return {form.method: form}

    def inability(self, forecaster: Forecaster) -> str | None:
        """Why the method cannot round all layers of a forecaster, told from its modules; None where it can."""
        for operator, inability in self.ability.reasons.items():
            layers = [name for name, module in forecaster.named_modules() if isinstance(module, MODULES[operator])]
            if set(layers) - set(self.keep_float):
                return f"it has {inability.layers}, {inability.reason}: use {inability.instead!r} or 'auto'"
        return None

    def check_model(self, forecaster: Forecaster) -> None:
        """UnsupportedError for a forecaster that the method cannot do, as far as that can be told before its export."""

    def graph(self, source: FloatGraph) -> bytes:
        """The quantized ONNX graph.

        Args:
            source: The exported float graph, its layers, the task, and what calibration found, computed once for all
                forms that ask for it.

        Raises:
            ConfigError: A name in `keep_float` is no layer.
            UnsupportedError: It cannot be made of this graph.
            ArtifactError: A layer stayed in float.
        """
        raise UnsupportedError(f"`method` must be that of one form, got method={self.method!r}, which has no graph.")

    def details(self, source: FloatGraph) -> dict[str, Any]:
        """What the lineage keeps of how the form was made."""
        kept = {"method": self.method, "weight_bits": self.bits, "float_layers": list(self.keep_float)}
        kept |= {"outliers": self.n_outliers} if self.n_outliers else {}
        return kept | ({"isolate": True} if self.is_isolated else {})

    def rounding(self) -> Rounding:
        """What the form rounds, so that training can imitate it.

        Raises:
            UnsupportedError: Training cannot imitate this method.
        """
        raise UnsupportedError(f"`method` must be one that training can imitate, got method={self.method!r}.")

    def trained(
        self,
        forecaster: Forecaster,
        task: Task,
        *,
        teacher: Teacher | None = None,
        cache: Path | None = None,
        checkpoint: Path | None = None,
        progress: bool | None = None,
    ) -> tuple[Forecaster, dict[str, Any]]:
        """A copy of a forecaster, trained for the form it is deployed in, and what to record of that.

        Only called where `needs_teacher`.
        """
        raise UnsupportedError(f"`method` must be one that trains, got method={self.method!r}.")

    @classmethod
    def contract_problems(cls) -> list[str]:
        """A method writes `graph`, or says in which forms of others it deploys."""
        if any(getattr(cls, name) is not getattr(Quantization, name) for name in ("graph", "deployed_form")):
            return []
        return [f"`{cls.__name__}` must write graph(source). See `tsdistill.quantization.Quantization`."]

    @model_validator(mode="after")
    def _check_batch_sizes(self) -> Self:
        if any(size < 1 for size in self.batch_sizes) or len(set(self.batch_sizes)) < len(self.batch_sizes):
            raise ValueError(must("batch_sizes", "be different numbers of at least 1", self.batch_sizes, "Try (1, 64)"))
        return self


QUANTIZATIONS = Family("quantization", Quantization, tag="method", default="dynamic")
"""Every method; `tsdistill.quantization` adds the package's own."""

AnyQuantization = Annotated[Quantization, QUANTIZATIONS]
"""The type of a field that holds any method; `method` says which."""


def bits_among(*choices: int) -> AfterValidator:
    """The rule of a field that holds the bits of a weight."""

    def check(value: int, info: ValidationInfo) -> int:
        if value not in choices:
            first = ", ".join(map(str, choices[:-1]))
            rule = f"be {first} or {choices[-1]} when method={info.data.get('method')!r}"
            raise ValueError(must("weight_bits", rule, value, "Leave it out for the method's own"))
        return value

    return AfterValidator(check)


def _member_of(values: Mapping[str, Any]) -> type[Quantization]:
    """The class of the method that fields name."""
    method: Any = values.get(QUANTIZATIONS.tag, QUANTIZATIONS.default)
    return QUANTIZATIONS[method]


def _methods_with(name: str) -> list[str]:
    """The methods that have a field."""
    return [QUANTIZATIONS.kind_of(member) for member in QUANTIZATIONS if name in member.model_fields]
