"""Whether the distribution of new rows is still that of the profile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tsdistill.evaluation import holm
from tsdistill.quality.gate import Fresh
from tsdistill.quality.profile import PROBABILITIES, correlation_time
from tsdistill.quality.windows import window_lengths

Findings = Iterator[tuple[str, dict[str, Any]]]
"""Sentences, each with its numbers."""

SIGNIFICANT = 0.01


def numbers(fresh: Fresh, channel: int, value: float, limit: float) -> dict[str, Any]:
    """Channel, number and limit of a finding."""
    return {"series": fresh.panel.channels[channel], "value": value, "limit": limit}


def drift(fresh: Fresh) -> Findings:
    """The distribution of the new rows, over a long window at least."""
    from scipy import stats

    tested = []
    for number, item, channel, series in fresh.profiled():
        length = max(len(item) - fresh.first[number], window_lengths(fresh.panel.periods)[1])
        values = item.values[-length:, channel]
        if fresh.first[number] >= len(item) or len(values) < length:
            continue
        edges = np.array(series.quantiles[:: (len(PROBABILITIES) - 1) // 10])[1:-1]
        if len(np.unique(edges)) < len(edges):
            continue  # ties: a tenth of the values are one value
        share = np.bincount(np.searchsorted(edges, values), minlength=10) / len(values)
        expected = np.full(10, 0.1)
        share = (share * len(values) + 0.5) / (len(values) + 5)
        psi = float(((share - expected) * np.log(share / expected)).sum())
        # The smaller the number of independent rows, the less a distance says.
        n_effective = len(values) / max(series.correlation_time, correlation_time(values))
        cdf = np.interp(np.sort(values), series.quantiles, PROBABILITIES)
        steps = np.arange(len(values) + 1) / len(values)
        distance = float(max((steps[1:] - cdf).max(), (cdf - steps[:-1]).max()))
        p_value = float(stats.kstwobign.sf(distance * np.sqrt(n_effective)))
        tested.append((item, channel, psi, distance, n_effective, p_value))
    if not tested:
        return
    adjusted = holm({str(number): row[-1] for number, row in enumerate(tested)})
    drifted = [
        (row, p)
        for row, p in zip(tested, adjusted.values(), strict=True)
        if p is not None and p < SIGNIFICANT and row[2] > fresh.gate.max_psi
    ]
    if drifted:
        (item, channel, psi, distance, n_effective, _), p_value = max(drifted, key=lambda hit: hit[0][2])
        words = f"{len(drifted)} of {len(tested)} series have drifted, most of all {fresh.named(item, channel)}: "
        words += f"population stability index {psi:.3g}, Kolmogorov-Smirnov {distance:.3g} over {n_effective:.3g} "
        yield f"{words}independent rows (p = {p_value:.2g}).", numbers(fresh, channel, psi, fresh.gate.max_psi)
