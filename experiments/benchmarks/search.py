"""What a search costs beside a script that a competent user would write: ratios in one run.

    OMP_NUM_THREADS=1 python experiments/benchmarks/search.py

ETTh1 (context 336, horizon 96, 7 channels) and a PatchTST teacher of width 128, which is trained once, kept in `build/`
and counts for neither side. Students are MLPs and LSTMs, trained for three epochs of 2,048 windows and brought to
dynamic INT8. The script makes a DataLoader for every trial, asks the teacher with every batch, keeps the best epoch,
takes torch's dynamic INT8 and scores it on the validation part. Thirty trials are drawn at random, the same for both.

- `trials`: trials per hour of a search with the package's settings over the thirty trials, the teacher's forecasts of
  all training windows and the tracing of every graph included, against the script's, over the first few of them;
- `trials to the end`: these few in turns, when nothing is stopped and the teacher was asked before;
- `first as good`: seconds until a deployed model has no more error than the best of the thirty, of a search over a
  space with closed forms in it, from nothing, against the script's until it comes to that trial;
- `workers`: trials per hour of two workers with a thread each against one, by the clock, over the same short trials,
  once each worker has ended its first one (in which it loads what it needs); the median of the rounds. It means
  something on two idle cores only;
- `workers, processor`: the same by the processor's time of each, which holds what they cost each other in memory and
  caches, and not what they wait.

The rest is the processor's time of one thread as well, which a busy machine changes little. `search.csv` beside this
file keeps the rows with the machine's name. Those there are of a run that was cut off before
`first as good`, on two cores that others kept busy, so that `workers` by the clock says nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from optuna.trial import FixedTrial, TrialState
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

import tsdistill as td
from tsdistill.data.task import Windows
from tsdistill.exporting import tracing
from tsdistill.losses import OutputLoss
from tsdistill.report.machine import machine
from tsdistill.search import Range, Space
from tsdistill.teachers import Teacher

FOLDER = Path(__file__).resolve().parents[2] / "build" / "search-benchmark"
N_TRIALS, N_SCRIPTED = int(os.environ.get("TRIALS", "30")), 2
N_SHORT, ROUNDS = 20, int(os.environ.get("ROUNDS", "3"))

TRAINING = td.Training(epochs=3, windows_per_epoch=2048, batch_size=64, patience=None, precision="float32")
RECIPE = td.Recipe(
    name="etth1",
    data={"dataset": "etth1"},
    task={"context": 336, "horizon": 96},
    teacher={
        "model": td.PatchTSTConfig(width=128),
        "training": td.Training(epochs=2, windows_per_epoch=2048, batch_size=32),
    },
    student={"model": td.MLPConfig(), "losses": (OutputLoss(),), "training": TRAINING},
    quantization=td.Quantization(method="dynamic", require_gain=False, max_error_increase=1.0),
)
SIZES: dict[str, Any] = {
    "student.model.mlp.width": (16, 32, 64),
    "student.model.mlp.depth": (1, 2),
    "student.model.lstm.width": (16, 32, 64),
    "student.model.lstm.depth": 1,
    "student.model.lstm.patch": (12, 24),
    "student.losses.output.alpha": Range(0.0, 1.0),
    "student.training.learning_rate": Range(5e-4, 1e-2, log=True),
}
SPACE = Space(vary={"student.model.kind": ("mlp", "lstm"), **SIZES})
WIDER = Space(vary={"student.model.kind": ("linear", "mlp", "lstm"), **SIZES})


class PerWindow(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual way: one window per item."""

    def __init__(self, windows: Windows) -> None:
        self.series, self.context, self.length = windows.series, windows.context, windows.context + windows.horizon
        self.starts = windows.starts.tolist()

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin = self.starts[index]
        steps = self.series[begin : begin + self.length]
        return steps[: self.context], steps[self.context :]


