"""Looking into a module while it runs: the only place in the package where hooks are set, and taken away again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from tsdistill.errors import must, nearest
from tsdistill.spec import Spec
from tsdistill.teachers.axes import MisfitError
from tsdistill.teachers.lending import own_copy


class Tap(Spec):
    """Where a module shows a hidden state or an attention map.

    Args:
        path: Dotted name of a submodule whose output is meant, as in `module.named_modules()`; a `*` stands for any
            name between two dots, so that "encoder.layers.*" means every layer, in the module's order. Of a submodule
            that runs several times in one forecast, the first run counts.
        axes: Names of the output's axes: "batch", "channel", "token", "width" for hidden states, "batch", "channel",
            "head", "query", "key" for attention. Two that are flattened into one are "batch*channel", an axis of one
            entry is "1"; a channel axis may be absent where channels are mixed. None: all of them, in this order.
        output: Where in the output the tensor is: a key, a position, an attribute, or a path of them joined by dots.
            None: the output is the tensor.

    Example:
        >>> Tap(path="layers.*", axes=("batch*channel", "token", "width")).output is None
        True
    """

    path: str
    axes: tuple[str, ...] | None = None
    output: int | str | None = None


def found_at(module: nn.Module, path: str) -> list[str]:
    """Full names of the submodules that a path with stars means, in the module's order."""
    pattern = re.compile(re.escape(path).replace(r"\*", r"[^.]+"))
    return [name for name, _ in module.named_modules(remove_duplicate=False) if pattern.fullmatch(name)]


def path_problem(module: nn.Module, path: str) -> str | None:
    """What is wrong with a path, with the nearest names that there are; None if it leads somewhere."""
    if found_at(module, path):
        return None
    known = [name for name, _ in module.named_modules() if name]
    return must("path", f"name a submodule of {type(module).__name__}", path, nearest(path, known[:60]))


def picked(value: Any, where: int | str | None) -> torch.Tensor:
    """The tensor at a place in a module's output.

    Raises:
        MisfitError: there is none; the message shows what there is.
    """
    part_value = value
    for part in () if where in (None, "") else str(where).split("."):
        if isinstance(part_value, Mapping) and part in part_value:
            part_value = part_value[part]
        elif (
            isinstance(part_value, Sequence)
            and re.fullmatch(r"-?\d+", part)
            and -len(part_value) <= int(part) < len(part_value)
        ):
            part_value = part_value[int(part)]
        elif not isinstance(part_value, torch.Tensor) and hasattr(part_value, part):
            part_value = getattr(part_value, part)
        else:
            raise MisfitError(f"has no {where!r}: it is {described(value)}")
    if not isinstance(part_value, torch.Tensor):
        at = "" if where is None else f" at {where!r}"
        raise MisfitError(f"has no tensor{at}: it is {described(value)}")
    return part_value


def described(value: Any) -> str:
    """The shapes in an output: '(5, 7)', 'a tuple of (5, 7) and None'."""
    if isinstance(value, torch.Tensor):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {described(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of " + " and ".join(described(entry) for entry in value)
    return repr(value) if value is None or isinstance(value, int | float | str) else type(value).__name__


@contextmanager
def watched(module: nn.Module, names: Sequence[str], *, attention: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """While it lasts, what the named submodules give out is put into the dictionary; no hook stays, whatever happens.

    torch's own attention layers leave their weights out by default; those named in `attention` get the argument for it.
    """
    seen: dict[str, Any] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if name not in seen:  # as it is now: a later layer may write on it
                seen[name] = own_copy(output)

        return hook

    def ask(_: nn.Module, args: Any, keywords: dict[str, Any]) -> Any:
        return args, {**keywords, "need_weights": True, "average_attn_weights": False}

    try:
        for name in dict.fromkeys([*names, *attention]):
            submodule = module.get_submodule(name)
            handles.append(submodule.register_forward_hook(keep(name)))
            if name in attention and isinstance(submodule, nn.MultiheadAttention):
                handles.append(submodule.register_forward_pre_hook(ask, with_kwargs=True))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients while it lasts; every submodule then is in the mode it was in.

    A module that cannot switch (a program of torch.export is written for one mode) stays as it is.
    """
    modes = {submodule: getattr(submodule, "training", None) for submodule in module.modules()}
    try:
        module.eval()
    except Exception:  # it or a part of it has no modes: switched are those that have
        for submodule in modes:
            _switch(submodule, False)
    try:
        with torch.no_grad():
            yield
    finally:
        for submodule, mode in modes.items():
            if mode is not None and getattr(submodule, "training", None) != mode:
                _switch(submodule, mode)


def _switch(module: nn.Module, mode: bool) -> None:
    with suppress(AttributeError, RuntimeError, NotImplementedError):  # of a frozen program
        module.training = mode
