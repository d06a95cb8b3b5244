"""From a torch module to an ONNX graph with the scaler activations."""

from __future__ import annotations

import ast
import json
import threading
from collections import Counter
from typing import TYPE_CHECKING

from tsdistill.data.task import Signature
from tsdistill.errors import UnsupportedError
from tsdistill.exporting.leaner import without_detours
from tsdistill.exporting.tracing import Latest, quiet, structure_of, traced
from tsdistill.formats import FormatError, check_onnx
from tsdistill.models.base import Forecaster, levels_of
from tsdistill.runtime import INPUT, OUTPUT, QUANTILES

if TYPE_CHECKING:
    import onnx

LAYERS = ("Conv", "GRU", "Gemm", "LSTM", "MatMul")
"""Operators that hold the weights of a forecaster."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of a node in which torch's exporter records its module."""

PLAIN = "neither scaled nor centred"
"""What is said of a port in raw units."""

_one_at_a_time = threading.Lock()  # torch's exporter patches global state while it traces
_graphs = Latest()


def graph_of(model: Forecaster) -> bytes:
    """The model as an ONNX file of any batch size, raw units in and out; the same model gives the same bytes.

    A recipe asks for the graph of one model several times (to compare, to quantize, to save), so the latest are kept.
    """
    structure = structure_of(model)
    with _one_at_a_time:
        return _graphs.get_or_make(structure and (model.digest, structure), lambda: _made(model))


def _made(model: Forecaster) -> bytes:
    import onnx

    signature, levels = model.signature.served, levels_of(model.config)
    with quiet():
        graph = stripped(without_detours(_named(traced(model))))
        _describe_ports(graph, signature, levels)
        onnx.checker.check_model(graph, full_check=True)
    # Fingerprints of the model only: the same weights give the same graph, whatever data they were trained on, so
    # that a scheduled job recognises a model it has seen before. The data's fingerprint is in the manifest's lineage.
    metadata = {
        "kind": model.config.kind,
        "model": model.digest,
        "config": model.config.digest,
        "signature": model.signature.digest,
        "channels": json.dumps(list(signature.channels)),
        "context": str(signature.context),
        "frequency": signature.frequency or "",
        "horizon": str(signature.horizon),
        "units": "raw less the offset" if _offsets(signature) else "raw",
        **({"quantiles": json.dumps(list(levels))} if levels else {}),
        **({"future": json.dumps(list(signature.future))} if signature.future else {}),
        **({"past": json.dumps(list(signature.past))} if signature.past else {}),
        **{name: json.dumps(list(offset)) for name, offset in _offsets(signature).items()},
    }
    for name, value in metadata.items():
        graph.metadata_props.add(key=f"tsdistill.{name}", value=value)
    content: bytes = graph.SerializeToString(deterministic=True)
    try:
        check_onnx(content)
    except FormatError as error:
        raise UnsupportedError(
            f"the graph of a {type(model).__name__} must be one that the runtime accepts, but {error}. Change its "
            "forward pass."
        ) from None
    return content


def _describe_ports(graph: onnx.ModelProto, signature: Signature, levels: tuple[float, ...]) -> None:
    """Describe every port: its axes, the names along the last one, and the units."""
    context, horizon = signature.context, signature.horizon
    channels = ", ".join(signature.channels)
    texts = {
        INPUT: f"(batch, {context} past steps, channel: {channels})",
        "future": f"(batch, {context} past and {horizon} coming steps, feature: {', '.join(signature.future)})",
        "past": f"(batch, {context} past steps, feature: {', '.join(signature.past)})",
        OUTPUT: f"(batch, {horizon} coming steps, channel: {channels})",
        QUANTILES: f"(batch, {horizon} coming steps, channel: {channels}, quantile: {', '.join(map(str, levels))})",
    }
    for port in (*graph.graph.input, *graph.graph.output):
        offset = {"future": signature.future_offset, "past": signature.past_offset}.get(port.name, signature.offset)
        units = f"raw values less {', '.join(map(repr, offset))}" if any(offset) else "the raw units of each column"
        port.doc_string = f"{texts[port.name]}, float32, in {units}, {'not scaled' if any(offset) else PLAIN}"


def _offsets(signature: Signature) -> dict[str, tuple[float, ...]]:
    """The offsets of a signature that has some, by name."""
    names = ("offset", "future_offset", "past_offset")
    return {name: offset for name in names if (offset := getattr(signature, name))}


def _named(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Layers with weights are named after the modules they come from: "blocks.0.attention.query"."""
    seen: Counter[str] = Counter()
    for node in graph.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), None)
        if node.op_type not in LAYERS or scopes is None:
            continue
        # From the outermost module inwards; the last one is the function that was called.
        module = ast.literal_eval(scopes)[-2].removeprefix("model").lstrip(".") or node.op_type.lower()
        seen[module] += 1
        node.name = module if seen[module] == 1 else f"{module}.{seen[module]}"
    return graph


def stripped(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without what only a debugger reads: stack traces with this machine's paths, inner shapes, remarks.

    The descriptions of the ports stay.
    """
    graph.doc_string = graph.graph.doc_string = ""
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for port in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del port.metadata_props[:]
    for tensor in graph.graph.initializer:
        tensor.doc_string = ""
    return graph


def labelled(graph: onnx.ModelProto, like: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the metadata and the remarks on ports of the one it was made from, which quantizers drop."""
    del graph.metadata_props[:]
    graph.metadata_props.extend(like.metadata_props)
    remarks = {port.name: port.doc_string for port in (*like.graph.input, *like.graph.output)}
    for port in (*graph.graph.input, *graph.graph.output):
        port.doc_string = remarks[port.name]
    return graph


def package_versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages that can change a graph, for the lineage."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}
