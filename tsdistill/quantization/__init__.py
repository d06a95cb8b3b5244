"""INT8 that pays: forecasters deployed with 8-bit weights, measured against float32 and refused if worse."""

from __future__ import annotations

from tsdistill.quantization.auto import Auto
from tsdistill.quantization.base import QUANTIZATIONS, AnyQuantization, Quantization
from tsdistill.quantization.choice import candidate_table, quantize, replay
from tsdistill.quantization.dynamic import Dynamic
from tsdistill.quantization.qat import QAT
from tsdistill.quantization.sensitivities import QuantizationSensitivity, quantization_sensitivity
from tsdistill.quantization.static import Static
from tsdistill.quantization.weight_only import WeightOnly

QUANTIZATIONS.include(Dynamic, Static, WeightOnly, QAT, Auto)

register = QUANTIZATIONS.register
"""Make a form of your own one that recipes can name and "auto" tries: `td.quantization.register(MyForm)`, or as a
decorator. See `Family`."""

__all__ = [
    "QAT",
    "QUANTIZATIONS",
    "AnyQuantization",
    "Auto",
    "Dynamic",
    "Quantization",
    "QuantizationSensitivity",
    "Static",
    "WeightOnly",
    "candidate_table",
    "quantization_sensitivity",
    "quantize",
    "register",
    "replay",
]
