"""The quantized forms of one exported forecaster, made on demand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tsdistill.exporting import Deployed, parity_report, parity_windows
from tsdistill.quantization.base import Quantization
from tsdistill.quantization.float_graph import FloatGraph
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

    def deployed(self, spec: Quantization) -> Deployed:
        """The form that a spec asks for, compared with float32 on the same windows.

        Raises:
            ConfigError, UnsupportedError, ArtifactError: As `Quantization.graph` does.
        """
        full, graph = self.full, spec.graph(self)
        levels = full.predictor.levels
        predictor = Predictor(graph, full.signature, precision=spec.precision, isolate=spec.is_isolated, levels=levels)
        inputs, source = parity_windows(full.signature, self.task)
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
                "windows": source,
                # How far a forecast moves when 63 other windows share its batch.
                "batch_effect": batch_effect,
                "tolerance": max(REPLAY_TOLERANCE, 2 * parity["max_difference"]),
                "unit": unit.tolist(),
            },
            control=None,
        )
