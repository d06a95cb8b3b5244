"""Static INT8 of an ONNX graph: convolutions and linear layers multiply 8-bit integers in ranges found beforehand."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from tsdistill.data.task import Signature, Task
from tsdistill.data.windows import raw_inputs
from tsdistill.errors import ArtifactError, ConfigError, DataError, must
from tsdistill.exporting import check_task, quiet
from tsdistill.quantization.layers import ABLE, check_complete, finished, folded, to_quantize
from tsdistill.quantization.observers import Observer, Spread
from tsdistill.quantization.per_channel import scale_every_matrix

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
    spreads = {name: Spread(*(float(np.ravel(end)[0]) for end in found.range_value)) for name, found in ranges.items()}
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
        (Path(folder) / "folded.onnx").write_bytes(folded(graph))
        yield create_calibrator(
            Path(folder) / "folded.onnx",
            list(ABLE["static"]),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
        )


def static_graph(
    graph: bytes, ranges: Ranges, *, per_channel: bool = True, weight_bits: int = 7, keep_float: Sequence[str] = ()
) -> bytes:
    """The same graph with convolutions and linear layers in INT8, weights and activations.

    Layers take and give integers between QuantizeLinear and DequantizeLinear, which the runtime fuses; linear layers
    give float. Products of two activations, in attention, stay in float.

    Args:
        graph: An fp32 ONNX file.
        ranges: Of this graph, from `ranges_of`.
        per_channel: One weight scale per output of a layer instead of one per layer.
        weight_bits: 7 or 8; 8 overflows on processors without VNNI instructions.
        keep_float: Names of layers that stay as they are.

    Returns:
        An ONNX file that takes and gives what `graph` did.

    Raises:
        ConfigError: A name in `keep_float` is no layer.
        UnsupportedError: There is no layer to quantize, or an LSTM among them.
        ArtifactError: A layer stayed in float.
    """
    plain = onnx.load_from_string(folded(graph))
    wanted = to_quantize(plain, "static", keep_float)
    with quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(plain),
            per_channel,
            weight_bits == 7,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            [layer.name for layer in wanted],
            [],
            list(ABLE["static"]),
            {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        quantizer.quantize_model()
        model = quantizer.model.model
    if per_channel:
        scale_every_matrix(model, plain, wanted, weight_bits)
    check_complete(model, wanted, keep_float, "static")
    rounded = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    names = {layer.name for layer in wanted}
    half = [node.name for node in model.graph.node if node.name in names and not rounded.issuperset(node.input[:2])]
    if half:
        raise ArtifactError(
            f"every layer must take integers with method='static', got float activations or weights in "
            f"{', '.join(half)}. Deploy it in float32 with td.export, and report this with the model's config."
        )
    return finished(model, graph)


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
