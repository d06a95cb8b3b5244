"""From a torch module to an ONNX graph with the scaler activations."""

from __future__ import annotations

import ast
import functools
import json
import logging
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tsdistill.data.task import Signature
from tsdistill.errors import UnsupportedError
from tsdistill.exporting.leaner import without_detours
from tsdistill.formats import FormatError, check_onnx
from tsdistill.models.base import Forecaster, levels_of
from tsdistill.runtime import INPUT, OUTPUT, QUANTILES

if TYPE_CHECKING:
    import onnx

LAYERS = ("Conv", "Gemm", "LSTM", "MatMul")
"""Operators that hold the weights of a forecaster."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of a node in which torch's exporter records its module."""

FROM_TORCHLIB = "from_torchlib"
"""What makes the table of translations in torch's exporter."""

PLAIN = "neither scaled nor centred"
"""What is said of a port in raw units."""

KEPT_BYTES = 1 << 26
"""Graphs of the latest models are kept up to this size together."""

_one_at_a_time = threading.Lock()  # torch's exporter patches global state while it traces
_registries: dict[str, Callable[..., Any]] = {}
_kept: dict[tuple[str, tuple[Any, ...]], bytes] = {}


def graph_of(model: Forecaster) -> bytes:
    """The model as an ONNX file of any batch size, raw units in and out; the same model gives the same bytes.

    Tracing takes seconds, and a recipe asks for the graph of one model several times (to compare, to quantize, to
    save), so the latest graphs are kept.
    """
    structure = _structure(model)
    if structure is None:
        with _one_at_a_time:
            return _traced(model)
    key = (model.digest, structure)
    with _one_at_a_time:
        graph = _kept.pop(key, None) or _traced(model)
        _kept[key] = graph  # the newest stands last
        while sum(map(len, _kept.values())) > KEPT_BYTES:
            del _kept[next(iter(_kept))]
    return graph


def _structure(model: Forecaster) -> tuple[Any, ...] | None:
    """What decides the graph beside config, signature and weights; None where that cannot be told.

    Classes and functions stand for themselves: one that was defined anew in a notebook may compute something else.
    """
    ordinary = nn.Module().__dict__.keys() | {"config", "signature", "lineage", "control"}
    described: list[Any] = []
    for name, module in model.named_modules():
        own = {key: value for key, value in module.__dict__.items() if key not in ordinary}
        if type(module).__module__.startswith("torch.nn."):  # torch's own keep nothing else that decides
            own = {key: value for key, value in own.items() if _is_plain(value)}
        hooked = module._forward_hooks or module._forward_pre_hooks or parametrize.is_parametrized(module)
        if hooked or not all(_is_plain(value) for value in own.values()):
            return None
        described.append((name, type(module), type(module).forward, *sorted(own.items(), key=lambda pair: pair[0])))
    return tuple(described)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | type | FunctionType | BuiltinFunctionType)


