"""Widths that a config takes once or once per layer, and the groups that pruning cuts them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tsdistill.errors import ConfigError, listed
from tsdistill.models.base import ModelConfig, Slice, WidthGroup, per_layer


def spread(config: type[ModelConfig], values: Any, **widths: int | Callable[[int], int]) -> Any:
    """What a config is made from, with a size for every layer written down in each of the fields `widths`.

    Each is given with its default, a number or a function of the residual `width`. Values that are wrong in other ways
    are left to the fields' own rules, which say it better.
    """
    if not isinstance(values, dict):
        return values
    fields = config.model_fields
    sizes = {name: values.get(name, fields[name].default) for name in ("depth", "width") if name in fields}
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes.values()):
        return values
    found, problems = dict(values), []
    for name, default in widths.items():
        value = values.get(name, default(sizes["width"]) if callable(default) else default)
        try:
            found[name] = per_layer(name, value, sizes["depth"])
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(listed(problems, config.__name__))
    return found


def with_head_width(config: type[ModelConfig], values: Any) -> Any:
    """The same with `head_width` written down: a first block's share of `width`, unless it is given."""
    if not isinstance(values, dict) or values.get("head_width"):
        return values
    width, heads = values.get("width", config.model_fields["width"].default), values.get("heads")
    if not isinstance(width, int) or not isinstance(heads, tuple) or not isinstance(next(iter(heads), None), int):
        return values
    return {**values, "head_width": max(width // max(heads[0], 1), 1)}


def inner_groups(
    sizes: Sequence[int], *, field: str, group: str, module: str, between: tuple[str, ...] = ()
) -> tuple[WidthGroup, ...]:
    """The inner width of every block's pair of layers, `expand` and `contract`.

    Args:
        sizes: Inner width of each block.
        field: The config's field that holds them.
        group: Name of a group, with the block's number for {}, such as "block{}.hidden".
        module: Path of the pair, with the block's position for {}, such as "blocks.{}".
        between: Parameters between the two that have one entry of their first axis per unit.
    """
    return tuple(
        WidthGroup(
            name=group.format(depth + 1),
            size=size,
            field=(field, depth),
            incoming=tuple(
                Slice(f"{module.format(depth)}.{name}", 0) for name in ("expand.weight", "expand.bias", *between)
            ),
            outgoing=(Slice(f"{module.format(depth)}.contract.weight", 1),),
        )
        for depth, size in enumerate(sizes)
    )


def head_groups(heads: Sequence[int], head_width: int) -> tuple[WidthGroup, ...]:
    """The attention heads of every `TransformerBlock` in `blocks`."""
    return tuple(
        WidthGroup(
            name=f"block{depth + 1}.heads",
            size=size,
            field=("heads", depth),
            incoming=tuple(
                Slice(f"blocks.{depth}.attention.{name}.{part}", 0, block=head_width)
                for name in ("query", "key", "value")
                for part in ("weight", "bias")
            ),
            outgoing=(Slice(f"blocks.{depth}.attention.out.weight", 1, block=head_width),),
        )
        for depth, size in enumerate(heads)
    )
