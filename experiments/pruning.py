"""Prune trained forecasters cell by cell (data set x model x seed), beside the dense models they have to beat.

    python experiments/pruning.py experiments/008-pruning [--only patchtst lstm] [--datasets etth1] [--seeds 0]

A folder holds `cells.toml`: data sets, models with their training and pruning, shares of *parameters* to remove, and
sizes of dense models. Per data set, model and seed:

- dense: the model itself, trained, or distilled where it names a teacher;
- pruned: cut to each share, recovering by the truth, or from its teacher where it has one; to some shares also with
  other groups (`also`), of which two the one with the lower validation error goes on;
- by validation alone, the deepest cut without loss and the deepest within `allowed` of the dense error are chosen;
- scratch: where the test error is read, the pruned shape drawn anew and trained for all the epochs that training and
  recovery took together;
- ladder: dense models of other sizes, trained as long; the smallest whose validation error is no higher than the pruned
  model's is the dense model of equal validation error. The last rung is the dense model itself, trained as long;
- cut and repaired: half of the units of some groups gone without any training, with and without the closed-form repair.

The test part is read once for each: dense, the last rung, the chosen cuts and those of the shares in `read`, with the
scratch model and the rung beside each, and the baselines. Finished cells are rows of `results.csv` and are skipped next
time, under a key of everything that shapes them; models stay in `work/`, which is not committed. `summary.md` is
written anew.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accuracy import Results
from pruning_tables import chosen, equal, settled, summarise

import tsdistill as td
from tsdistill.evaluation import compare_losses, window_losses
from tsdistill.models import MODELS
from tsdistill.spec import digest_of
from tsdistill.training import TruthObjective, fit

COLUMNS = [
    "dataset", "model", "role", "share", "seed", "n_parameters", "validation_mse", "mse", "against_dense",
    "p_value", "epochs", "seconds", "key",
]  # fmt: skip
ORDER = ["dataset", "model", "seed", "role", "share"]
NAN = float("nan")
ALSO = " also"
"""Ends the roles of cuts with an entry's other groups, and of their shapes trained anew."""


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="Names of models; by default all.")
    parser.add_argument("--datasets", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cells = tomllib.loads((arguments.folder / "cells.toml").read_text(encoding="utf-8"))
    results = Results(arguments.folder / "results.csv", COLUMNS, ORDER)
    for data in cells["datasets"]:
        if arguments.datasets and data["name"] not in arguments.datasets:
            continue
        task = td.Task(td.datasets.load(data["name"]), context=cells["context"], horizon=cells["horizon"])
        for baseline in data["baselines"]:
            Bench(cells, data, task, baseline, 0, results, arguments.folder / "work").baseline()
        for seed in cells["seeds"] if arguments.seeds is None else arguments.seeds:
            for entry in cells["models"]:
                if not arguments.only or entry["name"] in arguments.only:
                    Bench(cells, data, task, entry, seed, results, arguments.folder / "work").run()
    # Rows of settings that are no longer in cells.toml are not averaged with these.
    current = {
        Bench(cells, data, None, entry, seed, results, arguments.folder).key(role, share)  # type: ignore[arg-type]
        for data in cells["datasets"]
        for entry in cells["models"]
        for seed in cells["seeds"]
        for role, shares in places(entry, cells["shares"]).items()
        for share in shares
    }
    rows = results.frame()
    rows = rows[rows["key"].isin(current) | (rows["role"] == "baseline")]
    summarise(settled(rows, ALSO), cells, arguments.folder)


@dataclass(frozen=True)
class Bench:
    """One model on one data set under one seed."""

    cells: dict[str, Any]
    data: dict[str, Any]
    task: td.Task
    entry: dict[str, Any]
    seed: int
    results: Results
    work: Path

    # ------------------------------------------------------------------------------------------------- what is made
    def training(self, epochs: int | None = None) -> td.Training:
        """The entry's training under this seed; `epochs` where it is to be longer."""
        spec = {**self.entry.get("training", {}), **self.data.get("training", {}), "seed": self.seed, "patience": None}
        return td.Training.from_dict(spec if epochs is None else {**spec, "epochs": epochs})

    def pruning(self, *, also: bool = False, **goal: Any) -> td.Pruning:
        """How the entry is cut, to some goal; `also` with its other groups."""
        spec = dict(self.entry["pruning"]) | ({"groups": self.entry["also"]["groups"]} if also else {})
        recovery = {**spec.pop("recovery"), **self.data.get("training", {}), "seed": self.seed, "patience": None}
        return td.Pruning.from_dict({**spec, "recovery": recovery, **goal})

    @property
    def whole(self) -> int:
        """Epochs of training and all recoveries together."""
        pruning = self.pruning(ratio=0.5)
        assert pruning.recovery is not None
        return self.training().epochs + pruning.n_rounds * pruning.recovery.epochs

    @property
    def teacher(self) -> td.Forecaster | None:
        """Who teaches this entry."""
        if "teacher" not in self.entry:
            return None
        (entry,) = (spec for spec in self.cells["models"] if spec["name"] == self.entry["teacher"])
        return Bench(self.cells, self.data, self.task, entry, self.seed, self.results, self.work).dense()

    def learn(self, model: td.Forecaster, training: td.Training) -> td.Forecaster:
        """Train a new model, from the teacher if there is one."""
        teacher = self.teacher
        if teacher is not None:
            cache = self.work / "cache"
            return td.distill(teacher, model, self.task, training=training, control=False, cache=cache, progress=False)
        fit(model, self.task, training, TruthObjective(), progress=False)
        return model.eval()

    def dense(self) -> td.Forecaster:
        """The model that is pruned."""
        config = MODELS.read(self.entry["config"])
        return self.kept("dense", lambda: self.learn(config.build(self.task.signature, self.seed), self.training()))

    def pruned(self, share: float, also: str = "") -> td.Forecaster:
        """The dense model without this share of its parameters; `also` is ALSO for its other groups."""

        def make() -> td.Forecaster:
            dense = self.dense()
            spec = self.pruning(also=bool(also), max_parameters=int((1 - share) * dense.n_parameters))
            cache = self.work / "cache"
            return td.prune(dense, self.task, spec, teacher=self.teacher, cache=cache, progress=False)

        return self.kept(f"pruned{also}", make, share)

    def scratch(self, share: float, also: str = "") -> td.Forecaster:
        """The pruned model's shape with new weights, trained for the whole budget."""

        def make() -> td.Forecaster:
            shape = self.pruned(share, also)
            return self.learn(shape.config.build(shape.signature, self.seed), self.training(self.whole))

        return self.kept(f"scratch{also}", make, share)

    def best_cut(self, share: float) -> dict[str, Any]:
        """The row of the cut to a share that validation finds better, of those with one set of groups or the other."""
        ways = ["", ALSO] if share in self.entry.get("also", {}).get("shares", ()) else [""]
        rows = [self.cell(f"pruned{w}", lambda w=w: self.pruned(share, w), share, epochs=self.whole) for w in ways]
        return min(rows, key=lambda row: row["validation_mse"])

    def rung(self, number: int) -> td.Forecaster:
        """A dense model of another size, trained for the whole budget."""
        config = MODELS.read({**self.entry["config"], **self.entry["ladder"][number]})

        def make() -> td.Forecaster:
            return self.learn(config.build(self.task.signature, self.seed), self.training(self.whole))

        return self.kept("ladder", make, number)

    def halved(self, number: int, repair: bool) -> td.Forecaster:
        """Half of the units of some groups gone, without training."""
        groups = tuple(self.entry["halved"][number])
        spec = self.pruning(ratio=0.5, groups=groups, repair=repair, n_rounds=1)
        return td.prune(self.dense(), self.task, spec.replace(recovery=None))

    def key(self, role: str, share: float | None = None) -> str:
        """Names a cell by all that shapes it."""
        if "config" in self.entry and "pruning" not in self.entry:  # a baseline
            return digest_of([self.data["name"], self.cells["context"], self.cells["horizon"], self.entry])
        names = [entry for entry in self.cells["models"] if entry["name"] == self.entry.get("teacher")]
        shape: list[Any] = [self.data["name"], self.cells["context"], self.cells["horizon"], self.data.get("training")]
        shape += [[spec["config"], spec["training"]] for spec in (*names, self.entry)]
        if role in ("pruned", "scratch"):
            shape += [role, share, self.entry["pruning"]]
        elif role.endswith(ALSO):
            shape += [role, share, self.entry["pruning"] | {"groups": self.entry["also"]["groups"]}]
        elif role == "ladder":
            shape += [role, self.whole, self.entry["ladder"][int(share or 0)]]
        elif role in ("cut", "repaired"):
            shape += [role, self.entry["pruning"]["criterion"], self.entry["halved"][int(share or 0)]]
        return digest_of([*shape, self.seed])

    def kept(self, role: str, make: Callable[[], td.Forecaster], share: float | None = None) -> td.Forecaster:
        """A model from `work/`, or made now and put there with the seconds it took."""
        folder = self.work / self.key(role, share)
        if folder.exists():
            loaded = td.load(folder)
            assert isinstance(loaded, td.Forecaster)
            return loaded
        began = time.perf_counter()
        model = make()
        (self.work / "seconds").mkdir(parents=True, exist_ok=True)
        (self.work / "seconds" / folder.name).write_text(str(time.perf_counter() - began))
        td.save(model, folder)
        return model

    # ------------------------------------------------------------------------------------------------- what is read
    def cell(
        self,
        role: str,
        make: Callable[[], td.Forecaster],
        share: float | None = None,
        *,
        epochs: int = 0,
        test: bool = False,
    ) -> dict[str, Any]:
        """The row of a model; `test` says that nothing is chosen by it any more, so that the test part may be read."""
        key = self.key(role, share)
        row = self.results.find(key)
        if row is not None and (not test or row["mse"] == row["mse"]):
            return row
        model = make()
        if row is None:
            clock = self.work / "seconds" / key
            row = {
                "dataset": self.data["name"], "model": self.entry["name"], "role": role,
                "share": NAN if share is None else share, "seed": self.seed, "n_parameters": model.n_parameters,
                "validation_mse": td.evaluate(model, self.task, part="validation")["mse"], "mse": NAN,
                "against_dense": NAN, "p_value": NAN, "epochs": epochs,
                "seconds": float(clock.read_text()) if clock.exists() else NAN, "key": key,
            }  # fmt: skip
        if test:
            row |= self.judged(model, alone=role in ("dense", "baseline"))
        return self.add(row)

    def judged(self, model: td.Forecaster, *, alone: bool) -> dict[str, float]:
        """The test error, and whether it differs from the dense model's by more than chance."""
        losses = window_losses(model, self.task, "test")
        scores = {"mse": float(losses.mean())}
        if not alone:
            base = window_losses(self.dense(), self.task, "test")
            p_value = compare_losses(losses, base, horizon=self.task.horizon).p_value
            scores |= {
                "against_dense": float(losses.mean() / base.mean() - 1),
                "p_value": NAN if p_value is None else p_value,
            }
        return scores

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row and say so."""
        self.results.add(row)
        share = "" if row["share"] != row["share"] else f" {row['share']:g}"
        test = f", test {row['mse']:.4f}" if row["mse"] == row["mse"] else ""
        errors = f"validation {row['validation_mse']:.4f}{test}"
        what = f"{row['dataset']} {row['model']} seed {row['seed']}: {row['role']}{share}"
        print(f"{what} of {row['n_parameters']:,.0f} weights, {errors}", flush=True)
        return row

    def baseline(self) -> None:
        """A model without seeds or pruning."""
        config = MODELS.read(self.entry["config"])
        self.cell("baseline", lambda: td.train(config, self.task, progress=False), test=True)

    def run(self) -> None:
        """Everything of one seed: validation first, then choices, then the test part."""
        dense = self.cell("dense", self.dense, epochs=self.training().epochs)
        shares, whole = self.cells["shares"], self.whole
        cuts = {share: self.best_cut(share) for share in shares}
        rungs = [
            self.cell("ladder", lambda n=n: self.rung(n), n, epochs=whole) for n in range(len(self.entry["ladder"]))
        ]
        # From here on nothing is trained that depends on a test error.
        picks = chosen(cuts, dense["validation_mse"], self.cells["allowed"])
        for share in sorted({*self.cells["read"], *picks.values()}):
            a = cuts[share]["role"].removeprefix("pruned")
            self.cell(f"pruned{a}", lambda s=share, a=a: self.pruned(s, a), share, epochs=whole, test=True)
            self.cell(f"scratch{a}", lambda s=share, a=a: self.scratch(s, a), share, epochs=whole, test=True)
            number = equal(rungs, cuts[share]["validation_mse"])
            if number is not None:
                self.cell("ladder", lambda n=number: self.rung(n), number, epochs=whole, test=True)
        self.cell("dense", self.dense, epochs=self.training().epochs, test=True)
        self.cell("ladder", lambda: self.rung(len(rungs) - 1), len(rungs) - 1, epochs=whole, test=True)
        for number in range(len(self.entry["halved"])):
            for role, repair in (("cut", False), ("repaired", True)):
                self.cell(role, lambda n=number, r=repair: self.halved(n, r), number, test=True)


def places(entry: dict[str, Any], shares: list[float]) -> dict[str, list[Any]]:
    """Every role a model has, and its shares or numbers."""
    groups, rungs = list(range(len(entry["halved"]))), list(range(len(entry["ladder"])))
    also = list(entry.get("also", {}).get("shares", ()))
    return {
        "dense": [None], "pruned": shares, "scratch": shares, f"pruned{ALSO}": also, f"scratch{ALSO}": also,
        "ladder": rungs, "cut": groups, "repaired": groups,
    }  # fmt: skip


if __name__ == "__main__":
    main()
