"""Checks that hold an object against its contract, for our own tests and for those of whoever extends tsdistill.

`check_forecaster(config)`, `check_loss(loss)` and `check_pruning(config)` raise `ContractError` with the rule that was
broken. Each has a planted fault in the test suite that it must find.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np
import torch

from tsdistill.data.covariates import Covariates
from tsdistill.data.panel import Item, Panel
from tsdistill.data.split import Split
from tsdistill.data.task import Batch, Signature, Task
from tsdistill.losses import BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import WidthGroup
from tsdistill.models.heads import QuantileHead
from tsdistill.pruning import rebuild

CONTEXT, HORIZON, CHANNELS, BATCH = 47, 11, 3, 5
"""Sizes of the toy task: distinct primes, so that no swapped axis passes unseen."""

COVARIATES = Covariates(
    calendar=("time-of-day", "time-of-week"), holidays=("2013-12-25",), future=("price", "plan"), past=("sun", "rain")
)
"""What a forecaster that can look at it is told besides: seven features of the future and two of the past."""


class ContractError(AssertionError):
    """An object broke its contract; the message says which rule and by how much."""


def toy_panel(*, n_rows: int = 499, seed: int = 0) -> Panel:
    """Three noisy hourly waves with a daily rhythm, far from zero mean and unit scale, the same for a seed.

    Example:
        >>> toy_panel().channels
        ('load', 'wind', 'price')
    """
    random = np.random.default_rng(seed)
    steps = np.arange(n_rows)[:, None]
    waves = np.sin(2 * np.pi * (steps / np.array([24, 24, 12]) + random.random(CHANNELS)))
    drift = np.cumsum(random.standard_normal((n_rows, CHANNELS)), axis=0) * 0.02
    values = (waves + drift + 0.2 * random.standard_normal((n_rows, CHANNELS))) * [3, 0.5, 20] + [50, 2, -7]
    return Panel((Item("toy", None, values),), channels=("load", "wind", "price"), frequency="h", name="toy")


def toy_task(*, n_rows: int = 499, seed: int = 0) -> Task:
    """A task over `toy_panel`, small enough to train on in a second.

    Example:
        >>> task = toy_task()
        >>> task.context, task.horizon, len(task.test) > 0
        (47, 11, True)
    """
    split = Split.fractions(0.6, 0.2, 0.2)
    return Task(toy_panel(n_rows=n_rows, seed=seed), context=CONTEXT, horizon=HORIZON, split=split)


def toy_signature(takes: Collection[str] = (), known: Covariates = COVARIATES) -> Signature:
    """The signature of `toy_task`, without any data, and with those of the covariates `known` named in `takes`."""
    names = ("load", "wind", "price")
    plain = Signature(
        context=CONTEXT, horizon=HORIZON, channels=names, mean=(50.0, 2.0, -7.0), scale=(3.0, 0.5, 20.0), frequency="h"
    )
    if not takes:
        return plain
    future = known.known_ahead if "future" in takes else ()
    past = known.past if "past" in takes else ()
    known = known.replace(past=past) if future else Covariates(past=past)
    scalers = {"future_mean": (0.0,) * len(future), "future_scale": (1.0,) * len(future)}
    scalers |= {"past_mean": (0.0,) * len(past), "past_scale": (1.0,) * len(past)}
    return plain.replace(covariates=known, future=future, past=past, **scalers)


def toy_batch(seed: int = 0, signature: Signature | None = None) -> Batch:
    """A batch of noise with the shapes of `toy_task`, and the covariates of `signature`."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(BATCH, CONTEXT, CHANNELS, generator=generator)
    target = torch.randn(BATCH, HORIZON, CHANNELS, generator=generator)
    n_future, n_past = (len(signature.future), len(signature.past)) if signature else (0, 0)
    future = torch.randn(BATCH, CONTEXT + HORIZON, n_future, generator=generator) if n_future else None
    past = torch.randn(BATCH, CONTEXT, n_past, generator=generator) if n_past else None
    return Batch(context=context, target=target, index=torch.arange(BATCH), future=future, past=past)


