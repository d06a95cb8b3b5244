"""Processes that train together: the same model as one process makes, on every rank, and the same error."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from tsdistill.artifacts import load
from tsdistill.errors import ConfigError
from tsdistill.models import Forecaster, MLPConfig
from tsdistill.testing import toy_task
from tsdistill.training import Training, train
from tsdistill.training.ranks import Ranks, join

CPU = torch.device("cpu")


@pytest.mark.parametrize("n_windows", [0, 1, 2, 7, 13])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_even_and_make_up_the_whole(n_windows: int, size: int) -> None:
    index = torch.randperm(n_windows)
    shares = [Ranks(rank, size).share(index) for rank in range(size)]
    assert torch.equal(torch.cat(shares), index)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    parameter = nn.Parameter(torch.zeros(3))
    with join(CPU) as ranks:
        assert (ranks.rank, ranks.size, ranks.leads) == (0, 1, True)
        assert ranks.gather({"a": 1}) == [{"a": 1}]
        assert ranks.sum({"a": 2.0}) == {"a": 2.0}
        assert ranks.hand_out(b"bytes") == b"bytes"
        assert ranks.sum_gradients([parameter], torch.tensor(5.0)) == 5.0
        assert parameter.grad is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2"}, "must also hold RANK, MASTER_ADDR, MASTER_PORT. Start with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}, "must also hold MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, "`WORLD_SIZE` must be a whole number above 0, got WORLD_SIZE='two'"),
        ({"WORLD_SIZE": "0"}, "above 0"),
    ],
    ids=str,
)
def test_half_an_environment_is_refused(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words), join(CPU):
        pass


CONFIG = MLPConfig(width=5, depth=1, dropout=0.0)
# 242 windows: the last step has 20, and with batches of 37 in two shares nothing is even.
TRAINING = Training(epochs=3, batch_size=37, accumulate=2, learning_rate=5e-3, precision="float32", patience=None)

SCRIPT = textwrap.dedent(
    """
    import json, os, sys
    from pathlib import Path
    import torch
    from tsdistill.artifacts import save
    from tsdistill.errors import TsdistillError
    from tsdistill.testing import toy_task
    from tsdistill.training import TruthObjective, Training, fit, train
    from tsdistill.training import loop
    from tests.test_training_ranks import CONFIG, TRAINING

    rank, folder, task = int(os.environ["RANK"]), Path(sys.argv[1]), toy_task()
    said = {"rank": rank}

    def keep(name, model):
        said[name] = model.digest
        if rank == 0:
            save(model, folder / name)

    def fails(name, act):
        try:
            act()
        except TsdistillError as error:
            said[name] = f"{type(error).__name__}: {error}"

    # Each rank names a file of its own: only the first one's may appear.
    mine = folder / f"run-{rank}.safetensors"
    whole = train(CONFIG, task, TRAINING, checkpoint=mine, progress=True)
    keep("plain", whole)
    said["history"] = whole.lineage[-1].metrics["history"]
    said["left"] = not torch.distributed.is_initialized()
    keep("averaged", train(CONFIG, task, TRAINING.replace(average=0.9, windows_per_epoch=83)))
    # Batches of one window: the second rank has none, ever.
    keep("single", train(CONFIG, task, TRAINING.replace(batch_size=1, accumulate=1, max_steps=5)))
    dropout = CONFIG.replace(dropout=0.3)
    said["dropout"] = train(dropout, task, TRAINING).digest

    class Learns(TruthObjective):
        def __init__(self):
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(1))
            self.unused = torch.nn.Parameter(torch.ones(1))

        def forward(self, model, batch):
            loss, parts = super().forward(model, batch)
            return loss + (self.shift - 1).square().sum(), parts

    learns = Learns()
    fit(CONFIG.build(task.signature), task, TRAINING, learns)
    said["shift"], said["unused"] = float(learns.shift), float(learns.unused)

    # Stopped in the third epoch on both ranks, then resumed.
    beside, epoch = folder / f"stopped-{rank}.safetensors", loop.epoch

    def stops(run, bar):
        if run.so_far.epoch == 2:
            raise KeyboardInterrupt
        return epoch(run, bar)

    loop.epoch = stops
    try:
        train(CONFIG, task, TRAINING, checkpoint=beside)
    except KeyboardInterrupt:
        pass
    loop.epoch = epoch
    said["resumed"] = train(CONFIG, task, TRAINING, checkpoint=beside).digest

    class Explodes(TruthObjective):
        def forward(self, model, batch):
            loss, parts = super().forward(model, batch)
            pull = loss * (float("inf") if rank == 1 else 0.0)
            return loss + pull, {**parts, "pull": pull.detach()}

    fails("explodes", lambda: fit(CONFIG.build(task.signature), task, TRAINING, Explodes()))
    (folder / "file").write_text("in the way")
    fails("disk", lambda: train(CONFIG, task, TRAINING, checkpoint=folder / "file" / "run"))
    fails("other", lambda: train(CONFIG, task, TRAINING.replace(seed=rank)))
    broken = toy_task()
    broken.train.series[100] = float("nan")
    fails("nan", lambda: train(CONFIG, broken, TRAINING.replace(batch_size=242, accumulate=1)))
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
    """
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def weights(model: Forecaster) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_does(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), str(tmp_path / "script.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in (0, 1))
    assert {**first, "rank": 1} == second  # the same model, history and errors on both
    assert first["left"]

    task = toy_task()
    alone = {
        "plain": train(CONFIG, task, TRAINING),
        "averaged": train(CONFIG, task, TRAINING.replace(average=0.9, windows_per_epoch=83)),
        "single": train(CONFIG, task, TRAINING.replace(batch_size=1, accumulate=1, max_steps=5)),
    }
    for name, model in alone.items():
        together = load(tmp_path / name)
        assert isinstance(together, Forecaster)
        torch.testing.assert_close(weights(together), weights(model), rtol=1e-4, atol=1e-5)
    for one, other in zip(first["history"], alone["plain"].lineage[-1].metrics["history"], strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert first["resumed"] == first["plain"]
    assert first["shift"] > 0.01
    assert first["unused"] == 1.0

    assert sorted(path.name for path in tmp_path.glob("*run-*")) == [
        "run-0.safetensors",
        "run-0.safetensors.history.jsonl",
    ]
    assert not list(tmp_path.glob("*stopped-1*"))
    assert first["explodes"].startswith("DivergenceError: Training diverged at step 1: pull is not finite")
    assert first["disk"].startswith("ArtifactError: Cannot write the checkpoint")
    assert first["other"].startswith("ConfigError: All processes must train the same model")
    assert "the context of 47 windows (first: 54) and the target of 11 windows (first: 43) is not" in first["nan"]
