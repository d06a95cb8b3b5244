"""How much a unit is worth: functions of a width group, and of what data say of the model.

A new criterion is one more function here and its name in `CRITERIA` and in `Pruning.criterion`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tsdistill.errors import UnsupportedError
from tsdistill.models.base import Forecaster
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.pruning.evidence import Evidence
from tsdistill.pruning.rebuilding import rebuild

Criterion = Callable[[Forecaster, WidthGroup, Evidence], Tensor]
"""(model, group, evidence) -> one score per unit, (unit,), float64; the lowest go first."""

TINY = torch.finfo(torch.float64).tiny


def magnitude(model: Forecaster, group: WidthGroup, evidence: Evidence | None = None) -> Tensor:
    """L2 norm of everything that produces or consumes a unit.

    score(u) = sqrt(sum over the group's slices of |w_u|^2), each slice divided by its mean over units, so that a slice
    of large weights does not decide alone.

    Source: H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1. Differs from the source: L2
    instead of L1, and all coupled slices count, not the producing one alone.
    """
    squares = {name: weights.detach().double().square() for name, weights in model.named_parameters()}
    return _over_slices(squares, group).sqrt()


def l1(model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
    """L1 norm of everything that produces or consumes a unit, each slice divided by its mean over units.

    Source: as of `magnitude`. Differs from the source: all coupled slices count, not the producing one alone.
    """
    return _over_slices({name: weights.detach().double().abs() for name, weights in model.named_parameters()}, group)


def taylor(model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
    """What the loss would change without a unit, to first order, as the root mean square over batches.

    score(u) = sqrt(mean over batches of (sum over outgoing weights of u of gradient * weight)^2); gradient * weight
    summed over what reads a unit is the unit's output times the gradient that reaches it.

    Source: P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equations 8 and 10.
    Differs from the source: gates are put on what a unit hands on, not on its own weights, and roots are taken.
    """
    if not group.outgoing:
        raise UnsupportedError(
            f"`criterion` must be one that can rank {group.name!r}, whose units have no gates to put on what they hand "
            'on. Use "loss", or leave the group out.'
        )
    total = torch.zeros(group.size, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    for gradient in evidence.gradients:
        products = {name: gradient[name] * parameters[name].detach() for name in gradient}
        total += sum((each.sums(products, group.size) for each in group.outgoing), torch.zeros(group.size)).square()
    return (total / len(evidence.gradients)).sqrt()


def activation(model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
    """The weights that read a unit times the size of what passes through it.

    score(u) = sum over outgoing weights of |w| * |x|_2, x over training windows; each reading layer is divided by its
    mean over units.

    Source: M. Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (Wanda), ICLR 2024,
    equation 1. Differs from the source: summed over all weights that read a unit, so that whole units are ranked.
    """
    total = torch.zeros(group.size, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    for each, passing in _seen(group, evidence):
        columns = parameters[each.parameter].detach().double().abs().flatten(1).sum(dim=0)
        weights = columns[each.positions(torch.arange(group.size), group.size)]
        score = (weights * passing.double().square().mean(dim=0).sqrt()).sum(dim=(0, 2))
        total += score / score.mean().clamp(min=TINY)
    return total


def redundancy(model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
    """How unlike the most similar other unit a unit is; of two alike, the one that moves less goes first.

    The pair with the highest |correlation| is found, its unit of less variance is taken out with the score 1 -
    |correlation|, and so on with those that are left, so that a group of twins keeps one of them.

    Source: the idea of Y. He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
    Acceleration", CVPR 2019, section 3.3: what others can replace goes. Differs from the source: outputs instead of
    weights, correlations instead of distances, and one by one.
    """
    _, passing = max(_seen(group, evidence), key=lambda pair: len(pair[1]))
    outputs = passing.double().permute(0, 1, 3, 2).reshape(-1, group.size)
    outputs = outputs - outputs.mean(dim=0)
    size = outputs.norm(dim=0)
    likeness = (outputs.mT @ outputs / torch.outer(size, size).clamp(min=TINY)).abs().fill_diagonal_(-1)
    scores, highest = torch.full((group.size,), torch.inf, dtype=torch.float64), 0.0
    for _ in range(group.size - 1):
        one, other = divmod(int(likeness.argmax()), group.size)
        goes = one if size[one] <= size[other] else other
        # A unit that does not move at all is replaced by a bias: nothing is lost with it.
        highest = max(highest, 1 - float(likeness[one, other]))
        scores[goes] = highest
        likeness[goes], likeness[:, goes] = -2, -2
    scores[size <= 1e-12 * size.max().clamp(min=TINY)] = 0
    return scores.clamp(max=2 * max(highest, 0.5))


def loss(model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
    """What the error on validation windows gains when a unit is silenced, all others in place.

    score(u) = error with the outgoing weights of u at zero - error. Of a context it is the error without a unit and all
    older ones, of layers without residual connections that of the model without one. Use it for heads, blocks and
    contexts; of hidden units there are many, and each takes a pass.

    Source: the brute-force criterion of P. Molchanov et al., "Pruning Convolutional Neural Networks for Resource
    Efficient Inference", ICLR 2017, section 2.1 ("oracle"). Differs from the source: validation windows, and the signed
    change: a unit that does harm goes first.
    """
    scores, base = torch.zeros(group.size, dtype=torch.float64), evidence.error(model)
    for unit in range(group.size):
        if group.ordered:
            left = list(range(min(unit + 1, group.size - group.minimum), group.size))
            scores[unit] = evidence.error(rebuild(model, {group.name: left})) - base
            continue
        if not group.outgoing:
            if unit not in group.pinned and group.size > group.minimum:
                left = [other for other in range(group.size) if other != unit]
                scores[unit] = evidence.error(rebuild(model, {group.name: left})) - base
            continue
        silent = copy.deepcopy(model)
        group.silence(dict(silent.named_parameters()), torch.tensor([unit]))
        scores[unit] = evidence.error(silent) - base
    return scores


def _over_slices(values: Mapping[str, Tensor], group: WidthGroup) -> Tensor:
    """Sums of each slice's entries by unit, divided by their mean over units, summed over slices."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for each in group.slices:
        found = each.sums(values, group.size)
        total += found / found.mean().clamp(min=TINY)
    return total


def _seen(group: WidthGroup, evidence: Evidence) -> list[tuple[Slice, Tensor]]:
    """What passes through a group wherever linear layers read it."""
    found = list(evidence.passing(group))
    if not found:
        raise UnsupportedError(
            f"`criterion` must be one that can rank {group.name!r}, which no linear layer reads unit by unit. Use "
            '"magnitude", "taylor" or "loss", or leave the group out.'
        )
    return found


CRITERIA: Mapping[str, Criterion] = {
    "magnitude": magnitude,
    "l1": l1,
    "taylor": taylor,
    "activation": activation,
    "redundancy": redundancy,
    "loss": loss,
}
"""Criteria by the name a `Pruning` spec gives."""