def scripted(recipe: td.Recipe, teacher: nn.Module, task: td.Task) -> float:
    """A trial as a script would do it: validation error of the student in torch's dynamic INT8."""
    spec, training = recipe.student, recipe.student.training
    (alpha,) = (loss.alpha for loss in spec.losses if isinstance(loss, OutputLoss))
    assert isinstance(alpha, float)
    train, validation = PerWindow(task.train), DataLoader(PerWindow(task.validation), batch_size=256)
    loader = DataLoader(
        train, batch_size=training.batch_size, sampler=RandomSampler(train, num_samples=training.windows_per_epoch)
    )
    torch.manual_seed(0)
    student = spec.model.build(task.signature, 0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.epochs * len(loader), pct_start=0.1
    )
    best, weights = float("inf"), {}
    for _ in range(training.epochs):
        student.train()
        for context, target in loader:
            with torch.no_grad():
                taught = teacher(context)
            forecast = student(context)
            loss = alpha * (forecast - taught).square().mean() + (1 - alpha) * (forecast - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if (error := mse(student, validation)) < best:
            best, weights = error, {name: tensor.clone() for name, tensor in student.state_dict().items()}
    student.load_state_dict(weights)
    int8 = torch.ao.quantization.quantize_dynamic(student.eval(), {nn.Linear, nn.LSTM}, dtype=torch.qint8)
    return mse(int8, validation)


def mse(model: nn.Module, loader: DataLoader[Any]) -> float:
    """Mean squared error over a loader."""
    model.eval()
    with torch.no_grad():
        errors = [(model(context) - target).square().mean(dim=(1, 2)) for context, target in loader]
    return float(torch.cat(errors).mean())


def drawn(n_trials: int) -> list[dict[str, Any]]:
    """The trials that both sides run."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(n_trials)]
    for trial in trials:
        SPACE.propose(trial, RECIPE)
    return [trial.params for trial in trials]


def in_turns(draws: list[dict[str, Any]], teacher: Any, task: td.Task, cache: Path) -> tuple[list[float], list[float]]:
    """Seconds of every trial of the script, and of the search when nothing is stopped."""
    study = td.search.create_study("in turns", pruner=optuna.pruners.NopPruner())
    script, search = [], []
    for n_trials, draw in enumerate(draws, 1):
        began = time.process_time()
        error = scripted(SPACE.propose(FixedTrial(draw), RECIPE), teacher, task)
        script.append(time.process_time() - began)
        study.enqueue_trial(draw)
        began = time.process_time()
        td.search.optimize(study, SPACE, teacher, task, n_trials=n_trials, recipe=RECIPE, cache=cache, progress=False)
        search.append(time.process_time() - began)
        show(f"script {script[-1]:.1f} s, error {error:.4f}; search {search[-1]:.1f} s, {study.trials[-1].value:.4f}")
    return script, search


def whole(draws: list[dict[str, Any]], teacher: Teacher, task: td.Task, cache: Path) -> tuple[float, int, float]:
    """Seconds of a search over the trials, the place of the best one, and its error."""
    study = td.search.create_study("whole")
    for draw in draws:
        study.enqueue_trial(draw)
    began = time.process_time()
    td.search.optimize(study, SPACE, teacher, task, n_trials=len(draws), recipe=RECIPE, cache=cache, progress=False)
    seconds = time.process_time() - began
    states = [trial.state.name for trial in study.trials]
    show(f"search {seconds:.0f} s: {', '.join(f'{states.count(state)} {state}' for state in sorted(set(states)))}")
    return seconds, study.best_trial.number, study.best_value


def first_as_good(target: float, teacher: Teacher, task: td.Task, cache: Path) -> float:
    """Seconds of a search from nothing until a deployed model has no more error than `target`."""
    study = td.search.create_study("first")

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.state == TrialState.COMPLETE and trial.values[0] <= target:
            study.stop()

    began = time.process_time()
    td.search.optimize(
        study, WIDER, teacher, task, n_trials=60, recipe=RECIPE, cache=cache, callbacks=[stop], progress=False
    )
    seconds = time.process_time() - began
    show(f"as good after {len(study.trials)} trials: {study.best_value:.4f} against {target:.4f}")
    return seconds if study.best_value <= target else float("inf")


def work(storage: str, n_trials: int) -> list[tuple[float, float]]:
    """What one worker does; the clock and its processor's time at the end of each of its trials."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = RECIPE.replace(student=RECIPE.student.replace(training=TRAINING.replace(epochs=1)))
    task = recipe.task.build(recipe.data.load())
    teacher = td.search.shared_teacher(recipe, task, FOLDER, progress=False)
    study = td.search.create_study("workers", storage=storage, pruner=optuna.pruners.NopPruner())
    ends: list[tuple[float, float]] = []
    td.search.optimize(
        study,
        SPACE,
        teacher,
        task,
        n_trials=n_trials,
        recipe=recipe,
        cache=FOLDER / "cache",
        callbacks=[lambda study, trial: ends.append((time.time(), time.process_time()))],
        progress=False,
    )
    return ends


def workers(draws: list[dict[str, Any]], n_workers: int) -> tuple[float, float]:
    """Trials per second of all workers, once each has ended its first one, and their processor's seconds per trial."""
    with tempfile.TemporaryDirectory() as folder:
        storage = f"journal:{folder}/study.log"
        study = td.search.create_study("workers", storage=storage)
        for draw in draws:
            study.enqueue_trial(draw)
        with multiprocessing.get_context("spawn").Pool(n_workers) as pool:
            ends = pool.starmap(work, [(storage, len(draws))] * n_workers)
    began = max(own[0][0] for own in ends)
    counted = [[(clock, spent) for clock, spent in own if clock >= began] for own in ends]
    n_trials = sum(len(own) - 1 for own in counted)
    rate = n_trials / (max(own[-1][0] for own in counted) - began)
    spent = sum(own[-1][1] - own[0][1] for own in counted) / n_trials
    show(f"{n_workers} workers: {3600 * rate:.0f} trials an hour, {spent:.2f} s of the processor for a trial")
    return rate, spent


@contextmanager
def from_nothing() -> Iterator[Path]:
    """A folder for the teacher's forecasts; no graph was traced before."""
    with tempfile.TemporaryDirectory() as folder:
        tracing._templates.clear()
        before, os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME"), folder
        try:
            yield Path(folder)
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def show(line: str) -> None:
    """How far it is."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
    task = RECIPE.task.build(RECIPE.data.load())
    teacher = td.search.shared_teacher(RECIPE, task, FOLDER, progress=False)
    draws = drawn(N_TRIALS)
    rounds = [[workers(draws[:N_SHORT], count) for count in (1, 2)] for _ in range(ROUNDS)]
    with from_nothing() as cache:
        searched, place, target = whole(draws, teacher, task, cache)
        script, alike = in_turns(draws[:N_SCRIPTED], teacher, task, cache)
    with from_nothing() as cache:
        first = first_as_good(target, teacher, task, cache)
    scripted_one = statistics.mean(script)
    ratio = statistics.median(two[0] / one[0] for one, two in rounds)
    alone, shared = (statistics.median(row[column][0] for row in rounds) for column in (0, 1))
    spent = [statistics.median(row[column][1] for row in rounds) for column in (0, 1)]
    rows = [
        ("trials", 3600 * N_TRIALS / searched, 3600 / scripted_one, N_TRIALS * scripted_one / searched, "an hour"),
        (
            "trials to the end",
            3600 / statistics.mean(alike),
            3600 / scripted_one,
            scripted_one / statistics.mean(alike),
            "an hour",
        ),
        ("first as good", first, (place + 1) * scripted_one, (place + 1) * scripted_one / first, "seconds"),
        ("workers", 3600 * shared, 3600 * alone, ratio, "an hour"),
        ("workers, processor", 7200 / spent[1], 3600 / spent[0], 2 * spent[0] / spent[1], "an hour"),
    ]
    table = pd.DataFrame(rows, columns=["measure", "search", "against", "ratio", "unit"])
    table = table.assign(cpu=machine().get("cpu"), threads=1)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