def check_forecaster(model: ModelConfig | Forecaster) -> None:
    """Hold a forecaster (or the one a config builds for the toy signature) against the forecaster's contract.

    Shapes and axes; forward equals activations; a window's forecast does not depend on its batch mates nor on how long
    the context before it is; fused and explicit attention agree; attention rows sum to 1; the same seed builds the same
    weights; the config survives JSON and TOML; every width group tiles its axes; quantiles do not cross and
    the forecast is their median, that of bins their mean. A config that takes covariates is checked with and without
    them: a forecast must react to every feature of its window, and to none of its batch mates'.

    Raises:
        ContractError: a rule is broken.
    """
    for each in _built(model):
        _check_one(_shaken(each).eval())


def _built(model: ModelConfig | Forecaster) -> list[Forecaster]:
    """The forecaster itself, or those a config builds: with what it needs, or without covariates and with all."""
    if isinstance(model, Forecaster):
        return [model]
    if model.needs is not None:
        return [model.build(toy_signature(model.takes, model.needs))]
    return [model.build(toy_signature(takes)) for takes in ((), model.takes) if not takes or model.takes]


def _check_one(model: Forecaster) -> None:
    batch = toy_batch(signature=model.signature)
    context, future, past = batch.context, batch.future, batch.past
    with torch.no_grad():
        forecast, inside = model(context, future, past), model.activations(context, future, past, attention=True)
        _require(tuple(forecast.shape) == (BATCH, HORIZON, CHANNELS), f"forecast has shape {tuple(forecast.shape)}")
        _require(forecast.dtype == torch.float32, f"forecast is {forecast.dtype}, not float32")
        _near(inside.forecast, forecast, "activations(context, attention=True).forecast differs from forward(context)")
        for depth, hidden in enumerate(inside.hidden):
            shape = tuple(hidden.shape)
            rightly = hidden.ndim == 4 and shape[0] == BATCH and shape[1] in (1, CHANNELS)
            _require(rightly, f"hidden[{depth}] has shape {shape}")
        for depth, weights in enumerate(inside.attention or ()):
            _near(weights.sum(-1), torch.ones(weights.shape[:-1]), f"rows of attention[{depth}] do not sum to 1")
        _check_distribution(model, inside)
        alone = torch.cat([model(*(_row(each, row) for each in (context, future, past))) for row in range(BATCH)])
        _near(alone, forecast, "a window's forecast depends on its batch mates")
        longer = (_led_by_nines(each) for each in (context, future, past))
        _near(model(*longer), forecast, "a longer context must be used from its end")
        _check_reactions(model, batch, forecast)
    twin, again = (model.config.build(model.signature, seed=7).state_dict() for _ in range(2))
    _require(all(torch.equal(twin[name], again[name]) for name in twin), "the same seed builds different weights")
    for form, back in (("json", type(model.config).from_json), ("toml", type(model.config).from_toml)):
        text = model.config.to_json() if form == "json" else model.config.to_toml()
        _require(back(text) == model.config, f"the config does not survive {form}")
    _check_width_groups(model)


def check_pruning(model: ModelConfig | Forecaster, *, seed: int = 0) -> None:
    """Removing units whose outgoing weights are zero changes no forecast, and sizes really shrink.

    Units of all exact groups go together, and once more from what is left. Of the others (a residual width behind a
    norm, a context) it must hold that what is left is a smaller forecaster that sees its own context only, with the
    weights of the units that stay.

    Raises:
        ContractError: a width group misses a slice, names a wrong one, or the rebuilt model differs.
    """
    for each in _built(model):
        whole = _shaken(each).eval()
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
        _near(smaller(*seen), model(*seen), f"removing silent units changed the forecast (kept {_counts(keep)})")
    _check_sizes(model, smaller, keep)
    return smaller


