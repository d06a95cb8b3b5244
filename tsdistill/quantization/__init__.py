"""INT8 that pays: forecasters deployed with 8-bit weights, measured against float32 and refused if worse."""

from __future__ import annotations

from tsdistill.quantization.choice import candidate_table, quantize
from tsdistill.quantization.sensitivities import QuantizationSensitivity, quantization_sensitivity
from tsdistill.quantization.spec import Quantization

__all__ = [
    "Quantization",
    "QuantizationSensitivity",
    "candidate_table",
    "quantization_sensitivity",
    "quantize",
]
