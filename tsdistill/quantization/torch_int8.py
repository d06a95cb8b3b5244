"""Torch's own dynamic INT8, to be compared with and never deployed."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tsdistill.errors import UnsupportedError
from tsdistill.exporting import refuse_deployed
from tsdistill.models.base import Forecaster

if TYPE_CHECKING:
    from tsdistill.data.task import Batch, Signature

ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")
"""Torch's backends for INT8, the fastest first."""


class TorchInt8:
    """A forecaster under torch's `quantize_dynamic`: it can be scored and timed, but not exported, saved or served.

    Use it as a row in a benchmark. What introductions show as dynamic quantization is this; torch calls it deprecated
    (torchao is to take its place and has no LSTM), it does not export to ONNX, needs torch where it runs, and makes
    small LSTMs slower. `td.quantize` with method "dynamic" is what serves.

    Args:
        forecaster: Left as it is.

    Raises:
        OrderError: The forecaster is deployed already.
        UnsupportedError: This torch has no `quantize_dynamic` or no backend for it, or the forecaster has no LSTM,
            no GRU and no linear layer.

    Example:
        >>> from tsdistill.evaluation import evaluate
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> torch_int8 = TorchInt8(MLPConfig(width=8).build(task.signature))
        >>> evaluate(torch_int8, task)["n_windows"]
        91.0

    FloatGraph: `torch.ao.quantization.quantize_dynamic`, PyTorch; its deprecation: pytorch/ao issue 2259.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        refuse_deployed(forecaster, "quantize")
        model = copy.deepcopy(forecaster).cpu().eval()
        layers = (nn.Linear, nn.LSTM, nn.GRU)
        if not any(isinstance(module, layers) for module in model.modules()):
            raise UnsupportedError(
                f"torch's quantize_dynamic must find an LSTM, a GRU or a linear layer, got a {forecaster.config.kind} "
                "forecaster without one. Use td.quantize(..., td.Quantization(method='auto'))."
            )
        self.signature: Signature = forecaster.signature
        self.engine = _engine()
        torch.backends.quantized.engine = self.engine
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated, which is why it is no backend
            self._model: Any = torch.ao.quantization.quantize_dynamic(model, set(layers), dtype=torch.qint8)

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts of a scaled batch, like a teacher's."""
        with torch.inference_mode():
            forecast: Tensor = self._model(batch.context, batch.future, batch.past)
            return forecast

    def predict(self, x: np.ndarray, future: np.ndarray | None = None, past: np.ndarray | None = None) -> np.ndarray:
        """Raw-unit forecasts, as `Forecaster.predict` gives them."""
        forecast: np.ndarray = self._model.predict(x, future, past)
        return forecast

    @property
    def size_bytes(self) -> int:
        """Bytes of its weights, packed ones too and their scales not; torch has no file for it but a pickle."""
        return sum(map(_bytes_of, self._model.state_dict().values()))


def _bytes_of(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, tuple | list):
        return sum(map(_bytes_of, state))
    return _bytes_of(state.__getstate__()) if isinstance(state, torch.ScriptObject) else 0


def _engine() -> str:
    """The fastest INT8 backend of this torch."""
    supported = torch.backends.quantized.supported_engines
    fastest = next((engine for engine in ENGINES if engine in supported), None)
    try:
        exists = hasattr(torch.ao.quantization, "quantize_dynamic")
    except (AttributeError, ImportError):  # a later torch, without it
        exists = False
    if fastest is None or not exists:
        raise UnsupportedError(
            f"torch must have quantize_dynamic and one of the backends {', '.join(ENGINES)}, got torch "
            f"{torch.__version__} with {', '.join(supported)}. Use td.quantize(..., td.Quantization(method='dynamic'))."
        )
    return fastest
