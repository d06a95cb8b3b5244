"""A teacher forecasts a window alike whatever stands beside it, and never gets memory that others read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tsdistill as td
from tsdistill.errors import ShapeError, UnsupportedError
from tsdistill.teachers import Tap, shown_by
from tsdistill.testing import CHANNELS, CONTEXT, HORIZON, toy_task


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


class Recurrent(nn.Module):
    """A recurrent network over (batch, time, channel)."""

    def __init__(self, kind: Any = nn.LSTM, *, batch_first: bool = False, turned: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = kind(CHANNELS, 7, batch_first=batch_first)
        self.head, self.turned = nn.Linear(7, HORIZON * CHANNELS), turned

    def forward(self, series: Tensor) -> Tensor:
        states = self.encoder(series.transpose(0, 1) if self.turned else series)[0]
        last = states[-1] if self.turned else states[:, -1]
        return self.head(last).unflatten(1, (HORIZON, CHANNELS))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(CHANNELS, 1, 5)

    def forward(self, series: Tensor) -> Tensor:
        return self.layer(series)[:, -HORIZON:]


class Normalised(nn.Module):
    def __init__(self, *, running: bool, listed: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(CHANNELS, track_running_stats=running)
        self.norms: Any = [norm] if listed else nn.ModuleList([norm])

    def forward(self, series: Tensor) -> Tensor:
        return self.norms[0](series[:, -HORIZON:].transpose(1, 2)).transpose(1, 2)


class Function(nn.Module):
    """A function of the context, with what it keeps."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function, self.state = function, torch.zeros(1)

    def forward(self, series: Tensor, **given: Any) -> Tensor:
        return self.function(series, **given)


def quantized() -> nn.Module:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(CONTEXT, HORIZON)

        def forward(self, series: Tensor) -> Tensor:
            forecast: Tensor = self.map(series.transpose(1, 2)).transpose(1, 2)
            return forecast

    made: nn.Module = torch.ao.quantization.quantize_dynamic(Plain().eval(), {nn.Linear}, torch.qint8)
    return made


def recent(series: Tensor) -> Tensor:
    return series[:, -HORIZON:]


DEPENDENT: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "lstm": (Recurrent, ["`encoder` (LSTM)", "batch_first=False", "reads the batch as time"]),
    "gru": (lambda: Recurrent(nn.GRU), ["`encoder` (GRU)", "batch_first=True"]),
    "transformer": (Attending, ["`layer", "batch_first=False"]),
    "statistics": (lambda: Normalised(running=False), ["`norms.0` (BatchNorm1d)", "no running statistics"]),
    "listed": (lambda: Normalised(running=True, listed=True), ["`norms[0]` (BatchNorm1d)", "nn.ModuleList"]),
    "mean": (lambda: Function(lambda x: recent(x) - x.mean(0, keepdim=True)[:, -1:]), ["along the windows"]),
    "softmax": (lambda: Function(lambda x: recent(x).softmax(0)), ["along the windows", "read_forecasts"]),
    "place": (lambda: Function(lambda x: recent(x) + torch.arange(len(x))[:, None, None]), ["counts their places"]),
    "largest": (lambda: Function(lambda x: recent(x) / x.abs().max()), ["along the windows"]),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_forecast_that_depends_on_its_company_is_refused_with_the_likely_cause(task: td.Task, name: str) -> None:
    make, words = DEPENDENT[name]
    with pytest.raises(UnsupportedError) as error:
        td.wrap(make(), task)
    words = [*words, "whatever stands beside it", "standard deviations"]
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_a_module_that_is_quantised_dynamically_is_refused(task: td.Task) -> None:
    with pytest.raises(UnsupportedError, match=r"`map`.*quantised dynamically"):
        td.wrap(quantized(), task)


INDEPENDENT: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(batch_first=True),
    "turned": lambda: Recurrent(turned=True),
    "statistics": lambda: Normalised(running=True),
    "bfloat16": lambda: Recurrent(batch_first=True).bfloat16(),
    "instance": lambda: nn.Sequential(nn.InstanceNorm1d(CONTEXT), Function(recent)),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_others_are_taken_as_before(task: td.Task, name: str) -> None:
    batch = task.train.batch(torch.arange(7))
    assert td.wrap(INDEPENDENT[name](), task).forecast(batch).shape == (7, HORIZON, CHANNELS)


class Dropping(nn.Module):
    def forward(self, series: Tensor) -> Tensor:
        return torch.nn.functional.dropout(recent(series), 0.5)


class Carrying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.state = torch.zeros(())

    def forward(self, series: Tensor) -> Tensor:
        self.state = self.state + series.mean()
        return recent(series) + self.state


class ListedDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = {"drop": nn.Dropout(0.5)}

    def forward(self, series: Tensor) -> Tensor:
        dropped: Tensor = self.parts["drop"](recent(series))
        return dropped


