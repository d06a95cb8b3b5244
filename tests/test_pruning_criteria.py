"""Which units go: every criterion against a plain version of itself, and local against global ranking."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from tests.test_pruning_groups import shaken
from tests.typed import instance_of, known
from tsdistill.data import Task
from tsdistill.errors import UnsupportedError
from tsdistill.models import Forecaster, LSTMConfig, MLPConfig, ModelConfig, PatchTSTConfig, TCNConfig, WidthGroup
from tsdistill.models.mlp import MLP, ResidualBlock
from tsdistill.pruning import CRITERIA, Evidence, Pruning, plan_pruning, prune, rebuild
from tsdistill.testing import toy_task

NET = MLPConfig(width=5, depth=2, hidden=(7, 11), dropout=0.0)
ALL: list[ModelConfig] = [
    NET,
    LSTMConfig(widths=(7, 5), patch=11),
    LSTMConfig(widths=(5, 3), patch=11, bidirectional=True),
    PatchTSTConfig(depth=2, width=6, heads=3, feedforward=(7, 5), patch=11),
    TCNConfig(width=5, depth=1, hidden=(7,), patch=5),
]


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def group_of(model: Forecaster, name: str) -> WidthGroup:
    return next(group for group in model.width_groups() if group.name == name)


def inner(model: Forecaster, evidence: Evidence) -> np.ndarray:
    """What the hidden units of an MLP's first block hand on, (row, unit), layer by layer."""
    assert isinstance(model, MLP)
    block, rows = instance_of(ResidualBlock, model.blocks[0]), []
    with torch.no_grad():
        for batch in evidence.train.batches(1):
            x, _, _ = model.norm(batch.context.transpose(1, 2))
            state = model.embed(x) + known(model.channel).weight
            rows.append(functional.gelu(block.expand(block.norm(state)))[0])
    return torch.cat(rows).double().numpy()


@pytest.mark.parametrize("name", ["magnitude", "l1"])
def test_norms_of_weights(name: str, task: Task) -> None:
    model = shaken(NET)
    group = group_of(model, "block1.hidden")
    parts = {n: p.detach().double().numpy() for n, p in model.named_parameters() if n.startswith("blocks.0.")}
    power = 2 if name == "magnitude" else 1
    expected = np.zeros(7)
    slices = [parts["blocks.0.expand.weight"], parts["blocks.0.expand.bias"], parts["blocks.0.contract.weight"].T]
    for rows in slices:
        sums = [(np.abs(rows[unit]) ** power).sum() for unit in range(7)]
        expected += np.array(sums) / np.mean(sums)
    scores = CRITERIA.read(name).score(model, group, Evidence(model, task))
    assert np.allclose(scores.numpy(), expected ** (1 / power))


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_taylor_is_the_gradient_of_a_gate_on_each_unit(config: ModelConfig, task: Task) -> None:
    model = shaken(config)
    evidence = Evidence(model, task, n_windows=37)
    for group in model.width_groups():
        if group.kind not in ("units", "heads"):
            continue
        squares = []
        for batch in evidence.train.batches(32):
            gate = torch.ones(group.size, requires_grad=True)
            gated = {name: p.detach() for name, p in model.named_parameters()}
            for part in group.outgoing:
                places = part.positions(torch.arange(group.size), group.size)
                factor = torch.ones(gated[part.parameter].shape[1])
                factor = factor.index_put((places,), gate[None, :, None].expand(places.shape))
                shape = (1, -1, *([1] * (gated[part.parameter].ndim - 2)))
                gated[part.parameter] = gated[part.parameter] * factor.view(shape)
            forecast = functional_call(model, gated, (batch.context,))
            (slope,) = torch.autograd.grad(functional.mse_loss(forecast, batch.target), gate)
            squares.append(slope.double().square())
        expected = torch.stack(squares).mean(0).sqrt()
        scores = CRITERIA.read("taylor").score(model, group, evidence)
        assert torch.allclose(scores, expected, rtol=1e-3, atol=1e-7), group.name


def test_activations_weigh_the_weights_that_read_them(task: Task) -> None:
    model = shaken(NET)
    evidence = Evidence(model, task, n_windows=37)
    sizes = np.sqrt((inner(model, evidence) ** 2).mean(axis=0))
    weights = np.abs(model.state_dict()["blocks.0.contract.weight"].double().numpy())
    expected = np.array([sum(weights[row, unit] * sizes[unit] for row in range(5)) for unit in range(7)])
    scores = CRITERIA.read("activation").score(model, group_of(model, "block1.hidden"), evidence).numpy()
    assert np.allclose(scores, expected / expected.mean(), rtol=1e-4)


