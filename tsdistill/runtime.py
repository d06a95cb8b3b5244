"""Run a deployed artifact: raw units in, raw units out, with numpy and onnxruntime and nothing heavier.

The scaler and the normalisation are inside the graph. What is so far from zero that float32 would lose its digits is
subtracted before it, in float64, and added to what it forecasts: see `tsdistill.inputs.levels`. This module never
imports torch, pydantic or pandas; pandas is used only for a frame, and whoever made that frame has loaded it already.

    from tsdistill.runtime import load

    forecast = load("models/etth1").predict(context)
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tsdistill import manifest as manifests
from tsdistill.errors import ArtifactError, ConfigError, UnsupportedError, must
from tsdistill.formats import FormatError, check_onnx, tensors
from tsdistill.formats.offsets import OFFSETS
from tsdistill.formats.reading import restored
from tsdistill.inputs import SignatureLike, predict_raw
from tsdistill.manifest import Manifest
from tsdistill.signatures import checker

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "INPUT",
    "OUTPUT",
    "QUANTILES",
    "TOLERANCE",
    "Predictor",
    "SignatureLike",
    "difference",
    "load",
    "predict_raw",
    "verify",
]

INPUT = "context"
OUTPUT = "forecast"
QUANTILES = "quantiles"
"""Names of a graph's input, (batch, context, channel), and outputs, (batch, horizon, channel) and, of a model with a
quantile head, (batch, horizon, channel, quantile), all in raw units less the signature's offsets. Covariates are
the inputs "future", (batch, context + horizon, feature), and "past", (batch, context, feature)."""

TOLERANCE = 1e-4
"""How far an fp32 graph may be from the trained model, in standard deviations of a channel."""


class Predictor:
    """A loaded graph that forecasts in raw units; safe to call from several threads at once.

    Args:
        model: The ONNX file's content.
        signature: Steps, channels and frequency.
        precision: "fp32", "int8", "int8-weights" or "int4-weights", as the graph was made.
        isolate: Run one window at a time. Dynamic INT8 scales activations over the whole batch, so that other windows
            move a forecast a little; those of isolated windows cannot.
        threads: Threads that one prediction may use.
        levels: Quantile levels of the graph's second output; empty when it has none.

    Raises:
        ArtifactError: The graph is not plain (see `tsdistill.formats.check_onnx`), onnxruntime cannot load it, or its
            inputs and outputs are not those of the signature.
        ConfigError: `threads` is below 1.
    """

    def __init__(
        self,
        model: bytes,
        signature: SignatureLike,
        *,
        precision: str = "fp32",
        isolate: bool = False,
        threads: int = 1,
        levels: tuple[float, ...] = (),
    ) -> None:
        self.signature = signature
        self.precision = precision
        self.isolate = isolate
        self.levels = levels
        self.session = _session(model, threads)
        self._check_ports()

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
        """Forecasts in raw units, or quantiles of a model that has them, once or `rolling` through a long history.

        Inputs and outputs are those of `predict_raw`.
        """
        levels = self.levels if quantiles else ()
        if quantiles:
            refuse_quantiles(levels)

        def run(**inputs: np.ndarray) -> np.ndarray:
            return self.outputs(**inputs)[QUANTILES if quantiles else OUTPUT]

        return predict_raw(x, self.signature, run, future=future, past=past, levels=levels, rolling=rolling)

    def run(self, context: np.ndarray, future: np.ndarray | None = None, past: np.ndarray | None = None) -> np.ndarray:
        """Forecasts (batch, horizon, channel) of float32 contexts (batch, context, channel), both less the offsets."""
        return self.outputs(context, future, past)[OUTPUT]

    def outputs(
        self, context: np.ndarray, future: np.ndarray | None = None, past: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Everything the graph gives for float32 inputs, by name, all less the signature's offsets."""
        arrays = {INPUT: context, "future": future, "past": past}
        inputs = {name: values for name, values in arrays.items() if values is not None}
        if not self.isolate or len(context) <= 1:
            return self._outputs(inputs)
        outputs = [
            self._outputs({name: values[row : row + 1] for name, values in inputs.items()})
            for row in range(len(context))
        ]
        return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}

    def _outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [OUTPUT, QUANTILES] if self.levels else [OUTPUT]
        try:
            return dict(zip(names, self.session.run(names, inputs), strict=True))
        except Exception as error:  # a graph can load and still fail to run
            raise ArtifactError(f"onnxruntime cannot run the graph: {_reason(error)}") from None

    def _check_ports(self) -> None:
        context = self.signature.context
        horizon = self.signature.horizon
        n_channels = len(self.signature.channels)
        inputs = {INPUT: [context, n_channels]}
        if self.signature.future:
            inputs["future"] = [context + horizon, len(self.signature.future)]
        if self.signature.past:
            inputs["past"] = [context, len(self.signature.past)]
        outputs = {OUTPUT: [horizon, n_channels]}
        if self.levels:
            outputs[QUANTILES] = [horizon, n_channels, len(self.levels)]
        sides = (("inputs", inputs, self.session.get_inputs()), ("outputs", outputs, self.session.get_outputs()))
        for side, expected, ports in sides:
            actual = {port.name: (port.type, list(port.shape)) for port in ports}
            is_sound = set(actual) == set(expected) and all(
                kind == "tensor(float)" and shape[1:] == expected[name] and not isinstance(shape[0], int)
                for name, (kind, shape) in actual.items()
                if shape
            )
            if not is_sound or not all(shape for _, shape in actual.values()):
                shapes = ", ".join(f"{name!r} (batch, {str(shape)[1:-1]})" for name, shape in expected.items())
                raise ArtifactError(
                    f"the graph's {side} must be {shapes}, float32, got {actual}. The manifest and the graph belong to "
                    "different models; save the model again."
                )


