"""The linear family against slow plain versions: ridge statistics, decomposition, sparse periods, channel identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsdistill.data.covariates import Covariates
from tsdistill.data.panel import Item, Panel
from tsdistill.data.split import Split
from tsdistill.data.task import Batch, Signature, Task, Windows
from tsdistill.errors import ConfigError
from tsdistill.evaluation import evaluate
from tsdistill.exporting import export
from tsdistill.models import (
    BinnedHead,
    CycleNetConfig,
    DLinearConfig,
    LinearConfig,
    ModelConfig,
    PointHead,
    QuantileHead,
    SparseTSFConfig,
    ridge,
)
from tsdistill.models.cyclenet import CycleNet
from tsdistill.models.ridge import Statistics
from tsdistill.testing import toy_batch, toy_panel, toy_signature, toy_task
from tsdistill.training import Training, train

PARTS = ("gram", "cross", "power", "taught")


def taught(batch: Batch) -> torch.Tensor:
    return 0.3 * batch.target + batch.context[:, -11:]


def plain(windows: Windows, channels: list[int]) -> Statistics:
    """The products of every window of some channels, in float64, window after window."""
    length, horizon = windows.context, windows.horizon
    gram, cross, soft = (torch.zeros(length, n, dtype=torch.float64) for n in (length, horizon, horizon))
    power = torch.zeros((), dtype=torch.float64)
    for window in range(len(windows)):
        batch = windows.batch(torch.tensor([window]))
        for channel in channels:
            parts = (batch.context, batch.target, taught(batch))
            x, y, forecast = (part[0, :, channel].double() for part in parts)
            x, y, forecast = x - x.mean(), y - x.mean(), forecast - x.mean()
            gram, cross, soft = gram + x[:, None] * x, cross + x[:, None] * y, soft + x[:, None] * forecast
            power = power + y.square().sum()
    return Statistics(gram, cross, power, len(windows) * len(channels), soft)


def gaps(windows: Windows) -> Windows:
    """The same windows less some in the middle: three runs."""
    kept = [*range(29), *range(37, 83), *range(84, len(windows))]
    return windows.subset(torch.tensor(kept))


def items() -> Windows:
    values = toy_panel().items[0].values
    panel = Panel(
        (Item("a", None, values[:229]), Item("b", None, 100 + 3 * values[229:])), channels=("x", "y", "z"), name="two"
    )
    return Task(panel, context=31, horizon=11, split=Split.fractions(0.5, 0.25, 0.25)).train


WINDOWS: dict[str, Callable[[], Windows]] = {
    "one run": lambda: toy_task().train.subset(torch.arange(101)),
    "gaps": lambda: gaps(toy_task().train.subset(torch.arange(109))),
    "items": items,
    "out of order": lambda: toy_task().train.subset(torch.arange(40).flip(0)),
}


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_statistics_are_the_products_of_all_windows(name: str, individual: bool) -> None:
    windows = WINDOWS[name]()
    statistics = Statistics.of(windows, taught, individual=individual)
    groups = [[0], [1], [2]] if individual else [[0, 1, 2]]
    for computed, channels in zip(statistics.channels(), groups, strict=True):
        wanted = plain(windows, channels)
        assert computed.n_rows == wanted.n_rows
        for part in PARTS:
            one, other = getattr(computed, part), getattr(wanted, part)
            assert float((one - other).abs().max() / other.abs().max()) < 1e-10, part


def test_a_series_read_in_pieces_gives_the_same_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = toy_task().train
    whole = Statistics.of(windows, taught)
    monkeypatch.setattr(ridge, "PIECE", 3 * 61)
    monkeypatch.setattr(ridge, "ROWS", 3 * 7)
    pieces = Statistics.of(windows, taught)
    for part in PARTS:
        assert torch.allclose(getattr(pieces, part), getattr(whole, part), rtol=1e-9, atol=1e-9)


def test_no_window_is_gathered_for_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = toy_task().train
    n_rows: list[int] = []
    gather = Windows.batch

    def counted(self: Windows, index: torch.Tensor) -> Batch:
        n_rows.append(len(index))
        return gather(self, index)

    monkeypatch.setattr(Windows, "batch", counted)
    Statistics.of(windows)
    assert n_rows == [1]


def test_an_individual_ridge_is_a_ridge_of_every_channel() -> None:
    task = toy_task()
    model = train(LinearConfig(individual=True), task)
    metrics = model.lineage[-1].metrics
    errors, values = [], task.panel.items[0].values
    for number, channel in enumerate(task.channels):
        panel = Panel((Item("one", None, values[:, number : number + 1]),), channels=(channel,), frequency="h")
        alone = train(LinearConfig(), Task(panel, context=47, horizon=11, split=task.split))
        assert metrics["penalty"][number] == alone.lineage[-1].metrics["penalty"]
        assert torch.allclose(model.get_parameter("map.weight")[number], alone.get_parameter("map.weight"), atol=1e-4)
        errors.append(alone.lineage[-1].metrics["validation_mse"])
    assert metrics["validation_mse"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_validation_errors_are_those_of_the_forecasts() -> None:
    task = toy_task()
    batch = task.validation.batch(torch.arange(len(task.validation)))
    for config in (LinearConfig(), LinearConfig(individual=True)):
        model = train(config, task)
        with torch.no_grad():
            error = float((model(batch.context) - batch.target).square().mean())
        assert model.lineage[-1].metrics["validation_mse"] == pytest.approx(error, rel=1e-4)


def shaken(config: ModelConfig, signature: Signature | None = None) -> Any:
    model = config.build(signature or toy_signature()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def normal(context: torch.Tensor, window: int, channel: int) -> tuple[list[float], float, float]:
    x = context[window, :, channel].double()
    centre, spread = float(x.mean()), float((x.var(correction=0) + 1e-5).sqrt())
    return ((x - centre) / spread).tolist(), centre, spread


@pytest.mark.parametrize("individual", [False, True])
def test_dlinear_maps_a_moving_average_and_what_it_leaves(individual: bool) -> None:
    model = shaken(DLinearConfig(kernel=7, individual=individual, channel_bias=not individual))
    context = toy_batch().context
    with torch.no_grad():
        forecast = model(context)
    for window, channel in ((0, 0), (4, 2)):
        x, centre, spread = normal(context, window, channel)
        held = [x[0]] * 3 + x + [x[-1]] * 3
        trend = np.array([sum(held[step : step + 7]) / 7 for step in range(47)])
        slow, quick = (
            layer.weight[channel] if individual else layer.weight for layer in (model.trend, model.remainder)
        )
        biases = [layer.bias[channel] if individual else layer.bias for layer in (model.trend, model.remainder)]
        raw = slow.detach().numpy() @ trend + quick.detach().numpy() @ (np.array(x) - trend)
        raw = raw + sum(bias.detach().numpy() for bias in biases)
        raw = raw if individual else raw + model.channel.weight[channel].detach().numpy()
        assert np.allclose(raw * spread + centre, forecast[window, :, channel].numpy(), atol=1e-4)


def test_a_sparse_forecaster_forecasts_each_phase_from_its_own_past() -> None:
    # 47 = 9 * 5 + 2 steps of context, 11 = 2 * 5 + 1 steps ahead.
    model = shaken(SparseTSFConfig(period=5))
    context = toy_batch().context
    kernel, weight = model.aggregate.weight[0, 0].tolist(), model.map.last.weight.tolist()
    with torch.no_grad():
        forecast = model(context)
    for window, channel in ((1, 0), (3, 2)):
        x, centre, spread = normal(context, window, channel)
        x = x[2:]
        padded = [0.0] * 2 + x + [0.0] * 2
        x = [x[step] + sum(k * padded[step + place] for place, k in enumerate(kernel)) for step in range(45)]
        for step in range(11):
            phase, period = step % 5, step // 5
            raw = sum(weight[period][before] * x[before * 5 + phase] for before in range(9))
            assert raw * spread + centre == pytest.approx(float(forecast[window, step, channel]), abs=1e-4)


def test_a_sparse_forecaster_is_as_small_as_its_paper_says() -> None:
    def built(context: int, horizon: int, **options: Any) -> int:
        signature = Signature(context=context, horizon=horizon, channels=("a",), mean=(0.0,), scale=(1.0,))
        return SparseTSFConfig(**options).build(signature).n_parameters

    assert built(720, 720, period=24) == 925
    assert built(720, 96, period=24) == 145
    assert built(719, 95, period=24) == 29 * 4 + 25


def test_the_outputs_of_a_sparse_head_keep_their_steps() -> None:
    """A copy of the last period as the median: what is said of a step stands at that step, whatever the head."""
    model = SparseTSFConfig(period=5, head=QuantileHead(levels=(0.1, 0.5, 0.9))).build(toy_signature())
    with torch.no_grad():
        model.get_parameter("aggregate.weight").zero_()
        last = model.get_parameter("map.last.weight")
        last.zero_()
        last[3:6, -1] = 1.0
    context = toy_batch().context
    with torch.no_grad():
        forecast = model(context)
    for step in range(11):
        assert torch.allclose(forecast[:, step], context[:, 42 + step % 5], atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [DLinearConfig(kernel=7, individual=True), SparseTSFConfig(period=5, hidden=3), LinearConfig(individual=True)],
    ids=lambda config: config.kind,
)
def test_what_is_no_plain_linear_layer_is_exported_too(config: ModelConfig) -> None:
    assert export(shaken(config)).parity["max_difference"] < 1e-4


def daily(calendar: tuple[Any, ...] = ("time-of-day",), hours: int = 499, **options: Any) -> Task:
    """The toy panel with stamps from a Tuesday, 5 o'clock, and the calendar as covariates."""
    values = toy_panel(n_rows=hours).items[0].values
    stamps = pd.date_range("2024-01-02T05", periods=hours, freq="h")
    panel = Panel((Item("toy", stamps, values),), channels=("load", "wind", "price"), frequency="h")
    return Task(panel, context=47, horizon=11, covariates=Covariates(calendar=calendar), **options)


