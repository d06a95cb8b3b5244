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
from tsdistill.spec import Spec
from tsdistill.teachers.axes import MisfitError, axis_problem, read, write
from tsdistill.teachers.digests import check_name, probe_batch, teacher_digest
from tsdistill.teachers.hooks import Tap, found_at, path_problem, picked, resting, watched
from tsdistill.teachers.inventory import Inventory, inventory
from tsdistill.teachers.lending import own_copy
from tsdistill.teachers.trying import try_out

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
        name: What its owner calls exactly this version of it, or None.
    """

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        calling: Calling,
        arguments: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.module = module
        self.signature = signature
        self.calling = calling
        self.name = name
        self._arguments = dict(sorted((arguments or {}).items()))
        self._written = set[str]()

    @property
    def digest(self) -> str:
        """Sixteen hex digits of everything it is made of, and of how it is called.

        Weights, buffers, attributes of any kind, hooks, and the code of methods and functions with their constants,
        closures, defaults and the globals they look at. What the module writes down while it runs is left out. Where a
        part does not say what it holds (`doubts`), forecasts of 32 fixed windows speak for it.
        """
        details = [self.calling.digest, self.signature.digest]
        return teacher_digest(self.parts(), details, self.name, lambda: self.forecast(probe_batch(self.signature)))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the digest cannot be sure of, each with its place; none for a teacher that has a name."""
        return () if self.name is not None else self.parts(light=True).sentences()

    @property
    def takes_raw(self) -> bool:
        """Whether the module takes and gives raw values; without a scaler these are what is "scaled", too."""
        return self.calling.units == "raw" or self.signature.is_raw

    def parts(self, *, light: bool = False) -> Inventory:
        """What module and arguments are made of, in evaluation mode, less what a call changes; see `inventory`."""
        with resting(self.module):
            return inventory({"module": self.module, "arguments": self._arguments}, light=light, left_out=self._written)

    def check(self, task: Task) -> None:
        """Refuse a task that scales otherwise than the one it was wrapped for."""
        if not self.signature.scales_like(task.signature):
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
        raw = self.takes_raw
        # Values far from zero keep their digits in float64 only, as far as the module takes them.
        kind = torch.float64 if raw and signature.offset else torch.float32
        mean, scale = (torch.tensor(numbers, dtype=kind, device=home) for numbers in (signature.mean, signature.scale))
        offset = torch.tensor(signature.offset or (0.0,), dtype=kind, device=home)
        values = context[:, -signature.context :]
        values = values.to(kind) * scale + mean + offset if raw else values
        if signature.is_raw:  # covariates are raw then, too
            future, past = _raised(future, signature.future_offset), _raised(past, signature.past_offset)
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
            forecast = read(forecast, self.calling.output_axes, BATCH, {**sizes, "time": shape[1]})
            forecast = forecast.to(home, kind, copy=True)  # the module may use its memory again
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
        # Code from elsewhere may write on what it is given: it gets copies, the module and every function its own.
        arguments = {
            name: own_copy(given(own_copy(known)) if _makes(given) else given)
            for name, given in self._arguments.items()
        }
        args = [write(values, BATCH, calling.input_axes).clone()]
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


def _raised(values: Tensor | None, offset: tuple[float, ...]) -> Tensor | None:
    """Values to which an offset is added in float64, as far from zero as they were."""
    return values if values is None or not offset else values.double() + values.new_tensor(offset, dtype=torch.float64)


