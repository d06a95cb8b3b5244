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


# Losses: arrays (window, step, channel); one value per window and channel at a time.


def columns(values: np.ndarray) -> list[list[float]]:
    return [values[window, :, channel].tolist() for window in range(len(values)) for channel in range(values.shape[2])]


def blended(
    student: np.ndarray, teacher: np.ndarray, truth: np.ndarray, alpha: float, error: str, delta: float, last: float
) -> float:
    def one(gap: float) -> float:
        if error == "squared":
            return gap * gap
        if error == "absolute":
            return abs(gap)
        return gap * gap / 2 if abs(gap) <= delta else delta * (abs(gap) - delta / 2)

    n_steps = student.shape[1]
    weights = [1 + (last - 1) * step / (n_steps - 1) for step in range(n_steps)]
    total = 0.0
    for place, forecast in np.ndenumerate(student):
        both = alpha * one(forecast - teacher[place]) + (1 - alpha) * one(forecast - truth[place])
        total += both * weights[place[1]] / (sum(weights) / n_steps)
    return total / student.size


def pooled(series: list[float], scale: int) -> list[float]:
    blocks = [series[start : start + scale] for start in range(0, len(series), scale)]
    return [sum(block) / len(block) for block in blocks]


def multi_scale(student: np.ndarray, teacher: np.ndarray, scales: tuple[int, ...]) -> float:
    errors = []
    for scale in scales:
        gaps = [
            (a - b) ** 2
            for student_column, teacher_column in zip(columns(student), columns(teacher), strict=True)
            for a, b in zip(pooled(student_column, scale), pooled(teacher_column, scale), strict=True)
        ]
        errors.append(sum(gaps) / len(gaps))
    return sum(errors) / len(errors)


def amplitudes(series: list[float]) -> list[float]:
    strengths, length = [], len(series)
    for wave in range(1, length // 2 + 1):
        angles = [2 * math.pi * wave * step / length for step in range(length)]
        even = sum(value * math.cos(angle) for value, angle in zip(series, angles, strict=True))
        odd = sum(value * math.sin(angle) for value, angle in zip(series, angles, strict=True))
        strengths.append(2 / length * math.hypot(even, odd))
    return strengths


def shares(logits: list[float], temperature: float) -> list[float]:
    raised = [math.exp(logit / temperature) for logit in logits]
    return [value / sum(raised) for value in raised]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def spectral_divergence(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    divergences = [
        divergence(shares(amplitudes(teacher_column), temperature), shares(amplitudes(student_column), temperature))
        for student_column, teacher_column in zip(columns(student), columns(teacher), strict=True)
    ]
    return sum(divergences) / len(divergences)


def log_spectral(student: np.ndarray, teacher: np.ndarray, floor: float) -> float:
    gaps = [
        (math.log(a + floor) - math.log(b + floor)) ** 2
        for student_column, teacher_column in zip(columns(student), columns(teacher), strict=True)
        for a, b in zip(amplitudes(student_column), amplitudes(teacher_column), strict=True)
    ]
    return sum(gaps) / len(gaps)


def roughness(series: list[float], order: int) -> float:
    moves = series
    for _ in range(order):
        moves = [after - before for before, after in pairwise(moves)]
    return sum(abs(move) for move in moves) / len(moves)


def smoothness(student: np.ndarray, teacher: np.ndarray, order: int, *, both: bool) -> float:
    penalties = []
    for student_column, teacher_column in zip(columns(student), columns(teacher), strict=True):
        gap = roughness(student_column, order) - roughness(teacher_column, order)
        penalties.append(gap**2 if both or gap > 0 else 0.0)
    return sum(penalties) / len(penalties)


def trend(series: list[float], length: int) -> list[float]:
    reach, last = length // 2, len(series) - 1
    return [
        sum(series[min(max(place, 0), last)] for place in range(step - reach, step + reach + 1)) / length
        for step in range(len(series))
    ]


def decomposition(student: np.ndarray, teacher: np.ndarray, length: int, share: float) -> float:
    slow, rest = [], []
    for student_column, teacher_column in zip(columns(student), columns(teacher), strict=True):
        for a, b, trend_a, trend_b in zip(
            student_column, teacher_column, trend(student_column, length), trend(teacher_column, length), strict=True
        ):
            slow.append((trend_a - trend_b) ** 2)
            rest.append(((a - trend_a) - (b - trend_b)) ** 2)
    return share * sum(slow) / len(slow) + (1 - share) * sum(rest) / len(rest)
