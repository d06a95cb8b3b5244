"""What 8 bits cost a closed-form forecaster, with the inputs of the largest weights in float and without.

    python experiments/benchmarks/outliers.py

Linear forecasters read windows of which the newest values weigh a hundred times what older ones do, and some add means
over many steps to single values. Each is deployed in each INT8 form with 0, 1 and 4 inputs in float; `increase` is the
share by which the validation MSE rises over float32, `worst_increase` that of the step or channel that suffers most,
`bytes` the graph's share of float32's. `latency` is the median of one window on one thread in shares of float32's,
taken in turns. The last row of each is what `method="auto"` takes within its usual budget. `outliers.csv` beside this
file keeps the rows.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

import tsdistill as td
from tsdistill.exporting import Deployed, export
from tsdistill.quantization.judging import Judge, measure

N_INPUTS = (0, 1, 4)
METHODS = ("dynamic", "static", "weight-only")
CELLS: dict[str, tuple[td.models.ModelConfig, ...]] = {
    "etth1": (td.LinearConfig(), td.models.MultiResolutionConfig()),
    "weather": (td.LinearConfig(individual=True), td.models.MultiResolutionConfig()),
}


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    rows = []
    for name, configs in CELLS.items():
        task = td.Task(td.datasets.load(name), context=336, horizon=96)
        for config in configs:
            forecaster = td.train(config, task)
            full = export(forecaster, task)
            judge = Judge(full, task)
            free = {"max_error_increase": 1e9, "require_gain": False, "max_batch_effect": 1e9}
            forms: dict[str, Deployed] = {"fp32": full}
            for method in METHODS:
                for outliers in N_INPUTS:
                    spec = td.Quantization(method=method, outliers=outliers, **free)
                    forms[f"{method} {outliers}"] = td.quantize(forecaster, task, spec)
            automatic = td.quantize(forecaster, task, td.Quantization(method="auto"))
            forms[f"auto: {automatic.lineage[-1].metrics['chosen']}"] = automatic
            costs = measure(forms, task, td.Quantization())
            title = f"{name} {config.kind}{' per channel' if getattr(config, 'individual', False) else ''}"
            for form, model in forms.items():
                errors = judge.errors(model)
                numbers = {key: errors[key] for key in ("increase", "worst_increase", "worst")}
                shares = {
                    "bytes": costs[form]["graph_bytes"] / costs["fp32"]["graph_bytes"],
                    "latency": costs[form]["latency_ms"]["1"] / costs["fp32"]["latency_ms"]["1"],
                }
                rows.append({"model": title, "form": form, **numbers, **shares})
    table = pd.DataFrame(rows).round(5)
    print(table.to_string(index=False))
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False)


if __name__ == "__main__":
    main()