@pytest.mark.parametrize(("clock", "n_steps", "first"), [("time-of-day", 24, 5), ("time-of-week", 168, 29)])
def test_a_cycle_is_read_at_the_step_its_clock_shows(clock: Any, n_steps: int, first: int) -> None:
    task = daily((clock,), hours=997)
    model = CycleNetConfig(clock=clock).build(task.signature)
    starts = torch.tensor([0, 13, 211])
    batch = task.train.batch(starts)
    assert batch.future is not None
    assert isinstance(model, CycleNet)
    wanted = (first + starts[:, None] + torch.arange(58)) % n_steps
    assert torch.equal(model.phases(batch.future), wanted)


@pytest.mark.parametrize("head", [PointHead(), QuantileHead(levels=(0.2, 0.5, 0.9)), BinnedHead(n_bins=13)], ids=str)
def test_a_learned_cycle_is_taken_off_the_context_and_put_on_the_horizon(head: Any) -> None:
    task = daily()
    model = shaken(CycleNetConfig(hidden=5, head=head), task.signature)
    batch = task.train.batch(torch.tensor([3, 17]))
    outputs = model.activations(batch.context, batch.future)
    usual = model.cycle.detach().clone()
    before, ahead = ((5 + torch.tensor([[3], [17]]) + steps) % 24 for steps in (torch.arange(47), torch.arange(47, 58)))
    with torch.no_grad():
        model.cycle.zero_()
        bare = model.activations(batch.context - usual[before], batch.future)
    assert torch.allclose(outputs.forecast, bare.forecast + usual[ahead], atol=1e-5)
    if head.kind == "quantile":
        assert torch.allclose(outputs.distribution, bare.distribution + usual[ahead][..., None], atol=1e-5)
    if head.kind == "bins":
        assert torch.equal(outputs.distribution, bare.distribution)
        assert torch.allclose(outputs.support, bare.support + usual[ahead][..., None], atol=1e-5)


