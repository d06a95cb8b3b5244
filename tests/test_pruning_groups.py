"""Residual width, whole blocks and context: what a cut model keeps, against plain indexing."""

from __future__ import annotations

import pytest
import torch

from tests.typed import instance_of
from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, UnsupportedError
from tsdistill.models import (
    CycleNetConfig,
    DLinearConfig,
    Forecaster,
    InvertedTransformerConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    SparseTSFConfig,
    TCNConfig,
    TSMixerConfig,
)
from tsdistill.models.lstm import LSTM
from tsdistill.pruning import Pruning, prune, rebuild
from tsdistill.testing import check_forecaster, check_pruning, toy_batch, toy_signature, toy_task

TST = PatchTSTConfig(depth=3, width=10, heads=(2, 1, 3), head_width=5, feedforward=(7, 11, 13), patch=7, stride=3)


def shaken(config: ModelConfig, signature: Signature | None = None, seed: int = 3) -> Forecaster:
    """Built for the toy task with weights off their initial zeros, so that no path is silent."""
    own = toy_signature(config.takes, config.needs) if config.needs else toy_signature()
    model = config.build(signature or own).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def test_a_narrower_residual_vector_keeps_the_entries_of_every_token() -> None:
    model, kept = shaken(TST), [0, 3, 4, 7, 9]
    smaller = rebuild(model, {"width": kept})
    assert smaller.config == TST.replace(width=5)
    before, after = model.state_dict(), smaller.state_dict()
    tokens = before["last.weight"].unflatten(1, (14, 10))
    assert torch.equal(after["last.weight"], tokens[:, :, kept].flatten(1))
    assert torch.equal(after["blocks.1.attention.query.weight"], before["blocks.1.attention.query.weight"][:, kept])
    assert torch.equal(after["blocks.2.contract.weight"], before["blocks.2.contract.weight"][kept])
    assert torch.equal(after["position"], before["position"][:, kept])


def test_a_block_goes_with_all_its_sizes_and_the_others_move_up() -> None:
    model = shaken(TST)
    smaller = rebuild(model, {"layers": [0, 2], "block3.feedforward": [1, 12], "block2.heads": [0]})
    assert smaller.config == TST.replace(depth=2, heads=(2, 3), feedforward=(7, 2))
    rows = model.state_dict()["blocks.2.expand.weight"][[1, 12]]
    assert torch.equal(smaller.state_dict()["blocks.1.expand.weight"], rows)


def test_a_block_of_convolutions_goes_and_the_others_keep_their_reach() -> None:
    model = shaken(TCNConfig(width=7, depth=3, hidden=5, patch=3))
    with torch.no_grad():
        model.state_dict()["blocks.1.contract.weight"].zero_()
        model.state_dict()["blocks.1.contract.bias"].zero_()
    smaller = rebuild(model, {"layers": [0, 2]})
    assert smaller.config.to_dict()["dilations"] == [1, 4]
    batch = toy_batch()
    assert torch.allclose(smaller(batch.context), model(batch.context), atol=1e-6)
    # Files of models that were never cut say nothing of it.
    assert "dilations" not in TCNConfig().to_dict()
    with pytest.raises(ConfigError, match="hold one number for each of depth = 2"):
        TCNConfig(depth=2, dilations=(1, 2, 4))


LAYERS = LSTMConfig(widths=(7, 7, 5, 5), embedding=7, patch=11)


