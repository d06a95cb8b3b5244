"""Single weights at zero: which ones, that recovery keeps them there, and what it is worth."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tests.test_pruning_groups import shaken
from tsdistill.data import Task
from tsdistill.errors import UnsupportedError
from tsdistill.exporting import export
from tsdistill.models import Forecaster, LinearConfig, LSTMConfig, MLPConfig
from tsdistill.pruning import Pruning, prune
from tsdistill.pruning.unstructured import held, masks_of
from tsdistill.testing import toy_task
from tsdistill.training import Training, TruthObjective, fit, train

QUICK = Training(epochs=2, batch_size=37, learning_rate=5e-3, precision="float32", average=0.9)
PLAIN = Pruning(method="unstructured", ratio=0.3, recovery=None)


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def zeros(model: Forecaster) -> dict[str, np.ndarray]:
    return {name: (p == 0).numpy() for name, p in model.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize("ranking", ["local", "global"])
def test_the_smallest_weights_go(ranking: str, task: Task) -> None:
    model = shaken(LSTMConfig(widths=(5,), patch=11), task.signature)
    smaller = prune(model, task, PLAIN.replace(ranking=ranking))
    sizes = {name: p.detach().abs().numpy() for name, p in model.named_parameters() if p.ndim > 1}
    everything = np.sort(np.concatenate([size.ravel() for size in sizes.values()]))
    for name, size in sizes.items():
        among = everything if ranking == "global" else np.sort(size.ravel())
        border = among[round(len(among) * 0.3)]
        assert np.array_equal(zeros(smaller)[name], size < border), name
    before, after = model.state_dict(), smaller.state_dict()
    for name, size in before.items():
        assert torch.equal(after[name], size if name not in sizes else size * ~torch.from_numpy(zeros(smaller)[name]))


@pytest.mark.parametrize("n_rounds", [1, 2])
def test_recovery_keeps_the_zeros(n_rounds: int, task: Task) -> None:
    model = shaken(LSTMConfig(widths=(5,), patch=11), task.signature)
    smaller = prune(model, task, PLAIN.replace(recovery=QUICK, n_rounds=n_rounds, ranking="global"))
    metrics = smaller.lineage[-1].metrics
    assert metrics["n_zeros"] == sum(int(zero.sum()) for zero in zeros(smaller).values())
    assert metrics["n_zeros"] == round(metrics["n_weights"] * 0.3)
    assert smaller.digest != prune(model, task, PLAIN.replace(ranking="global")).digest
    assert smaller.config == model.config


def test_without_the_masks_recovery_would_fill_them(task: Task) -> None:
    model = shaken(MLPConfig(width=5, depth=1), task.signature)
    smaller = prune(model, task, PLAIN)
    masks = masks_of(model, 0.3, locally=True)
    for hold in (True, False):
        trained = prune(model, task, PLAIN)
        if hold:
            with held(trained, masks):
                fit(trained, task, QUICK, TruthObjective())
        else:
            fit(trained, task, QUICK, TruthObjective())
        same = all(np.array_equal(a, b) for a, b in zip(zeros(trained).values(), zeros(smaller).values(), strict=True))
        assert same == hold
    # Nothing is left behind on the model: the next training is free again.
    assert not any(p._backward_hooks for p in trained.parameters())


def test_it_is_reported_as_what_it_is(task: Task) -> None:
    model = shaken(MLPConfig(width=32, depth=2))
    smaller = prune(model, task, PLAIN.replace(ratio=0.9))
    metrics = smaller.lineage[-1].metrics
    before, after = (save(dict(forecaster.state_dict())) for forecaster in (model, smaller))
    assert metrics["weights_bytes"] == len(after) == len(before)
    assert (metrics["compressed_bytes"], metrics["compressed_bytes_before"]) == tuple(
        len(gzip.compress(content, mtime=0)) for content in (after, before)
    )
    assert metrics["compressed_bytes"] < 0.5 * metrics["compressed_bytes_before"]
    assert metrics["n_parameters"] == metrics["n_parameters_before"]


@pytest.mark.slow
def test_the_deployed_file_is_as_large_as_before(task: Task) -> None:
    model = shaken(MLPConfig(width=32, depth=2))
    smaller = prune(model, task, PLAIN.replace(ratio=0.9))
    assert len(export(smaller).onnx) == len(export(model).onnx)


def test_what_is_solved_in_closed_form_cannot_recover(task: Task) -> None:
    ridge = train(LinearConfig(), task)
    assert prune(ridge, task, PLAIN).lineage[-1].metrics["n_zeros"] == round(0.3 * 47 * 11)
    with pytest.raises(UnsupportedError, match="solved in closed form, which would fill the zeros"):
        prune(ridge, task, PLAIN.replace(recovery=QUICK))
