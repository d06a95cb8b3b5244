"""Any torch module as a teacher: how it is called, where its forecast is, and what it shows of its insides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ConfigError, ShapeError, UnsupportedError, listed, must
from tsdistill.models.activations import Activations
from tsdistill.spec import Spec, digest_of
from tsdistill.teachers.axes import MisfitError, axis_problem, read, write
from tsdistill.teachers.digests import digest_of_module, plain
from tsdistill.teachers.hooks import Tap, found_at, path_problem, picked, resting, watched

COARSE = 1e-2
"""A module in raw units that loses more than this share of a deviation by rounding is refused."""

BATCH = ("batch", "time", "channel")
HIDDEN = ("batch", "channel", "token", "width")
ATTENTION = ("batch", "channel", "head", "query", "key")
NEEDED = {HIDDEN: ("batch", "width"), ATTENTION: ("batch", "query", "key")}


class Calling(Spec):
    """How a module is called and where its forecast is; see `wrap`."""

    input: str | None
    input_axes: tuple[str, ...]
    output: int | str | None
    output_axes: tuple[str, ...]
    units: Literal["scaled", "raw"]
    hidden: tuple[Tap, ...]
    attention: tuple[Tap, ...]


class WrappedTeacher:
    """A torch module in the role of a teacher; `wrap` makes one.

    Attributes:
        module: The module itself, as it was given.
        signature: Steps, channels and scaling of the task it was wrapped for.
        calling: How it is called, and where its insides are.
    """

    def __init__(
        self, module: nn.Module, signature: Signature, calling: Calling, arguments: Mapping[str, Any] | None = None
    ) -> None:
        self.module = module
        self.signature = signature
        self.calling = calling
        self._arguments = dict(arguments or {})

    @property
    def digest(self) -> str:
        """Sixteen hex digits of class, config, plain settings and every weight and buffer, and of how it is called."""
        return digest_of(
            [
                digest_of_module(self.module),
                self.calling.digest,
                self.signature.digest,
                plain(sorted(self._arguments.items())),
            ]
        )

    def check(self, task: Task) -> None:
        """Refuse a task that scales otherwise than the one it was wrapped for."""
        if self.signature.scaling != task.signature.scaling:
            raise ShapeError(
                "`teacher` must see values scaled as those of the task, but it was wrapped for another one. Wrap the "
                "module again with this task."
            )

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel), without gradients."""
        return self._run(batch.context, batch.future, batch.past, (), ())[0]

    def activations(
        self, context: Tensor, future: Tensor | None = None, past: Tensor | None = None, *, attention: bool = False
    ) -> Activations:
        """Forecast, the hidden states of the module's taps, and its attention if asked for and tapped."""
        maps = self.calling.attention if attention else ()
        forecast, hidden, seen = self._run(context, future, past, self.calling.hidden, maps)
        return Activations(forecast, hidden=hidden, attention=seen if maps else None)

    def _run(
        self,
        context: Tensor,
        future: Tensor | None,
        past: Tensor | None,
        hidden: Sequence[Tap],
        attention: Sequence[Tap],
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """One call of the module: forecast, hidden states and attention, float32, where the context is."""
        signature = self.signature
        home = context.device
        raw = self.calling.units == "raw"
        # Values far from zero keep their digits in float64 only, as far as the module takes them.
        kind = torch.float64 if raw and signature.offset else torch.float32
        mean, scale = (torch.tensor(numbers, dtype=kind, device=home) for numbers in (signature.mean, signature.scale))
        offset = torch.tensor(signature.offset or (0.0,), dtype=kind, device=home)
        values = context[:, -signature.context :]
        values = values.to(kind) * scale + mean + offset if raw else values
        output, seen = self._call(values, future, past, hidden, attention)
        shape = (len(values), signature.horizon, len(signature.channels))
        sizes = {"batch": shape[0], "channel": shape[2]}
        problems = list[str]()

        def tapped(taps: Sequence[Tap], wanted: tuple[str, ...]) -> tuple[Tensor, ...]:
            tensors = []
            for tap in taps:
                for name in found_at(self.module, tap.path):
                    try:
                        if name not in seen:
                            raise MisfitError("did not run")
                        tensors.append(read(picked(seen[name], tap.output), tap.axes or wanted, wanted, sizes))
                    except MisfitError as error:
                        problems.append(f"The output of {name!r} {error}. Name its axes, and its place by output=.")
            return tuple(tensor.to(home, torch.float32) for tensor in tensors)

        inside = [tapped(taps, wanted) for taps, wanted in ((hidden, HIDDEN), (attention, ATTENTION))]
        try:
            forecast = picked(output, self.calling.output)
            forecast = read(forecast, self.calling.output_axes, BATCH, {**sizes, "time": shape[1]}).to(home, kind)
            if tuple(forecast.shape) != shape:
                raise MisfitError(f"is {tuple(forecast.shape)} (batch, time, channel)")
        except MisfitError as error:
            wanted = f"{shape[1]} steps of {shape[2]} channels for {shape[0]} windows"
            problems.insert(
                0, f"The output of the module must hold {wanted}, but it {error}. See output and output_axes."
            )
        if problems:
            raise ShapeError(listed(problems, f"the wrapped {type(self.module).__name__}"))
        return ((forecast - offset - mean) / scale if raw else forecast).float(), inside[0], inside[1]

    def _call(
        self,
        values: Tensor,
        future: Tensor | None,
        past: Tensor | None,
        hidden: Sequence[Tap],
        attention: Sequence[Tap],
    ) -> tuple[Any, dict[str, Any]]:
        """The module's output for values in its units, and the outputs of the tapped submodules by name."""
        calling = self.calling
        signature = self.signature
        first = next((parameter for parameter in self.module.parameters() if parameter.is_floating_point()), None)
        values = values if first is None else values.to(first.device, first.dtype)
        # Without a target: whatever an argument is made of, it is not what happened.
        known = Batch(values, values.new_empty(len(values), 0, len(signature.channels)), torch.arange(len(values)))
        known = replace(
            known,
            future=None if future is None else future[:, -signature.context - signature.horizon :].to(values),
            past=None if past is None else past[:, -signature.context :].to(values),
        )
        arguments = {name: given(known) if _makes(given) else given for name, given in self._arguments.items()}
        args = [write(values, BATCH, calling.input_axes)]
        if calling.input is not None:
            arguments[calling.input] = args.pop()
        names, maps = (
            [name for tap in taps for name in found_at(self.module, tap.path)] for taps in (hidden, attention)
        )
        with resting(self.module), watched(self.module, names, attention=maps) as seen:
            return self.module(*args, **arguments), seen

    def __repr__(self) -> str:
        return (
            f"<WrappedTeacher {type(self.module).__name__}, {self.signature.context} to {self.signature.horizon} steps>"
        )


def wrap(
    module: nn.Module,
    task: Task | Signature,
    *,
    input: str | None = None,
    input_axes: Sequence[str] = BATCH,
    arguments: Mapping[str, Any] | None = None,
    output: int | str | None = None,
    output_axes: Sequence[str] = BATCH,
    units: Literal["scaled", "raw"] = "scaled",
    context: int | None = None,
    hidden: Sequence[str | Tap] = (),
    attention: Sequence[str | Tap] = (),
) -> WrappedTeacher:
    """Let any torch module teach: say how it is called, where its forecast is, and which submodules show something.

    The module is called once on a few windows, so that a wrong name, axis or path fails here and not in the middle of
    a distillation. It is called in evaluation mode and without gradients, and left in the mode it was in; hooks are
    gone after every call. Use it for a network of your own or of another library. For a model that runs elsewhere,
    write its forecasts into a table (`td.teachers.read_forecasts`).

    Args:
        module: A torch module that has learnt to forecast.
        task: What it forecasts; a signature will do, and noise is then what it is tried on.
        input: Name of the argument that takes the context; None: the first one.
        input_axes: How it wants the context: a permutation of "batch", "time", "channel". Two that are flattened into
            one axis are "batch*channel" (the batch moves slowest), an axis of one entry is "1".
        arguments: Further keyword arguments. A function among them is called with the batch (context in the module's
            units, covariates, no target) and gives the value.
        output: Where in the output the forecast is: a key, a position, an attribute, or a path of them joined by dots.
        output_axes: The forecast's axes, as `input_axes`.
        units: Whether the module takes and gives the task's scaled values or raw ones.
        context: Steps that it takes, if fewer than the task's: the last ones.
        hidden: Submodules whose output is a hidden state, by path or, where axes or place differ from the default, as
            `td.teachers.Tap`.
        attention: Submodules whose output is an attention map, likewise; torch's own attention layers count.

    Returns:
        A teacher for `td.distill` and `td.prune`.

    Raises:
        ConfigError: names of axes that cannot be, or paths of submodules that do not exist, with the nearest that do.
        ShapeError: the module cannot be called so, or what it gives has other axes; the shapes seen are shown.
        UnsupportedError: raw values are asked for of a task with a scaler per item, or the module answers the same
            question differently each time.

    Example:
        >>> import torch
        >>> from tsdistill.testing import toy_task
        >>> class Mixed(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.encode, self.decode = torch.nn.Linear(47, 13), torch.nn.Linear(13, 11)
        ...     def forward(self, series):
        ...         return {"median": self.decode(self.encode(series).relu())}
        >>> task = toy_task()
        >>> teacher = wrap(
        ...     Mixed(), task, input_axes=("batch", "channel", "time"),
        ...     output="median", output_axes=("batch", "channel", "time"),
        ...     hidden=[Tap(path="encode", axes=("batch", "channel", "width"))],
        ... )
        >>> teacher
        <WrappedTeacher Mixed, 47 to 11 steps>
        >>> tuple(teacher.activations(task.train.batch(torch.arange(5)).context).hidden[0].shape)
        (5, 3, 1, 13)
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(must("module", "be a torch.nn.Module", type(module).__name__, "Wrap functions in one"))
    signature = task.signature if isinstance(task, Task) else task
    if context is not None and not 1 <= context <= signature.context:
        raise ConfigError(must("context", f"be from 1 to the task's {signature.context} steps", context, "Shorten it"))
    own = signature.replace(context=context or signature.context)
    taps = [[Tap(path=tap) if isinstance(tap, str) else tap for tap in given] for given in (hidden, attention)]
    _check(module, own, units, tuple(input_axes), tuple(output_axes), taps)
    calling = Calling(
        input=input, input_axes=tuple(input_axes), output=output, output_axes=tuple(output_axes), units=units,
        hidden=tuple(taps[0]), attention=tuple(taps[1]),
    )  # fmt: skip
    teacher = WrappedTeacher(module, own, calling, arguments)
    _try_out(teacher, task)
    return teacher


def _check(
    module: nn.Module,
    signature: Signature,
    units: str,
    input_axes: tuple[str, ...],
    output_axes: tuple[str, ...],
    taps: list[list[Tap]],
) -> None:
    """Refuse what is wrong whatever the module does."""
    if units == "raw" and signature.normalisation == "window":
        raise UnsupportedError(
            'units="raw" cannot be served with scaler="item": a batch of such a task does not say what its windows '
            'were scaled by. Use scaler="standard", or write a table of forecasts (td.teachers.read_forecasts).'
        )
    weights = next((weight for weight in module.parameters() if weight.is_floating_point()), None)
    if units == "raw" and signature.offset and weights is not None and weights.dtype != torch.float64:
        step = np.spacing(np.abs(signature.centre()).astype(np.float32)) / np.asarray(signature.scale)
        step[np.asarray(signature.scale) == 1] = 0.0  # without a scaler nothing is known of deviations
        if (step > COARSE).any():
            name = signature.channels[int(step.argmax())]
            raise UnsupportedError(
                f'units="raw" must be left to a module in float64 where values are so far from zero: one step of '
                f"{str(weights.dtype).removeprefix('torch.')} is {step.max():.2g} deviations of channel {name!r}. Give "
                'module.double(), or units="scaled" for a module trained on scaled values.'
            )
    candidates = [
        axis_problem("input_axes", input_axes, BATCH, BATCH if len(signature.channels) > 1 else BATCH[:2]),
        axis_problem("output_axes", output_axes, BATCH, BATCH if len(signature.channels) > 1 else BATCH[:2]),
    ]
    if units not in ("scaled", "raw"):
        candidates.append(must("units", 'be "scaled" or "raw"', units, "Leave it out for the default"))
    for given, default in zip(taps, (HIDDEN, ATTENTION), strict=True):
        for tap in given:
            candidates.append(path_problem(module, tap.path))
            candidates.append(axis_problem(f"axes of {tap.path}", tap.axes or default, default, NEEDED[default]))
    if problems := [problem for problem in candidates if problem]:
        raise ConfigError(listed(problems, f"the wrapping of {type(module).__name__}"))


def _try_out(teacher: WrappedTeacher, task: Task | Signature) -> None:
    """Forecast a few windows, of a number that no other axis has."""
    signature = teacher.signature
    taken = {signature.context, signature.horizon, len(signature.channels)}
    n_windows = next(size for size in (5, 7, 11, 13) if size not in taken)
    if isinstance(task, Task):
        index = torch.linspace(0, len(task.train) - 1, n_windows).long()
        batch = task.train.batch(index)
    else:
        noise = torch.Generator().manual_seed(0)

        def drawn(steps: int, n_columns: int) -> Tensor:
            return torch.randn(n_windows, steps, n_columns, generator=noise)

        steps = signature.context + signature.horizon
        batch = Batch(
            drawn(signature.context, len(signature.channels)),
            drawn(signature.horizon, len(signature.channels)),
            torch.arange(n_windows),
        )
        batch = replace(
            batch,
            future=drawn(steps, len(signature.future)) if signature.future else None,
            past=drawn(signature.context, len(signature.past)) if signature.past else None,
        )
    try:
        inside = teacher.activations(batch.context, batch.future, batch.past, attention=True)
    except (ConfigError, ShapeError):
        raise
    except Exception as error:
        shape = tuple(write(batch.context[:, -signature.context :], BATCH, teacher.calling.input_axes).shape)
        raise ShapeError(
            f"`module` must be callable with a context of shape {shape} {list(teacher.calling.input_axes)}"
            f"{' as ' + repr(teacher.calling.input) if teacher.calling.input else ''}, but "
            f"{type(teacher.module).__name__} says: {type(error).__name__}: {error}. See "
            "input, input_axes and arguments."
        ) from error
    again = teacher.forecast(batch)
    if not torch.isfinite(inside.forecast).all():
        raise ShapeError("`module` must forecast finite numbers, and it gives others for windows of the task.")
    if not torch.allclose(inside.forecast, again, rtol=1e-3, atol=1e-4 * float(again.abs().max())):
        raise UnsupportedError(
            "`module` must forecast a window the same each time, and in evaluation mode it does not. Take the random "
            "draws out of it, or write their mean into a table (td.teachers.read_forecasts)."
        )


def _makes(given: Any) -> bool:
    """Whether an argument is a function of the batch."""
    return callable(given) and not isinstance(given, nn.Module | type)
