"""Is a pruned model as much faster as it has fewer multiplications? Ratios in one run, the rivals taking turns.

    python experiments/benchmarks/pruned_latency.py [--only "lstm 256"]

Half of the units or heads cut (`Pruning(ratio=0.5)`), both models exported and run by ONNX Runtime on one thread, on
windows of 7 channels, context 336 and horizon 96, one window at a time and 64:

- `ideal`: multiplications before and after, the speed-up that there would be if nothing else took time;
- `speedup`: medians of the milliseconds before and after;
- `of_ideal`: speedup / ideal. The target is 0.8;
- `kept`: units of the first group that stay. Beside half of them an odd number just above is kept, and the next
  multiple of 8: were sizes that are no multiple of 8 slow, the latter would be the faster one.

Weights are random: time does not depend on them. `pruned_latency.csv` beside this file keeps the medians of the
repetitions, a row for each kind of processor.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

import tsdistill as td
from tsdistill.evaluation.latency import measure_latency
from tsdistill.pruning import macs_of, rebuild
from tsdistill.report.machine import machine

REPEATS, RUNS = 5, 60
MODELS: dict[str, td.LSTMConfig | td.PatchTSTConfig] = {
    "lstm 256": td.LSTMConfig(widths=(256, 256), patch=24),
    "lstm 512": td.LSTMConfig(widths=(512, 512), patch=24),
    "transformer 256": td.PatchTSTConfig(depth=3, width=256, heads=8, patch=24, stride=24),
}
BATCHES = (1, 64)


def task_of() -> td.Task:
    """Random walks of the shape of ETTh1."""
    values = np.random.default_rng(0).standard_normal((2000, 7)).cumsum(axis=0)
    frame = pd.DataFrame(values, columns=[f"channel{number}" for number in range(7)])
    frame.insert(0, "ds", pd.date_range("2024-01-01", periods=len(frame), freq="h"))
    panel = td.Panel.from_frame(frame, time="ds")
    return td.Task(panel, context=336, horizon=96, split=td.Split.fractions(0.6, 0.2, 0.2))


def cuts(model: td.Forecaster) -> dict[int, td.Forecaster]:
    """Half of the units or heads, and of the units a few more, by the number that stays in the first group of units."""
    groups = [group for group in model.width_groups() if group.kind in ("units", "heads")]
    first = next(group.size for group in groups if group.kind == "units")
    half = first // 2
    models = {}
    for kept in (half, half + 3, half + 8):  # 131 and 259 are neither multiples of 8 nor of 4
        sizes = {part.name: part.size // 2 if part.kind == "heads" else part.size * kept // first for part in groups}
        models[kept] = rebuild(model, {name: range(size) for name, size in sizes.items()})
    return models


def timed(models: dict[str, td.Forecaster], batch: int) -> dict[str, float]:
    """Milliseconds of each exported model, medians of the repetitions."""
    rng = np.random.default_rng(0)
    context = rng.standard_normal((batch, 336, 7)).astype(np.float32)
    deployed = {name: td.export(model) for name, model in models.items()}
    calls: dict[str, Callable[[], object]] = {
        name: lambda artifact=artifact: artifact.predictor.run(context=context) for name, artifact in deployed.items()
    }
    rounds = [measure_latency(calls, n_runs=RUNS, warmup=3, seed=seed, max_seconds=20) for seed in range(REPEATS)]
    return {name: statistics.median(latencies[name].p50_ms for latencies in rounds) for name in calls}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*MODELS], default=[*MODELS])
    task, rows = task_of(), []
    for name in parser.parse_args().only:
        config = MODELS[name]
        dense = config.build(task.signature).eval()
        # What is timed is what the verb gives.
        pruned = td.prune(dense, task, td.Pruning(ratio=0.5, recovery=None))
        models = cuts(dense)
        assert pruned.config == next(iter(models.values())).config
        for batch in BATCHES:
            taken = timed({"dense": dense, **{str(kept): model for kept, model in models.items()}}, batch)
            for kept, model in models.items():
                ideal, speedup = macs_of(dense) / macs_of(model), taken["dense"] / taken[str(kept)]
                rows.append(
                    {"model": name, "batch": batch, "kept": kept, "ideal": ideal, "speedup": speedup,
                     "of_ideal": speedup / ideal, "dense_ms": taken["dense"], "pruned_ms": taken[str(kept)]}
                )  # fmt: skip
                print(
                    {key: value if isinstance(value, str) else round(value, 3) for key, value in rows[-1].items()},
                    flush=True,
                )
    keep(pd.DataFrame(rows).assign(cpu=machine()["cpu"], threads=1))


def keep(rows: pd.DataFrame) -> None:
    """Put rows in the place of older ones of the same models on the same processor."""
    path = Path(__file__).with_suffix(".csv")
    with FileLock(f"{path}.lock"):
        if path.exists():
            older = pd.read_csv(path)
            older = older[~(older["cpu"].isin(rows["cpu"]) & older["model"].isin(rows["model"]))]
            rows = pd.concat([older, rows]).sort_values(["cpu", "model", "batch", "kept"])
        rows.to_csv(path, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
