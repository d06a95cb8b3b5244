"""Quantize trained forecasters in every form, score and time what would be deployed, and summarise.

    python experiments/quantizing.py experiments/009-quantization [--only "lstm 64" "mlp 64"]

A folder holds `cells.toml`: the data set, the models with their training and seeds, and the calls to time. Per model
and seed the model is trained, exported, and brought to every form there is, whatever it costs or gains:

- `results.csv`: bytes, seconds that making it took, and errors on the test part, a row for each form. No form is chosen
  by them. Of quantile heads also how many targets lie between the outermost levels and how many levels cross.
- `served.csv`: how far a graph's forecasts of real windows are from those of what it was made from, how far other
  windows in a batch of 64 move them, and the test error of 64 at once, of forms that mix them.
- `latency.csv`: medians of calls that took turns on one thread, by five sessions one after the other, and what they are
  compared by (`Latency.paired_ms`), a row for each kind of processor, place (channels, windows) and form, with torch in
  float32 and its own INT8 beside them, and what `method="auto"` deploys for that place: where that is one of the forms
  to the byte, its time is that form's. First seed only.

Finished cells are rows and are skipped next time, under a key of everything that shapes them; models stay in `work/`,
which is not committed. `summary.md` is written anew.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import Results
from quantizing_tables import summarise

import tsdistill as td
from tsdistill.evaluation import measure_latency
from tsdistill.evaluation.scores import score
from tsdistill.models import MODELS
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.torch_int8 import TorchInt8
from tsdistill.report.machine import machine
from tsdistill.spec import digest_of
from tsdistill.training import TruthObjective, fit

NAN = float("nan")
RESULTS = [
    "model", "seed", "form", "n_parameters", "bytes", "seconds", "mse", "increase", "coverage", "nominal_coverage",
    "crossing_rate", "refused", "key",
]  # fmt: skip
LATENCY = ["cpu", "model", "channels", "windows", "form", "taken", "bytes", "p50_ms", "paired_ms", "n_calls", "key"]
PLACE = ["cpu", "model", "channels", "windows", "form"]
EVERY: dict[str, dict[str, Any]] = {
    "dynamic": {"method": "dynamic"},
    "static": {"method": "static"},
    "weight-only-8": {"method": "weight-only", "weight_bits": 8},
    "weight-only-4": {"method": "weight-only", "weight_bits": 4},
}
"""Forms without training, by the names that "auto" gives them."""
FORMS = {**EVERY, "qat": {"method": "qat"}, "qat-4": {"method": "qat", "weight_bits": 4}}
SERVED = ["model", "seed", "form", "difference", "batch_effect", "increase_alone", "increase_together", "key"]
CONTROLS = {
    "trained on": {},
    "trained on, 7 bits": {"method": "qat"},
    "trained on, 4 bits": {"method": "qat", "weight_bits": 4},
}
"""What the forms of "qat" are to be held against: trained on for as long without rounding, in float32, and quantized
into the form that "qat" is deployed in."""
TORCH_INT8 = "torch int8"
"""Torch's own dynamic INT8, run by torch; its bytes are those of the weights."""
FORCED = {"require_gain": False, "max_error_increase": 99.0}


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of models; by default all.")
    parser.add_argument("--skip-latency", action="store_true", help="Leave the timing to a quiet machine.")
    parser.add_argument("--skip-scores", action="store_true", help="Time only.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    results = Results(arguments.folder / "results.csv", RESULTS, ["model", "seed", "form"])
    latency = Results(arguments.folder / "latency.csv", LATENCY, PLACE)
    served = Results(arguments.folder / "served.csv", SERVED, ["model", "seed", "form"])
    panel = td.datasets.load(cells["dataset"])
    for entry in cells["models"]:
        if not arguments.only or entry["name"] in arguments.only:
            for seed in [] if arguments.skip_scores else entry["seeds"]:
                bench = Bench(cells, entry, seed, panel, arguments.folder / "work")
                bench.score(results)
                bench.serve(served)
            if not arguments.skip_latency:
                Bench(cells, entry, entry["seeds"][0], panel, arguments.folder / "work").time(latency)
    # Rows of settings that are no longer in cells.toml are not averaged with these.
    current = {
        Bench(cells, entry, seed, panel, arguments.folder).key(form)
        for entry in cells["models"]
        for seed in entry["seeds"]
        for form in forms_of(entry)
    }
    rows = results.frame()
    mates = served.frame()
    mine = mates[mates["key"].isin(current)]
    summarise(rows[rows["key"].isin(current)], latency.frame(), mine, cells, arguments.folder)


@dataclass(frozen=True)
class Bench:
    """One model under one seed."""

    cells: dict[str, Any]
    entry: dict[str, Any]
    seed: int
    panel: td.Panel
    work: Path

    def training(self, name: str) -> td.Training:
        """How it is trained ("training"), or trained on while it rounds ("rounded")."""
        return td.Training.from_dict({**self.cells[name], **self.entry.get(name, {}), "seed": self.seed})

    def key(self, *more: Any) -> str:
        """Names a cell by all that shapes it."""
        shape = [self.cells[name] for name in ("dataset", "context", "horizon", "judged")]
        trainings = [self.training(name).to_dict() for name in ("training", "rounded")]
        return digest_of([*shape, *trainings, self.entry["config"], *more])

    def task(self, n_channels: int | None = None) -> td.Task:
        """The task of the whole panel, or of its last channels alone."""
        panel = self.panel
        if n_channels is not None and n_channels < len(panel.channels):
            items = [replace(item, values=item.values[:, -n_channels:]) for item in panel.items]
            panel = replace(panel, items=tuple(items), channels=panel.channels[-n_channels:])
        return td.Task(panel, context=self.cells["context"], horizon=self.cells["horizon"])

    def model(self, task: td.Task) -> td.Forecaster:
        """Trained, from `work/` or now."""
        folder = self.work / self.key("model")
        if not folder.exists():
            config = MODELS.read(self.entry["config"])
            td.save(td.train(config, task, self.training("training"), progress=False), folder)
        loaded = td.load(folder)
        assert isinstance(loaded, td.Forecaster)
        return loaded

    # ------------------------------------------------------------------------------------------------ bytes and errors
    def score(self, results: Results) -> None:
        """Every form of one model on the test part."""
        if all(results.find(self.key(form)) is not None for form in forms_of(self.entry)):
            return
        task = self.task()
        model = self.model(task)
        began = time.perf_counter()
        full = td.export(model, task)
        exporting = time.perf_counter() - began
        forms = Forms(full, task)
        positions = np.arange(0, len(task.test), self.cells["judged"])
        exact = score(full, task, "test", positions=positions).to_dict()
        for form in forms_of(self.entry):
            row: dict[str, Any] = {"model": self.entry["name"], "seed": self.seed, "form": form}
            row |= {"n_parameters": model.n_parameters, "key": self.key(form)}
            if results.find(row["key"]) is not None:
                continue
            began, refused = time.perf_counter(), ""
            deployed: Any = full
            try:
                if form != "fp32":
                    deployed = self.deployed(form, model, forms, task)
            except td.errors.UnsupportedError as error:
                refused = str(error)
            seconds = exporting if form == "fp32" else time.perf_counter() - began
            if refused:
                row |= {"refused": refused}
            else:
                scores = exact if form == "fp32" else score(deployed, task, "test", positions=positions).to_dict()
                row |= {
                    "bytes": deployed.size_bytes if form == TORCH_INT8 else len(deployed.onnx),
                    "seconds": seconds, "mse": scores["mse"], "increase": scores["mse"] / exact["mse"] - 1,
                    **{name: scores.get(name, NAN) for name in ("coverage", "nominal_coverage", "crossing_rate")},
                }  # fmt: skip
            results.add(row)
            outcome = (
                refused[:60] if refused else f"MSE {row['mse']:.4f} ({row['increase']:+.2%}), {row['bytes']:,} bytes"
            )
            print(f"{self.entry['name']} seed {self.seed} {form}: {outcome}", flush=True)

    def deployed(self, form: str, model: td.Forecaster, forms: Forms, task: td.Task) -> td.Deployed | TorchInt8:
        """One form, whatever it gains."""
        if form == TORCH_INT8:
            return TorchInt8(model)
        if form in CONTROLS:
            full = td.export(self.trained_on(model, task), task)
            if form == "trained on":
                return full
            spec = td.Quantization.from_dict({**FORCED, **CONTROLS[form]}).deployed_form(model)
            return Forms(full, task).deployed(spec)
        spec = td.Quantization.from_dict({**FORCED, **FORMS[form]})
        if not spec.needs_teacher:
            return forms.deployed(spec)
        return td.quantize(model, task, spec.replace(training=self.training("rounded")), progress=False)

    def trained_on(self, model: td.Forecaster, task: td.Task) -> td.Forecaster:
        """As long as "qat" trains it, without rounding; from `work/` or now."""
        folder = self.work / self.key("trained on, model")
        if not folder.exists():
            longer = copy.deepcopy(model)
            fit(longer, task, self.training("rounded"), TruthObjective(), progress=False)
            td.save(longer.eval(), folder)
        loaded = td.load(folder)
        assert isinstance(loaded, td.Forecaster)
        return loaded

    def serve(self, served: Results) -> None:
        """What happens to forecasts on the way into a graph, and among other windows."""
        if all(served.find(self.key(form)) is not None for form in ("fp32", *EVERY)):
            return
        task = self.task()
        full = td.export(self.model(task), task)
        forms = Forms(full, task)
        positions = np.arange(0, len(task.test), self.cells["judged"])
        for form in ("fp32", *EVERY):
            row = {"model": self.entry["name"], "seed": self.seed, "form": form, "key": self.key(form)}
            with contextlib.suppress(td.errors.UnsupportedError):
                model = full if form == "fp32" else self.deployed(form, self.model(task), forms, task)
                assert isinstance(model, td.Deployed)
                row |= {"difference": model.parity["max_difference"], "batch_effect": model.batch_effect}
                if model.mixes_windows:
                    # Scored as if windows were not mixed: as many at once as it is asked for.
                    together = replace(model, parity={**model.parity, "batch_effect": 0.0})
                    mse = [
                        score(judged, task, "test", positions=positions, batch_size=64).to_dict()["mse"]
                        for judged in (full, model, together)
                    ]
                    row |= {"increase_alone": mse[1] / mse[0] - 1, "increase_together": mse[2] / mse[0] - 1}
            served.add(row)

    # ------------------------------------------------------------------------------------------------------------ time
    def time(self, latency: Results) -> None:
        """Every form at every place, side by side."""
        cpu = processor()
        for n_channels, n_windows in (*self.cells["places"], *self.entry["timed"]):
            if latency.find(self.key("fp32", n_channels, n_windows, cpu)) is not None:
                continue
            task = self.task(n_channels)
            model = self.model(self.task())
            if n_channels < len(self.panel.channels):  # the same weights for fewer channels
                whole, model = model, MODELS.read(self.entry["config"]).build(task.signature).eval()
                # Of what is known of each channel, the first ones'.
                mine = model.state_dict()
                model.load_state_dict({n: tensor[: len(mine[n])] for n, tensor in whole.state_dict().items()})
            ways = self.ways(model, task)
            # No noise of the clock between one graph and itself.
            spec = td.Quantization(method="auto", batch_sizes=(n_windows,))
            auto = td.quantize(model, task, spec, progress=False)
            taken = auto.lineage[-1].metrics["chosen"]
            same = next((name for name, way in ways.items() if getattr(way, "onnx", None) == auto.onnx), "auto")
            ways.setdefault(same, auto)
            raw = np.stack([task.panel.items[0].values[row : row + task.context] for row in range(n_windows)])
            batch = raw.astype(np.float32)
            make = partial(_calls, ways, batch)
            latencies = measure_latency(make, n_runs=self.cells["n_calls"], rebuilds=5, max_seconds=45)
            latencies["auto"], ways["auto"] = latencies[same], auto
            for name, way in ways.items():
                row = {
                    "model": self.entry["name"], "channels": n_channels, "windows": n_windows, "form": name,
                    "taken": taken if name == "auto" else "",
                    "bytes": len(way.onnx) if isinstance(way, td.Deployed) else NAN,
                    "p50_ms": latencies[name].p50_ms, "paired_ms": latencies[name].paired_ms,
                    "n_calls": latencies[name].n_runs, "cpu": cpu,
                    "key": self.key(name, n_channels, n_windows, cpu),
                }  # fmt: skip
                # The row that says that a place is done comes last.
                if name != "fp32":
                    latency.add(row)
                else:
                    last = row
            latency.add(last)
            times = ", ".join(f"{name} {timing.paired_ms:.3f}" for name, timing in latencies.items())
            print(f"{self.entry['name']}, {n_channels} channels, {n_windows} windows: {times} ms", flush=True)

    def ways(self, model: td.Forecaster, task: td.Task) -> dict[str, Any]:
        """Everything that is timed."""
        full = td.export(model, task)
        forms = Forms(full, task)
        forms_made: dict[str, Any] = {"fp32": full}
        for name, values in EVERY.items():
            with contextlib.suppress(td.errors.UnsupportedError):
                forms_made[name] = forms.deployed(td.Quantization.from_dict({**FORCED, **values}))
        forms_made["torch"] = model
        with contextlib.suppress(td.errors.UnsupportedError):
            forms_made["torch int8"] = TorchInt8(model)
        return forms_made


def forms_of(entry: dict[str, Any]) -> list[str]:
    """Every form, and what those of "qat" are held against where the entry asks for it."""
    return ["fp32", *(CONTROLS if entry.get("control") else {}), *FORMS, TORCH_INT8]


def processor() -> str:
    """Its name, and whether it has instructions for products of 8-bit integers."""
    facts = machine()
    return f"{facts['cpu']} ({'VNNI' if facts.get('vnni') else 'no VNNI'})"


def _calls(ways: Mapping[str, Any], batch: np.ndarray) -> dict[str, Callable[[], object]]:
    """Graphs are loaded anew: where one comes to lie in memory moves its time by some per cent."""
    return {
        name: partial((way.reloaded() if isinstance(way, td.Deployed) else way).predict, batch)
        for name, way in ways.items()
    }


if __name__ == "__main__":
    main()
