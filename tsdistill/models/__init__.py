"""The architectures: each is a frozen config and the forecaster it builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from tsdistill.errors import ConfigError, nearest
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig, versions
from tsdistill.models.cyclenet import CycleNetConfig
from tsdistill.models.dlinear import DLinearConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, BinnedHead, PointHead, QuantileHead
from tsdistill.models.inverted import InvertedTransformerConfig
from tsdistill.models.linear import LinearConfig
from tsdistill.models.lstm import LSTMConfig
from tsdistill.models.mlp import MLPConfig
from tsdistill.models.naive import SeasonalNaiveConfig
from tsdistill.models.patchtst import PatchTSTConfig
from tsdistill.models.sparse import SparseTSFConfig
from tsdistill.models.tcn import TCNConfig
from tsdistill.models.tsmixer import TSMixerConfig

AnyModelConfig = Annotated[
    PatchTSTConfig
    | InvertedTransformerConfig
    | LSTMConfig
    | TCNConfig
    | MLPConfig
    | TSMixerConfig
    | DLinearConfig
    | SparseTSFConfig
    | CycleNetConfig
    | LinearConfig
    | SeasonalNaiveConfig,
    Field(discriminator="kind"),
]
"""The type of a field that holds any architecture's config; `kind` says which."""

CONFIGS: dict[str, type[ModelConfig]] = {
    config.model_fields["kind"].default: config
    for config in (
        PatchTSTConfig,
        InvertedTransformerConfig,
        LSTMConfig,
        TCNConfig,
        MLPConfig,
        TSMixerConfig,
        DLinearConfig,
        SparseTSFConfig,
        CycleNetConfig,
        LinearConfig,
        SeasonalNaiveConfig,
    )
}
"""Config classes by their `kind`."""

__all__ = [
    "CONFIGS",
    "Activations",
    "AnyHead",
    "AnyModelConfig",
    "BinnedHead",
    "CycleNetConfig",
    "DLinearConfig",
    "Forecaster",
    "InvertedTransformerConfig",
    "LSTMConfig",
    "LinearConfig",
    "MLPConfig",
    "ModelConfig",
    "PatchTSTConfig",
    "PointHead",
    "QuantileHead",
    "SeasonalNaiveConfig",
    "Slice",
    "SparseTSFConfig",
    "TCNConfig",
    "TSMixerConfig",
    "WidthGroup",
    "config_from_dict",
    "versions",
]


def config_from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The config that `config.to_dict()` was made from."""
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in CONFIGS:
        raise ConfigError(f"`kind` must name an architecture, got kind={kind!r}. {nearest(str(kind), CONFIGS)}")
    return CONFIGS[kind].from_dict(values)
