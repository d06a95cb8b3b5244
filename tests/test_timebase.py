"""Segments and a small basis: against a slow loop, as small as its paper says, and of the rank that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tsdistill as td
from tsdistill.data.signature import Signature
from tsdistill.exporting import export
from tsdistill.models import QuantileHead, TimeBaseConfig
from tsdistill.pruning import Pruning, prune
from tsdistill.testing import toy_batch, toy_signature, toy_task


def shaken(config: TimeBaseConfig, signature: Any = None) -> Any:
    model = config.build(signature or toy_signature()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("centre", ["phase", "window"])
def test_coming_segments_are_composed_of_a_basis_of_past_ones(centre: Any) -> None:
    # 47 = 9 * 5 + 2 steps of context, 11 = 2 * 5 + 1 steps ahead.
    model = shaken(TimeBaseConfig(period=5, basis=3, centre=centre))
    context = toy_batch().context
    e, e0, c, c0 = (parameter.tolist() for parameter in model.parameters())
    with torch.no_grad():
        inside = model.activations(context)
    for window, channel in ((1, 0), (3, 2)):
        x = context[window, :, channel].tolist()
        mean = sum(x) / 47
        spread = (sum((value - mean) ** 2 for value in x) / 47 + 1e-5) ** 0.5
        x = [(value - mean) / spread for value in x[2:]]
        for step in range(11):
            phase, segment = step % 5, step // 5
            past = [x[before * 5 + phase] for before in range(9)]
            usual = sum(past) / 9 if centre == "phase" else 0.0
            raw = c0[segment] + usual
            for part in range(3):
                value = e0[part] + sum(weight * (p - usual) for weight, p in zip(e[part], past, strict=True))
                assert value == pytest.approx(float(inside.hidden[0][window, channel, phase, part]), abs=1e-4)
                raw += c[segment][part] * value
            assert raw * spread + mean == pytest.approx(float(inside.forecast[window, step, channel]), abs=1e-4)


@pytest.mark.parametrize(("horizon", "n_weights"), [(96, 214), (192, 242), (336, 284), (720, 396)])
def test_it_is_as_small_as_its_paper_says(horizon: int, n_weights: int) -> None:
    signature = Signature(context=720, horizon=horizon, channels=("a", "b"), mean=(0.0,) * 2, scale=(1.0,) * 2)
    assert TimeBaseConfig(period=24, basis=6).build(signature).n_parameters == n_weights


def test_a_usual_day_goes_past_the_map() -> None:
    model = TimeBaseConfig(period=5).build(toy_signature())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    day = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    context = day.repeat(10, 1)[-47:][None]
    with torch.no_grad():
        forecast = model(context)[0]
    torch.testing.assert_close(forecast, day.repeat(3, 1)[:11], atol=1e-4, rtol=0)


def test_quantiles_stand_around_the_usual_day() -> None:
    model = TimeBaseConfig(period=5, head=QuantileHead(levels=(0.1, 0.5, 0.9))).build(toy_signature())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        inside = model.activations(toy_batch().context)
    assert inside.distribution is not None
    steps = inside.distribution.diff(dim=-1)
    torch.testing.assert_close(steps[..., 0], steps[..., 1])
    assert bool((steps > 0).all())
    torch.testing.assert_close(inside.distribution[..., 1], inside.forecast)


def test_components_and_segments_are_pruned_and_it_is_exported() -> None:
    model, task = shaken(TimeBaseConfig(period=5, basis=7)), toy_task()
    smaller = prune(model, task, Pruning(ratio=0.4, groups=("units", "context"), recovery=None), progress=False)
    assert smaller.config == TimeBaseConfig(period=5, basis=4)
    assert smaller.context == 27
    assert export(smaller).parity["max_difference"] < 1e-4


def test_training_makes_it_better_than_its_usual_day() -> None:
    task = toy_task()
    spec = td.Training(epochs=3, learning_rate=2e-2, weight_decay=0, precision="float32")
    model = td.train(TimeBaseConfig(period=6, basis=3), task, spec, progress=False)
    untrained = TimeBaseConfig(period=6, basis=3).build(task.signature)
    with torch.no_grad():
        untrained.get_parameter("last.weight").zero_()
        untrained.get_parameter("last.bias").zero_()
    errors = [td.evaluate(m, task, part="validation")["mse"] for m in (model, untrained)]
    assert np.isfinite(errors).all()
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TimeBaseConfig(period=0), ["period", "greater than or equal to 1"]),
        (lambda: TimeBaseConfig(basis=0), ["basis", "greater than or equal to 1"]),
        (lambda: TimeBaseConfig(centre="day"), ["centre", "'phase' or 'window'"]),
        (lambda: TimeBaseConfig(period=53).build(toy_signature()), ["`period` must be at most context = 47", "53"]),
        (lambda: TimeBaseConfig(bases=3), ["`bases` is not a field", "Did you mean `basis`"]),  # type: ignore[call-arg]
    ],
)
def test_what_cannot_be_is_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(td.errors.ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []
