"""Widths that a config takes once or once per layer, and the groups that pruning cuts models by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tsdistill.errors import ConfigError, listed, must
from tsdistill.models.base import ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.spec.limits import MAX_DEPTH, MAX_WIDTH
from tsdistill.spec.strict import whole


class TransformerShape(Protocol):
    """Sizes of a stack of `TransformerBlock`s, as a config of such a model names them."""

    @property
    def depth(self) -> int:
        """Number of blocks."""

    @property
    def width(self) -> int:
        """Size of a token's vector."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each block."""

    @property
    def head_width(self) -> int:
        """Size of a head."""

    @property
    def feedforward(self) -> tuple[int, ...]:
        """Inner size of each block's feed-forward pair."""


def spread(config: type[ModelConfig], values: Any, **widths: int | Callable[[int], int]) -> Any:
    """What a config is made from, with a size for every layer written down in each of the fields `widths`.

    Each is given with its default, a number or a function of the residual `width`. Values that are wrong in other ways
    are left to the fields' own rules, which have better messages.
    """
    if not isinstance(values, dict):
        return values
    fields = config.model_fields
    sizes = {name: whole(values.get(name, fields[name].default)) for name in ("depth", "width") if name in fields}
    limits = {"depth": MAX_DEPTH, "width": MAX_WIDTH}
    if any(type(size) is not int or not 1 <= size <= limits[name] for name, size in sizes.items()):
        return {**dict.fromkeys(widths, (1,)), **values}
    filled = dict(values)
    problems = []
    for name, default in widths.items():
        value = values.get(name, default(sizes["width"]) if callable(default) else default)
        try:
            filled[name] = per_layer(name, value, sizes["depth"])
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(listed(problems, config.__name__))
    return filled


def with_head_width(config: type[ModelConfig], values: Any) -> Any:
    """The same with `head_width` written down: a first block's share of `width`, unless it is given."""
    if not isinstance(values, dict) or values.get("head_width"):
        return values
    width = whole(values.get("width", config.model_fields["width"].default))
    heads = values.get("heads")
    if not isinstance(width, int) or not 1 <= width <= MAX_WIDTH:
        return {**values, "head_width": 1}  # the rule of `width` raises the error
    if not isinstance(heads, tuple) or not isinstance(next(iter(heads), None), int):
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
            kind="heads",
        )
        for depth, size in enumerate(heads)
    )


def layer_group(depth: int, *, writers: tuple[str, ...], **per_unit: tuple[int, ...]) -> WidthGroup:
    """Whole residual blocks of a stack `blocks`: a block whose `writers` are zero adds nothing.

    `per_unit` gives the config's fields that hold an entry for every block.
    """
    parts = [Slice(f"blocks.{{}}.{name}.{part}", None) for name in writers for part in ("weight", "bias")]
    return WidthGroup(
        name="layers",
        size=depth,
        field=("depth", None),
        incoming=(),
        outgoing=tuple(parts),
        kind="layers",
        stack="blocks",
        per_unit=tuple(per_unit.items()),
    )


def width_group(
    size: int,
    depth: int,
    *,
    sources: tuple[Slice, ...],
    norms: tuple[str, ...] = (),
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    readers: tuple[Slice, ...],
) -> WidthGroup:
    """The entries of the vector that residual blocks in `blocks` read and add to.

    Args:
        size: Its width.
        depth: Number of blocks.
        sources: What makes it, before the blocks.
        norms: Layer norms in a block.
        reads: Layers in a block whose columns read it.
        writes: Layers in a block whose rows add to it.
        readers: What reads it behind the blocks and the last norm.
    """
    blocks = [f"blocks.{place}" for place in range(depth)]
    made = [f"{block}.{name}.{part}" for block in blocks for name in (*norms, *writes) for part in ("weight", "bias")]
    made += ["last_norm.weight", "last_norm.bias"]
    return WidthGroup(
        name="width",
        size=size,
        field=("width", None),
        incoming=(*sources, *(Slice(name, 0) for name in made)),
        outgoing=(*(Slice(f"{block}.{name}.weight", 1) for block in blocks for name in reads), *readers),
        kind="width",
        exact=False,
    )


def context_group(
    size: int,
    *outgoing: Slice | None,
    steps: int = 1,
    minimum: int = 1,
    incoming: tuple[Slice, ...] = (),
) -> WidthGroup:
    """The oldest `steps` of the context, `size` times over; None stands for a reader that a model does not have."""
    return WidthGroup(
        name="context",
        size=size,
        field=("context", None),
        incoming=incoming,
        outgoing=tuple(slice_ for slice_ in outgoing if slice_ is not None),
        kind="context",
        exact=False,
        minimum=minimum,
        steps=steps,
    )


def transformer_groups(
    config: TransformerShape, sources: tuple[Slice, ...], readers: tuple[Slice, ...]
) -> tuple[WidthGroup, ...]:
    """Heads, feed-forward width, residual width and blocks of a stack of `TransformerBlock`s in `blocks`.

    Args:
        config: The model's.
        sources: What makes the tokens.
        readers: What reads them in the end.
    """
    heads = config.heads
    feedforward = config.feedforward
    depth = config.depth
    return (
        *head_groups(heads, config.head_width),
        *inner_groups(feedforward, field="feedforward", group="block{}.feedforward", module="blocks.{}"),
        width_group(
            config.width,
            depth,
            sources=sources,
            norms=("attention_norm", "feedforward_norm"),
            reads=("attention.query", "attention.key", "attention.value", "expand"),
            writes=("attention.out", "contract"),
            readers=readers,
        ),
        layer_group(depth, writers=("attention.out", "contract"), heads=heads, feedforward=feedforward),
    )


def columns_of_steps(parameter: str, layer: object | None, *, n_steps: int, size: int, steps: int = 1) -> Slice | None:
    """Columns of a linear layer that reads `n_steps` single steps; None where there is no such layer."""
    return None if layer is None else Slice(parameter, 1, block=steps, rest=n_steps - size * steps)


def per_layer(name: str, value: Any, depth: int) -> tuple[int, ...]:
    """A width for every layer: one number is repeated, a sequence must have `depth` entries."""
    widths = tuple(value) if isinstance(value, list | tuple) else (value,) * depth
    whole = all(isinstance(width, int) and not isinstance(width, bool) for width in widths)
    if not whole or len(widths) != depth or any(width < 1 for width in widths):
        rule = f"be one whole number above 0 or {depth} of them (one per layer)"
        raise ConfigError(must(name, rule, value, "Give one number to use it in every layer"))
    return widths