def wrap(
    module: nn.Module | torch.export.ExportedProgram,
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
    name: str | None = None,
) -> WrappedTeacher:
    """Let any torch module teach: say how it is called, where its forecast is, and which submodules show something.

    The module is called a few times on a few windows, so that a wrong name, axis or path fails here and not in the
    middle of a distillation, and so does a module whose forecast of a window depends on the windows beside it. It is
    called in evaluation mode (if it has one) and without gradients, on copies of what it reads, and left in the mode
    it was in; hooks are gone after every call. Use it for a network of your own or of another library. For a model that
    runs elsewhere, write its forecasts into a table (`td.teachers.read_forecasts`).

    Args:
        module: A torch module that has learnt to forecast; a TorchScript module or a program of `torch.export` will do.
        task: What it forecasts; a signature will do, and noise is then what it is tried on.
        input: Name of the argument that takes the context; None: the first one.
        input_axes: How it wants the context: a permutation of "batch", "time", "channel". Two that are flattened into
            one axis are "batch*channel" (the batch moves slowest), an axis of one entry is "1".
        arguments: Further keyword arguments. A function among them is called with the batch (context in the module's
            units, covariates, no target) and gives the value.
        output: Where in the output the forecast is: a key, a position, an attribute, or a path of them joined by dots.
        output_axes: The forecast's axes, as `input_axes`.
        units: Whether the module takes and gives the task's scaled values or raw ones; they are the same where the task
            has no scaler.
        context: Steps that it takes, if fewer than the task's: the last ones.
        hidden: Submodules whose output is a hidden state, by path or, where axes or place differ from the default, as
            `td.teachers.Tap`.
        attention: Submodules whose output is an attention map, likewise; torch's own attention layers count.
        name: What you call exactly this version of the teacher. It becomes part of the digest, and is needed where
            something inside does not say what it holds (`doubts`): forecasts are then kept on disk under your word.

    Returns:
        A teacher for `td.distill` and `td.prune`.

    Raises:
        ConfigError: names of axes that cannot be, or paths of submodules that do not exist, with the nearest that do.
        ShapeError: the module cannot be called so, or what it gives has other axes; the shapes seen are shown.
        UnsupportedError: raw values are asked for of a task with a scaler per item, or the module forecasts a window
            differently each time, or differently in other company.

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
    if isinstance(module, torch.export.ExportedProgram):
        module = module.module()
    if not isinstance(module, nn.Module):
        raise ConfigError(must("module", "be a torch.nn.Module", type(module).__name__, "Wrap functions in one"))
    check_name(name)
    signature = task.signature if isinstance(task, Task) else task
    if context is not None and not 1 <= context <= signature.context:
        raise ConfigError(must("context", f"be from 1 to the task's {signature.context} steps", context, "Shorten it"))
    own = signature.replace(context=context or signature.context)
    taps = [[Tap(path=tap) if isinstance(tap, str) else tap for tap in given] for given in (hidden, attention)]
    _check(module, own, units, tuple(input_axes), tuple(output_axes), taps)
    if units == "raw" or own.is_raw:
        _check_digits(module, own, task)
    calling = Calling(
        input=input, input_axes=tuple(input_axes), output=output, output_axes=tuple(output_axes), units=units,
        hidden=tuple(taps[0]), attention=tuple(taps[1]),
    )  # fmt: skip
    teacher = WrappedTeacher(module, own, calling, arguments, name)
    teacher._written = try_out(teacher, task)
    return teacher


def _check_digits(module: nn.Module, signature: Signature, task: Task | Signature) -> None:
    """Refuse raw values so far from zero that the module's own numbers would lose what moves in them."""
    weights = next((weight for weight in module.parameters() if weight.is_floating_point()), None)
    if not signature.offset or weights is None or weights.dtype == torch.float64:
        return
    deviation = np.asarray(signature.scale)
    if signature.is_raw:
        if not isinstance(task, Task):
            return  # nothing is known of deviations
        windows = task.train
        context = windows.batch(torch.linspace(0, len(windows) - 1, min(len(windows), 64)).long()).context
        deviation = context.double().numpy().std(axis=(0, 1))
        deviation[deviation == 0] = 1.0
    step = np.spacing(np.abs(signature.centre()).astype(np.float32)) / deviation
    if (step > COARSE).any():
        name = signature.channels[int(step.argmax())]
        raise UnsupportedError(
            f'units="raw" must be left to a module in float64 where values are so far from zero: one step of '
            f"{str(weights.dtype).removeprefix('torch.')} is {step.max():.2g} deviations of channel {name!r}. Give "
            'module.double(), or units="scaled" and scaler="standard" for a module trained on scaled values.'
        )


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


def _makes(given: Any) -> bool:
    """Whether an argument is a function of the batch."""
    return callable(given) and not isinstance(given, nn.Module | type)
