"""A wrapped teacher is tried out: it must forecast a window alike each time, whatever stands beside it in its batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ConfigError, ShapeError, UnsupportedError
from tsdistill.teachers.axes import write
from tsdistill.teachers.hooks import resting, watched

if TYPE_CHECKING:
    from tsdistill.teachers.wrapped import WrappedTeacher

SAME = 5e-3
"""Part of the forecasts' spread by which two of one window may differ: batches of other sizes round otherwise."""

TABLE = "or write its forecasts into a table (td.teachers.read_forecasts)"


def try_out(teacher: WrappedTeacher, task: Task | Signature) -> set[str]:
    """Forecast a few windows in several batches; the paths of what the module writes down while it runs.

    Raises:
        ShapeError: it cannot be called so, or what it gives has other axes or is not finite.
        UnsupportedError: its forecasts are random, or depend on the other windows of the batch.
    """
    batch = _trial(teacher.signature, task)
    first = _first(teacher, batch)
    if not torch.isfinite(first).all():
        raise ShapeError("`module` must forecast finite numbers, and it gives others for windows of the task.")
    _check_same_again(teacher, first, teacher.forecast(batch))
    states = [teacher.parts(light=True)]
    gap = _gap_in_other_company(teacher, batch, first)
    states.append(teacher.parts(light=True))
    _check_same_again(teacher, first, teacher.forecast(batch))
    states.append(teacher.parts(light=True))
    if gap is not None:
        name = type(teacher.module).__name__
        raise UnsupportedError(
            f"`module` must forecast a window alike whatever stands beside it in the batch, and {name} does not: in "
            f"another order or other company its forecasts move by up to {gap:.2g} standard deviations. "
            f"{_cause(teacher, batch)}"
        )
    return states[0].changed(states[1]) | states[1].changed(states[2])


def _trial(signature: Signature, task: Task | Signature) -> Batch:
    """A few windows of the task, of a number that no other axis has."""
    taken = {signature.context, signature.horizon, len(signature.channels)}
    n_windows = next(size for size in (5, 7, 11, 13) if size not in taken)
    if isinstance(task, Task):
        return task.train.batch(torch.linspace(0, len(task.train) - 1, n_windows).long())
    noise = torch.Generator().manual_seed(0)

    def drawn(steps: int, n_columns: int) -> Tensor:
        return torch.randn(n_windows, steps, n_columns, generator=noise)

    steps = signature.context + signature.horizon
    batch = Batch(
        drawn(signature.context, len(signature.channels)),
        drawn(signature.horizon, len(signature.channels)),
        torch.arange(n_windows),
    )
    return replace(
        batch,
        future=drawn(steps, len(signature.future)) if signature.future else None,
        past=drawn(signature.context, len(signature.past)) if signature.past else None,
    )


def _first(teacher: WrappedTeacher, batch: Batch) -> Tensor:
    try:
        return teacher.activations(batch.context, batch.future, batch.past, attention=True).forecast
    except (ConfigError, ShapeError):
        raise
    except Exception as error:
        axes, signature = teacher.calling.input_axes, teacher.signature
        shape = tuple(write(batch.context[:, -signature.context :], ("batch", "time", "channel"), axes).shape)
        fixed = (
            " A program of torch.export takes batches of any size only if it was exported with dynamic_shapes."
            if isinstance(teacher.module, torch.fx.GraphModule)
            else ""
        )
        raise ShapeError(
            f"`module` must be callable with a context of shape {shape} {list(axes)}"
            f"{' as ' + repr(teacher.calling.input) if teacher.calling.input else ''}, but "
            f"{type(teacher.module).__name__} says: {type(error).__name__}: {error}. See "
            f"input, input_axes and arguments.{fixed}"
        ) from error


def _check_same_again(teacher: WrappedTeacher, first: Tensor, again: Tensor) -> None:
    if torch.allclose(first, again, rtol=1e-3, atol=1e-4 * float(again.abs().max())):
        return
    remedy = "Take random draws out of it, and state that it carries from call to call"
    if (unreached := _in_training(teacher.module)) is not None:
        remedy = f"{unreached}. If that is not it, take random draws out of it"
    raise UnsupportedError(
        "`module` must forecast a window the same each time, and in evaluation mode it does not. "
        f"{remedy}, {TABLE.replace('its forecasts', 'their mean')}."
    )


def _gap_in_other_company(teacher: WrappedTeacher, batch: Batch, first: Tensor) -> float | None:
    """How far a forecast moves when the windows beside it change; None where it does not."""
    n_windows = len(first)
    order = torch.arange(n_windows).flip(0)
    companies = {"reversed": (order, batch), "two": (torch.arange(2), batch), "one": (torch.arange(1), batch)}
    gap = 0.0
    for index, source in companies.values():
        try:
            forecast = teacher.forecast(_taken(source, index))
        except Exception as error:
            raise ShapeError(
                f"`module` must take batches of any size, and {type(teacher.module).__name__} takes {n_windows} "
                f"windows and not {len(index)}: {type(error).__name__}: {error}. Make it independent of the batch's "
                "size (a program of torch.export: by dynamic_shapes)."
            ) from error
        gap = max(gap, float((forecast - first[index]).abs().nan_to_num(torch.inf).max()))
    # Company that stands out: averages over the batch, and ranges, then move by more than rounding does.
    crowd = torch.cat([torch.arange(n_windows), order])
    crowded = _taken(batch, crowd)
    context = crowded.context.clone()
    context[n_windows:] *= 10
    try:
        forecast = teacher.forecast(replace(crowded, context=context))[:n_windows]
    except Exception:  # values it was not made for: that says nothing about company
        forecast = first
    gap = max(gap, float((forecast - first).abs().nan_to_num(torch.inf).max()))
    return gap if gap > _rounding(teacher, first) else None


