"""From a torch module to an ONNX graph: traced once for each architecture, filled with the weights of each model.

Tracing takes seconds and looks at no weight, so that models that differ in their weights and their scaling only, as
trials of a search, students of several seeds and pruned models of one size do, share one trace. What follows it
(folding constants, dropping what is superfluous) may look at weights, and is done for each model.
"""

from __future__ import annotations

import functools
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tsdistill.errors import UnsupportedError
from tsdistill.exporting.templates import template_of
from tsdistill.models.base import Forecaster, levels_of
from tsdistill.runtime import INPUT, OUTPUT, QUANTILES

if TYPE_CHECKING:
    import onnx

FROM_TORCHLIB = "from_torchlib"
"""What makes the table of translations in torch's exporter."""

KEPT_BYTES = 1 << 26
"""The latest graphs are kept up to this size together."""

Key = tuple[Any, ...]


class Latest(dict[Key, bytes]):
    """The latest graphs, by what decides them, up to `KEPT_BYTES` together."""

    def get_or_make(self, key: Key | None, make: Callable[[], bytes]) -> bytes:
        """The graph that is kept under `key`, or a new one; without a key, always a new one."""
        if key is None:
            return make()
        self[key] = graph = self.pop(key, None) or make()  # the newest stands last
        while sum(map(len, self.values())) > KEPT_BYTES:
            del self[next(iter(self))]
        return graph


_registries: dict[str, Callable[..., Any]] = {}
_templates = Latest()


def traced(model: Forecaster) -> onnx.ModelProto:
    """The model with its scaling around it as a graph that torch's exporter has optimized, raw units in and out."""
    import onnx
    import onnx_ir
    from onnx_ir.tensor_adapters import TorchTensor

    around = _RawUnits(model).eval()
    tensors: dict[str, Tensor] = dict(around.named_parameters(remove_duplicate=False))
    tensors |= dict(around.named_buffers(remove_duplicate=False))
    key = _template_key(model, tensors)
    template = _templates.get_or_make(key, lambda: template_of(key, lambda: _template(model, around, tensors)))
    graph = onnx_ir.from_proto(onnx.ModelProto.FromString(template))
    for name, value in graph.graph.initializers.items():
        if name in tensors:
            value.const_value = TorchTensor(tensors[name].detach(), name=name)
    program = torch.onnx.ONNXProgram(graph, None)
    program.optimize()
    return program.model_proto


def _template(model: Forecaster, around: nn.Module, tensors: dict[str, Tensor]) -> bytes:
    """The graph as it is traced, without the values of weights."""
    signature = model.signature
    n_steps = signature.context + signature.horizon
    examples = {INPUT: torch.zeros(2, signature.context, len(signature.channels))}
    if signature.future:
        examples["future"] = torch.zeros(2, n_steps, len(signature.future))
    if signature.past:
        examples["past"] = torch.zeros(2, signature.context, len(signature.past))
    batch = torch.export.Dim("batch")
    with _translations_read_once():
        try:
            program = torch.onnx.export(
                around,
                kwargs=examples,
                dynamo=True,
                external_data=False,
                input_names=list(examples),
                output_names=[OUTPUT, QUANTILES] if levels_of(model.config) else [OUTPUT],
                dynamic_shapes={name: {0: batch} for name in examples},
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UnsupportedError(_refusal(model, error)) from error
    assert program is not None  # the dynamo exporter always returns one
    graph = program.model_proto
    for initializer in graph.graph.initializer:
        if initializer.name in tensors:
            initializer.ClearField("raw_data")
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _template_key(model: Forecaster, tensors: dict[str, Tensor]) -> Key | None:
    """What decides the trace of a model; None where that cannot be told."""
    structure = structure_of(model)
    if structure is None:
        return None
    signature = model.signature
    task: Key = (signature.digest,)
    if all(type(module).__module__.partition(".")[0] in ("torch", "tsdistill") for module in model.modules()):
        # Our own forward passes read no more of a signature; another's may write its statistics into the graph.
        sizes = (
            signature.context,
            signature.horizon,
            *map(len, (signature.channels, signature.future, signature.past)),
        )
        task = (*sizes, signature.frequency, signature.normalisation)
    shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items())
    return model.config.digest, task, shapes, structure


def structure_of(model: Forecaster) -> tuple[Any, ...] | None:
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
        signature = model.signature.served
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
