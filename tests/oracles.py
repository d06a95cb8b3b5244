"""Slow plain versions of what the package computes fast. They loop, they are obviously right, they share no code."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

# Metrics: arrays (window, step, channel).


def mse(forecast: np.ndarray, target: np.ndarray) -> float:
    errors = [(f - t) ** 2 for f, t in zip(forecast.ravel().tolist(), target.ravel().tolist(), strict=True)]
    return sum(errors) / len(errors)


def mae(forecast: np.ndarray, target: np.ndarray) -> float:
    errors = [abs(f - t) for f, t in zip(forecast.ravel().tolist(), target.ravel().tolist(), strict=True)]
    return sum(errors) / len(errors)


def smape(forecast: np.ndarray, target: np.ndarray) -> float:
    pairs = list(zip(forecast.ravel().tolist(), target.ravel().tolist(), strict=True))
    ratios = [0.0 if f == t == 0 else abs(f - t) / ((abs(f) + abs(t)) / 2) for f, t in pairs]
    return 100 * sum(ratios) / len(ratios)


def mase(forecast: np.ndarray, target: np.ndarray, training: np.ndarray, period: int) -> float:
    ratios = []
    for channel in range(training.shape[1]):
        moves = [abs(training[t, channel] - training[t - period, channel]) for t in range(period, len(training))]
        scale = sum(moves) / len(moves)
        ratios += [abs(e) / scale for e in (forecast - target)[:, :, channel].ravel().tolist()]
    return sum(ratios) / len(ratios)


def rmsse(forecast: np.ndarray, target: np.ndarray, training: np.ndarray, period: int) -> float:
    roots = []
    for channel in range(training.shape[1]):
        moves = [(training[t, channel] - training[t - period, channel]) ** 2 for t in range(period, len(training))]
        for window in range(len(forecast)):
            errors = [e**2 for e in (forecast - target)[window, :, channel].tolist()]
            roots.append(math.sqrt(sum(errors) / len(errors) / (sum(moves) / len(moves))))
    return sum(roots) / len(roots)


def wql(forecast: np.ndarray, target: np.ndarray, levels: list[float]) -> float:
    losses = []
    for number, level in enumerate(levels):
        misses = (target - forecast[..., number]).ravel().tolist()
        losses.append(2 * sum(level * m if m > 0 else (level - 1) * m for m in misses))
    return sum(losses) / len(losses) / sum(abs(t) for t in target.ravel().tolist())


def coverage(lower: np.ndarray, upper: np.ndarray, target: np.ndarray) -> float:
    bounds = zip(lower.ravel().tolist(), upper.ravel().tolist(), target.ravel().tolist(), strict=True)
    inside = [low <= t <= high for low, high, t in bounds]
    return sum(inside) / len(inside)


def crossing_rate(forecast: np.ndarray) -> float:
    pairs = [low > high for row in forecast.reshape(-1, forecast.shape[-1]).tolist() for low, high in pairwise(row)]
    return sum(pairs) / len(pairs)


# Significance: the long-run variance of a series of loss differences, and Holm's adjustment.


def long_run_variance(differences: np.ndarray, degrees: int) -> float:
    length, total = len(differences), 0.0
    for wave in range(1, degrees + 1):
        terms = [d * math.cos(math.pi * wave * (t - 0.5) / length) for t, d in enumerate(differences.tolist(), start=1)]
        total += (math.sqrt(2 / length) * sum(terms)) ** 2
    return total / degrees


def holm(p_values: list[float]) -> list[float]:
    order, adjusted, largest = sorted(range(len(p_values)), key=p_values.__getitem__), [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[position])
        adjusted[position] = min(1.0, largest)
    return adjusted
