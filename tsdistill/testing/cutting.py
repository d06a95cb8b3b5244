"""Whether a model can be cut by its width groups."""

from __future__ import annotations

import torch

from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning import rebuild
from tsdistill.testing.rules import ContractError, built, near, require, shaken
from tsdistill.testing.toys import BATCH, CHANNELS, HORIZON, toy_batch


def check_pruning(model: ModelConfig | Forecaster, *, seed: int = 0) -> None:
    """Removing units whose outgoing weights are zero changes no forecast, and sizes really shrink.

    Units of all exact groups go together, and once more from what is left. Of the others (a residual width behind a
    norm, a context) it must hold that what is left is a smaller forecaster that sees its own context only, with the
    weights of the units that stay.

    Raises:
        ContractError: a width group misses a slice, names a wrong one, or the rebuilt model differs.
    """
    for forecaster in built(model):
        whole = shaken(forecaster).eval()
        for group in whole.width_groups():
            if not group.exact:
                _check_loose_cut(whole, group, seed)
        _check_cut(_check_cut(whole, seed), seed + 1)


def _check_cut(model: Forecaster, seed: int) -> Forecaster:
    """Remove random silent units of all exact groups; what is left."""
    keep: dict[str, torch.Tensor] = {}
    parameters = dict(model.named_parameters())
    groups = [group for group in model.width_groups() if group.exact]
    for group in groups:
        keep[group.name], gone = _drawn(group, seed)
        group.silence(parameters, gone)
    smaller = rebuild(model, keep)
    batch = toy_batch(seed, model.signature)
    seen = (batch.context, batch.future, batch.past)
    with torch.no_grad():
        near(smaller(*seen), model(*seen), f"removing silent units changed the forecast (kept {_counts(keep)})")
    _check_sizes(model, smaller, keep)
    return smaller


def _check_loose_cut(model: Forecaster, group: WidthGroup, seed: int) -> None:
    """Remove random units of one group: smaller, of the right shape, and blind to what it gave up."""
    kept, _ = _drawn(group, seed)
    smaller = rebuild(model, {group.name: kept})
    batch = toy_batch(seed, model.signature)
    with torch.no_grad():
        forecast = smaller(batch.context, batch.future, batch.past)
        require(tuple(forecast.shape) == (BATCH, HORIZON, CHANNELS), f"forecast has shape {tuple(forecast.shape)}")
        steps = (smaller.context, smaller.context + HORIZON, smaller.context)
        recent = (
            None if values is None else values[:, -n_steps:]
            for values, n_steps in zip((batch.context, batch.future, batch.past), steps, strict=True)
        )
        near(
            smaller(*recent),
            forecast,
            f"without some of {group.name}, the forecast depends on steps before its context",
        )
    _check_sizes(model, smaller, {group.name: kept})
    check_width_groups(smaller)
    state, left = model.state_dict(), smaller.state_dict()
    for slice_ in group.slices:
        # What stays is copied, not drawn anew: the norm of the kept entries is that of the new tensor.
        if slice_.axis is None:
            squares = [{name: x.double().square() for name, x in tensors.items()} for tensors in (state, left)]
            power, after = slice_.sums(squares[0], group.size)[kept], slice_.sums(squares[1], len(kept))
            near(after, power, f"{group.name} does not keep the weights of {slice_.parameter}", 1e-9)
            continue
        before, after = (tensors[slice_.parameter].double().square() for tensors in (state, left))
        at = slice_.positions(kept, group.size).flatten()
        others = [at, torch.arange(before.shape[slice_.axis] - slice_.rest, before.shape[slice_.axis])]
        alone = sum(slice_.parameter == other.parameter for other in group.slices) == 1
        if alone:
            power = before.index_select(slice_.axis, torch.cat(others)).sum()
            near(after.sum(), power, f"{group.name} does not keep the weights of {slice_.parameter}", 1e-9)


def _drawn(group: WidthGroup, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Units of a group that stay, ascending, and those that go; drawn by its name, so that groups differ."""
    generator = torch.Generator().manual_seed(1000 * seed + sum(group.name.encode()))
    n_kept = int(torch.randint(group.minimum, group.size + 1, (1,), generator=generator))
    order = torch.arange(group.size).flip(0) if group.ordered else torch.randperm(group.size, generator=generator)
    pinned = torch.isin(order, torch.tensor(group.pinned, dtype=torch.long))
    order = torch.cat([order[pinned], order[~pinned]])
    return torch.sort(order[:n_kept]).values, order[n_kept:]


def _check_sizes(model: Forecaster, smaller: Forecaster, keep: dict[str, torch.Tensor]) -> None:
    now = {group.name: group.size for group in smaller.width_groups()}
    cut = False
    for group in model.width_groups():
        kept = keep.get(group.name)
        if kept is None or len(kept) == group.size:
            continue
        # The groups of a block that went are gone, and those behind it have moved up.
        if "layers" not in keep or group.is_stack:
            require(now[group.name] == len(kept), f"{group.name} has {now[group.name]} units, kept {_counts(keep)}")
        cut = cut or any(slice_.names(group.size) for slice_ in group.slices)
    if cut:
        require(smaller.n_parameters < model.n_parameters, "a pruned model has no fewer parameters")


def check_width_groups(model: Forecaster) -> None:
    """Every slice of every group names a parameter and covers its axis."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for group in model.width_groups():
        for slice_ in group.slices:
            missing = [name for name in slice_.names(group.size) if name not in shapes]
            if missing:
                raise ContractError(f"width group {group.name} names {missing[0]!r}, which is no parameter.")
            if slice_.axis is None:
                continue
            covered = slice_.positions(torch.arange(group.size), group.size).flatten().sort().values
            expected = torch.arange(slice_.offset, shapes[slice_.parameter][slice_.axis] - slice_.rest)
            require(
                torch.equal(covered, expected), f"{group.name} does not tile axis {slice_.axis} of {slice_.parameter}"
            )


def _counts(keep: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name}: {len(units)}" for name, units in keep.items())
