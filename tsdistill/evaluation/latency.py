"""How long one forecast takes: medians and tails of calls that took turns, on one thread."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tsdistill.errors import ConfigError, listed, must

BLOCK = 5
"""Calls in a row before the next name's turn: short, so that a slow spell of the machine affects all alike."""

Calls = Mapping[str, Callable[[], object]]
"""What to time, by name."""


@dataclass(frozen=True)
class Latency:
    """What a call took, in milliseconds.

    Args:
        p50_ms: Median over the runs.
        p95_ms: 95th percentile over the runs: the slow tail.
        p99_ms: 99th percentile over the runs.
        paired_ms: What to compare calls by: the median over rounds of its median in a round, relative to the geometric
            mean of all calls' in that round, times the median of that mean. A slow spell of the machine affects all
            calls of a round and cancels out.
        n_runs: Calls timed.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    paired_ms: float
    n_runs: int


def measure_latency(
    callables: Calls | Callable[[], Calls],
    *,
    n_runs: int = 200,
    warmup: int = 10,
    max_seconds: float = 30.0,
    seed: int = 0,
    rebuilds: int = 1,
) -> dict[str, Latency]:
    """Time several calls side by side: in turns, in shuffled order, on one thread.

    Each round calls every name `BLOCK` times in a fresh order, so that a machine that slows down or a frequency that
    changes affects all of them. Use it to compare; numbers from different runs are not comparable.

    The place of a session's weights in memory can shift its median for as long as it lives, however often it is
    called. To distinguish calls within a few per cent of each other, pass a function that makes them with new
    sessions, set `rebuilds`, and compare `paired_ms`.

    Torch is held to one thread while it measures, and set back. ONNX Runtime sessions keep the number of threads they
    were made with; those of tsdistill are made with one.

    Args:
        callables: By name, what to call; make one forecast each. Or a function that returns them.
        n_runs: Calls to time of each; fewer when `max_seconds` runs out, never less than one.
        warmup: Calls of each that are not timed, each time that they are made.
        max_seconds: Time for all calls, with warm-up, without making them.
        seed: Of the order.
        rebuilds: How many times the function is called; the timed calls are shared among them.

    Returns:
        A `Latency` for every name.

    Raises:
        ConfigError: `n_runs`, `max_seconds` or `rebuilds` is not above 0, or `warmup` is below 0.

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
            ("rebuilds", "be at least 1", rebuilds, rebuilds >= 1),
        )
        if not right
    ]
    if problems:
        raise ConfigError(listed(problems, "measure_latency"))
    rng = np.random.default_rng(seed)
    rounds: list[dict[str, list[int]]] = []
    seconds_left = max_seconds
    with _undisturbed():
        for build in range(rebuilds):
            calls = callables() if callable(callables) else callables
            start = time.perf_counter()
            share = math.ceil(n_runs * (build + 1) / rebuilds) - math.ceil(n_runs * build / rebuilds)
            rounds += _in_turns(calls, share, warmup, seconds_left / (rebuilds - build), rng)
            seconds_left -= time.perf_counter() - start
            if seconds_left <= 0:
                break
    return _latencies(rounds)


def _in_turns(
    calls: Calls, n_runs: int, warmup: int, max_seconds: float, rng: np.random.Generator
) -> list[dict[str, list[int]]]:
    """Nanoseconds of every call of every round."""
    names = list(calls)
    rounds: list[dict[str, list[int]]] = []
    end = time.perf_counter() + max_seconds
    for name in names:
        for _ in range(warmup):
            calls[name]()
            if time.perf_counter() > end:
                break
    done = 0
    while names and done < n_runs and (done == 0 or time.perf_counter() < end):
        block = min(BLOCK, n_runs - done)
        times: dict[str, list[int]] = {name: [] for name in names}
        for position in rng.permutation(len(names)):
            name = names[position]
            call = calls[name]
            for _ in range(block):
                start = time.perf_counter_ns()
                call()
                times[name].append(time.perf_counter_ns() - start)
                # One call per name has to suffice where blocks take longer than there is time.
                if time.perf_counter() > end:
                    break
        rounds.append(times)
        done += block
    return rounds


def _latencies(rounds: list[dict[str, list[int]]]) -> dict[str, Latency]:
    if not rounds:
        return {}
    names = list(rounds[0])
    # At least a nanosecond: a call faster than the clock's tick has no logarithm.
    log = np.log([[max(np.median(times[name]), 1.0) for name in names] for times in rounds])
    center = log.mean(axis=1, keepdims=True)
    paired = np.exp(np.median(log - center, axis=0) + np.median(center)) / 1e6
    latencies = {}
    for place, name in enumerate(names):
        milliseconds = np.concatenate([times[name] for times in rounds]) / 1e6
        p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99))
        latencies[name] = Latency(float(p50), float(p95), float(p99), float(paired[place]), len(milliseconds))
    return latencies


@contextmanager
def _undisturbed() -> Iterator[None]:
    """One torch thread and no garbage collection inside; both are restored afterwards, also after an error."""
    import torch

    threads = torch.get_num_threads()
    collecting = gc.isenabled()
    torch.set_num_threads(1)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collecting:
            gc.enable()
