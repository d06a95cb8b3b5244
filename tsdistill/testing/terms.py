"""Whether losses are what training takes them for."""

from __future__ import annotations

import torch

from tsdistill.data.task import Batch
from tsdistill.losses import LOSSES, BoundLoss, Example, Loss
from tsdistill.models import LSTMConfig, ModelConfig, PatchTSTConfig
from tsdistill.models.activations import Activations
from tsdistill.testing.registered import check_member
from tsdistill.testing.rules import ContractError, has_gradient, near, require, shaken
from tsdistill.testing.toys import toy_batch, toy_signature

STUDENT, TEACHER = LSTMConfig(widths=(5,), patch=11), PatchTSTConfig(depth=2, width=6, heads=2, patch=7)
"""Who learns and who teaches where nothing else is said: both show hidden states over several tokens."""


def check_loss(loss: Loss | type[Loss], student: ModelConfig = STUDENT, teacher: ModelConfig = TEACHER) -> None:
    """Hold a loss against its contract with a student and a teacher built for the toy signature.

    Of a class, which has to be registered, every example is checked, and that files and searches can use it.

    The value is a finite scalar that does not change when the batch is doubled; the student gets a gradient and the
    teacher none; a teacher term is zero when the student says what the teacher says; the spec survives JSON;
    parameters of the term are registered, so that they are trained and saved; what it reads of the teacher besides the
    forecast it names, as nothing else is kept. A loss about quantiles or bins needs configs with such a head.

    Raises:
        ContractError: a rule is broken.

    Example:
        >>> from tsdistill.losses import TemporalLoss
        >>> check_loss(TemporalLoss)
    """
    if isinstance(loss, type):
        check_member(LOSSES, loss)
        for example in loss.examples():
            check_loss(example, student, teacher)
        return
    learner, guide = (
        shaken(config.build(toy_signature(), seed)).eval() for seed, config in ((1, student), (2, teacher))
    )
    batch, show = toy_batch(), loss.sees_attention
    theirs = guide.activations(batch.context, attention=show)
    bound = loss.bind(learner, Example(learner.activations(batch.context, attention=show), theirs, batch))
    value = bound(learner.activations(batch.context, attention=show), theirs, batch)
    require(value.ndim == 0 and bool(torch.isfinite(value)), f"{loss} is not a finite scalar")
    value.backward()
    require(any(has_gradient(parameter) for parameter in learner.parameters()), f"{loss} gives the student no gradient")
    require(
        not any(has_gradient(parameter) for parameter in guide.parameters()), f"{loss} sends a gradient to the teacher"
    )
    for name, parameter in bound.named_parameters():
        require(has_gradient(parameter), f"{name} of {loss} gets no gradient")
    _check_reads(loss, bound, learner.activations(batch.context, attention=show), theirs, batch)
    double = Batch(*(torch.cat([each, each]) for each in (batch.context, batch.target, batch.index)))
    with torch.no_grad():
        ours, said = (each.activations(double.context, attention=show) for each in (learner, guide))
        twice = bound(ours, said, double)
        near(twice, value, f"{loss} changes with the batch size")
        agreed = Batch(batch.context, theirs.forecast, batch.index)
        if not list(bound.parameters()):
            # Bound to the teacher in both roles, so that a layer map pairs each layer with itself.
            near(
                loss.bind(guide, Example(theirs, theirs, agreed))(theirs, theirs, agreed),
                torch.zeros(()),
                f"{loss} is not zero when student, teacher and truth agree",
            )
    require(type(loss).from_json(loss.to_json()) == loss, f"{loss} does not survive JSON")


def _check_reads(loss: Loss, bound: BoundLoss, ours: Activations, theirs: Activations, batch: Batch) -> None:
    """The value is the same when all that is left of the teacher is what the loss says it reads."""
    parts = theirs.parts()
    named = sorted(bound.reads)
    missing = [name for name in named if name not in parts]
    require(not missing, f"{loss} reads {', '.join(missing)}, which the teacher does not show")
    kept = Activations.of_parts({name: parts[name].detach() for name in ("forecast", *named)})
    with torch.no_grad():
        wanted = bound(ours, theirs, batch)
        try:
            found = bound(ours, kept, batch)
        except Exception as error:
            raise ContractError(
                f"{loss} reads of the teacher what `reads` = {named} does not name: {error!r}."
            ) from None
    near(found, wanted, f"{loss} changes when only what `reads` = {named} names is left of the teacher")
