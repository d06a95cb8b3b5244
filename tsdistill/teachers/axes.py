"""Named axes: from the order of a foreign module's tensors to that of tsdistill, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

ONE = "1"
"""Name of an axis that has one entry and means nothing."""


class MisfitError(Exception):
    """A tensor does not have the axes that were named for it; the message ends a sentence that begins with its name."""


def axis_problem(name: str, axes: Sequence[str], known: Sequence[str], needed: Sequence[str]) -> str | None:
    """What is wrong with a naming of axes, or None."""
    parts = [part for axis in axes for part in axis.split("*") if axis != ONE]
    unknown = sorted({part for part in parts if part not in known})
    lacking = [part for part in needed if part not in parts]
    if isinstance(axes, str) or unknown or lacking or len(set(parts)) < len(parts):
        rule = f"name each of {', '.join(needed)} once" + (f" (and may name {', '.join(known)})" if unknown else "")
        return (
            f"`{name}` must {rule}, got {name}={axes!r}. Name them in order; two that are flattened into one axis are "
            f'"batch*channel", an axis of one entry is "{ONE}".'
        )
    return None


def read(tensor: Tensor, axes: Sequence[str], wanted: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
    """A tensor with named axes in the order `wanted`; an axis that it does not have gets one entry.

    Args:
        tensor: Any tensor.
        axes: Its axes; "batch*channel" is one axis that holds both, the batch moving slowest.
        wanted: The axes of the result.
        sizes: Entries of the axes that are known.

    Raises:
        MisfitError: the axes are not those of the tensor.
    """
    if tensor.ndim != len(axes):
        raise MisfitError(f"has {tensor.ndim} axes, {tuple(tensor.shape)}, where {len(axes)} are named: {list(axes)}")
    shape = []
    names = []
    for axis, size in zip(axes, tensor.shape, strict=True):
        parts = [] if axis == ONE else axis.split("*")
        entries = [sizes.get(part, -1) for part in parts]
        rest = math.prod(size_ for size_ in entries if size_ > 0)
        if entries.count(-1) == 1 and size % rest == 0:
            entries[entries.index(-1)] = size // rest
        if math.prod(entries) != size or -1 in entries:
            expected = " * ".join(str(sizes.get(part, "?")) for part in parts) or "1"
            raise MisfitError(
                f"is {tuple(tensor.shape)}, where the axis {axis!r} of {list(axes)} should have {expected}"
            )
        shape += entries
        names += parts
    named = tensor.reshape(shape)
    for name in wanted:
        if name not in names:
            named = named.unsqueeze(-1)
            names = [*names, name]
    return named.permute([names.index(name) for name in wanted])


def write(tensor: Tensor, have: Sequence[str], axes: Sequence[str]) -> Tensor:
    """The other way round: a tensor with the axes `have` as a module wants it.

    Raises:
        MisfitError: an axis that `axes` leaves out has more than one entry.
    """
    parts = [part for axis in axes for part in axis.split("*") if axis != ONE]
    names = list(have)
    for name in have:
        if name not in parts:
            if (size := tensor.shape[names.index(name)]) != 1:
                raise MisfitError(f"has {size} entries of {name!r}, an axis that {list(axes)} does not name")
            tensor = tensor.squeeze(names.index(name))
            names.remove(name)
    tensor = tensor.permute([names.index(part) for part in parts])
    sizes = dict(zip(parts, tensor.shape, strict=True))
    return tensor.reshape([1 if axis == ONE else math.prod(sizes[part] for part in axis.split("*")) for axis in axes])