def test_a_recurrent_layer_goes_and_the_next_reads_what_it_read() -> None:
    model = instance_of(LSTM, shaken(LAYERS.replace(channel_embedding=False, shortcut=False)))
    smaller = rebuild(model, {"layers": [1, 2], "layer2.units": [0, 2, 3, 6], "layer3.units": [1, 4]})
    assert smaller.config.to_dict() | {"widths": [4, 2], "embedding": 7} == smaller.config.to_dict()
    before, after = model.state_dict(), smaller.state_dict()
    gates = before["layers.2.weight_ih_l0"].unflatten(0, (4, 5))[:, [1, 4]][:, :, [0, 2, 3, 6]].flatten(0, 1)
    assert torch.equal(after["layers.1.weight_ih_l0"], gates)
    # By hand: the same layers one after the other, without the first and the last.
    x, centre, spread = model.norm(toy_batch().context.transpose(1, 2))
    rows = model.embed(model.patches(x)).flatten(0, 1)
    whole = rebuild(model, {"layers": [1, 2]})
    for depth in (1, 2):
        rows = model.layers[depth](rows)[0]
    raw = model.last(rows[:, -1]).unflatten(0, (-1, 3))
    assert torch.allclose(whole(toy_batch().context), (raw * spread + centre).transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "pinned"),
    [
        (LAYERS, (2,)),
        (LAYERS.replace(embedding=3), (0, 2)),
        (LAYERS.replace(bidirectional=True), (0, 2)),
        (LAYERS.replace(bidirectional=True, embedding=14), (2,)),
        (LSTMConfig(widths=(7, 5), embedding=3, patch=11), (0, 1)),
    ],
    ids=["equal", "embedding", "bidirectional", "both ways", "unequal"],
)
def test_a_recurrent_layer_that_others_need_stays(config: LSTMConfig, pinned: tuple[int, ...]) -> None:
    model = shaken(config)
    (group,) = (candidate for candidate in model.width_groups() if candidate.kind == "layers")
    assert (group.pinned, group.minimum) == (pinned, max(1, len(pinned)))
    smaller = prune(model, toy_task(), Pruning(ratio=0.99, groups=("layers",), recovery=None))
    assert smaller.config == config.replace(widths=tuple(config.widths[depth] for depth in pinned))
    assert smaller.lineage[-1].metrics["notes"] == [
        f"layers keeps its minimum of {len(pinned)} of {len(config.widths)}, where a ratio of 0.99 leaves 0"
    ]
    check_forecaster(smaller)
    check_pruning(model)
    if len(pinned) < len(config.widths):
        with pytest.raises(ConfigError, match="which others do not fit together without"):
            rebuild(model, {"layers": sorted({0, 1, 2, 3} - {pinned[-1]})})


def test_layers_that_were_cut_to_other_sizes_stay() -> None:
    config = LSTMConfig(widths=(7, 7), patch=11)
    spec = Pruning(ratio=0.5, groups=("layer1.units", "layers"), recovery=None)
    once, twice = (prune(shaken(config), toy_task(), spec.replace(n_rounds=n)) for n in (1, 2))
    assert once.config.to_dict()["widths"] in ([3], [7])
    assert "notes" not in once.lineage[-1].metrics
    assert twice.config == config.replace(widths=(3, 7))
    assert twice.lineage[-1].metrics["kept"] == {"layer1.units": "3 of 7", "layers": "2 of 2"}
    assert twice.lineage[-1].metrics["notes"] == ["layers keeps its minimum of 2 of 2, where a ratio of 0.5 leaves 1"]


def test_the_oldest_patches_go_with_their_positions_and_their_part_of_the_head() -> None:
    model = shaken(TST.replace(shortcut=True))
    smaller = rebuild(model, {"context": range(5, 14)})
    assert smaller.context == 47 - 5 * 3
    before, after = model.state_dict(), smaller.state_dict()
    assert torch.equal(after["position"], before["position"][5:])
    assert torch.equal(after["last.weight"], before["last.weight"][:, 5 * 10 :])
    assert torch.equal(after["shortcut.weight"], before["shortcut.weight"][:, 15:])


def test_width_patches_and_blocks_go_together() -> None:
    model = shaken(TST)
    smaller = rebuild(model, {"width": [1, 2, 8], "context": [12, 13], "layers": [1]})
    expected = model.state_dict()["last.weight"].unflatten(1, (14, 10))[:, 12:, [1, 2, 8]].flatten(1)
    assert torch.equal(smaller.state_dict()["last.weight"], expected)
    check_forecaster(smaller)


