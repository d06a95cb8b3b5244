"""What is served: an ONNX graph, raw units in and raw units out, with its metadata."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tsdistill import manifest as manifests
from tsdistill.data.task import Signature
from tsdistill.errors import OrderError
from tsdistill.exporting.operators import float_operators
from tsdistill.manifest import Deployment, Manifest
from tsdistill.models.base import ModelConfig, levels_of
from tsdistill.runtime import TOLERANCE, Predictor
from tsdistill.spec import LineageStep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Deployed:
    """A forecaster as it is served: an ONNX graph, raw units in and out, run by onnxruntime.

    `td.export` and `td.quantize` make them, `td.save` writes them, `tsdistill.runtime.load` serves them. They can be
    evaluated and compared, but not trained, distilled, pruned or quantized again.

    Attributes:
        onnx: Content of the ONNX file.
        config: Config of the model it was made from.
        signature: Steps, channels, scaling and frequency.
        precision: "fp32", "int8", or "int8-weights" or "int4-weights" (weight-only).
        lineage: Steps that made it, oldest first.
        n_parameters: Weights of the model it was made from.
        golden: "context" and "forecast" (and covariates and quantiles) of a few windows, to check other machines with:
            what goes into the graph and comes out of it, raw units less the signature's offsets.
        parity: How far its forecasts were from those of the model it was made from, in standard deviations.
        isolate: Forecast one window at a time.
        control: The same student trained without a teacher, deployed alike, or None.
    """

    onnx: bytes
    config: ModelConfig
    signature: Signature
    precision: str
    lineage: tuple[LineageStep, ...]
    n_parameters: int
    golden: Mapping[str, np.ndarray]
    parity: Mapping[str, Any]
    isolate: bool = False
    control: Deployed | None = None

    @property
    def context(self) -> int:
        """Past steps a forecast is made from."""
        return self.signature.context

    @property
    def horizon(self) -> int:
        """Future steps forecast."""
        return self.signature.horizon

    @property
    def mixes_windows(self) -> bool:
        """Whether other windows of its batch move a forecast, as they do in dynamic INT8 that is not isolated."""
        return self.precision == "int8" and not self._batch_effect(1.0) <= TOLERANCE

    @property
    def batch_effect(self) -> float:
        """How far a forecast moved, at most, when 63 other windows shared its batch, in standard deviations."""
        return self._batch_effect(0.0)

    def _batch_effect(self, unknown: float) -> float:
        # Artifacts of version 0.1 call it by another name.
        return float(self.parity.get("batch_effect", self.parity.get("batch_mates", unknown)))

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The graph loaded on one thread, as it is served."""
        return Predictor(
            self.onnx, self.signature, precision=self.precision, isolate=self.isolate, levels=levels_of(self.config)
        )

    def reloaded(self) -> Deployed:
        """A copy with a session of its own, elsewhere in memory; loaded now, not by the first call."""
        copy = replace(self)
        _ = copy.predictor
        return copy

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

        Covariates go into `future` and `past`; `quantiles` returns the levels of a quantile head; `rolling` forecasts
        again every so many steps of a long history. See `tsdistill.inputs.predict_raw`.
        """
        return self.predictor.predict(x, future, past, quantiles=quantiles, rolling=rolling)

    @functools.cached_property
    def float_operators(self) -> dict[str, int]:
        """Operators that compute in floating point, and how many of each; for INT8, those that quantizing left."""
        return float_operators(self.onnx)

    @functools.cached_property
    def files(self) -> dict[str, bytes]:
        """Every file of its artifact beside the manifest, by name."""
        from safetensors.numpy import save

        # Contiguous, because safetensors writes the memory of strided arrays in its order.
        golden = save({name: np.ascontiguousarray(array) for name, array in self.golden.items()})
        return {manifests.MODEL: self.onnx, manifests.GOLDEN: golden}

    def manifest(self, metrics: Mapping[str, Any] | None = None) -> Manifest:
        """The manifest of its artifact."""
        return Manifest(
            kind="deployed",
            config=self.config.to_dict(),
            signature=self.signature.to_dict(),
            reading=self.signature.record,
            lineage=[step.to_dict() for step in self.lineage],
            files={name: manifests.entry(content) for name, content in self.files.items()},
            metrics=dict(metrics or {}),
            deployment=Deployment(
                self.precision, self.isolate, self.n_parameters, dict(self.parity), self.float_operators
            ),
        )

    @functools.cached_property
    def size_bytes(self) -> int:
        """Bytes of every file the runtime needs: the graph and the manifest. Golden windows are not needed to serve."""
        return len(self.onnx) + len(self.manifest().to_bytes())

    @functools.cached_property
    def digest(self) -> str:
        """Sixteen hex digits of the graph, the config, the signature, the precision and isolation."""
        settings = f"{self.config.digest}{self.signature.digest}{self.precision}{self.isolate}"
        return hashlib.sha256(settings.encode() + self.onnx).hexdigest()[:16]

    def __repr__(self) -> str:
        size = f"{self.n_parameters:,} weights, {self.size_bytes:,} bytes"
        return f"<Deployed {self.config.kind} {self.precision}, {size}>"

    def __getstate__(self) -> dict[str, Any]:
        # A loaded session cannot be copied; the copy loads its own.
        return {item.name: getattr(self, item.name) for item in fields(self)}


def refuse_deployed(model: object, verb: str) -> None:
    """OrderError when a deployed forecaster is passed to a verb that needs a trainable one.

    Args:
        model: What the verb was given.
        verb: Name of the verb: train, shrink, distill, prune, export or quantize.

    Raises:
        OrderError: `model` is deployed; the message says which lines to swap.
    """
    if not isinstance(model, Deployed):
        return
    made_by = model.lineage[-1].verb if model.lineage else "export"
    if verb == made_by or {verb, made_by} == {"export", "quantize"}:
        raise OrderError(
            f"`{verb}` must get a trainable forecaster, got a deployed one ({model.precision}, made by {made_by}). "
            f"Give {verb} the forecaster that {made_by} was given."
        )
    raise OrderError(
        f"`{verb}` must come before `{made_by}`, got a deployed forecaster ({model.precision}). Swap the two lines: "
        f"{verb} the trainable forecaster first, {made_by} the result last."
    )
