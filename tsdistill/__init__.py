"""Train large forecasters, distil them into small ones, prune, quantize and ship them.

Every name is imported on first use: `import tsdistill` loads neither torch nor pandas. The names stand in
`__init__.pyi`; what is not there lives behind its family's door (`td.losses`, `td.models`, `td.errors`, ...).
"""

from typing import Any

import lazy_loader

from tsdistill.deprecation import moved_name

__version__ = "0.2.0"

MOVED = {
    "ArtifactError": "tsdistill.errors.ArtifactError",
    "BinnedHead": "tsdistill.models.BinnedHead",
    "ConfigError": "tsdistill.errors.ConfigError",
    "CycleNetConfig": "tsdistill.models.CycleNetConfig",
    "DLinearConfig": "tsdistill.models.DLinearConfig",
    "DataError": "tsdistill.errors.DataError",
    "DecompositionLoss": "tsdistill.losses.DecompositionLoss",
    "DivergenceError": "tsdistill.errors.DivergenceError",
    "InvertedTransformerConfig": "tsdistill.models.InvertedTransformerConfig",
    "MultiScaleLoss": "tsdistill.losses.MultiScaleLoss",
    "OrderError": "tsdistill.errors.OrderError",
    "Plan": "tsdistill.pruning.Plan",
    "PointHead": "tsdistill.models.PointHead",
    "QuantileLoss": "tsdistill.losses.QuantileLoss",
    "SeasonalNaiveConfig": "tsdistill.models.SeasonalNaiveConfig",
    "ShapeError": "tsdistill.errors.ShapeError",
    "SmoothnessLoss": "tsdistill.losses.SmoothnessLoss",
    "SoftLabelLoss": "tsdistill.losses.SoftLabelLoss",
    "SparseTSFConfig": "tsdistill.models.SparseTSFConfig",
    "SpectralLoss": "tsdistill.losses.SpectralLoss",
    "TSMixerConfig": "tsdistill.models.TSMixerConfig",
    "TeacherEnsemble": "tsdistill.teachers.TeacherEnsemble",
    "TrustedTeacher": "tsdistill.teachers.TrustedTeacher",
    "TsdistillError": "tsdistill.errors.TsdistillError",
    "UnsupportedError": "tsdistill.errors.UnsupportedError",
    "WeightSchedule": "tsdistill.losses.WeightSchedule",
    "read_forecasts": "tsdistill.teachers.read_forecasts",
    "sensitivity": "tsdistill.pruning_sensitivity",
    "statistical": "tsdistill.evaluation.statistical",
}
"""Names that version 0.1 had here, each with its place now; they go with version 0.3."""

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return moved_name(__name__, name, MOVED) if name in MOVED else _load(name)
