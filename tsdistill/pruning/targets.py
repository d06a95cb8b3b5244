"""How much to cut for a target: a number of weights, bytes, milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tsdistill.errors import UnsupportedError
from tsdistill.evaluation.latency import measure_latency
from tsdistill.exporting import export
from tsdistill.models.base import Forecaster
from tsdistill.pruning.ranking import UnitRanking
from tsdistill.pruning.rebuilding import rebuild

WEIGHT_BYTES = 4
"""Of a float32 weight."""

STEPS = 64
"""Ratios tried are multiples of one by this."""


def n_parameters(model: Forecaster) -> float:
    """Weights of a model."""
    return model.n_parameters


def size_bytes(model: Forecaster) -> float:
    """Bytes of the exported model."""
    return export(model).size_bytes


def latency_ms(model: Forecaster) -> float:
    """Median time of a forecast of the exported model at batch 1 on one thread."""
    signature = model.signature
    deployed = export(model)
    steps = {"context": signature.context, "future": signature.context + signature.horizon, "past": signature.context}
    sizes = {"context": len(signature.channels), "future": len(signature.future), "past": len(signature.past)}
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal((1, steps[n], size)).astype(np.float32) for n, size in sizes.items() if size}
    latencies = measure_latency({"model": lambda: deployed.predictor.run(**inputs)}, max_seconds=5.0)
    return latencies["model"].p50_ms


MEASURES: dict[str, Callable[[Forecaster], float]] = {
    "max_parameters": n_parameters,
    "max_bytes": size_bytes,
    "max_latency_ms": latency_ms,
}
"""How each target of a `Pruning` is measured."""


def ratio_for(ranks: UnitRanking, targets: Mapping[str, float]) -> float:
    """The smallest ratio, in steps of 1/64, at which the cut model meets all targets.

    Bytes are estimated from one export of the whole model; `prune` measures those of its result.

    Raises:
        UnsupportedError: even with every group at its minimum it does not; the message tells how close it comes.
    """
    sizes = {group.name: group.size for group in ranks.groups}
    measures = {name: MEASURES[name] for name in targets}
    if "max_bytes" in measures:
        # An export takes seconds, and what a file holds besides its weights changes little.
        besides = measures["max_bytes"](ranks.model) - WEIGHT_BYTES * ranks.model.n_parameters
        measures["max_bytes"] = lambda model: besides + WEIGHT_BYTES * model.n_parameters

    def measured(step: int) -> dict[str, float]:
        smaller = rebuild(ranks.model, ranks.kept(ranks.counts(step / STEPS, sizes)))
        return {name: measure(smaller) for name, measure in measures.items()}

    def meets(step: int) -> bool:
        return all(value <= targets[name] for name, value in measured(step).items())

    if meets(0):
        return 0.0
    closest = measured(STEPS)
    missed = {name: value for name, value in closest.items() if value > targets[name]}
    if missed:
        misses = " and ".join(f"{name}={targets[name]:g} (closest: {value:g})" for name, value in missed.items())
        raise UnsupportedError(
            f"No cut reaches {misses}: every group named is at its minimum then. Name more groups, raise the target, "
            "or distil into a smaller architecture. The forecaster is left as it was."
        )
    low, high = 0, STEPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high / STEPS