def _check_loose_cut(model: Forecaster, group: WidthGroup, seed: int) -> None:
    """Remove random units of one group: smaller, of the right shape, and blind to what it gave up."""
    kept, _ = _drawn(group, seed)
    smaller = rebuild(model, {group.name: kept})
    batch = toy_batch(seed, model.signature)
    with torch.no_grad():
        forecast = smaller(batch.context, batch.future, batch.past)
        _require(tuple(forecast.shape) == (BATCH, HORIZON, CHANNELS), f"forecast has shape {tuple(forecast.shape)}")
        steps = (smaller.context, smaller.context + HORIZON, smaller.context)
        recent = (
            None if each is None else each[:, -n_steps:]
            for each, n_steps in zip((batch.context, batch.future, batch.past), steps, strict=True)
        )
        _near(
            smaller(*recent), forecast, f"without some of {group.name}, the forecast hangs on steps before its context"
        )
    _check_sizes(model, smaller, {group.name: kept})
    _check_width_groups(smaller)
    state, left = model.state_dict(), smaller.state_dict()
    for each in group.slices:
        # What stays is copied, not drawn anew: the norm of the kept entries is that of the new tensor.
        if each.axis is None:
            squares = [{name: x.double().square() for name, x in tensors.items()} for tensors in (state, left)]
            power, after = each.sums(squares[0], group.size)[kept], each.sums(squares[1], len(kept))
            _near(after, power, f"{group.name} does not keep the weights of {each.parameter}", 1e-9)
            continue
        before, after = (tensors[each.parameter].double().square() for tensors in (state, left))
        at = each.positions(kept, group.size).flatten()
        others = [at, torch.arange(before.shape[each.axis] - each.rest, before.shape[each.axis])]
        alone = sum(each.parameter == other.parameter for other in group.slices) == 1
        if alone:
            power = before.index_select(each.axis, torch.cat(others)).sum()
            _near(after.sum(), power, f"{group.name} does not keep the weights of {each.parameter}", 1e-9)


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
        if "layers" not in keep or group.kind == "layers":
            _require(now[group.name] == len(kept), f"{group.name} has {now[group.name]} units, kept {_counts(keep)}")
        cut = cut or any(each.names(group.size) for each in group.slices)
    if cut:
        _require(smaller.n_parameters < model.n_parameters, "a pruned model has no fewer parameters")


def check_loss(loss: Loss, student: ModelConfig, teacher: ModelConfig) -> None:
    """Hold a loss against its contract with a student and a teacher built for the toy signature.

    The value is a finite scalar that does not change when the batch is doubled; the student gets a gradient and the
    teacher none; a teacher term is zero when the student says what the teacher says; the spec survives JSON;
    parameters of the term are registered, so that they are trained and saved; what it reads of the teacher besides the
    forecast it names, as nothing else is kept. A loss about quantiles or bins needs configs with such a head.

    Raises:
        ContractError: a rule is broken.
    """
    learner, guide = (
        _shaken(config.build(toy_signature(), seed)).eval() for seed, config in ((1, student), (2, teacher))
    )
    batch, show = toy_batch(), loss.sees_attention
    theirs = guide.activations(batch.context, attention=show)
    bound = loss.bind(learner, Example(learner.activations(batch.context, attention=show), theirs, batch))
    value = bound(learner.activations(batch.context, attention=show), theirs, batch)
    _require(value.ndim == 0 and bool(torch.isfinite(value)), f"{loss} is not a finite scalar")
    value.backward()
    _require(
        any(_has_gradient(parameter) for parameter in learner.parameters()), f"{loss} gives the student no gradient"
    )
    _require(
        not any(_has_gradient(parameter) for parameter in guide.parameters()), f"{loss} sends a gradient to the teacher"
    )
    for name, parameter in bound.named_parameters():
        _require(_has_gradient(parameter), f"{name} of {loss} gets no gradient")
    _check_reads(loss, bound, learner.activations(batch.context, attention=show), theirs, batch)
    double = Batch(*(torch.cat([each, each]) for each in (batch.context, batch.target, batch.index)))
    with torch.no_grad():
        ours, said = (each.activations(double.context, attention=show) for each in (learner, guide))
        twice = bound(ours, said, double)
        _near(twice, value, f"{loss} changes with the batch size")
        agreed = Batch(batch.context, theirs.forecast, batch.index)
        if not list(bound.parameters()):
            # Bound to the teacher in both roles, so that a layer map pairs each layer with itself.
            _near(
                loss.bind(guide, Example(theirs, theirs, agreed))(theirs, theirs, agreed),
                torch.zeros(()),
                f"{loss} is not zero when student, teacher and truth agree",
            )
    _require(type(loss).from_json(loss.to_json()) == loss, f"{loss} does not survive JSON")


