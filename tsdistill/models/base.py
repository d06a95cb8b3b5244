"""The contract every trainable forecaster keeps, and the records it shows its insides with."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, overload

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn

from tsdistill.data.covariates import Covariates
from tsdistill.data.task import Batch, Signature
from tsdistill.data.windows import window_units
from tsdistill.errors import ConfigError, Problem, ShapeError, UnsupportedError, must
from tsdistill.inputs import predict_raw
from tsdistill.models.activations import Activations
from tsdistill.models.groups import WidthGroup
from tsdistill.models.heads import Head, PointHead
from tsdistill.models.provenance import versions as versions
from tsdistill.models.ridge import NormalEquations
from tsdistill.models.sizes import check_size
from tsdistill.runtime import OUTPUT, QUANTILES, refuse_quantiles
from tsdistill.spec import Family, LineageStep, Member

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

    from tsdistill.spec import Spec

POINT = PointHead()


class ModelConfig(Member):
    """Base of the frozen specs that describe an architecture; `build` makes the untrained forecaster.

    A subclass sets `kind`, a literal that names it in files, `forecaster`, the class it builds, and `takes`, which
    covariates that can look at: some of "future" and "past". `tsdistill.models.register` makes it an architecture that
    files can name and searches can draw. Ranges that a search draws its sizes from stand beside the fields (`Tuned`).
    """

    kind: str
    forecaster: ClassVar[type[Forecaster]]
    takes: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[frozenset[str]] = frozenset(
        {"head", "dropout", "channel_embedding", "shortcut", "channel_bias", "individual", "bidirectional", "mixing"}
    )
    """Fields that describe what a model is rather than its size: they stay when the architecture changes."""

    learns: ClassVar[bool] = True
    """Whether it has weights that training and a teacher can shape."""

    @classmethod
    def contract_problems(cls) -> list[str]:
        """An architecture names the class that it builds."""
        builds = getattr(cls, "forecaster", None)
        if isinstance(builds, type) and issubclass(builds, Forecaster):
            return []
        remedy = "Write forecaster: ClassVar[type[Forecaster]] = MyForecaster"
        return [must(f"{cls.__name__}.forecaster", "be a class that inherits from Forecaster", builds, remedy)]

    def exchanged(self, cls: type[Spec], **values: Any) -> Any:
        """A config of another architecture with the traits of this one; its sizes are the other's own."""
        kept = {name: value for name, value in self.minimal().items() if name in self.traits}
        lost = kept.get("head") if "head" not in cls.model_fields else None
        if lost is not None:
            kind = cls.model_fields["kind"].default
            rule = f"be one with a {lost.kind} head, as the {self.kind!r} model that it takes the place of"
            sentence = must("kind", rule, kind, "Choose another, or set `head` to point first")
            raise ConfigError(sentence, (Problem(("kind",), sentence),))
        return cls(**{name: value for name, value in kept.items() if name in cls.model_fields} | values)

    @property
    def needs(self) -> Covariates | None:
        """The covariates it has to have, and looks at no others; None where all that it takes are welcome."""
        return None

    def build(self, signature: Signature, seed: int = 0) -> Forecaster:
        """A fresh forecaster with weights drawn from `seed`; the global random state is left as it was."""
        check_size(self, signature)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.forecaster(self, signature)

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if hasattr(type(self), "forecaster"):  # which a class in the making lacks
            check_size(self)
        return self


MODELS = Family("architecture", ModelConfig)
"""Every architecture; `tsdistill.models` adds the package's own."""

AnyModelConfig = Annotated[ModelConfig, MODELS]
"""The type of a field that holds any architecture's config, by its `kind`."""


