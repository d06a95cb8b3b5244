"""What forecasting costs in joules, where the machine counts them: the counters of Linux's powercap (RAPL)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processor packages; virtual machines and other systems show none."""

ROUNDS = 3

Counters = dict[str, tuple[int, int]]


def counters(folder: Path = POWERCAP) -> Counters:
    """Microjoules used so far, and the value at which the counter wraps, per processor package that has one."""
    readings = {}
    for package in sorted(folder.glob("intel-rapl:[0-9]")):  # parts of a package have a second number
        try:
            value, full = ((package / name).read_text() for name in ("energy_uj", "max_energy_range_uj"))
            readings[package.name] = (int(value), int(full))
        except (OSError, ValueError):  # only root may read them on most machines
            continue
    return readings


def joules(before: Counters, after: Counters) -> float:
    """Energy between two readings; a counter that wrapped in between is counted on."""
    return sum((value - before[name][0]) % (full + 1) for name, (value, full) in after.items()) / 1e6


def energy(
    calls: Mapping[str, Callable[[], object]], *, seconds: float = 1.0, folder: Path = POWERCAP
) -> dict[str, float]:
    """Joules that a call takes, taking turns; empty where the machine does not count them.

    The counters are of whole processor packages, with all that runs on them: leave the machine idle otherwise.

    Args:
        calls: By name, what to call.
        seconds: How long every call is repeated in a round; there are three.
        folder: Where the counters are.

    Returns:
        Joules per call, by name.
    """
    if not counters(folder):
        return {}
    used = dict.fromkeys(calls, 0.0)
    n_calls = dict.fromkeys(calls, 0)
    for _ in range(ROUNDS):
        for name, call in calls.items():
            before = counters(folder)
            end = time.perf_counter() + seconds
            while n_calls[name] == 0 or time.perf_counter() < end:
                call()
                n_calls[name] += 1
            used[name] += joules(before, counters(folder))
    return {name: used[name] / n_calls[name] for name in calls}