@pytest.mark.parametrize(
    ("module", "words"),
    [(Dropping(), "random draws"), (Carrying(), "carries from call to call"), (ListedDropout(), "nn.ModuleDict")],
    ids=["dropout", "state", "listed"],
)
def test_random_forecasts_are_refused_as_such(task: td.Task, module: nn.Module, words: str) -> None:
    with pytest.raises(UnsupportedError, match="the same each time") as error:
        td.wrap(module, task)
    assert words in str(error.value)


def test_who_writes_on_the_input_writes_on_a_copy(task: td.Task) -> None:
    def written(series: Tensor, extra: Tensor, gain: Tensor, steps: list[Tensor]) -> Tensor:
        series.mul_(2)
        extra.add_(1)
        gain.mul_(3)
        steps[0].add_(5)
        return recent(series) + extra + gain + steps[0]

    kept = torch.zeros(1, HORIZON, CHANNELS)

    def extra(known: Any) -> Tensor:
        known.context.mul_(0)
        known.context.add_(1)
        return kept

    gain, step = torch.tensor(1.0), torch.tensor(0.0)
    teacher = td.wrap(Function(written), task, arguments={"extra": extra, "gain": gain, "steps": [step]})
    batch = task.train.batch(torch.arange(7))
    before = batch.context.clone()
    expected = 2 * recent(before) + 1 + 3 + 5
    for _ in range(2):
        torch.testing.assert_close(teacher.forecast(batch), expected)
    torch.testing.assert_close(batch.context, before, rtol=0, atol=0)
    assert (float(gain), float(step), float(kept.abs().max())) == (1.0, 0.0, 0.0)


def test_covariates_are_lent_as_copies(task: td.Task) -> None:
    def extra(known: Any) -> Tensor:
        known.future.zero_()
        return recent(known.context)

    calendar = td.Task(task.panel, context=CONTEXT, horizon=HORIZON, split=task.split)
    batch = calendar.train.batch(torch.arange(7))
    future = torch.ones(7, CONTEXT + HORIZON, 2)
    teacher = td.wrap(
        Function(lambda x, extra: extra), calendar, arguments={"extra": lambda known: recent(known.context)}
    )
    teacher._arguments["extra"] = extra
    teacher.activations(batch.context, future)
    assert float(future.min()) == 1.0


def test_a_teacher_of_the_users_own_gets_a_copy_too(task: td.Task) -> None:
    class Own:
        digest = "own"

        def forecast(self, batch: Any) -> Tensor:
            forecast = batch.context[:, -HORIZON:].clone()
            batch.context.zero_()
            return forecast

    batch = task.train.batch(torch.arange(7))
    before = batch.context.clone()
    shown_by(Own(), batch)
    members = td.teachers.TeacherEnsemble([Own(), Own()], task)
    torch.testing.assert_close(members.forecast(batch), recent(before))
    torch.testing.assert_close(batch.context, before, rtol=0, atol=0)


def test_what_a_module_gives_is_not_overwritten_later(task: td.Task) -> None:
    class Reusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.after = nn.Identity(), nn.ReLU(inplace=True)
            self.memory = torch.zeros(64, HORIZON, CHANNELS)

        def forward(self, series: Tensor) -> Tensor:
            self.after(self.layer(series.clone()))
            place = self.memory[: len(series)]
            place.copy_(recent(series))
            return place

    teacher = td.wrap(Reusing(), task, hidden=[Tap(path="layer", axes=("batch", "token", "width"))])
    batch, other = (task.train.batch(torch.arange(start, start + 7)) for start in (0, 50))
    first = teacher.forecast(batch)
    teacher.forecast(other)
    torch.testing.assert_close(first, recent(batch.context))
    hidden = teacher.activations(batch.context).hidden[0]
    torch.testing.assert_close(hidden[:, 0], batch.context)  # as it was before the ReLU wrote on it


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
def test_programs_that_cannot_switch_mode_are_taken(task: td.Task) -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.drop = inner, nn.Dropout(0.5)

        def forward(self, series: Tensor) -> Tensor:
            dropped: Tensor = self.drop(self.inner(series))
            return dropped

    net = Recurrent(batch_first=True).eval()
    example, shapes = (torch.zeros(3, CONTEXT, CHANNELS),), ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, example, dynamic_shapes=shapes)
    batch = task.train.batch(torch.arange(7))
    outer = Outer(program.module())
    for module in (program, program.module(), outer):
        teacher = td.wrap(module, task)
        torch.testing.assert_close(teacher.forecast(batch), td.wrap(net, task).forecast(batch))
    assert outer.drop.training
    with pytest.raises(ShapeError, match="dynamic_shapes"):
        td.wrap(torch.export.export(net, example), task)