class Forecaster(nn.Module):
    """A trainable model that maps scaled contexts to scaled forecasts and predicts in raw units.

    Subclasses write `__init__(config, signature)`, `activations` and `width_groups`. In float32 the forecast of a
    window never depends on the other windows of its batch.

    Attributes:
        config: The spec it was built from.
        signature: Steps, channels and scaling it was built for.
        lineage: How it came to be, oldest step first.
        control: The same student trained without a teacher, or None.
        closed_form: Whether it is solved from the normal equations of its windows, and not trained by steps.
    """

    closed_form: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, signature: Signature) -> None:
        super().__init__()
        _check_takes(config, signature)
        self.config = config
        self.signature = signature
        self.lineage: tuple[LineageStep, ...] = ()
        self.control: Forecaster | None
        # Not a submodule: a control is kept beside a student, it is no part of it.
        self.__dict__["control"] = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "control":
            self.__dict__["control"] = value
        else:
            super().__setattr__(name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A model by itself: everything is copied but the control, which stays with the original."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        state = {name: value for name, value in self.__dict__.items() if name != "control"}
        copied.__setstate__({**copy.deepcopy(state, memo), "control": None})
        return copied

    @property
    def context(self) -> int:
        """Past steps a forecast is made from."""
        return self.signature.context

    @property
    def horizon(self) -> int:
        """Future steps forecast."""
        return self.signature.horizon

    @property
    def head(self) -> Head:
        """The head of the config; a point head where the architecture has no other."""
        return getattr(self.config, "head", POINT)

    @property
    def n_raw(self) -> int:
        """Raw outputs per channel, what the last layer has to give to `conclude`."""
        return self.head.n_outputs * self.horizon

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Forecast, hidden states and, if asked for, attention of scaled contexts (batch, context, channel).

        Covariates are scaled too, for architectures that take them: `future` (batch, context + horizon, feature) and
        `past` (batch, context, feature).
        """
        raise NotImplementedError

    def conclude(
        self,
        raw: Tensor,
        centre: Tensor,
        spread: Tensor,
        *,
        hidden: tuple[Tensor, ...] = (),
        attention: tuple[Tensor, ...] | None = None,
        values: tuple[Tensor, ...] | None = None,
    ) -> Activations:
        """Activations of raw outputs (batch, channel, n_outputs * horizon), the window's normalisation undone.

        `centre` and `spread` (batch, channel, 1) are what the window was normalised with; a centre that differs from
        step to step is (batch, channel, horizon).
        """
        reading = self.head.read(raw.unflatten(-1, (self.head.n_outputs, self.horizon)))
        forecast = (reading.forecast * spread + centre).transpose(1, 2)
        distribution = reading.distribution
        support = None
        if distribution is not None and reading.grid is None:
            distribution = distribution * spread[..., None] + centre[..., None]
        elif reading.grid is not None:
            support = (reading.grid * spread[..., None] + centre[..., None]).transpose(1, 2)
        if distribution is not None:
            distribution = distribution.transpose(1, 2)
        return Activations(forecast, hidden, attention, distribution, support, values, levels=levels_of(self.config))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """What can be cut: units, heads, widths, blocks, context. Empty when nothing can."""
        return ()

    def forward(self, context: Tensor, future: Tensor | None = None, past: Tensor | None = None) -> Tensor:
        """Scaled forecasts (batch, horizon, channel) of scaled contexts (batch, context or more, channel)."""
        return self.activations(context, future, past).forecast

    def fit_closed_form(self, equations: NormalEquations) -> dict[str, Any]:
        """Solve for the training windows, where there is a closed form; returns what to record, such as the penalty."""
        raise NotImplementedError

    def refit_closed_form(self, equations: NormalEquations, choice: dict[str, Any]) -> dict[str, Any]:
        """Solve for more windows, as `fit_closed_form` has chosen and recorded; returns what to record."""
        raise UnsupportedError(f"A {self.config.kind!r} model cannot be fitted again. Leave `refit` out.")

    @property
    def device(self) -> torch.device:
        """Where the weights are; of a model without any the CPU."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def n_parameters(self) -> int:
        """Number of trainable weights, each counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the config, the signature and every weight."""
        digest = hashlib.sha256((self.config.digest + self.signature.digest).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts of a batch without gradients: the forecaster in the role of a teacher.

        They are computed where the weights are, and given where the batch is.
        """
        home = batch.context.device
        batch = batch.to(self.device)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                forecast: Tensor = self(batch.context, batch.future, batch.past)
                return forecast.to(home)
        finally:
            self.train(was_training)

    @overload
    def predict(
        self,
        x: np.ndarray,
        future: np.ndarray | pd.DataFrame | None = None,
        past: np.ndarray | None = None,
        *,
        quantiles: bool = False,
        rolling: int | None = None,
    ) -> np.ndarray: ...
    @overload
    def predict(
        self,
        x: pd.DataFrame,
        future: np.ndarray | pd.DataFrame | None = None,
        past: np.ndarray | None = None,
        *,
        quantiles: bool = False,
        rolling: int | None = None,
    ) -> pd.DataFrame: ...
    def predict(
        self,
        x: np.ndarray | pd.DataFrame,
        future: np.ndarray | pd.DataFrame | None = None,
        past: np.ndarray | None = None,
        *,
        quantiles: bool = False,
        rolling: int | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Raw-unit forecasts: arrays (batch, context, channel) give (batch, horizon, channel), frames give frames.

        What is known besides goes into `future` and `past`; `quantiles` asks a quantile head for its levels; `rolling`
        forecasts again every so many steps of a long history. See `tsdistill.inputs.predict_raw`.
        """
        levels = levels_of(self.config) if quantiles else ()
        if quantiles:
            refuse_quantiles(levels)

        def run(**inputs: np.ndarray) -> np.ndarray:
            return self.outputs(**inputs)[QUANTILES if quantiles else OUTPUT]

        return predict_raw(x, self.signature.served, run, future=future, past=past, levels=levels, rolling=rolling)

    def outputs(
        self, context: np.ndarray, future: np.ndarray | None = None, past: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """What a deployed graph gives, by torch: float32, both in raw units less the offsets of `served`."""
        signature = self.signature.served
        device = self.device

        def scaled(values: np.ndarray | None, mean: ArrayLike, scale: ArrayLike) -> Tensor | None:
            if values is None:
                return None
            return torch.from_numpy(((values - np.asarray(mean)) / np.asarray(scale)).astype(np.float32)).to(device)

        mean, scale = np.asarray(signature.mean), np.asarray(signature.scale)
        if signature.normalisation == "window":
            mean, scale = window_units(context)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                inside = self.activations(
                    scaled(context, mean, scale),  # type: ignore[arg-type]
                    scaled(future, signature.future_mean, signature.future_scale),
                    scaled(past, signature.past_mean, signature.past_scale),
                )
        finally:
            self.train(was_training)
        arrays = {OUTPUT: (inside.forecast.cpu().numpy() * scale + mean).astype(np.float32)}
        if levels_of(self.config) and inside.distribution is not None:
            raw = inside.distribution.cpu().numpy() * scale[..., None] + mean[..., None]
            arrays[QUANTILES] = raw.astype(np.float32)
        return arrays

    def recent(self, context: Tensor) -> Tensor:
        """The last `context` steps of a longer context, channels first: (batch, channel, context)."""
        if context.ndim != 3 or context.shape[1] < self.context or context.shape[2] != len(self.signature.channels):
            raise ShapeError(
                f"`context` must have shape (batch, {self.context} or more, {len(self.signature.channels)}), got "
                f"{tuple(context.shape)}. Axes are batch, time, channel."
            )
        return context[:, -self.context :].transpose(1, 2)

    def covariates(self, future: Tensor | None, past: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """A batch's covariates at this forecaster's own steps, None for those that its signature does not name.

        Those are `future` (batch, context + horizon, feature) and `past` (batch, context, feature).
        """
        return (
            self._last_steps("future", future, self.context + self.horizon),
            self._last_steps("past", past, self.context),
        )

    def _last_steps(self, side: str, given: Tensor | None, n_steps: int) -> Tensor | None:
        names = getattr(self.signature, side)
        if not names:
            return None
        if given is None or given.ndim != 3 or given.shape[1] < n_steps or given.shape[2] != len(names):
            raise ShapeError(
                f"`{side}` must have shape (batch, {n_steps} or more, {len(names)}), got "
                f"{None if given is None else tuple(given.shape)}. Axes are batch, time, feature; this forecaster was "
                f"made for {list(names)}."
            )
        return given[:, -n_steps:]

    def with_step(self, step: LineageStep) -> Self:
        """Append a step to the lineage, in place, and return self."""
        self.lineage = (*self.lineage, step)
        return self


def levels_of(config: ModelConfig) -> tuple[float, ...]:
    """Quantile levels of a config's head; empty for other heads."""
    return tuple(getattr(getattr(config, "head", None), "levels", ()))


def _check_takes(config: ModelConfig, signature: Signature) -> None:
    """Refuse covariates that the architecture would not look at, and the lack of those that it needs."""
    needed = config.needs
    named = {side: getattr(signature, side) for side in ("future", "past")}
    if needed is not None and named != {"future": needed.known_ahead, "past": needed.past}:
        raise ConfigError(
            f"`covariates` must be {list(needed.known_ahead + needed.past)}, which a {config.kind!r} model of this "
            f"config looks at and at no others, got {[*named['future'], *named['past']]}. Give it a task with "
            f"covariates=td.Covariates({', '.join(f'{name}={value!r}' for name, value in needed if value)})."
        )
    asked = [side for side in ("future", "past") if getattr(signature, side)]
    refused = [side for side in asked if side not in config.takes]
    if refused:
        able = sorted(_written(architecture) for architecture in MODELS if architecture.takes.issuperset(asked))
        named = {side: list(getattr(signature, side)) for side in refused}
        raise UnsupportedError(
            f"`covariates` must be some that the model can use, got {named}: a {config.kind!r} model takes no "
            f"{' and no '.join(refused)} covariates. Use {', '.join(able)}, or a task without them: "
            "task.without_covariates()."
        )


def _written(architecture: type[ModelConfig]) -> str:
    """A config's class as a user types it; one of the user's own by its name alone."""
    own = architecture.__module__.startswith("tsdistill.")
    return f"td.models.{architecture.__name__}" if own else architecture.__name__
