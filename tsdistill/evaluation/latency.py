"""How long one forecast takes: medians and tails of calls that took turns, on one thread."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tsdistill.errors import ConfigError, listed, must

BLOCK = 5
"""Calls in a row before the next one has its turn: short, so that a slow spell of the machine hits everybody alike."""


@dataclass(frozen=True)
class Latency:
    """What a call took, in milliseconds.

    Args:
        p50_ms: Median over the runs.
        p95_ms: 95th percentile over the runs: what a user waits on a bad day.
        p99_ms: 99th percentile over the runs.
        n_runs: Calls timed.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    n_runs: int


def measure_latency(
    callables: Mapping[str, Callable[[], object]],
    *,
    n_runs: int = 200,
    warmup: int = 10,
    max_seconds: float = 30.0,
    seed: int = 0,
) -> dict[str, Latency]:
    """Time several calls side by side: in turns, in shuffled order, on one thread.

    Each round calls everyone `BLOCK` times in a fresh order, so that a machine that slows down or a frequency that
    changes meets all of them. Use it to compare; a number from one day is not comparable with one from another.

    Torch is held to one thread while it measures, and set back. ONNX Runtime sessions keep the number of threads they
    were made with; those of tsdistill are made with one.

    Args:
        callables: By name, what to call; make one forecast each.
        n_runs: Calls to time of each; fewer when `max_seconds` runs out, never less than one block.
        warmup: Calls of each that are not timed.
        max_seconds: Time for all of it, warming up included.
        seed: Of the order.

    Returns:
        A `Latency` for every name.

    Raises:
        ConfigError: `n_runs` or `max_seconds` is not above 0, or `warmup` is below 0.

    Example:
        >>> latency = measure_latency({"sum": lambda: sum(range(1000))}, n_runs=20)
        >>> latency["sum"].n_runs, latency["sum"].p50_ms <= latency["sum"].p95_ms
        (20, True)
    """
    problems = [
        must(name, rule, value, "Leave it out for the default")
        for name, rule, value, right in (
            ("n_runs", "be at least 1", n_runs, n_runs >= 1),
            ("warmup", "be at least 0", warmup, warmup >= 0),
            ("max_seconds", "be above 0", max_seconds, max_seconds > 0),
        )
        if not right
    ]
    if problems:
        raise ConfigError(listed(problems, "measure_latency"))
    names = list(callables)
    times: dict[str, list[int]] = {name: [] for name in names}
    rng = np.random.default_rng(seed)
    end = time.perf_counter() + max_seconds
    with _undisturbed():
        for name in names:
            for _ in range(warmup):
                callables[name]()
                if time.perf_counter() > end:
                    break
        done = 0
        while done < n_runs and (done == 0 or time.perf_counter() < end):
            block = min(BLOCK, n_runs - done)
            for position in rng.permutation(len(names)):
                call, taken = callables[names[position]], times[names[position]]
                for _ in range(block):
                    start = time.perf_counter_ns()
                    call()
                    taken.append(time.perf_counter_ns() - start)
            done += block
    return {name: _latency(taken) for name, taken in times.items()}


def _latency(taken: list[int]) -> Latency:
    p50, p95, p99 = np.percentile(np.asarray(taken) / 1e6, (50, 95, 99))
    return Latency(p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99), n_runs=len(taken))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """One torch thread and no garbage collection meanwhile; both as before afterwards, also after an error."""
    import torch

    threads, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(1)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collecting:
            gc.enable()
