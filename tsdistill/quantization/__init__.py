"""INT8 that pays: forecasters deployed with 8-bit weights, measured against float32 and refused if worse."""

from __future__ import annotations

from tsdistill.quantization.choice import quantize
from tsdistill.quantization.spec import Quantization

__all__ = ["Quantization", "quantize"]