def _traced(model: Forecaster) -> bytes:
    import onnx

    signature = model.signature
    n_steps = signature.context + signature.horizon
    examples = {INPUT: torch.zeros(2, signature.context, len(signature.channels))}
    if signature.future:
        examples["future"] = torch.zeros(2, n_steps, len(signature.future))
    if signature.past:
        examples["past"] = torch.zeros(2, signature.context, len(signature.past))
    levels = levels_of(model.config)
    batch = torch.export.Dim("batch")
    with quiet(), _translations_read_once():
        try:
            program = torch.onnx.export(
                _RawUnits(model).eval(),
                kwargs=examples,
                dynamo=True,
                external_data=False,
                input_names=list(examples),
                output_names=[OUTPUT, QUANTILES] if levels else [OUTPUT],
                dynamic_shapes={name: {0: batch} for name in examples},
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UnsupportedError(_refusal(model, error)) from error
        assert program is not None  # the dynamo exporter always returns one
        graph = stripped(without_detours(_named(program.model_proto)))
        _describe_ports(graph, signature, levels)
        onnx.checker.check_model(graph, full_check=True)
    # Fingerprints of the model only: the same weights give the same graph, whatever data they were trained on, so
    # that a scheduled job recognises a model it has seen before. The data's fingerprint is in the manifest's lineage.
    metadata = {
        "kind": model.config.kind,
        "model": model.digest,
        "config": model.config.digest,
        "signature": signature.digest,
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


@contextmanager
def _translations_read_once() -> Iterator[None]:
    """Let torch's exporter parse its 500 translations of operators once a process: half of the time of a small graph.

    The name is one of torch's own; where it has gone, every graph takes as long as it does without this.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        plain = ONNXRegistry.__dict__[FROM_TORCHLIB]
        read = functools.cache(functools.partial(plain.__func__, ONNXRegistry))
    except (ImportError, AttributeError, KeyError):
        yield
        return
    setattr(ONNXRegistry, FROM_TORCHLIB, staticmethod(_registries.setdefault(FROM_TORCHLIB, read)))
    try:
        yield
    finally:
        setattr(ONNXRegistry, FROM_TORCHLIB, plain)


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
    """The model with its scaling around it: the task's scaler, or each window's own mean and deviation."""

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.model = model
        self.has_quantiles = bool(levels_of(model.config))
        signature = model.signature
        self.by_window = signature.normalisation == "window"
        self.channels = _Scaler(signature.mean, signature.scale)
        self.future = _Scaler(signature.future_mean, signature.future_scale)
        self.past = _Scaler(signature.past_mean, signature.past_scale)

    def forward(
        self, context: Tensor, future: Tensor | None = None, past: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        low, high, scale = _of_window(context) if self.by_window else self.channels.parts
        activations = self.model.activations(
            (context - high - low) / scale,
            None if future is None else self.future(future),
            None if past is None else self.past(past),
        )
        forecast = activations.forecast * scale + low + high
        if not self.has_quantiles or activations.distribution is None:
            return forecast
        # Along the channels like the forecast, so that both are scaled by the same numbers.
        quantiles = activations.distribution.permute(3, 0, 1, 2) * scale + low + high
        return forecast, quantiles.permute(1, 2, 3, 0)


class _Scaler(nn.Module):
    """(x - mean) / scale along the last axis.

    A mean far from zero does not fit float32 (1012.34 +- 8 loses 4e-6 of a deviation), so it is kept as the sum of two
    float32 numbers: subtracting the large one first is exact for values near it.
    """

    high: Tensor
    low: Tensor
    scale: Tensor

    def __init__(self, mean: tuple[float, ...], scale: tuple[float, ...]) -> None:
        super().__init__()
        exact = torch.tensor(mean, dtype=torch.float64)
        self.register_buffer("high", exact.float())
        self.register_buffer("low", (exact - exact.float().double()).float())
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Small and large part of the mean, and the scale."""
        return self.low, self.high, self.scale

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.high - self.low) / self.scale


def _of_window(context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same parts of each window and channel by itself, (batch, 1, channel); a constant window has the scale 1."""
    last = context[:, -1:]
    offset = context - last
    mean = offset.mean(dim=1, keepdim=True)
    spread = (offset - mean).square().mean(dim=1, keepdim=True).sqrt()
    return mean, last, torch.where(spread > 0, spread, torch.ones_like(spread))


def package_versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages that can change a graph, for the lineage."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}


def _refusal(model: Forecaster, error: BaseException) -> str:
    """Which operator has no counterpart, or why torch cannot follow `forward`, as the innermost cause states it.

    The outermost only names the step of torch's exporter and where to report it.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", reason)
    if operator is None:
        return (
            f"the forward pass of a {type(model).__name__} must be the same steps for every input, so that a graph "
            f"can hold it: {reason}. Change it there."
        )
    return (
        f"a {type(model).__name__} must consist of operators that ONNX has, got {operator[1]}. Replace it by others "
        "in its forward pass."
    )
