"""Any torch module teaches: called and read by named axes, looked into by path, left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tsdistill as td
from tsdistill.errors import ConfigError, ShapeError, TsdistillError, UnsupportedError
from tsdistill.losses import OutputLoss
from tsdistill.models import Forecaster, LinearConfig, MLPConfig, PatchTSTConfig
from tsdistill.teachers import Tap, check_teacher, shown_by
from tsdistill.teachers.hooks import watched
from tsdistill.testing import CHANNELS, CONTEXT, HORIZON, toy_panel, toy_task
from tsdistill.training import Training, train

QUICK = Training(epochs=1, batch_size=37, learning_rate=5e-3, precision="float32")
SERIES = ("batch*channel", "time", "1")
INSIDE = ("batch*channel", "token", "width")


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


@pytest.fixture(scope="module")
def batch(task: td.Task) -> Any:
    return task.train.batch(torch.tensor([3, 0, 31, 7, 19]))


@pytest.fixture(scope="module")
def ridge(task: td.Task) -> Forecaster:
    return train(LinearConfig(), task)


class Answering(nn.Module):
    """Our own forecaster behind another door: other axes in, other axes and wrapping out."""

    def __init__(self, inner: Forecaster, forth: Callable[..., Any], back: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self._forth, self._back = inner, forth, back

    def forward(self, series: Tensor) -> Any:
        return self._back(self.inner(self._forth(series)))


def swapped(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2)


def as_series(tensor: Tensor) -> Tensor:
    """(batch * channel, time, 1)."""
    return swapped(tensor).flatten(0, 1)[..., None]


def as_batch(tensor: Tensor) -> Tensor:
    return swapped(tensor[..., 0].unflatten(0, (-1, CHANNELS)))


@pytest.mark.parametrize(
    ("forth", "back", "options"),
    [
        (lambda x: x, lambda y: y, {}),
        (swapped, swapped, {"input_axes": ("batch", "channel", "time"), "output_axes": ("batch", "channel", "time")}),
        (lambda x: x.permute(1, 2, 0), lambda y: y.permute(1, 0, 2),
         {"input_axes": ("channel", "batch", "time"), "output_axes": ("time", "batch", "channel"), "input": "series"}),
        (as_batch, lambda y: (None, {"mean": as_series(y)}),
         {"input_axes": SERIES, "output": "1.mean", "output_axes": SERIES}),
        (lambda x: x, lambda y: (y.flatten(1),), {"output": 0, "output_axes": ("batch", "time*channel")}),
    ],
    ids=["ours", "channels-first", "batch-last", "series", "flat"],
)  # fmt: skip
def test_named_axes_bring_the_same_forecast(
    task: td.Task, batch: Any, ridge: Forecaster, forth: Any, back: Any, options: Any
) -> None:
    teacher = td.wrap(Answering(ridge, forth, back), task, **options)
    torch.testing.assert_close(teacher.forecast(batch), ridge.forecast(batch))
    assert shown_by(teacher, batch, attention=True).attention is None
    check_teacher(teacher, task)


def test_raw_values_go_in_and_out_scaled(task: td.Task, batch: Any) -> None:
    class LastRaw(nn.Module):
        def forward(self, series: Tensor) -> Tensor:
            assert float(series[..., 0].mean()) > 40  # the toy load is about 50
            return series[:, -1:].expand(-1, HORIZON, -1) + torch.tensor([3.0, 0.0, 0.0])

    forecast = td.wrap(LastRaw(), task, units="raw").forecast(batch)
    step = torch.tensor([3.0 / float(task.scale[0]), 0.0, 0.0])
    torch.testing.assert_close(forecast, batch.context[:, -1:].expand(-1, HORIZON, -1) + step, rtol=1e-4, atol=1e-4)


def test_fewer_steps_and_further_arguments(task: td.Task, batch: Any) -> None:
    class Decoder(nn.Module):
        def forward(self, x: Tensor, start: Tensor, gain: float) -> Tensor:
            assert x.shape[1] == 29
            return start + gain * x.mean(1, keepdim=True)

    def start(known: Any) -> Tensor:
        assert known.target.numel() == 0
        return known.context[:, -1:].expand(-1, HORIZON, -1)

    teacher = td.wrap(Decoder(), task, context=29, arguments={"start": start, "gain": 2.0})
    recent = batch.context[:, -29:]
    expected = recent[:, -1:] + 2.0 * recent.mean(1, keepdim=True)
    torch.testing.assert_close(teacher.forecast(batch), expected.expand(-1, HORIZON, -1))
    other = td.wrap(Decoder(), task, context=29, arguments={"start": start, "gain": 3.0})
    assert other.digest != teacher.digest


class Encoder(nn.Module):
    """A plain torch transformer over patches, with channels flattened into the batch."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Linear(5, width)
        layer = nn.TransformerEncoderLayer(width, 2, 7, dropout=0.3, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(9 * width, HORIZON)

    def forward(self, series: Tensor) -> Tensor:
        patches = series[:, -45:].transpose(1, 2).flatten(0, 1).unflatten(1, (9, 5))
        forecast = self.head(self.encoder(self.embed(patches)).flatten(1))
        return forecast.unflatten(0, (len(series), CHANNELS)).transpose(1, 2)


TAPS: dict[str, Any] = {
    "hidden": [Tap(path="encoder.layers.*", axes=INSIDE)],
    "attention": [Tap(path="encoder.layers.*.self_attn", axes=("batch*channel", "head", "query", "key"), output=1)],
}


def n_hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_insides_come_by_path_in_our_axes(task: td.Task, batch: Any) -> None:
    module = Encoder()
    teacher = td.wrap(module, task, **TAPS)
    inside = teacher.activations(batch.context, attention=True)
    assert [tuple(state.shape) for state in inside.hidden] == [(5, CHANNELS, 9, 6)] * 2
    assert inside.attention is not None
    assert [tuple(state.shape) for state in inside.attention] == [(5, CHANNELS, 2, 9, 9)] * 2
    torch.testing.assert_close(inside.attention[1].sum(-1), torch.ones(5, CHANNELS, 2, 9))
    assert teacher.activations(batch.context).attention is None
    # The head reads the last layer, so that what was seen there gives the forecast again.
    again = module.head(inside.hidden[1].flatten(2)).transpose(1, 2)
    torch.testing.assert_close(again, inside.forecast)
    torch.testing.assert_close(inside.forecast, teacher.forecast(batch), rtol=1e-4, atol=1e-5)
    # Each channel by itself: the flattened axis is unfolded the right way round.
    only = batch.context.clone()
    only[:, :, 1:] = 0
    torch.testing.assert_close(teacher.activations(only).hidden[0][:, 0], inside.hidden[0][:, 0])


def test_a_module_is_left_as_it_was(task: td.Task, batch: Any) -> None:
    module = Encoder()
    module.train()
    module.encoder.layers[1].eval()
    modes = [part.training for part in module.modules()]
    teacher = td.wrap(module, task, **TAPS)
    before = teacher.digest
    forecast = teacher.forecast(batch)
    assert not forecast.requires_grad
    torch.testing.assert_close(forecast, teacher.forecast(batch), rtol=0, atol=0)  # no dropout
    assert [part.training for part in module.modules()] == modes
    assert n_hooks(module) == 0
    with pytest.raises(Exception, match=r"size|shape|elements"):
        teacher.activations(batch.context[:, :31], attention=True)
    assert n_hooks(module) == 0
    assert [part.training for part in module.modules()] == modes
    assert teacher.digest == before


def test_a_hook_that_stays_would_be_found() -> None:
    module = Encoder()
    with watched(module, ["encoder.layers.0"], attention=["encoder.layers.1.self_attn"]):
        assert n_hooks(module) == 3  # one of them asks for weights
    assert n_hooks(module) == 0
    module.head.register_forward_hook(lambda *_: None)
    assert n_hooks(module) == 1


def test_the_digest_follows_weights_buffers_settings_and_calling(task: td.Task) -> None:
    class Scaled(nn.Module):
        shift: Tensor

        def __init__(self, gain: float = 1.0) -> None:
            super().__init__()
            self.gain = gain
            self.map = nn.Linear(CONTEXT, HORIZON)
            self.register_buffer("shift", torch.zeros(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * self.map(x.transpose(1, 2)).transpose(1, 2) + self.shift

    def built(gain: float = 1.0) -> Scaled:
        torch.manual_seed(1)
        return Scaled(gain)

    module = built()
    teacher = td.wrap(module, task)
    digests = [teacher.digest, td.wrap(built(), task).digest]
    assert digests[0] == digests[1]
    digests = [*digests[:1], td.wrap(built(2.0), task).digest, td.wrap(built(), task, units="raw").digest]
    with torch.no_grad():
        module.shift += 1
        digests.append(teacher.digest)
        module.map.weight[0, 0] += 1e-6
        digests.append(teacher.digest)
    assert len(set(digests)) == len(digests)


def test_a_wrapped_teacher_teaches(task: td.Task, ridge: Forecaster) -> None:
    wrapped = td.wrap(Answering(ridge, swapped, swapped), task, input_axes=("batch", "channel", "time"),
                      output_axes=("batch", "channel", "time"))  # fmt: skip
    student = MLPConfig(width=5, depth=1, hidden=7)
    students = [td.distill(teacher, student, task, losses=[OutputLoss(alpha=0.9)], training=QUICK, control=False)
             for teacher in (wrapped, ridge)]  # fmt: skip
    for name, weight in students[0].state_dict().items():
        torch.testing.assert_close(weight, students[1].state_dict()[name], rtol=1e-3, atol=1e-3)
    assert students[0].lineage[-1].spec["teacher"] == wrapped.digest


class Straight(nn.Module):
    def __init__(self, horizon: int = HORIZON) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(CONTEXT, 13), nn.Linear(13, horizon)])
        self.spare = nn.Linear(2, 2)

    def forward(self, series: Tensor) -> Any:
        forecast = self.blocks[1](self.blocks[0](series.transpose(1, 2))).transpose(1, 2)
        return {"forecast": forecast, "extra": (None, forecast[:, :1])}


RIGHT: dict[str, Any] = {"output": "forecast"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "mean"}, ["no 'mean'", "'forecast': (5, 11, 3)", "output_axes"]),
        ({}, ["no tensor", "'extra': a tuple of None and (5, 1, 3)"]),
        ({"output": "extra.0"}, ["no tensor at 'extra.0'"]),
        ({**RIGHT, "output_axes": ("batch", "channel", "time")}, ["(5, 11, 3)", "'channel'", "should have 3"]),
        ({**RIGHT, "output_axes": ("batch", "time")}, ["`output_axes` must name each of batch, time, channel once"]),
        ({**RIGHT, "output_axes": ("batch", "time", "chanel")}, ["chanel", "batch*channel"]),
        ({**RIGHT, "input_axes": ("batch", "channel", "time")}, ["(5, 3, 47)", "Straight says: RuntimeError"]),
        ({**RIGHT, "input": "serie"}, ["as 'serie'", "TypeError"]),
        ({**RIGHT, "arguments": {"mask": None}}, ["TypeError", "mask", "arguments"]),
        ({**RIGHT, "hidden": ["block.0"]}, ["`path` must name a submodule of Straight", "Did you mean `blocks.0`"]),
        ({**RIGHT, "hidden": ["blocks.0"]}, ["output of 'blocks.0' has 3 axes, (5, 3, 13)", "['batch', 'channel'"]),
        ({**RIGHT, "hidden": [Tap(path="spare", axes=INSIDE)]}, ["output of 'spare' did not run"]),
        ({**RIGHT, "hidden": [Tap(path="blocks.*", axes=("batch", "token"))]}, ["`axes of blocks.*`", "width"]),
        ({"output": "mean", "hidden": ["blocks.0"]}, ["2 problems", "no 'mean'", "has 3 axes"]),
        ({"units": "row", "hidden": ["x"], "input_axes": ("time",)}, ["3 problems", "`units`", "`path`"]),
        ({**RIGHT, "context": 48}, ["`context` must be from 1 to the task's 47 steps"]),
    ],
    ids=["key", "dict", "none", "swapped", "lacking", "unknown", "input", "name", "arguments", "path", "axes", "idle",
         "no-width", "several", "many", "context"],
)  # fmt: skip
def test_a_wrong_wrapping_fails_at_once(task: td.Task, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises((ConfigError, ShapeError)) as error:
        td.wrap(Straight(), task, **options)
    assert [word for word in words if word not in str(error.value)] == []


def test_modules_of_another_question_or_mood_are_refused(task: td.Task, ridge: Forecaster) -> None:
    with pytest.raises(ShapeError, match="11 steps of 3 channels"):
        td.wrap(Straight(horizon=7), task, output="forecast")

    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :HORIZON] + torch.randn(len(x), HORIZON, CHANNELS)

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :HORIZON] / 0

    with pytest.raises(UnsupportedError, match="the same each time"):
        td.wrap(Moody(), task)
    with pytest.raises(ShapeError, match="finite"):
        td.wrap(Broken(), task)
    with pytest.raises(ConfigError, match=r"torch\.nn\.Module"):
        td.wrap(lambda x: x, task)  # type: ignore[arg-type]


def test_a_teacher_of_another_task_is_refused(task: td.Task, ridge: Forecaster) -> None:
    teacher = td.wrap(ridge, task)
    other: list[tuple[td.Task, str]] = [
        (td.Task(task.panel, context=47, horizon=7, split=task.split), "the task's 7 steps"),
        (td.Task(task.panel, context=43, horizon=11, split=task.split), "context=47"),
        (td.Task(toy_panel(seed=1), context=47, horizon=11, split=task.split), "Wrap the module again"),
    ]
    for wrong, words in other:
        with pytest.raises(ShapeError, match=words):
            check_teacher(teacher, wrong)
    item = td.Task(task.panel, context=47, horizon=11, split=task.split, scaler="item")
    td.wrap(ridge, item)
    with pytest.raises(TsdistillError, match='scaler="item"'):
        td.wrap(ridge, item, units="raw")


def test_a_signature_will_do(task: td.Task, batch: Any) -> None:
    model = PatchTSTConfig(depth=1, width=6, heads=2, patch=11).build(task.signature)
    torch.testing.assert_close(td.wrap(model, task.signature).forecast(batch), model.forecast(batch))