def refuse_quantiles(levels: tuple[float, ...]) -> None:
    """UnsupportedError when a model without a quantile head is asked for quantiles."""
    if not levels:
        raise UnsupportedError(
            "`quantiles` must be False for a model without a quantile head. Train one with head=td.QuantileHead(...)."
        )


def load(folder: str | Path, *, threads: int = 1, public_key: str | Path | bytes | None = None) -> Predictor:
    """Load a deployed artifact for prediction.

    Use it where forecasts are served; the machine needs neither torch nor pandas. Trainable artifacts are loaded with
    `tsdistill.load`.

    Args:
        folder: The artifact, as written by `tsdistill.save`. The golden windows in it may be absent here.
        threads: Threads that one prediction may use.
        public_key: Path of an Ed25519 key in PEM, or the PEM as bytes: only an artifact that its owner has signed
            (`tsdistill sign`) is loaded. Needs cryptography.

    Returns:
        A thread-safe predictor.

    Raises:
        ArtifactError: The artifact is missing, damaged, tampered with, of a newer schema or not deployed.
        ConfigError: `threads` is below 1, or `public_key` is no key.
        UnsupportedError: `public_key` is given and cryptography is not installed.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_signature
        >>> deployed = td.export(td.models.SeasonalNaiveConfig(period=24).build(toy_signature()))
        >>> folder = td.save(deployed, "models/naive")
        >>> load(folder).predict(np.zeros((5, 47, 3))).shape
        (5, 11, 3)
    """
    manifest, contents = manifests.read(folder, optional=(manifests.GOLDEN,), check=checker(public_key))
    return _predictor(folder, manifest, contents, threads)


def verify(folder: str | Path, *, public_key: str | Path | bytes | None = None) -> dict[str, Any]:
    """Check every digest of a deployed artifact and replay its golden windows on this machine.

    The difference to the stored forecasts, and quantiles where there are some, is measured as in `difference`. fp32
    must agree to 1e-4; INT8 arithmetic differs between processors and has the looser bound that was set when it
    was quantized.

    Args:
        folder: The artifact.
        public_key: As in `load`.

    Returns:
        `precision`, `n_windows`, `max_difference`, `tolerance`, `float_operators` (what computes in floating point, and
        how many of each), `n_files`, and `unlisted`: names of files in the folder that the manifest does not list.

    Raises:
        ArtifactError: A digest or a forecast does not agree, or the artifact cannot be read.
    """
    manifest, contents = manifests.read(folder, check=checker(public_key))
    predictor = _predictor(folder, manifest, contents, 1)
    parity = manifest.deployment.parity if manifest.deployment else {}
    unit = np.asarray(parity.get("unit", manifest.signature["scale"]), dtype=np.float64)
    if len(unit) != len(predictor.signature.channels):
        rule = f"hold a number for each of the {len(predictor.signature.channels)} channels"
        raise ArtifactError(must("deployment.parity.unit", rule, unit.tolist(), "Save the model again"))
    tolerance = float(parity.get("tolerance", TOLERANCE))
    golden = golden_windows(contents[manifests.GOLDEN], predictor.signature, predictor.levels)
    stored = {name: golden.pop(name) for name in (OUTPUT, QUANTILES) if name in golden}
    largest, where = _difference_of_all(predictor.outputs(**golden), stored, unit, predictor)
    if not largest <= tolerance:
        int8 = predictor.precision != "fp32"
        remedy = (
            "This processor computes INT8 differently; export in fp32 for it." if int8 else "Do not serve from here."
        )
        raise ArtifactError(
            f"replayed golden forecasts of {folder} must be within {tolerance:.1e} standard deviations of the stored "
            f"ones, got {largest:.1e} at {where}. {remedy}"
        )
    return {
        "precision": predictor.precision,
        "n_windows": len(golden["context"]),
        "max_difference": largest,
        "tolerance": tolerance,
        "float_operators": manifest.deployment.float_operators if manifest.deployment else {},
        "n_files": len(contents) + 1,
        "unlisted": manifests.unlisted(folder, manifest),
    }


