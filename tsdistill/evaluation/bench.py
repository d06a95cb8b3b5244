"""What a forecaster costs where it is served: time, throughput, memory and energy, several of them side by side."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tsdistill.errors import ArtifactError, ConfigError, must
from tsdistill.evaluation.energy import energy
from tsdistill.evaluation.latency import measure_latency
from tsdistill.exporting import Deployed, parity_windows
from tsdistill.models.base import Forecaster

REBUILDS = 4
"""How often deployed models are loaded again to be timed."""

_IN_A_PROCESS_OF_ITS_OWN = """
import sys
import numpy as np
from tsdistill import manifest
kind = manifest.read(sys.argv[1])[0].kind
if kind == "deployed":
    from tsdistill.runtime import load
else:
    from tsdistill.artifacts import load
model = load(sys.argv[1])
signature, n_windows = model.signature, int(sys.argv[2])
steps = {"context": signature.context, "future": signature.context + signature.horizon, "past": signature.context}
sizes = {"context": len(signature.channels), "future": len(signature.future), "past": len(signature.past)}
model.outputs(**{name: np.zeros((n_windows, steps[name], size), np.float32) for name, size in sizes.items() if size})
try:  # of this very program; getrusage also remembers the one that started it
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    print(int(line.split()[1]) * 1024)
except OSError:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def bench(
    models: Mapping[str, Forecaster | Deployed],
    *,
    batches: Sequence[int] = (1, 64),
    n_runs: int = 200,
    max_seconds: float = 20.0,
) -> list[dict[str, Any]]:
    """Time raw forecasts of several models side by side, on one thread, at every batch size.

    They take turns (see `measure_latency`), so that a slow spell of the machine affects all alike, and deployed ones
    are loaded `REBUILDS` times, so that none profits from one place in memory. Inputs are seeded noise of each
    model's own means and deviations; their values do not change what a forecast costs.

    Args:
        models: By name, trainable or deployed forecasters.
        batches: Windows per call.
        n_runs: Calls to time of each model and batch size.
        max_seconds: Time for each batch size.

    Returns:
        One row per model and batch size: `name`, `batch`, `p50_ms`, `p95_ms`, `p99_ms`, `n_runs`, `windows_per_second`
        (batch / median), and `joules_per_window`, None where the machine does not count them.

    Raises:
        ConfigError: A batch size is below 1, or a bound of `measure_latency` is not kept.

    Example:
        >>> from tsdistill.models import LinearConfig
        >>> from tsdistill.testing import toy_signature
        >>> rows = bench({"linear": LinearConfig().build(toy_signature())}, batches=[1, 5], n_runs=7)
        >>> [(row["name"], row["batch"], row["n_runs"]) for row in rows]
        [('linear', 1, 7), ('linear', 5, 7)]
    """
    if not batches or any(not isinstance(batch, int) or batch < 1 for batch in batches):
        raise ConfigError(must("batches", "be whole numbers of at least 1", list(batches), "Use 1 for the latency"))
    rows: list[dict[str, Any]] = []
    for batch in batches:
        make = partial(_calls, models, batch)
        latencies = measure_latency(make, n_runs=n_runs, max_seconds=max_seconds, rebuilds=REBUILDS)
        joules = energy(make())
        rows += [
            {
                "name": name,
                "batch": batch,
                "p50_ms": latencies[name].p50_ms,
                "p95_ms": latencies[name].p95_ms,
                "p99_ms": latencies[name].p99_ms,
                "n_runs": latencies[name].n_runs,
                "windows_per_second": 1e3 * batch / latencies[name].p50_ms,
                "joules_per_window": joules[name] / batch if joules else None,
            }
            for name in models
        ]
    return rows


def peak_bytes(folder: str | Path, *, batch: int = 64) -> int:
    """Peak memory of a fresh process that loads an artifact and forecasts once, libraries included.

    Args:
        folder: The artifact; a deployed one is served by `tsdistill.runtime`, a trainable one by torch.
        batch: Windows of the forecast.

    Returns:
        The largest resident set in bytes.

    Raises:
        ArtifactError: The process failed; the message ends with its last line.
    """
    command = [sys.executable, "-c", _IN_A_PROCESS_OF_ITS_OWN, str(folder), str(batch)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        reason = (process.stderr.strip() or f"exit code {process.returncode}").splitlines()[-1]
        raise ArtifactError(f"a process of its own must be able to forecast with {folder}, but it failed: {reason}")
    return int(process.stdout.split()[-1])


def _calls(models: Mapping[str, Forecaster | Deployed], batch: int) -> dict[str, Callable[[], object]]:
    """Raw forecasts of `batch` windows, checks included, as in a user's call; deployed models are loaded again."""
    return {
        name: _call(model.reloaded() if isinstance(model, Deployed) else model, batch) for name, model in models.items()
    }


def _call(model: Forecaster | Deployed, batch: int) -> Callable[[], object]:
    """A raw forecast of `batch` windows, checks included, as in a user's call."""
    drawn, _ = parity_windows(model.signature, None)
    places = np.arange(batch) % len(drawn["context"])
    inputs = {name: np.ascontiguousarray(values[places]) for name, values in drawn.items()}
    return lambda: model.predict(inputs["context"], inputs.get("future"), inputs.get("past"))