def _check_reads(loss: Loss, bound: BoundLoss, ours: Activations, theirs: Activations, batch: Batch) -> None:
    """The value is the same when all that is left of the teacher is what the loss says it reads."""
    parts = theirs.parts()
    named = sorted(bound.reads)
    missing = [name for name in named if name not in parts]
    _require(not missing, f"{loss} reads {', '.join(missing)}, which the teacher does not show")
    kept = Activations.of_parts({name: parts[name].detach() for name in ("forecast", *named)})
    with torch.no_grad():
        wanted = bound(ours, theirs, batch)
        try:
            found = bound(ours, kept, batch)
        except Exception as error:
            raise ContractError(
                f"{loss} reads of the teacher what `reads` = {named} does not name: {error!r}."
            ) from None
    _near(found, wanted, f"{loss} changes when only what `reads` = {named} names is left of the teacher")


def _row(values: torch.Tensor | None, row: int) -> torch.Tensor | None:
    return None if values is None else values[row : row + 1]


def _led_by_nines(values: torch.Tensor | None) -> torch.Tensor | None:
    """The same with two more steps at the start."""
    return None if values is None else torch.cat([torch.full_like(values[:, :2], 9.0), values], dim=1)


def _check_reactions(model: Forecaster, batch: Batch, forecast: torch.Tensor) -> None:
    """Every covariate moves the forecast of its window; that it moves no other's, the batch mates have shown."""
    for side in ("future", "past"):
        for place, feature in enumerate(getattr(model.signature, side)):
            given = {name: getattr(batch, name) for name in ("future", "past")}
            given[side] = given[side].clone()
            # Of what is known ahead the steps of the horizon are moved, which a past column would not have.
            given[side][1, -HORIZON:, place] += 1.0
            moved = (model(batch.context, **given) - forecast).abs().amax(dim=(1, 2))
            _require(float(moved[1]) > 1e-5, f"the forecast does not react to {feature} of `{side}`")


def _shaken(model: Forecaster) -> Forecaster:
    """A copy with weights off their initial zeros, so that no check passes because a path is silent."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def _check_distribution(model: Forecaster, inside: Activations) -> None:
    """What is said besides the forecast agrees with it."""
    said, support = inside.distribution, inside.support
    if said is None:
        _require(model.head.kind == "point", f"a model with a {model.head.kind} head says no distribution")
        return
    shape = (BATCH, HORIZON, CHANNELS, model.head.n_outputs)
    _require(tuple(said.shape) == shape, f"distribution has shape {tuple(said.shape)}, not {shape}")
    if isinstance(model.head, QuantileHead):
        _require(bool((said.diff(dim=-1) >= 0).all()), "quantiles cross")
        median = said[..., model.head.levels.index(0.5)]
        _near(median, inside.forecast, "the forecast is not the median")
    elif support is not None:
        _near((said.softmax(-1) * support).sum(-1), inside.forecast, "the forecast is not the mean over bins", 1e-5)


def _check_width_groups(model: Forecaster) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for group in model.width_groups():
        for each in group.slices:
            missing = [name for name in each.names(group.size) if name not in shapes]
            if missing:
                raise ContractError(f"width group {group.name} names {missing[0]!r}, which is no parameter.")
            if each.axis is None:
                continue
            covered = each.positions(torch.arange(group.size), group.size).flatten().sort().values
            expected = torch.arange(each.offset, shapes[each.parameter][each.axis] - each.rest)
            _require(torch.equal(covered, expected), f"{group.name} does not tile axis {each.axis} of {each.parameter}")


def _has_gradient(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


def _counts(keep: dict[str, torch.Tensor]) -> str:
    return ", ".join(f"{name}: {len(units)}" for name, units in keep.items())


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ContractError(f"{message}.")


def _near(found: torch.Tensor, wanted: torch.Tensor, message: str, tolerance: float = 2e-6) -> None:
    size = max(1.0, float(wanted.detach().abs().max()))
    gap = float((found - wanted).detach().abs().max()) / size
    _require(gap <= tolerance, f"{message}: by {gap:.2g}, more than {tolerance:g}")
