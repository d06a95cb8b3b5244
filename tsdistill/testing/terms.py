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
"""The student and the teacher by default: both show hidden states over several tokens."""


def check_loss(loss: Loss | type[Loss], student: ModelConfig = STUDENT, teacher: ModelConfig = TEACHER) -> None:
    """Hold a loss against its contract with a student and a teacher built for the toy signature.

    Of a class, which has to be registered, every example is checked, and that files and searches can use it.

    The value is a finite scalar that does not change when the batch is doubled; the student gets a gradient and the
    teacher none; a teacher term is zero when the student forecasts what the teacher does; the spec survives JSON;
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
    batch = toy_batch()
    show = loss.sees_attention
    teacher_activations = guide.activations(batch.context, attention=show)
    bound = loss.bind(learner, Example(learner.activations(batch.context, attention=show), teacher_activations, batch))
    value = bound(learner.activations(batch.context, attention=show), teacher_activations, batch)
    require(value.ndim == 0 and bool(torch.isfinite(value)), f"{loss} is not a finite scalar")
    value.backward()
    require(any(has_gradient(parameter) for parameter in learner.parameters()), f"{loss} gives the student no gradient")
    require(
        not any(has_gradient(parameter) for parameter in guide.parameters()), f"{loss} sends a gradient to the teacher"
    )
    for name, parameter in bound.named_parameters():
        require(has_gradient(parameter), f"{name} of {loss} gets no gradient")
    _check_reads(loss, bound, learner.activations(batch.context, attention=show), teacher_activations, batch)
    double = Batch(*(torch.cat([values, values]) for values in (batch.context, batch.target, batch.index)))
    with torch.no_grad():
        student_doubled, teacher_doubled = (
            forecaster.activations(double.context, attention=show) for forecaster in (learner, guide)
        )
        twice = bound(student_doubled, teacher_doubled, double)
        near(twice, value, f"{loss} changes with the batch size")
        agreed = Batch(batch.context, teacher_activations.forecast, batch.index)
        if not list(bound.parameters()):
            # Bound to the teacher in both roles, so that a layer map pairs each layer with itself.
            near(
                loss.bind(guide, Example(teacher_activations, teacher_activations, agreed))(
                    teacher_activations, teacher_activations, agreed
                ),
                torch.zeros(()),
                f"{loss} is not zero when student, teacher and truth agree",
            )
    require(type(loss).from_json(loss.to_json()) == loss, f"{loss} does not survive JSON")


def _check_reads(loss: Loss, bound: BoundLoss, student: Activations, teacher: Activations, batch: Batch) -> None:
    """The value is the same when all that is left of the teacher is what `reads` of the loss names."""
    parts = teacher.parts()
    named = sorted(bound.reads)
    missing = [name for name in named if name not in parts]
    require(not missing, f"{loss} reads {', '.join(missing)}, which the teacher does not show")
    kept = Activations.of_parts({name: parts[name].detach() for name in ("forecast", *named)})
    with torch.no_grad():
        wanted = bound(student, teacher, batch)
        try:
            actual = bound(student, kept, batch)
        except Exception as error:
            raise ContractError(
                f"{loss} reads of the teacher what `reads` = {named} does not name: {error!r}."
            ) from None
    near(actual, wanted, f"{loss} changes when only what `reads` = {named} names is left of the teacher")