def test_a_learned_cycle_is_the_rhythm_of_each_channel() -> None:
    """Windows shorter than a day say nothing of the rhythm that the clock does not say better."""
    task = Task(daily().panel, context=5, horizon=11, covariates=Covariates(calendar=("time-of-day",)))
    training = Training(epochs=9, batch_size=31, learning_rate=3e-2, precision="float32", patience=None)
    model = train(CycleNetConfig(), task, training)
    ridge = train(LinearConfig(), task.without_covariates())
    errors = [forecaster.lineage[-1].metrics["validation_mse"] for forecaster in (model, ridge)]
    assert errors[0] < 0.8 * errors[1]


def test_a_cycle_is_exported_with_its_clock_as_an_input() -> None:
    task = daily()
    deployed = export(shaken(CycleNetConfig(head=QuantileHead()), task.signature), task)
    assert deployed.parity["max_difference"] < 1e-4


@pytest.mark.parametrize("config", [DLinearConfig(channel_bias=True), SparseTSFConfig(period=6, channel_bias=True)])
def test_a_channel_bias_tells_channels_apart(config: ModelConfig) -> None:
    model = config.build(toy_signature())
    same = torch.randn(1, 47, 1, generator=torch.Generator().manual_seed(0)).expand(1, 47, 3)
    with torch.no_grad():
        assert torch.allclose(model(same)[..., 0], model(same)[..., 2], atol=1e-5)
        model.get_parameter("channel.weight")[1, 4] += 1.0
        moved = (model(same)[0, :, 1] - model(same)[0, :, 0]).abs() > 1e-3
    assert moved.tolist() == [step == 4 for step in range(11)]


