"""Every contract check of models, pruning and tasks fails on an object that breaks exactly its rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tsdistill.data.blocks import Fit
from tsdistill.data.task import Task
from tsdistill.models import (
    Activations,
    BinnedHead,
    Forecaster,
    LSTMConfig,
    MLPConfig,
    PatchTSTConfig,
    QuantileHead,
    WidthGroup,
)
from tsdistill.models.lstm import LSTM
from tsdistill.models.mlp import MLP
from tsdistill.models.patchtst import PatchTST
from tsdistill.testing import (
    ContractError,
    check_forecaster,
    check_pruning,
    toy_panel,
    toy_signature,
    toy_task,
)


def broken(base: type[Forecaster], config: Any, takes: Collection[str] = (), **members: Any) -> Forecaster:
    """A forecaster of a subclass with some members replaced, for a task with covariates of the kinds `takes`."""
    return type("Broken", (base,), members)(config, toy_signature(takes))


LSTM_CONFIG = LSTMConfig(widths=(7, 5), patch=11)
QUANTILE_CONFIG = LSTM_CONFIG.replace(head=QuantileHead(levels=(0.1, 0.5, 0.9)))
BINNED_CONFIG = LSTM_CONFIG.replace(head=BinnedHead(n_bins=13))
TST_CONFIG = PatchTSTConfig(depth=1, width=6, heads=2, patch=7)


def peeks_at_its_batch(self: Any, context: Tensor, *covariates: Tensor | None, **options: Any) -> Activations:
    inside = LSTM.activations(self, context, *covariates, **options)
    return replace(inside, forecast=inside.forecast + context.mean())


def swaps_axes(self: Any, context: Tensor, *covariates: Tensor | None, **options: Any) -> Activations:
    inside = LSTM.activations(self, context, *covariates, **options)
    return replace(inside, forecast=inside.forecast.transpose(1, 2))


def forward_differs(self: Any, context: Tensor, *covariates: Tensor | None) -> Tensor:
    return LSTM.activations(self, context, *covariates).forecast + 0.01


def reads_the_start(self: Forecaster, context: Tensor) -> Tensor:
    return context[:, : self.context].transpose(1, 2)


def crosses(self: Any, context: Tensor, *covariates: Tensor | None, **options: Any) -> Activations:
    inside = LSTM.activations(self, context, *covariates, **options)
    assert inside.distribution is not None
    return replace(inside, distribution=inside.distribution.flip(-1))


def says_the_lowest(self: Any, context: Tensor, *covariates: Tensor | None, **options: Any) -> Activations:
    inside = LSTM.activations(self, context, *covariates, **options)
    assert inside.distribution is not None
    return replace(inside, forecast=inside.distribution[..., 0])


def says_no_mean(self: Any, context: Tensor, *covariates: Tensor | None, **options: Any) -> Activations:
    inside = LSTM.activations(self, context, *covariates, **options)
    return replace(inside, forecast=inside.forecast + 0.01)


def unnormalised_attention(self: Any, context: Tensor, *covariates: Tensor | None, **options: Any) -> Activations:
    inside = PatchTST.activations(self, context, *covariates, **options)
    return replace(
        inside, attention=None if inside.attention is None else tuple(2 * weights for weights in inside.attention)
    )


MLP_CONFIG = MLPConfig(width=5, depth=1)
BOTH = ("future", "past")


def ignores_the_past(self: Any, context: Tensor, future: Tensor, past: Tensor, **options: Any) -> Activations:
    return MLP.activations(self, context, future, torch.zeros_like(past), **options)


def ignores_the_horizon(self: Any, context: Tensor, future: Tensor, past: Tensor, **options: Any) -> Activations:
    known = torch.cat([future[:, : -self.horizon], torch.zeros_like(future[:, -self.horizon :])], dim=1)
    return MLP.activations(self, context, known, past, **options)


def averages_covariates(self: Any, context: Tensor, future: Tensor, past: Tensor, **options: Any) -> Activations:
    shared = future.mean(dim=0, keepdim=True).expand_as(future)
    return MLP.activations(self, context, shared, past, **options)


def reads_old_covariates(self: Forecaster, future: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    return future[:, : self.context + self.horizon], past[:, : self.context]


FORECASTERS: list[tuple[str, Forecaster, str]] = [
    ("batch", broken(LSTM, LSTM_CONFIG, activations=peeks_at_its_batch), "others of its batch"),
    ("axes", broken(LSTM, LSTM_CONFIG, activations=swaps_axes), "forecast has shape"),
    ("forward", broken(LSTM, LSTM_CONFIG, forward=forward_differs), "differs from forward"),
    ("start", broken(LSTM, LSTM_CONFIG, recent=reads_the_start), "used from its end"),
    ("attention", broken(PatchTST, TST_CONFIG, activations=unnormalised_attention), "do not sum to 1"),
    ("crossing", broken(LSTM, QUANTILE_CONFIG, activations=crosses), "quantiles cross"),
    ("median", broken(LSTM, QUANTILE_CONFIG, activations=says_the_lowest), "not the median"),
    ("mean", broken(LSTM, BINNED_CONFIG, activations=says_no_mean), "not the mean over bins"),
    ("past", broken(MLP, MLP_CONFIG, BOTH, activations=ignores_the_past), "does not react to sun of `past`"),
    ("future", broken(MLP, MLP_CONFIG, BOTH, activations=ignores_the_horizon), "does not react to time-of-day.sin"),
    ("batch of covariates", broken(MLP, MLP_CONFIG, BOTH, activations=averages_covariates), "others of its batch"),
    ("old", broken(MLP, MLP_CONFIG, BOTH, covariates=reads_old_covariates), "used from its end"),
]


@pytest.mark.parametrize(("model", "words"), [row[1:] for row in FORECASTERS], ids=[row[0] for row in FORECASTERS])
def test_a_broken_forecaster_is_found(model: Forecaster, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        check_forecaster(model)


def forgets(parameter: str) -> Callable[[Forecaster], tuple[WidthGroup, ...]]:
    """Width groups of an LSTM that leave one parameter out."""

    def width_groups(self: Any) -> tuple[WidthGroup, ...]:
        return tuple(
            replace(
                group,
                incoming=tuple(part for part in group.incoming if parameter not in part.parameter),
                outgoing=tuple(part for part in group.outgoing if parameter not in part.parameter),
            )
            for group in LSTM.width_groups(self)
        )

    return width_groups


def without_gates(self: Any) -> tuple[WidthGroup, ...]:
    return tuple(
        replace(group, incoming=tuple(replace(part, repeat=1) for part in group.incoming))
        for group in LSTM.width_groups(self)
    )


@pytest.mark.parametrize("fault", [without_gates, forgets("weight_hh"), forgets("bias_ih"), forgets("last")])
def test_a_pruner_that_forgets_something_is_found(fault: Callable[[Forecaster], tuple[WidthGroup, ...]]) -> None:
    with pytest.raises((ContractError, RuntimeError)):
        check_pruning(broken(LSTM, LSTM_CONFIG, width_groups=fault), seed=1)


def prune_often(model: Forecaster) -> None:
    """Under several seeds: one alone may happen to keep everything."""
    for seed in range(5):
        check_pruning(model, seed=seed)


def test_a_residual_width_that_misses_a_norm_is_found() -> None:
    def width_groups(self: Any) -> tuple[WidthGroup, ...]:
        return tuple(
            replace(group, incoming=tuple(part for part in group.incoming if "attention_norm" not in part.parameter))
            for group in PatchTST.width_groups(self)
        )

    with pytest.raises(RuntimeError, match="attention_norm"):
        prune_often(broken(PatchTST, TST_CONFIG, width_groups=width_groups))


def test_layers_that_are_not_silent_without_their_writers_are_found() -> None:
    def width_groups(self: Any) -> tuple[WidthGroup, ...]:
        return tuple(
            replace(group, outgoing=group.outgoing[:1]) if group.kind == "layers" else group
            for group in MLP.width_groups(self)
        )

    with pytest.raises(ContractError, match="removing silent units"):
        prune_often(broken(MLP, MLPConfig(width=5, depth=3), width_groups=width_groups))


def test_recurrent_layers_that_change_places_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = WidthGroup.cut

    def another(self: WidthGroup, tensors: Mapping[str, torch.Tensor], units: torch.Tensor) -> dict[str, torch.Tensor]:
        return cut(self, tensors, (units + 1) % self.size if self.kind == "layers" else units)

    monkeypatch.setattr(WidthGroup, "cut", another)
    with pytest.raises(ContractError, match="layers does not keep the weights of"):
        prune_often(LSTMConfig(widths=(5, 5, 5), patch=11).build(toy_signature()))


def test_recurrent_layers_that_do_not_fit_are_found() -> None:
    def width_groups(self: Any) -> tuple[WidthGroup, ...]:
        return tuple(replace(group, pinned=(), minimum=1) for group in LSTM.width_groups(self))

    with pytest.raises(RuntimeError, match="size mismatch"):
        prune_often(broken(LSTM, LSTM_CONFIG.replace(embedding=3), width_groups=width_groups))


def test_a_context_cut_off_at_the_wrong_end_is_found() -> None:
    def width_groups(self: Any) -> tuple[WidthGroup, ...]:
        groups = list(MLP.width_groups(self))
        groups[-1] = replace(groups[-1], steps=2, size=groups[-1].size // 2)
        return tuple(groups)

    with pytest.raises(ContractError, match="does not tile"):
        check_forecaster(broken(MLP, MLP_CONFIG, width_groups=width_groups))
    with pytest.raises(RuntimeError, match="size mismatch"):
        prune_often(broken(MLP, MLP_CONFIG, width_groups=width_groups))


def test_groups_that_do_not_tile_are_found() -> None:
    with pytest.raises(ContractError, match="does not tile"):
        check_forecaster(broken(LSTM, LSTM_CONFIG, width_groups=without_gates))


def test_a_scaler_fitted_on_everything_would_be_found() -> None:
    """The fingerprint of what selection sees does not move with the test rows, and would with a leaky scaler."""

    class Leaky(Task):
        def _fit_scaler(self) -> Fit:
            rows = self.panel.items[0].values
            return Fit(np.zeros(rows.shape[1]), rows.mean(axis=0), rows.std(axis=0))

    honest, noisy = toy_task(), _with_noise_in_the_test_rows(Task)
    assert noisy.fingerprint == honest.fingerprint
    assert _with_noise_in_the_test_rows(Leaky).fingerprint != _of(Leaky, toy_panel()).fingerprint


def _of(kind: type[Task], panel: Any) -> Task:
    task = toy_task()
    return kind(panel, context=task.context, horizon=task.horizon, split=task.split)


def _with_noise_in_the_test_rows(kind: type[Task]) -> Task:
    panel = toy_panel()
    values = panel.items[0].values.copy()
    begin = toy_task().borders[0].validation
    values[begin:] = 1e3 * np.random.default_rng(5).standard_normal(values[begin:].shape)
    return _of(kind, replace(panel, items=(replace(panel.items[0], values=values),)))


def test_the_checks_pass_what_is_whole() -> None:
    check_forecaster(LSTM_CONFIG)
    check_pruning(LSTM_CONFIG, seed=1)
    assert torch.is_tensor(LSTM_CONFIG.build(toy_signature()).get_parameter("last.weight"))
