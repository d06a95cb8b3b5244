from . import retrain, runtime, search, teachers, testing
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
from .pruning import Pruning, prune
from .quantization import Quantization, quantize
from .recipe import Recipe, run
from .report import Report, compare
from .teachers import TeacherEnsemble, TrustedTeacher, read_forecasts, wrap
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
    "TeacherEnsemble",
    "TemporalLoss",
    "Training",
    "TrustedTeacher",
    "TsdistillError",
    "UnsupportedError",
    "compare",
    "datasets",
    "distill",
    "evaluate",
    "export",
    "load",
    "prune",
    "quantize",
    "read_csv",
    "read_forecasts",
    "read_parquet",
    "read_sql",
    "retrain",
    "run",
    "runtime",
    "save",
    "search",
    "statistical",
    "teachers",
    "testing",
    "train",
    "verify",
    "wrap",
]
