"""The quantized forms of one exported forecaster, made on demand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsdistill.data.task import Task
from tsdistill.exporting import Deployed, parity_report, parity_windows
from tsdistill.quantization.base import Quantization
from tsdistill.quantization.float_graph import FloatGraph
from tsdistill.quantization.outliers import with_outliers
from tsdistill.runtime import OUTPUT, QUANTILES, Predictor, difference

REPLAY_TOLERANCE = 0.05
"""Golden INT8 forecasts may differ between machines by this many standard deviations, or by twice what INT8 itself
moves a forecast where that is more: processors without VNNI instructions round and saturate in other places."""


class Forms(FloatGraph):
    """What becomes of an fp32 deployed forecaster under different specs.

    Args:
        full: A forecaster deployed in fp32.
        task: Training windows calibrate, validation windows show how far forecasts move.
    """

    def __init__(self, full: Deployed, task: Task) -> None:
        super().__init__(full, task)
        self._split: dict[int, tuple[FloatGraph, tuple[str, ...]]] = {}

    def deployed(self, spec: Quantization) -> Deployed:
        """The form that a spec asks for, compared with float32 on the same windows.

        Raises:
            ConfigError, UnsupportedError, ArtifactError: As `Quantization.graph` does.
        """
        full = self.full
        graph = self._graph(spec)
        levels = full.predictor.levels
        predictor = Predictor(graph, full.signature, precision=spec.precision, isolate=spec.is_isolated, levels=levels)
        inputs, windows = parity_windows(full.signature, self.task)
        unit = np.asarray(full.parity["unit"])
        channels = full.signature.channels
        parity = parity_report(predictor.outputs, full.predictor.outputs, inputs, unit, channels)
        alone = Predictor(graph, full.signature, precision=spec.precision, isolate=True, levels=levels)
        batch_effect, _ = difference(predictor.run(**inputs), alone.run(**inputs), unit, channels)
        golden = {name: values for name, values in full.golden.items() if name not in (OUTPUT, QUANTILES)}
        return replace(
            full,
            onnx=graph,
            precision=spec.precision,
            isolate=spec.is_isolated,
            golden={**golden, **predictor.outputs(**golden)},
            parity={
                **parity,
                "against": "fp32",
                "windows": windows,
                # How far a forecast moves when 63 other windows share its batch.
                "batch_effect": batch_effect,
                "tolerance": max(REPLAY_TOLERANCE, 2 * parity["max_difference"]),
                "unit": unit.tolist(),
            },
            control=None,
        )

    def _graph(self, spec: Quantization) -> bytes:
        if not spec.n_outliers:
            return spec.graph(self)
        if spec.n_outliers not in self._split:
            self._split[spec.n_outliers] = with_outliers(self, spec.n_outliers)
        source, kept = self._split[spec.n_outliers]
        return spec.replace(keep_float=(*spec.keep_float, *kept)).graph(source)
