"""From a torch module to an ONNX graph with the scaler inside."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsdistill.errors import UnsupportedError
from tsdistill.models.base import Forecaster
from tsdistill.runtime import INPUT, OUTPUT

if TYPE_CHECKING:
    import onnx

_one_at_a_time = threading.Lock()  # torch's exporter patches global state while it traces


def graph_of(model: Forecaster) -> bytes:
    """The model as an ONNX file of any batch size, raw units in and out; the same model gives the same bytes."""
    import onnx

    signature = model.signature
    example = torch.zeros(2, signature.context, len(signature.channels))
    with _one_at_a_time, quiet():
        try:
            program = torch.onnx.export(
                _RawUnits(model).eval(),
                (example,),
                dynamo=True,
                external_data=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UnsupportedError(
                f"a {type(model).__name__} must consist of operators that ONNX has: {_first_line(error)} Replace them."
            ) from error
        assert program is not None  # the dynamo exporter always returns one
        graph = stripped(program.model_proto)
        onnx.checker.check_model(graph, full_check=True)
    facts = {
        "channels": json.dumps(list(signature.channels)),
        "context": str(signature.context),
        "frequency": signature.frequency or "",
        "horizon": str(signature.horizon),
        "units": "raw",
    }
    for name, value in facts.items():
        graph.metadata_props.add(key=f"tsdistill.{name}", value=value)
    return graph.SerializeToString(deterministic=True)


def stripped(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what only a debugger reads: stack traces with this machine's paths, inner shapes, remarks."""
    graph.doc_string = graph.graph.doc_string = ""
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for port in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del port.metadata_props[:]
        port.doc_string = ""
    return graph


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's and the quantizer's warnings and log records from the user; errors still come through."""
    disabled = logging.root.manager.disable
    # The quantizer logs through the root functions, which install a handler of their own when there is none.
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(handler)


class _RawUnits(nn.Module):
    """The model with its scaler around it.

    A mean far from zero does not fit float32 (1012.34 +- 8 loses 4e-6 of a deviation), so it is kept as the sum of two
    float32 numbers: subtracting the large one first is exact for values near it.
    """

    high: Tensor
    low: Tensor
    scale: Tensor

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.model = model
        mean = torch.tensor(model.signature.mean, dtype=torch.float64)
        self.register_buffer("high", mean.float())
        self.register_buffer("low", (mean - mean.float().double()).float())
        self.register_buffer("scale", torch.tensor(model.signature.scale, dtype=torch.float32))

    def forward(self, context: Tensor) -> Tensor:
        scaled = (context - self.high - self.low) / self.scale
        forecast: Tensor = self.model(scaled)
        return forecast * self.scale + self.low + self.high


def package_versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages that can change a graph, for the lineage."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."