@pytest.mark.parametrize("config", [DLinearConfig(), SparseTSFConfig(period=12)], ids=lambda config: config.kind)
def test_gradient_steps_learn_the_rhythm(config: ModelConfig) -> None:
    task = toy_task()
    training = Training(max_steps=31, learning_rate=2e-2, weight_decay=0, precision="float32", patience=None)
    untrained = evaluate(config.build(task.signature), task)["mse"]
    assert train(config, task, training).lineage[-1].metrics["validation_mse"] < untrained / 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DLinearConfig(kernel=24), ["kernel", "odd", "24", "25"]),
        (lambda: DLinearConfig(individual=True, channel_bias=True), ["channel_bias", "individual", "one of them"]),
        (lambda: DLinearConfig(kernel=53).build(toy_signature()), ["kernel", "at most context = 47", "53"]),
        (lambda: SparseTSFConfig(period=0), ["period", "greater than or equal to 1"]),
        (lambda: SparseTSFConfig(period=53).build(toy_signature()), ["period", "at most context = 47", "53"]),
        (lambda: CycleNetConfig(clock="time-of-year"), ["clock", "time-of-week"]),
        (
            lambda: CycleNetConfig().build(toy_signature()),
            ["covariates=td.Covariates(calendar=('time-of-day',))", "'cyclenet'", "got []"],
        ),
        (
            lambda: CycleNetConfig().build(daily(("time-of-day", "time-of-week")).signature),
            ["at no others", "'time-of-week.cos'"],
        ),
        (
            lambda: CycleNetConfig().build(daily().signature.replace(frequency="D")),
            ["frequency", "a day holds a whole number of steps", "'D'"],
        ),
        (lambda: SparseTSFConfig(hidden=-1, perod=3), ["2 problems", "hidden", "period"]),  # type: ignore[call-arg]
    ],
)  # fmt: skip
def test_impossible_linear_models_are_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []
