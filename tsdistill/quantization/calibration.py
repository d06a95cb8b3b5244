"""The ranges of activations, found on training windows before anything is deployed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import CalibrationMethod, create_calibrator
from onnxruntime.quantization.calibrate import TensorData

from tsdistill.data.task import Signature, Task
from tsdistill.data.windows import raw_inputs
from tsdistill.errors import ConfigError, DataError, must
from tsdistill.exporting import check_task, quiet
from tsdistill.quantization.layers import constant_folded
from tsdistill.quantization.observers import Observer, Spread

CALIBRATED = ("Conv", "Gemm", "MatMul")
"""Operators around which activations have calibrated ranges."""

Ranges = Any
"""What the quantizer's calibrator found: lowest and highest value of every activation that a layer takes or gives."""


def calibration_windows(signature: Signature, task: Task, n_windows: int) -> dict[str, np.ndarray]:
    """Raw float32 inputs of training windows, spread over the training part.

    Raises:
        ConfigError: There is no task.
        ShapeError: The task's steps or channels are not the forecaster's.
        DataError: A window holds something that is not finite.
    """
    if not isinstance(task, Task):
        raise ConfigError(must("task", "be a Task, whose training windows give the ranges", task, "Pass td.Task(...)"))
    check_task(signature, task)
    windows = task.train
    index = torch.linspace(0, len(windows) - 1, min(n_windows, len(windows))).long()
    inputs = raw_inputs(windows, index, task.signature, signature)
    for name, values in inputs.items():
        if not np.isfinite(values).all():
            raise DataError(
                f"calibration windows must be finite, got NaN or infinity in {name!r}. Fill the gaps first."
            )
    return inputs


def ranges_of(graph: bytes, inputs: Mapping[str, np.ndarray], calibration: Observer = "min-max") -> Ranges:
    """The range of every activation around layers that static INT8 can do, over some inputs.

    Args:
        graph: An fp32 ONNX file.
        inputs: Raw float32 arrays (window, ...) by the names of the graph's inputs.
        calibration: "min-max", "percentile", "entropy" or "mse".
    """
    with _calibrator(graph, CalibrationMethod.MinMax) as calibrator:
        calibrator.collect_data(_Windows(inputs))
        ranges: Ranges = calibrator.compute_data()
    return ranges if calibration == "min-max" else _shorter(ranges, graph, inputs, calibration)


def _shorter(ranges: Ranges, graph: bytes, inputs: Mapping[str, np.ndarray], calibration: Observer) -> Ranges:
    """The parts of whole ranges that an observer takes.

    ONNX Runtime has calibrators for "percentile" and "entropy", too. They hold the activations of all windows at once,
    and for entropy they look at so few bins that it always takes the whole range. Here a second pass counts between the
    ends that a first one found, a window at a time.
    """
    spreads = {name: Spread(*(float(np.ravel(end)[0]) for end in ends.range_value)) for name, ends in ranges.items()}
    # Of this calibrator only the session is used: it gives the activations themselves.
    with _calibrator(graph, CalibrationMethod.Percentile) as calibrator:
        session, windows = calibrator.infer_session, _Windows(inputs)
        names = [output.name for output in session.get_outputs()]
        while (window := windows.get_next()) is not None:
            for name, values in zip(names, session.run(None, window), strict=True):
                if name in spreads:
                    spreads[name].add(torch.tensor(values))
    for name, spread in spreads.items():
        lowest, highest = (np.array([float(end)], np.float32) for end in spread.best_range(calibration))
        ranges[name] = TensorData(lowest=lowest, highest=highest)
    return ranges


@contextmanager
def _calibrator(graph: bytes, method: CalibrationMethod) -> Iterator[Any]:
    """ONNX Runtime's calibrator for the activations around layers that static INT8 can do."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        (Path(folder) / "folded.onnx").write_bytes(constant_folded(graph))
        yield create_calibrator(
            Path(folder) / "folded.onnx",
            list(CALIBRATED),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
        )


def digest_of_windows(inputs: Mapping[str, np.ndarray]) -> str:
    """Sixteen hex digits of the calibration windows, for the lineage."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        digest.update(name.encode() + np.ascontiguousarray(inputs[name]).tobytes())
    return digest.hexdigest()[:16]


class _Windows:
    """One window at a time, so that the calibrator sees equal shapes only."""

    def __init__(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._inputs, self._next = inputs, 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        row, self._next = self._next, self._next + 1
        if row >= len(self._inputs["context"]):
            return None
        return {name: values[row : row + 1] for name, values in self._inputs.items()}