def _rounding(teacher: WrappedTeacher, forecast: Tensor) -> float:
    """By how much forecasts of a window may differ for the sake of rounding."""
    largest = float(forecast.abs().max())
    kinds = [parameter.dtype for parameter in teacher.module.parameters() if parameter.is_floating_point()]
    digits = max((torch.finfo(kind).eps for kind in kinds), default=torch.finfo(torch.float32).eps)
    if teacher.takes_raw:
        signature = teacher.signature
        levels = np.add(signature.mean, signature.offset or 0.0)
        largest += float(np.abs(levels / np.asarray(signature.scale)).max())
    return max(SAME * float(forecast.std()), 64 * digits * largest)


def _taken(batch: Batch, index: Tensor) -> Batch:
    taken = [None if part is None else part[index] for part in (batch.future, batch.past)]
    return Batch(batch.context[index], batch.target[index], batch.index[index], future=taken[0], past=taken[1])


def _cause(teacher: WrappedTeacher, batch: Batch) -> str:
    """What a module most likely does that makes forecasts depend on their company, and the remedy."""
    module = teacher.module
    for name in _mixing(teacher, batch):
        kind = type(module.get_submodule(name)).__name__
        return (
            f"The likely cause is `{name or 'module'}` ({kind}): it has batch_first=False and so reads the batch as "
            "time. Make it with batch_first=True, or transpose what it gets."
        )
    if (unreached := _in_training(module)) is not None:
        return f"The likely cause: {unreached}."
    with resting(module):
        for name, part in every_module(module):
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and (part.running_mean is None or part.training):
                return (
                    f"The likely cause is `{name}` ({type(part).__name__}): it has no running statistics and takes "
                    "those of the batch. Train it with track_running_stats=True, or use another normalisation."
                )
            if "quantized.dynamic" in type(part).__module__:
                return (
                    f"The likely cause is `{name}` ({type(part).__name__}): it is quantised dynamically, by the range "
                    "that its input has over the whole batch. Wrap the module as it was before."
                )
    return (
        "Something in it works along the windows (a mean, softmax or normalisation over axis 0, axes that are named "
        "wrongly, see input_axes) or counts their places in the batch. Change that, " + TABLE + "."
    )


def _mixing(teacher: WrappedTeacher, batch: Batch) -> Iterator[str]:
    """Names of layers that take the batch for their time axis: it grows with the number of windows."""
    names = [name for name, part in teacher.module.named_modules() if getattr(part, "batch_first", True) is False]
    lengths = []
    for n_windows in (2, len(batch.context)):
        with watched(teacher.module, names) as seen:
            teacher.forecast(_taken(batch, torch.arange(n_windows)))
        lengths.append({name: _length(seen.get(name)) for name in names})
    for name in names:
        if lengths[0][name] != lengths[1][name]:
            yield name


def _length(output: object) -> int | None:
    """Entries of the first axis of a layer's output; None where it gives something else."""
    while isinstance(output, tuple) and output:
        output = output[0]
    data = getattr(output, "data", None) if not isinstance(output, Tensor) else output
    return len(data) if isinstance(data, Tensor) and data.ndim else None


def every_module(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Named submodules, and those that are held in plain lists, tuples and dictionaries, each once."""
    waiting = list(module.named_modules())
    met = {id(part) for _, part in waiting}
    while waiting:
        name, part = waiting.pop(0)
        yield name, part
        for attribute, value in [] if isinstance(part, torch.jit.ScriptModule) else list(vars(part).items()):
            if attribute.startswith("_") and attribute in ("_modules", "_parameters", "_buffers"):
                continue
            entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            for position, entry in enumerate(entries):
                if isinstance(entry, nn.Module) and id(entry) not in met:
                    place = f"{name}.{attribute}[{position}]".lstrip(".")
                    for deep, below in entry.named_modules():
                        if id(below) not in met:
                            met.add(id(below))
                            waiting.append((f"{place}.{deep}".rstrip("."), below))


def _in_training(module: nn.Module) -> str | None:
    """The sentence about a submodule that eval() does not reach and that behaves otherwise in training; None."""
    registered = {id(part) for part in module.modules()}
    moody = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    for name, part in every_module(module):
        if id(part) not in registered and part.training and isinstance(part, moody):
            return (
                f"`{name}` ({type(part).__name__}) stays in training mode, as eval() does not reach modules in a plain "
                "list or dictionary; hold them in an nn.ModuleList or nn.ModuleDict"
            )
    return None
