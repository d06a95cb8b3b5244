"""What can be cut out of a forecaster: groups of slices of parameters that go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from tsdistill.spec import Spec

if TYPE_CHECKING:
    from tsdistill.data.signature import Signature

C = TypeVar("C", bound=Spec)
"""The config of some architecture."""

Kind = Literal["units", "heads", "width", "layers", "context"]
"""What the units of a group are: hidden units, attention heads, entries of a residual vector, whole blocks, or the
oldest steps of the context."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Slice:
    """Where the units of a width group sit along one axis of one parameter.

    The axis holds `repeat` runs of `size * block` entries after `offset` others and before `rest` more: unit u of run r
    occupies `offset + r * size * block + u * block` and the `block - 1` entries after it. LSTM gates are `repeat=4`,
    those of a GRU `repeat=3`; the rows of an attention head are `block=head_width`.

    With `axis=None` every unit has a parameter of its own, the one that `parameter` names with the unit's number in
    the place of {}.
    """

    parameter: str
    axis: int | None
    repeat: int = 1
    block: int = 1
    offset: int = 0
    rest: int = 0

    def positions(self, units: Tensor, size: int) -> Tensor:
        """Positions along the axis that belong to `units` of a group of `size`, (repeat, unit, block)."""
        runs = torch.arange(self.repeat)[:, None, None] * size * self.block
        return self.offset + runs + units[None, :, None] * self.block + torch.arange(self.block)[None, None, :]

    def names(self, size: int) -> Iterator[str]:
        """The parameters it reaches into."""
        return iter([self.parameter] if self.axis is not None else [self.parameter.format(u) for u in range(size)])

    def sums(self, values: Mapping[str, Tensor], size: int) -> Tensor:
        """Sum over each unit's entries of `values`, which are by parameter and shaped like them: (unit,), float64."""
        if self.axis is None:
            return torch.stack([values[name].double().sum() for name in self.names(size)])
        tensor = values[self.parameter].double().movedim(self.axis, 0)
        entries = tensor.reshape(len(tensor), -1).sum(dim=1)
        return entries[self.positions(torch.arange(size), size)].sum(dim=(0, 2))

    def silence(self, parameters: Mapping[str, Tensor], units: Tensor, size: int) -> None:
        """Set the entries of `units` to zero, in place."""
        with torch.no_grad():
            if self.axis is None:
                for unit in units.tolist():
                    parameters[self.parameter.format(unit)].zero_()
            else:
                gone = self.positions(units, size).flatten()
                parameters[self.parameter].index_fill_(self.axis, gone.to(parameters[self.parameter].device), 0.0)

    def cut(self, tensor: Tensor, units: Tensor, size: int) -> Tensor:
        """The tensor with `units` left of the group; what belongs to others stays."""
        assert self.axis is not None  # blocks are taken whole, see WidthGroup.cut
        end = self.offset + self.repeat * size * self.block
        inside = self.positions(units, size).flatten()
        kept = torch.cat([torch.arange(self.offset), inside, torch.arange(end, tensor.shape[self.axis])])
        return tensor.index_select(self.axis, kept.to(tensor.device))


@dataclass(frozen=True)
class WidthGroup:
    """Slices of parameters that must be cut together.

    Args:
        name: Such as "layer1.units".
        size: How many units there are now.
        field: Where the size stands in the config: a field name, and the position in it if it is a tuple. A group of
            kind "context" shortens the signature's context instead.
        incoming: Slices that produce the units (their rows, biases).
        outgoing: Slices that consume them; a unit whose outgoing slices are all zero can go without a trace.
        kind: What the units are. Of a context only the oldest units can go: what is left must end at the last step.
        exact: Whether that holds to the last bit but rounding: not where a norm looks at the units together, nor for
            a context, whose mean and spread are those of fewer steps.
        minimum: Units that have to stay.
        pinned: Units that have to stay whatever they are worth, because others do not fit together without them.
        steps: Past steps in a unit of kind "context".
        stack: Of kind "layers", the module list whose entries are the units.
        per_unit: Of kind "layers", config fields that hold an entry for each, and those entries.
        inside: Of kind "layers", what the names of groups within a block begin with, {} being its number from 1 on.
    """

    name: str
    size: int
    field: tuple[str, int | None]
    incoming: tuple[Slice, ...]
    outgoing: tuple[Slice, ...]
    kind: Kind = "units"
    exact: bool = True
    minimum: int = 1
    pinned: tuple[int, ...] = ()
    steps: int = 1
    stack: str = ""
    per_unit: tuple[tuple[str, tuple[int, ...]], ...] = ()
    inside: str = "block{}"

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All slices of the group."""
        return self.incoming + self.outgoing

    @property
    def is_stack(self) -> bool:
        """Whether its units are whole blocks, so that groups inside of them go along."""
        return self.kind == "layers"

    @property
    def ordered(self) -> bool:
        """Whether units can go from the first one on only."""
        return self.kind == "context"

    def silence(self, parameters: Mapping[str, Tensor], units: Tensor) -> None:
        """Set all that reads `units` to zero, in place."""
        for slice_ in self.outgoing:
            slice_.silence(parameters, units, self.size)

    def shrink(self, config: C, signature: Signature, units: Tensor) -> tuple[C, Signature]:
        """Config and signature of a model that has these `units` only."""
        if self.ordered:
            return config, signature.replace(context=signature.context - (self.size - len(units)) * self.steps)
        if self.is_stack:
            entries = {name: tuple(values[unit] for unit in units.tolist()) for name, values in self.per_unit}
            return config.replace(**{self.field[0]: len(units)} | entries), signature
        name, position = self.field
        size: Any = len(units)
        if position is not None:
            widths = list(getattr(config, name))
            widths[position] = size
            size = tuple(widths)
        return config.replace(**{name: size}), signature

    def follow(self, name: str, units: Tensor) -> str | None:
        """What another group is called once only these `units` are left; None if it goes with a block."""
        if not self.is_stack:
            return name
        begins, _, rest = name.partition(".")
        numbers = {self.inside.format(unit + 1): unit for unit in range(self.size)}
        if not rest or begins not in numbers:
            return name
        left = units.tolist()
        return f"{self.inside.format(left.index(numbers[begins]) + 1)}.{rest}" if numbers[begins] in left else None

    def cut(self, tensors: Mapping[str, Tensor], units: Tensor) -> dict[str, Tensor]:
        """A state with `units` left of this group."""
        if not self.is_stack:
            kept = dict(tensors)
            for slice_ in self.slices:
                kept[slice_.parameter] = slice_.cut(kept[slice_.parameter], units, self.size)
            return kept
        places = {f"{self.stack}.{unit}.": f"{self.stack}.{place}." for place, unit in enumerate(units.tolist())}
        kept = {}
        for name, tensor in tensors.items():
            before = next((old for old in places if name.startswith(old)), None)
            if before is not None:
                kept[places[before] + name.removeprefix(before)] = tensor
            elif not name.startswith(f"{self.stack}."):
                kept[name] = tensor
        return kept