def difference(
    forecast: np.ndarray, reference: np.ndarray, unit: np.ndarray, channels: tuple[str, ...]
) -> tuple[float, str]:
    """Largest |forecast - reference| / unit and where it is, both (batch, horizon, channel) in raw units.

    `unit` (channel,) is a standard deviation per channel. One step of float32 at the forecast's own value is not
    counted: a channel at 50 with a deviation of 0.02 cannot be stored more exactly by any forecaster. NaN
    counts as infinitely far.
    """
    gap = np.abs(forecast.astype(np.float64) - reference) - np.spacing(np.abs(reference.astype(np.float32)))
    gap = np.where(np.isfinite(gap), np.maximum(gap, 0.0), np.inf) / unit
    window, step, channel = np.unravel_index(int(np.argmax(gap)), gap.shape)
    return float(gap.max()), f"window {window}, step {step + 1}, channel {channels[channel]!r}"


def _difference_of_all(
    outputs: dict[str, np.ndarray], stored: dict[str, np.ndarray], unit: np.ndarray, predictor: Predictor
) -> tuple[float, str]:
    """`difference` of the forecasts and of the quantiles of every level, where these are stored: the largest of all."""
    channels = predictor.signature.channels
    differences = [difference(outputs[OUTPUT], stored[OUTPUT], unit, channels)]
    if QUANTILES in stored:
        for place, level in enumerate(predictor.levels):
            quantile = outputs[QUANTILES][..., place]
            gap, where = difference(quantile, stored[QUANTILES][..., place], unit, channels)
            differences.append((gap, f"{where}, quantile {level:g}"))
    return max(differences, key=lambda pair: pair[0])


def _session(model: bytes, threads: int) -> Any:
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ConfigError(must("threads", "be a whole number of at least 1", threads, "Use 1 for the lowest latency"))
    try:
        check_onnx(model)
    except FormatError as error:
        raise ArtifactError(f"the graph cannot be used: {error}. Export the model again.") from None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Whatever its first bytes look like.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Weights in 4 bits are multiplied in float: by default their inputs would be rounded to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen unrelated classes for a graph it refuses
        raise ArtifactError(f"onnxruntime {onnxruntime.__version__} cannot load the graph: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _predictor(folder: str | Path, manifest: Manifest, contents: dict[str, bytes], threads: int) -> Predictor:
    deployment = manifest.deployment
    if deployment is None:
        raise ArtifactError(
            f"{folder} must hold a deployed model, got kind={manifest.kind!r}. Load it with tsdistill.load(folder), or "
            "export it first: tsdistill.save(tsdistill.export(model), folder)."
        )
    head = manifest.config.get("head")
    levels = head.get("levels", []) if isinstance(head, dict) else []
    if not isinstance(levels, list) or not all(isinstance(level, int | float) for level in levels):
        raise ArtifactError(must("config.head.levels", "be a list of numbers", levels, "Save the model again"))
    return Predictor(
        contents[manifests.MODEL],
        _signature(manifest),
        precision=deployment.precision,
        isolate=deployment.isolate,
        threads=threads,
        levels=tuple(levels),
    )


def _signature(manifest: Manifest) -> SimpleNamespace:
    """The signature without pydantic; artifacts of earlier versions have no covariates."""
    lists = ("channels", "future", "past", *OFFSETS)
    values = {"frequency": None, "covariates": None, **dict.fromkeys(lists, ()), **manifest.signature}
    values |= {name: tuple(values[name]) for name in lists}
    if values["covariates"] is not None:
        values["covariates"] = SimpleNamespace(**{"calendar": (), "holidays": (), "future": (), **values["covariates"]})
    return SimpleNamespace(**values, reading=restored(manifest.reading))


def golden_windows(content: bytes, signature: SignatureLike, levels: tuple[float, ...] = ()) -> dict[str, np.ndarray]:
    """Golden contexts and forecasts, read without the safetensors library.

    Artifacts of earlier versions hold no quantiles, whatever their levels.
    """
    entries = tensors(content)
    arrays = {
        name: np.frombuffer(content[entry.begin : entry.end], dtype="<f4").reshape(entry.shape)
        for name, entry in entries.items()
        if entry.dtype == "F32" and entry.begin < entry.end
    }
    n_channels = len(signature.channels)
    n_windows = len(arrays.get("context", ()))
    n_steps = signature.context + signature.horizon
    shapes: dict[str, tuple[int, ...]] = {
        "context": (n_windows, signature.context, n_channels),
        "forecast": (n_windows, signature.horizon, n_channels),
    }
    if signature.future:
        shapes["future"] = (n_windows, n_steps, len(signature.future))
    if signature.past:
        shapes["past"] = (n_windows, signature.context, len(signature.past))
    if levels and QUANTILES in entries:
        shapes[QUANTILES] = (n_windows, signature.horizon, n_channels, len(levels))
    actual = {
        name: arrays[name].shape if name in arrays else f"{entry.end - entry.begin} bytes of {entry.dtype}"
        for name, entry in entries.items()
    }
    if actual != shapes or n_windows == 0:
        raise ArtifactError(
            f"golden windows must have the float32 shapes {shapes}, got {actual}. Save the model again."
        )
    return arrays