# Models that see the past through linear layers alone: steps that none of them reads can go, and where mean and spread
# of the window stay as they are, so does the forecast.
READERS: list[ModelConfig] = [
    MLPConfig(width=7, depth=2),
    InvertedTransformerConfig(depth=1, width=6, heads=2),
    CycleNetConfig(hidden=5),
    SparseTSFConfig(period=11, hidden=5),
]


@pytest.mark.parametrize("config", READERS, ids=lambda config: config.kind)
def test_steps_that_nothing_reads_go_without_a_trace(config: ModelConfig) -> None:
    model = shaken(config)
    (group,) = (group for group in model.width_groups() if group.kind == "context")
    n_gone = group.size // 2
    with torch.no_grad():
        group.silence(dict(model.named_parameters()), torch.arange(n_gone))
        if "aggregate.weight" in model.state_dict():
            model.state_dict()["aggregate.weight"].zero_()  # it looks across the place of the cut
        if "cycle" in model.state_dict():
            model.state_dict()["cycle"].zero_()  # mean and spread are of what the cycle leaves
        smaller = rebuild(model, {"context": range(n_gone, group.size)})
        batch = toy_batch(signature=model.signature)
        context, cut = batch.context.clone(), 47 - smaller.context
        kept, gone = context[:, cut:], context[:, :cut]
        spread = kept.std(1, unbiased=False, keepdim=True) / gone.std(1, unbiased=False, keepdim=True)
        context[:, :cut] = (gone - gone.mean(1, keepdim=True)) * spread + kept.mean(1, keepdim=True)
        assert torch.allclose(smaller(context, batch.future), model(context, batch.future), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "groups", "expected"),
    [
        (TST, ("width", "context"), {"width": 5, "context": 26}),
        (LSTMConfig(widths=(8, 5), patch=11), ("embedding",), {"embedding": 4}),
        (MLPConfig(width=6, depth=4), ("layers",), {"depth": 2}),
        (TSMixerConfig(depth=2), ("layers", "context"), {"depth": 1, "context": 47 - 24}),
        (DLinearConfig(kernel=25), ("context",), {"context": 25}),
    ],
    ids=lambda value: getattr(value, "kind", None) or "-".join(value),
)
def test_pruning_cuts_what_is_named(config: ModelConfig, groups: tuple[str, ...], expected: dict[str, int]) -> None:
    model = shaken(config)
    smaller = prune(model, toy_task(), Pruning(groups=groups, recovery=None))
    sizes = {**smaller.config.to_dict(), "context": smaller.context}
    assert {name: sizes[name] for name in expected} == expected
    check_forecaster(smaller)


def test_nothing_but_units_and_heads_goes_unless_it_is_named() -> None:
    smaller = prune(shaken(TST), toy_task(), Pruning(recovery=None))
    assert smaller.config == TST.replace(heads=(1, 1, 1), feedforward=(3, 5, 7))
    assert smaller.context == 47


def test_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"`groups` must name what a 'lstm' model has, got 'layer3.units'"):
        prune(shaken(LSTMConfig()), toy_task(), Pruning(groups=("layer3.units",)))


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({"widht": [0]}, ["must name width groups of PatchTST", "widht"]),
        ({"width": []}, ["1 or more of the units 0 to 9"]),
        ({"width": [3, 1]}, ["ascending", "[3, 1]"]),
        ({"width": [3, 10]}, ["0 to 9"]),
        ({"context": [0, 1]}, ["last units of context", "[0, 1] of 14"]),
        ({"context": [1, 13], "width": [], "x": []}, ["3 problems"]),
    ],
    ids=["name", "empty", "order", "range", "oldest", "all"],
)
def test_units_that_cannot_be_kept_are_refused(keep: dict[str, list[int]], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        rebuild(shaken(TST), keep)
    for word in words:
        assert word in str(error.value)
