"""Gradient steps: accumulation, schedules, averaged weights, drawn windows, and what stops a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Task, Windows
from tsdistill.errors import ConfigError, DivergenceError
from tsdistill.models import Forecaster, MLPConfig
from tsdistill.testing import toy_task
from tsdistill.training import Training, TruthObjective, fit, train
from tsdistill.training import loop as loop_module
from tsdistill.training.averaging import Average
from tsdistill.training.checkpoint import read_progress
from tsdistill.training.ranks import Ranks

CONFIG = MLPConfig(width=5, depth=1, dropout=0.0)
QUICK = Training(epochs=2, batch_size=37, learning_rate=5e-3, precision="float32", patience=None, device="cpu")


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def weights(model: Forecaster) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Watches(TruthObjective):
    """Notes the weights and the windows of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.seen: list[Tensor] = []

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if torch.is_grad_enabled():
            self.weights.append(weights(model).clone())
            self.seen.append(batch.index)
        return super().forward(model, batch)


def test_accumulated_batches_are_one_large_batch(task: Task) -> None:
    assert len(task.train) % (5 * 13) == 47  # the last step has three whole batches and eight windows
    large = train(CONFIG, task, QUICK.replace(batch_size=5 * 13))
    small = train(CONFIG, task, QUICK.replace(batch_size=13, accumulate=5))
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-4, atol=1e-6)
    for one, other in zip(small.lineage[-1].metrics["history"], large.lineage[-1].metrics["history"], strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert small.lineage[-1].metrics["steps"] == 2 * 4
    alone = train(CONFIG, task, QUICK.replace(batch_size=13))
    assert (weights(alone) - weights(large)).abs().max() > 1e-3


def test_one_cycle_is_the_schedule_of_torch() -> None:
    n_steps, warm = 97, 29
    training = Training(schedule="one-cycle", learning_rate=0.7, warmup=warm / n_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.7,
        total_steps=n_steps + 1,
        pct_start=(warm + 1) / (n_steps + 1),
        div_factor=25,
        final_div_factor=1e12,
        cycle_momentum=False,
    )
    for step in range(n_steps):
        assert training.rate(step, n_steps) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()
    assert training.rate(0, n_steps) == pytest.approx(0.7 / 25)
    assert training.rate(warm, n_steps) == 0.7


def test_an_average_weighs_the_weights_it_was_shown(task: Task) -> None:
    model, decay = CONFIG.build(task.signature), 0.7
    average, shown = Average(model, decay), []
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        average.update(model, step)
        shown.append(weights(model).double())
        shares = torch.tensor([decay ** (step - past) for past in range(1, step + 1)])
        expected = (shares[:, None] * torch.stack(shown)).sum(dim=0) / shares.sum()
        torch.testing.assert_close(weights(average.model).double(), expected, rtol=1e-5, atol=1e-6)


def test_averaged_weights_are_those_of_the_steps_and_are_what_is_scored_and_kept(task: Task) -> None:
    steady = QUICK.replace(epochs=1, schedule="constant", max_steps=6)
    watch, decay = Watches(), 0.6
    fit(CONFIG.build(task.signature), task, steady, watch)
    model = train(CONFIG, task, steady.replace(max_steps=5, average=decay))
    shares = torch.tensor([decay ** (5 - step) for step in range(1, 6)])
    expected = (shares[:, None] * torch.stack(watch.weights[1:])).sum(dim=0) / shares.sum()
    torch.testing.assert_close(weights(model), expected, rtol=1e-4, atol=1e-6)
    scored = loop_module._validation_errors(model, task.validation, Ranks())["validation_mse"]
    assert model.lineage[-1].metrics["validation_mse"] == scored
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_every_epoch_draws_its_own_windows(task: Task) -> None:
    watch = Watches()
    metrics = fit(CONFIG.build(task.signature), task, QUICK.replace(epochs=3, windows_per_epoch=83), watch)
    assert metrics["steps"] == len(watch.seen) == 3 * 3
    drawn = [set(torch.cat(watch.seen[first : first + 3]).tolist()) for first in (0, 3, 6)]
    assert [len(windows) for windows in drawn] == [83] * 3
    assert drawn[0] != drawn[1] != drawn[2]
    assert len(set.union(*drawn)) > 83 + 20
    everything = QUICK.replace(windows_per_epoch=10**6)
    assert everything.n_steps(len(task.train)) == QUICK.n_steps(len(task.train))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"accumulate": 0}, "accumulate"),
        ({"windows_per_epoch": 0}, "windows_per_epoch"),
        ({"average": 1.0}, "average"),
        ({"average": 0.0}, "average"),
        ({"schedule": "triangle"}, "one-cycle"),
        ({"accumulate": -1, "average": 2.0}, "2 problems"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Training(**fields)


class Poisons(TruthObjective):
    """Breaks a row of the series when a window is first seen in the second epoch."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part, self.n_windows = part, 0

    def bind(self, model: Forecaster, train: Windows) -> None:
        super().bind(model, train)
        self.train_windows = train

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        self.n_windows += len(batch.index)
        if self.n_windows > len(self.train_windows):
            start = int(self.train_windows.starts[batch.index[0]])
            row = start if self.part == "context" else start + self.train_windows.context
            self.train_windows.series[row] = float("nan") if self.part == "context" else float("inf")
            batch = self.train_windows.batch(batch.index)
        return super().forward(model, batch)


@pytest.mark.parametrize("part", ["context", "target"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_broken_data_stops_before_the_weights_are_touched(part: str, accumulate: int, tmp_path: Path) -> None:
    task, checkpoint = toy_task(), tmp_path / "run.safetensors"
    model = CONFIG.build(task.signature)
    training = QUICK.replace(accumulate=accumulate, batch_size=41)
    steps = -(-len(task.train) // training.windows_per_step)
    with pytest.raises(DivergenceError) as caught:
        fit(model, task, training, Poisons(part), checkpoint=checkpoint)
    words = str(caught.value)
    assert f"stopped at step {steps + 1}: " in words
    assert f"the {part} of " in words
    assert "is not finite" in words
    assert bool(weights(model).isfinite().all())
    assert read_progress(checkpoint).epoch == 1


class Explodes(TruthObjective):
    """Becomes infinite in its third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = super().forward(model, batch)
        self.n_calls += 1
        pull = loss * (float("inf") if self.n_calls == 3 else 0.0)
        return loss + pull, {**parts, "pull": pull.detach()}


def test_a_term_that_breaks_in_an_accumulated_batch_is_named(task: Task) -> None:
    with pytest.raises(DivergenceError, match=r"at step 2: pull is not finite \(learning rate 0\.\d+"):
        fit(CONFIG.build(task.signature), task, QUICK.replace(accumulate=2), Explodes())
