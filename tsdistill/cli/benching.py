"""The command that measures what saved models cost: bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.options import Json
from tsdistill.cli.streams import add, console, new_table, show

NO_ENERGY = "This machine does not count energy (no readable RAPL counter), so joules are not shown."


def bench(
    artifact: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    against: Annotated[
        list[Path] | None, typer.Option(metavar="ARTIFACT", help="Another one to measure in turns; may be repeated.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Windows per call; may be repeated [1 and 64].")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Calls to time of each model and batch size.")] = 200,
    as_json: Json = False,
) -> None:
    """Measure what forecasts of a saved model cost on this machine: time, memory, products and energy.

    Models take turns on one thread, raw values in and out. A deployed model runs in ONNX Runtime, a trainable one in
    torch. Medians of one day are not comparable with those of another: name everything to compare in one command.

    Examples:
      tsdistill bench demo/artifact
      tsdistill bench int8 --against fp32 --against teacher --batch 1 --json
    """
    from tsdistill import artifacts
    from tsdistill.evaluation import bench as measure
    from tsdistill.evaluation import peak_bytes
    from tsdistill.exporting import Deployed
    from tsdistill.pruning import macs_of

    folders = list(dict.fromkeys([artifact, *(against or [])]))
    models = {str(folder): artifacts.load(folder) for folder in folders}
    rows = measure(models, batches=batch or (1, 64), n_runs=runs)
    costs: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        trainable = model.config.build(model.signature) if isinstance(model, Deployed) else model
        costs[name] = {
            "runtime": f"onnx {model.precision}" if isinstance(model, Deployed) else "torch fp32",
            "size_bytes": artifacts.size_bytes(model),
            "peak_bytes": peak_bytes(name),
            "macs": macs_of(trainable),
        }
    rows = [{**row, **costs[row["name"]]} for row in rows]
    if as_json:
        has_energy = any(row["joules_per_window"] is not None for row in rows)
        typer.echo(json.dumps({"rows": rows, "threads": 1, "energy": "RAPL" if has_energy else None}))
        return
    shown = new_table("", "runtime", "batch", "p50 ms", "p95 ms", "p99 ms", "windows/s", "J/window")
    for row in rows:
        used = row["joules_per_window"]
        times = (f"{row[key]:.3f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
        speed = f"{row['windows_per_second']:,.0f}"
        add(shown, (row["name"], row["runtime"], row["batch"], *times, speed, "-" if used is None else f"{used:.3g}"))
    console(wide=True).print(shown)
    show()
    shown = new_table("", "bytes", "peak memory, MB", "MACs of one forecast")
    for name, cost in costs.items():
        add(shown, (name, f"{cost['size_bytes']:,}", f"{cost['peak_bytes'] / 1e6:.0f}", f"{cost['macs']:,}"))
    console(wide=True).print(shown)
    if all(row["joules_per_window"] is None for row in rows):
        show(f"\n{NO_ENERGY}")
