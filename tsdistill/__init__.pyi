from . import retrain, runtime, search, testing
from .artifacts import load, save, verify
from .data import Covariates, Panel, Split, Task, datasets, read_csv, read_parquet, read_sql
from .distillation import distill
from .errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DivergenceError,
    OrderError,
    ShapeError,
    TsdistillError,
    UnsupportedError,
)
from .evaluation import evaluate, statistical
from .exporting import Deployed, export
from .losses import OutputLoss, TemporalLoss
from .models import (
    BinnedHead,
    CycleNetConfig,
    DLinearConfig,
    Forecaster,
    InvertedTransformerConfig,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    PatchTSTConfig,
    PointHead,
    QuantileHead,
    SeasonalNaiveConfig,
    SparseTSFConfig,
    TCNConfig,
    TSMixerConfig,
)
from .pruning import Plan, Pruning, plan_pruning, prune, sensitivity
from .quantization import Quantization, quantize
from .recipe import Recipe, run
from .report import Report, compare
from .training import Training, train

__version__: str

__all__ = [
    "ArtifactError",
    "BinnedHead",
    "ConfigError",
    "Covariates",
    "CycleNetConfig",
    "DLinearConfig",
    "DataError",
    "Deployed",
    "DivergenceError",
    "Forecaster",
    "InvertedTransformerConfig",
    "LSTMConfig",
    "LinearConfig",
    "MLPConfig",
    "OrderError",
    "OutputLoss",
    "Panel",
    "PatchTSTConfig",
    "Plan",
    "PointHead",
    "Pruning",
    "QuantileHead",
    "Quantization",
    "Recipe",
    "Report",
    "SeasonalNaiveConfig",
    "ShapeError",
    "SparseTSFConfig",
    "Split",
    "TCNConfig",
    "TSMixerConfig",
    "Task",
    "TemporalLoss",
    "Training",
    "TsdistillError",
    "UnsupportedError",
    "compare",
    "datasets",
    "distill",
    "evaluate",
    "export",
    "load",
    "plan_pruning",
    "prune",
    "quantize",
    "read_csv",
    "read_parquet",
    "read_sql",
    "retrain",
    "run",
    "runtime",
    "save",
    "search",
    "sensitivity",
    "statistical",
    "testing",
    "train",
    "verify",
]
