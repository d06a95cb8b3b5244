"""The one loop: resuming, stopping, guarding, and what it leaves behind."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Task
from tsdistill.errors import ArtifactError, ConfigError, DivergenceError, OrderError, ShapeError, UnsupportedError
from tsdistill.exporting import export
from tsdistill.losses import OutputLoss, TemporalLoss
from tsdistill.models import Forecaster, LinearConfig, LSTMConfig, MLPConfig, PatchTSTConfig, SeasonalNaiveConfig
from tsdistill.teachers import CachedTeacher
from tsdistill.testing import toy_task
from tsdistill.training import TeacherObjective, Training, TruthObjective, fit, train
from tsdistill.training import loop as loop_module
from tsdistill.training.checkpoint import read_progress
from tsdistill.training.history import beside, read
from tsdistill.training.ranks import Ranks
from tsdistill.training.steps import epoch

QUICK = Training(epochs=3, batch_size=37, learning_rate=5e-3, precision="float32", patience=None)
CONFIG = LSTMConfig(widths=(5,), patch=11)


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def test_training_improves_on_where_it_started(task: Task) -> None:
    model = train(CONFIG, task, QUICK)
    history = model.lineage[-1].metrics["history"]
    untrained = loop_module._validation_errors(CONFIG.build(task.signature), task.validation, Ranks())["validation_mse"]
    assert model.lineage[-1].metrics["validation_mse"] < untrained
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_does_not(task: Task) -> None:
    one, same, other = (train(CONFIG, task, QUICK.replace(seed=seed)) for seed in (0, 0, 1))
    assert one.digest == same.digest
    assert one.digest != other.digest


class StopError(Exception):
    """Stands for whatever ends a process between two epochs."""


def test_a_stopped_run_continues_to_the_same_weights(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, checkpoint = PatchTSTConfig(depth=1, width=6, heads=2, patch=11), tmp_path / "run.safetensors"
    whole = train(config, task, QUICK)
    n_epochs = 0

    def stops_in_the_second(*arguments: Any, **named: Any) -> Any:
        nonlocal n_epochs
        n_epochs += 1
        parts = epoch(*arguments, **named)
        if n_epochs == 2:
            raise StopError
        return parts

    monkeypatch.setattr(loop_module, "epoch", stops_in_the_second)
    with pytest.raises(StopError):
        train(config, task, QUICK, checkpoint=checkpoint)
    torch.rand(3)  # whatever else the process drew must not matter
    resumed = train(config, task, QUICK, checkpoint=checkpoint)
    assert n_epochs == 2 + 2
    assert resumed.digest == whole.digest
    assert resumed.lineage[-1].metrics == whole.lineage[-1].metrics


KILLED = Training(
    epochs=40, batch_size=7, accumulate=3, average=0.9, windows_per_epoch=149, learning_rate=5e-3, precision="float32",
    patience=None,
)  # fmt: skip


@pytest.mark.slow
def test_a_process_killed_at_any_moment_continues_to_the_same_weights(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.safetensors"
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tests.test_training import CONFIG, KILLED
        from tsdistill.testing import toy_task
        from tsdistill.training import train
        model = train(CONFIG, toy_task(), KILLED, checkpoint=Path(sys.argv[1]))
        print(model.digest, model.lineage[-1].metrics)
        """
    )
    command = [sys.executable, "-c", script, str(checkpoint)]
    whole = subprocess.run([*command[:-1], str(tmp_path / "other")], capture_output=True, text=True, check=True)
    moments = random.Random(5)
    for _ in range(3):
        stood = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == stood:  # until it has done an epoch more
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.2))  # then anywhere: in a step, in validation, while a file is written
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        n_epochs = read_progress(checkpoint).epoch
        assert [record["epoch"] for record in read(beside(checkpoint))][:n_epochs] == list(range(1, n_epochs + 1))
    assert n_epochs < KILLED.epochs
    resumed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert resumed.stdout == whole.stdout
    assert [record["epoch"] for record in read(beside(checkpoint))] == list(range(1, KILLED.epochs + 1))


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(task: Task, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.safetensors"
    train(CONFIG, task, QUICK, checkpoint=checkpoint)
    with pytest.raises(ArtifactError, match="belongs to another run"):
        train(CONFIG, task, QUICK.replace(learning_rate=1e-4), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        train(CONFIG, task, QUICK, checkpoint=checkpoint)


class Explodes(TruthObjective):
    """Becomes infinite in its third step."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _ = super().forward(model, batch)
        self.n_calls += 1
        loss = loss * (float("inf") if self.n_calls == 3 else 1.0)
        return loss, {"pull": loss.detach()}


def test_a_loss_that_is_not_finite_stops_with_step_term_and_rate(task: Task) -> None:
    with pytest.raises(DivergenceError, match=r"step 3: pull is not finite \(learning rate 0\.\d+"):
        fit(CONFIG.build(task.signature), task, QUICK, Explodes())


def test_the_best_epoch_is_kept_and_patience_stops(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([0.9, 0.5, 0.7, 0.8, 0.1])
    kept: list[str] = []

    def validation_errors(model: Any, *_: Any) -> dict[str, float]:
        kept.append(model.digest)
        return {"validation_mse": next(errors)}

    monkeypatch.setattr(loop_module, "_validation_errors", validation_errors)
    model = train(CONFIG, task, QUICK.replace(epochs=5, patience=2))
    assert len(kept) == 4
    assert model.digest == kept[1]
    assert model.lineage[-1].metrics["best_epoch"] == 2


def test_max_steps_is_the_number_of_steps(task: Task) -> None:
    model = train(CONFIG, task, QUICK.replace(epochs=100, max_steps=3))
    assert model.lineage[-1].metrics["steps"] == 3


def test_the_schedule_warms_up_and_comes_down() -> None:
    training = Training(learning_rate=1.0, warmup=0.1)
    rates = [training.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3
    assert Training(schedule="constant").rate(99, 100) == 1e-3


def test_a_probe_chooses_and_is_recorded(task: Task) -> None:
    model = train(CONFIG, task, QUICK.replace(precision="auto", max_steps=2))
    assert model.lineage[-1].metrics["precision"] in ("float32", "bfloat16")


def test_bfloat16_trains_float32_weights(task: Task) -> None:
    # An MLP, because not every processor has a bfloat16 LSTM.
    model = train(MLPConfig(width=5, depth=1), task, QUICK.replace(precision="bfloat16", max_steps=2))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(task.validation.batch(torch.arange(2)).context).dtype == torch.float32


class NoShortFloats(TruthObjective):
    """Stands for a processor that cannot compute a model in bfloat16."""

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive. More words.")
        return super().forward(model, batch)


def test_a_processor_without_bfloat16_trains_in_float32_unless_told_otherwise(task: Task) -> None:
    model, short = CONFIG.build(task.signature), QUICK.replace(max_steps=2, device="cpu")
    assert fit(model, task, short.replace(precision="auto"), NoShortFloats())["precision"] == "float32"
    with pytest.raises(UnsupportedError, match=r'"bfloat16" \(could not create a primitive\). Use "auto"'):
        fit(model, task, short.replace(precision="bfloat16"), NoShortFloats())


def test_models_without_steps_are_solved_or_left(task: Task) -> None:
    assert train(LinearConfig(), task).lineage[-1].metrics["penalty"] in LinearConfig().penalties
    assert train(SeasonalNaiveConfig(period=7), task).n_parameters == 0


def test_a_missing_device_is_refused(task: Task) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(ConfigError, match="device"):
        train(CONFIG, task, QUICK.replace(device="cuda"))


EXAMPLES = 2
"""Windows that losses look at when they are bound."""


class Spy:
    """A teacher that counts how often it is asked."""

    digest = "spy"

    def __init__(self, model: Any) -> None:
        self.model, self.n_windows = model, 0

    def forecast(self, batch: Batch) -> Tensor:
        self.n_windows += len(batch.context)
        return self.model.forecast(batch)


def test_a_teacher_is_asked_once_for_every_window(task: Task, tmp_path: Path) -> None:
    spy = Spy(train(LinearConfig(), task))
    objective = TeacherObjective([OutputLoss(), TemporalLoss()], CachedTeacher(spy, tmp_path))
    metrics = fit(CONFIG.build(task.signature), task, QUICK, objective)
    assert spy.n_windows == len(task.train) + EXAMPLES
    assert {"loss_output", "loss_temporal"} <= set(metrics["history"][0])
    fit(MLPConfig(width=5, depth=1).build(task.signature), task, QUICK, objective)
    assert spy.n_windows == len(task.train) + 2 * EXAMPLES
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_a_term_that_has_no_closed_form_is_not_skipped(task: Task) -> None:
    objective = TeacherObjective([OutputLoss(), TemporalLoss()], CachedTeacher(train(LinearConfig(), task)))
    with pytest.raises(UnsupportedError, match="closed-form"):
        fit(LinearConfig().build(task.signature), task, QUICK, objective)


def test_a_cache_that_cannot_be_written_is_one_clear_error(task: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    objective = TeacherObjective(
        [OutputLoss()], CachedTeacher(train(LinearConfig(), task), tmp_path / "file" / "cache")
    )
    with pytest.raises(ArtifactError, match="Cannot keep teacher forecasts"):
        fit(CONFIG.build(task.signature), task, QUICK, objective)


def test_a_model_made_for_another_task_is_refused(task: Task) -> None:
    for other in (
        Task(task.panel, context=47, horizon=1, split=task.split),
        Task(task.panel, context=53, horizon=11, split=task.split),
        Task(task.panel, context=47, horizon=11, split=task.split, scaler=None),
    ):
        with pytest.raises(ShapeError, match="the forecaster must"):
            fit(CONFIG.build(other.signature), task, QUICK, TruthObjective())


def test_a_validation_error_that_is_not_finite_stops_and_keeps_the_checkpoint(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([0.9, float("nan")])
    monkeypatch.setattr(loop_module, "_validation_errors", lambda *_: {"validation_mse": next(errors)})
    with pytest.raises(DivergenceError, match="epoch 2: the validation error is nan"):
        train(CONFIG, task, QUICK, checkpoint=tmp_path / "run.safetensors")
    assert read_progress(tmp_path / "run.safetensors").epoch == 1


def test_a_checkpoint_that_cannot_be_written_is_one_clear_error(task: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="Cannot write the checkpoint"):
        train(CONFIG, task, QUICK, checkpoint=tmp_path / "file" / "run.safetensors")


def test_only_a_config_can_be_trained(task: Task) -> None:
    deployed = export(train(LinearConfig(), task))
    with pytest.raises(OrderError, match="swap the lines"):
        train(deployed, task)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got a str"):
        train("lstm", task)  # type: ignore[arg-type]