def test_of_two_alike_one_goes_and_one_stays(task: Task) -> None:
    model = shaken(NET)
    state = model.state_dict()
    with torch.no_grad():
        for name in ("blocks.0.expand.weight", "blocks.0.expand.bias"):
            state[name][4] = state[name][1]
    evidence = Evidence(model, task, n_windows=37)
    scores = CRITERIA.read("redundancy").score(model, group_of(model, "block1.hidden"), evidence)
    assert int(scores.argmin()) in (1, 4)
    assert float(scores.min()) < 1e-6
    assert float(scores[[1, 4]].max()) > 0.01
    likeness = np.abs(np.corrcoef(inner(model, evidence).T))
    np.fill_diagonal(likeness, 0)
    pairs = sorted(likeness[np.triu_indices(7, 1)])
    assert float(scores.sort().values[1]) >= 1 - pairs[-2] - 1e-6


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
@pytest.mark.parametrize("name", ["taylor", "activation", "loss"])
def test_units_that_nobody_reads_are_worth_nothing(name: str, config: ModelConfig, task: Task) -> None:
    model = shaken(config)
    for group in (candidate for candidate in model.width_groups() if candidate.kind in ("units", "heads")):
        silent = copy.deepcopy(model)
        group.silence(dict(silent.named_parameters()), torch.tensor([1]))
        scores = CRITERIA.read(name).score(silent, group, Evidence(silent, task, n_windows=11))
        assert abs(float(scores[1])) < 1e-6 < float(scores.abs().max())


def test_the_loss_of_blocks_and_of_old_patches_is_what_their_absence_costs(task: Task) -> None:
    model = shaken(PatchTSTConfig(depth=3, width=6, heads=2, patch=11, stride=11))
    evidence = Evidence(model, task, n_windows=11)
    for name, kept in (("layers", [0, 2]), ("context", [2, 3])):
        scores = CRITERIA.read("loss").score(model, group_of(model, name), evidence)
        without = evidence.error(rebuild(model, {name: kept})) - evidence.error(model)
        assert float(scores[1]) == pytest.approx(without, abs=1e-6)


def test_recurrent_layers_are_ranked_by_what_their_absence_costs(task: Task) -> None:
    model = shaken(LSTMConfig(widths=(5, 5, 3), embedding=5, patch=11))
    evidence = Evidence(model, task, n_windows=11)
    scores = CRITERIA.read("loss").score(model, group_of(model, "layers"), evidence)
    errors = [evidence.error(rebuild(model, {"layers": kept})) for kept in ([1, 2], [0, 2])]
    assert scores.tolist() == pytest.approx([*(error - evidence.error(model) for error in errors), 0], abs=1e-6)
    spec = Pruning(ratio=0.34, criterion="loss", groups=("layers",), recovery=None)
    stay = 1 if errors[0] < errors[1] else 0
    assert plan_pruning(model, task, spec).kept["layers"] == (stay, 2)
    for name in ("taylor", "activation"):
        with pytest.raises(UnsupportedError, match="rank 'layers'"):
            plan_pruning(model, task, spec.replace(criterion=name))


def test_a_global_ranking_takes_from_where_the_least_is(task: Task) -> None:
    model = shaken(NET)
    group = group_of(model, "block2.hidden")
    group.silence(dict(model.named_parameters()), torch.tensor([0, 2, 3, 5, 6, 8, 10]))
    spec = Pruning(ratio=7 / 18, criterion="taylor", ranking="global", recovery=None)
    plan = plan_pruning(model, task, spec)
    assert plan.kept == {"block1.hidden": tuple(range(7)), "block2.hidden": (1, 4, 7, 9)}
    local = plan_pruning(model, task, spec.replace(ranking="local"))
    assert [row.n_kept for row in local.rows] == [4, 7]


def test_a_global_ranking_counts_and_leaves_everyone_something(task: Task) -> None:
    model = shaken(PatchTSTConfig(depth=2, width=6, heads=2, feedforward=(11, 7), patch=11))
    groups = ("units", "heads", "width", "layers", "context")
    for ratio in (0.0, 0.25, 0.5, 0.97):
        plan = plan_pruning(model, task, Pruning(ratio=ratio, ranking="global", groups=groups, recovery=None))
        whole, kept = sum(row.n_units for row in plan.rows), sum(row.n_kept for row in plan.rows)
        assert min(row.n_kept for row in plan.rows) >= 1
        assert kept == max(whole - round(whole * ratio), len(plan.rows))


@pytest.mark.parametrize("name", CRITERIA.kinds)
def test_every_criterion_prunes(name: str, task: Task) -> None:
    spec = Pruning(criterion=name, ranking="global", recovery=None)
    smaller = prune(shaken(NET), task, spec)
    assert sum(instance_of(MLPConfig, smaller.config).hidden) == 9
    assert Pruning.from_toml(spec.to_toml()) == spec


def test_what_cannot_be_ranked_is_refused(task: Task) -> None:
    with pytest.raises(UnsupportedError, match="rank 'layers', which no linear layer reads unit by unit"):
        prune(shaken(NET), task, Pruning(criterion="activation", groups=("layers",), recovery=None))
    bare = shaken(LSTMConfig(widths=(5,), patch=11, shortcut=False))
    spec = Pruning(ranking="global", groups=("units", "context"), recovery=None)
    with pytest.raises(UnsupportedError, match="must be \"local\" for 'context'"):
        prune(bare, task, spec)
    assert prune(bare, task, spec.replace(ranking="local", ratio=0.5)).context == 47 - 2 * 11
