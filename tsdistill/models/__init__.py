"""The architectures: each is a frozen config and the forecaster it builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsdistill.deprecation import moved_names
from tsdistill.models.activations import Activations
from tsdistill.models.averaged import AveragedLinearConfig
from tsdistill.models.base import MODELS, AnyModelConfig, Forecaster, ModelConfig, versions
from tsdistill.models.cyclenet import CycleNetConfig
from tsdistill.models.dlinear import DLinearConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.gru import GRUConfig
from tsdistill.models.heads import HEADS, AnyHead, BinnedHead, Head, PointHead, QuantileHead
from tsdistill.models.inverted import InvertedTransformerConfig
from tsdistill.models.linear import LinearConfig
from tsdistill.models.lstm import LSTMConfig
from tsdistill.models.mlp import MLPConfig
from tsdistill.models.naive import SeasonalNaiveConfig
from tsdistill.models.patchtst import PatchTSTConfig
from tsdistill.models.resolutions import MultiResolutionConfig
from tsdistill.models.sparse import SparseTSFConfig
from tsdistill.models.tcn import TCNConfig
from tsdistill.models.timebase import TimeBaseConfig
from tsdistill.models.tsmixer import TSMixerConfig

MODELS.include(
    PatchTSTConfig,
    InvertedTransformerConfig,
    LSTMConfig,
    GRUConfig,
    TCNConfig,
    MLPConfig,
    TSMixerConfig,
    DLinearConfig,
    SparseTSFConfig,
    TimeBaseConfig,
    CycleNetConfig,
    LinearConfig,
    AveragedLinearConfig,
    MultiResolutionConfig,
    SeasonalNaiveConfig,
)

register = MODELS.register
"""Make a config of your own an architecture: `td.models.register(MyConfig)`, or as a decorator. See `Family`."""

__all__ = [
    "HEADS",
    "MODELS",
    "Activations",
    "AnyHead",
    "AnyModelConfig",
    "AveragedLinearConfig",
    "BinnedHead",
    "CycleNetConfig",
    "DLinearConfig",
    "Forecaster",
    "GRUConfig",
    "Head",
    "InvertedTransformerConfig",
    "LSTMConfig",
    "LinearConfig",
    "MLPConfig",
    "ModelConfig",
    "MultiResolutionConfig",
    "PatchTSTConfig",
    "PointHead",
    "QuantileHead",
    "SeasonalNaiveConfig",
    "Slice",
    "SparseTSFConfig",
    "TCNConfig",
    "TSMixerConfig",
    "TimeBaseConfig",
    "WidthGroup",
    "register",
    "versions",
]

MOVED = {
    "CONFIGS": "tsdistill.models.MODELS",
    "config_from_dict": "tsdistill.models.MODELS.read",
}
"""Names of version 0.1, each with its place now; they go with version 0.3."""

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = moved_names(__name__, MOVED)
