"""Scores, baselines, significance and latency; only this and `compare`, built on it, read the test part."""

from __future__ import annotations

from tsdistill.evaluation.baselines import baselines, seasonal_naive
from tsdistill.evaluation.bench import bench, peak_bytes
from tsdistill.evaluation.forecasting import check_fits, forecasts, quantile_levels
from tsdistill.evaluation.latency import Latency, measure_latency
from tsdistill.evaluation.scores import QuantileScores, Scores, evaluate, score, window_losses
from tsdistill.evaluation.significance import SIGNIFICANT, LossComparison, compare_losses, holm
from tsdistill.evaluation.statistical import METHODS, Method, Statistical, StatisticalForecaster, statistical

__all__ = [
    "METHODS",
    "SIGNIFICANT",
    "Latency",
    "LossComparison",
    "Method",
    "QuantileScores",
    "Scores",
    "Statistical",
    "StatisticalForecaster",
    "baselines",
    "bench",
    "check_fits",
    "compare_losses",
    "evaluate",
    "forecasts",
    "holm",
    "measure_latency",
    "peak_bytes",
    "quantile_levels",
    "score",
    "seasonal_naive",
    "statistical",
    "window_losses",
]
