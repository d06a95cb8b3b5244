from . import (
    errors,
    evaluation,
    losses,
    models,
    pruning,
    quality,
    quantization,
    retrain,
    runtime,
    search,
    teachers,
    testing,
)
from .artifacts import load, save, verify
from .data import Covariates, Panel, Split, Task, datasets, read_csv, read_parquet, read_sql
from .distillation import distill, refit
from .edge import export_c
from .evaluation import evaluate
from .exporting import Deployed, export
from .losses import AttentionLoss, FeatureLoss, OutputLoss, TemporalLoss
from .models import Forecaster, LinearConfig, LSTMConfig, MLPConfig, PatchTSTConfig, QuantileHead, TCNConfig
from .pruning import Pruning, plan_pruning, prune, pruning_sensitivity, shrink
from .quality import check_data
from .quantization import Quantization, quantization_sensitivity, quantize
from .recipe import Budget, Recipe, run
from .report import Report, compare
from .search import compress
from .solving import solve
from .teachers import wrap
from .training import Training, train

__version__: str

__all__ = [
    "AttentionLoss",
    "Budget",
    "Covariates",
    "Deployed",
    "FeatureLoss",
    "Forecaster",
    "LSTMConfig",
    "LinearConfig",
    "MLPConfig",
    "OutputLoss",
    "Panel",
    "PatchTSTConfig",
    "Pruning",
    "QuantileHead",
    "Quantization",
    "Recipe",
    "Report",
    "Split",
    "TCNConfig",
    "Task",
    "TemporalLoss",
    "Training",
    "check_data",
    "compare",
    "compress",
    "datasets",
    "distill",
    "errors",
    "evaluate",
    "evaluation",
    "export",
    "export_c",
    "load",
    "losses",
    "models",
    "plan_pruning",
    "prune",
    "pruning",
    "pruning_sensitivity",
    "quality",
    "quantization",
    "quantization_sensitivity",
    "quantize",
    "read_csv",
    "read_parquet",
    "read_sql",
    "refit",
    "retrain",
    "run",
    "runtime",
    "save",
    "search",
    "shrink",
    "solve",
    "teachers",
    "testing",
    "train",
    "verify",
    "wrap",
]
