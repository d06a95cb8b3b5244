"""An exported forecaster that forms are made of, with what these forms share."""

from __future__ import annotations

import functools

import numpy as np
import onnx

from tsdistill.data.task import Task
from tsdistill.exporting import Deployed
from tsdistill.quantization.calibration import Ranges, calibration_windows, ranges_of
from tsdistill.quantization.layers import Layer, constant_folded, float_layers
from tsdistill.quantization.observers import Observer


class FloatGraph:
    """An fp32 deployed forecaster and its task; what several forms need is computed once.

    Args:
        full: A forecaster deployed in fp32.
        task: Training windows calibrate, validation windows show how far forecasts move.
    """

    def __init__(self, full: Deployed, task: Task) -> None:
        self.full, self.task = full, task
        self._ranges: dict[tuple[int, str], Ranges] = {}

    @property
    def graph(self) -> bytes:
        """The fp32 ONNX file."""
        return self.full.onnx

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with weights."""
        return float_layers(onnx.load_from_string(constant_folded(self.graph)))

    @functools.cached_property
    def n_weights(self) -> dict[str, int]:
        """Weights of every layer by name."""
        graph = onnx.load_from_string(constant_folded(self.graph)).graph
        sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
        return {layer.name: sum(sizes.get(name, 0) for name in layer.weights) for layer in self.layers}

    def calibration_windows(self, n_windows: int) -> dict[str, np.ndarray]:
        """Raw inputs of training windows, spread over the training part."""
        return calibration_windows(self.full.signature, self.task, n_windows)

    def ranges(self, n_windows: int, calibration: Observer) -> Ranges:
        """The range of every activation over as many training windows."""
        if (n_windows, calibration) not in self._ranges:
            windows = self.calibration_windows(n_windows)
            self._ranges[n_windows, calibration] = ranges_of(self.graph, windows, calibration)
        return self._ranges[n_windows, calibration]
