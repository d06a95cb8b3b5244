"""The quantized forms of one exported forecaster, made on demand."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from tsdistill.data.task import Task
from tsdistill.exporting import Deployed, parity_report, parity_windows
from tsdistill.quantization.dynamic import dynamic_graph
from tsdistill.quantization.layers import Layer, float_layers, folded, to_quantize
from tsdistill.quantization.observers import Observer
from tsdistill.quantization.spec import Quantization
from tsdistill.quantization.static import calibration_windows, digest_of_windows, ranges_of, static_graph
from tsdistill.quantization.weights import weight_only_graph
from tsdistill.runtime import OUTPUT, QUANTILES, Predictor, difference

REPLAY_TOLERANCE = 0.05
"""Golden INT8 forecasts may differ between machines by this many standard deviations, or by twice what INT8 itself
moves a forecast where that is more: processors without VNNI instructions round and saturate in other places."""


class Forms:
    """What becomes of an fp32 deployed forecaster under different specs; what they share is computed once.

    Args:
        full: A forecaster deployed in fp32.
        task: Training windows calibrate, validation windows show how far forecasts move.
    """

    def __init__(self, full: Deployed, task: Task) -> None:
        self.full, self.task = full, task
        self._found: dict[tuple[int, str], Any] = {}

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with weights."""
        return float_layers(onnx.load_from_string(folded(self.full.onnx)))

    @functools.cached_property
    def n_weights(self) -> dict[str, int]:
        """Weights of every layer by name."""
        graph = onnx.load_from_string(folded(self.full.onnx)).graph
        sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
        return {layer.name: sum(sizes.get(name, 0) for name in layer.weights) for layer in self.layers}

    def deployed(self, spec: Quantization) -> Deployed:
        """The form that a spec other than "auto" asks for, compared with float32 on the same windows.

        Raises:
            ConfigError, UnsupportedError, ArtifactError: As the methods do.
        """
        full, graph = self.full, self._graph(spec)
        precision = f"int{spec.bits}-weights" if spec.method == "weight-only" else "int8"
        levels = full.predictor.levels
        predictor = Predictor(graph, full.signature, precision=precision, isolate=spec.isolate, levels=levels)
        inputs, source = parity_windows(full.signature, self.task)
        unit, channels = np.asarray(full.parity["unit"]), full.signature.channels
        parity = parity_report(predictor.outputs, full.predictor.outputs, inputs, unit, channels)
        alone = Predictor(graph, full.signature, precision=precision, isolate=True, levels=levels)
        mates, _ = difference(predictor.run(**inputs), alone.run(**inputs), unit, channels)
        golden = {name: values for name, values in full.golden.items() if name not in (OUTPUT, QUANTILES)}
        return replace(
            full,
            onnx=graph,
            precision=precision,
            isolate=spec.isolate,
            golden={**golden, **predictor.outputs(**golden)},
            parity={
                **parity,
                "against": "fp32",
                "windows": source,
                # How far a forecast moves when 63 other windows share its batch.
                "batch_effect": mates,
                "tolerance": max(REPLAY_TOLERANCE, 2 * parity["max_difference"]),
                "unit": unit.tolist(),
            },
            control=None,
        )

    def told(self, spec: Quantization) -> dict[str, Any]:
        """What the lineage keeps of how a form was made."""
        facts: dict[str, Any] = {"method": spec.method, "weight_bits": spec.bits, "float_layers": list(spec.keep_float)}
        if spec.method == "static":
            facts["calibration_windows"] = digest_of_windows(self._windows(spec.n_calibration))
        return facts

    def _graph(self, spec: Quantization) -> bytes:
        graph, keep = self.full.onnx, spec.keep_float
        if spec.method == "weight-only":
            return weight_only_graph(graph, weight_bits=spec.bits, block_size=spec.block_size, keep_float=keep)
        if spec.method == "dynamic":
            return dynamic_graph(graph, per_channel=spec.per_channel, weight_bits=spec.bits, keep_float=keep)
        # Refused before calibration takes its time.
        to_quantize(onnx.load_from_string(folded(graph)), "static", keep)
        ranges = self._ranges(spec.n_calibration, spec.calibration)
        return static_graph(graph, ranges, per_channel=spec.per_channel, weight_bits=spec.bits, keep_float=keep)

    def _ranges(self, n_windows: int, calibration: Observer) -> Any:
        if (n_windows, calibration) not in self._found:
            windows = self._windows(n_windows)
            self._found[n_windows, calibration] = ranges_of(self.full.onnx, windows, calibration)
        return self._found[n_windows, calibration]

    def _windows(self, n_windows: int) -> dict[str, np.ndarray]:
        return calibration_windows(self.full.signature, self.task, n_windows)
