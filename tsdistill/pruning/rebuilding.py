"""Cutting: shrink config and signature, build afresh, copy the slices that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from tsdistill.errors import ConfigError, listed
from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup

WAVES = (("layers",), ("units", "heads"), ("width",), ("context",))
"""Kinds of groups that are cut one after the other, because they share axes or rename each other's parameters. Layers
come first: what is left has to fit together while all its sizes are those of the whole."""


Mend = Callable[[Forecaster, Mapping[WidthGroup, Tensor]], Forecaster]
"""(model, units that stay of some of its groups) -> a model to cut in its place."""


def rebuild(model: Forecaster, keep: Mapping[str, Iterable[int] | Tensor], *, mend: Mend | None = None) -> Forecaster:
    """A new, smaller forecaster of the same class that holds the kept units only.

    Args:
        model: Left as it is.
        keep: Per width group name, the units that stay, (unit,), ascending. Groups not named stay whole.
        mend: Asked before every cut for the model that is cut.

    Returns:
        A forecaster whose config and signature have the new sizes; lineage carries over, a control does not.

    Raises:
        ConfigError: a name is of no group, or units are none, unsorted, not there, or of a context not the last ones.
    """
    units = {name: torch.as_tensor(list(kept), dtype=torch.long) for name, kept in keep.items()}
    groups = {group.name: group for group in model.width_groups()}
    _check(groups, units, type(model).__name__)
    smaller = model
    for wave in WAVES:
        now = [group for group in smaller.width_groups() if group.kind in wave and group.name in units]
        if any(len(units[group.name]) < group.size for group in now):
            left = {group: units[group.name] for group in now}
            smaller = _cut(smaller if mend is None else mend(smaller, left), left)
            for group, stay in left.items():
                named = {group.follow(name, stay): kept for name, kept in units.items()}
                units = {name: kept for name, kept in named.items() if name is not None}
    if smaller is model:
        smaller = _cut(model, {})
    smaller.lineage = model.lineage
    return smaller.eval()


def _cut(model: Forecaster, keep: Mapping[WidthGroup, Tensor]) -> Forecaster:
    """A model without some units of groups that do not get in each other's way."""
    config = model.config
    signature = model.signature
    tensors = dict(model.state_dict())
    for group, units in keep.items():
        config, signature = group.shrink(config, signature, units)
        tensors = group.cut(tensors, units)
    smaller = config.build(signature)
    smaller.load_state_dict(tensors)
    return smaller


def _check(groups: Mapping[str, WidthGroup], keep: Mapping[str, Tensor], model: str) -> None:
    problems = []
    unknown = sorted(set(keep) - set(groups))
    if unknown:
        problems.append(f"`keep` must name width groups of {model}, got {unknown}. Known: {list(groups)}.")
    for name in sorted(set(keep) & set(groups)):
        size = groups[name].size
        minimum = groups[name].minimum
        units = keep[name]
        inside = (
            len(units) >= minimum and bool((units.diff() > 0).all()) and 0 <= int(units[0]) <= int(units[-1]) < size
        )
        if not inside:
            rule = f"hold {minimum} or more of the units 0 to {size - 1} of {name}, ascending"
            problems.append(f"`keep` must {rule}, got {units.tolist()}. Sort them and name each once.")
        elif not set(groups[name].pinned) <= set(units.tolist()):
            rule = f"hold the units {list(groups[name].pinned)} of {name}, which others do not fit together without"
            problems.append(f"`keep` must {rule}, got {units.tolist()}. Drop others.")
        elif groups[name].ordered and int(units[0]) + len(units) != size:
            problems.append(
                f"`keep` must hold the last units of {name}, without gaps, got {units.tolist()} of {size}. Drop the "
                "oldest steps only."
            )
    if problems:
        raise ConfigError(listed(problems, "keep"))
