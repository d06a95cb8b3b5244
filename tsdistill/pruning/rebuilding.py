"""Cutting: shrink the config, build afresh, copy the slices that stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tsdistill.errors import ConfigError
from tsdistill.models.base import Forecaster, WidthGroup


def rebuild(model: Forecaster, keep: Mapping[str, Tensor]) -> Forecaster:
    """A new, smaller forecaster of the same class that holds the kept units only.

    Args:
        model: Left as it is.
        keep: Per width group name, the units that stay, (unit,), ascending. Groups not named stay whole.

    Returns:
        A forecaster whose config says the new widths; lineage carries over, a control does not.
    """
    groups = {group.name: group for group in model.width_groups()}
    unknown = sorted(set(keep) - set(groups))
    if unknown:
        raise ConfigError(
            f"`keep` must name width groups of {type(model).__name__}, got {unknown}. Known: {list(groups)}."
        )
    config = model.config
    for name, units in keep.items():
        config = config.resized(groups[name].field, len(units))
    smaller = config.build(model.signature)
    tensors = dict(model.state_dict())
    for name, units in keep.items():
        _cut(tensors, groups[name], units)
    smaller.load_state_dict(tensors)
    smaller.lineage = model.lineage
    return smaller.eval()


def _cut(tensors: dict[str, Tensor], group: WidthGroup, units: Tensor) -> None:
    """Take a group's slices down to `units` in every tensor it reaches."""
    for each in group.slices:
        tensor = tensors[each.parameter]
        inside = each.positions(units, group.size).flatten()
        # What lies before the group's entries along this axis belongs to others and stays.
        positions = torch.cat([torch.arange(each.offset), inside])
        tensors[each.parameter] = tensor.index_select(each.axis, positions.to(tensor.device))
