"""Whether every term of a distillation works, for the student, teacher and task that are going to be used."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Task
from tsdistill.errors import TsdistillError, UnsupportedError, check_type
from tsdistill.exporting import refuse_deployed
from tsdistill.losses import BoundLoss, Loss, check_losses_type
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.teachers import CachedTeacher, Teacher, adapt
from tsdistill.testing.rules import ContractError, require, shaken
from tsdistill.training import TeacherObjective, Training, checkpoint
from tsdistill.training.ranks import Ranks
from tsdistill.training.steps import TrainingRun, trainable

N_WINDOWS = 64
"""Training windows that terms are computed on, spread evenly, the first and the last among them."""

NEGLIGIBLE = 1e-6
"""A term whose share of the gradient is no larger is lost in the rounding of the others."""


@dataclass(frozen=True)
class CheckedTerm:
    """What `check_losses` found of a term that works; prints as a line.

    Args:
        term: Its formula, with its weight.
        value: Its weight times its value, on the student as it starts.
        share: Its part of the gradient of all terms on the student: the size of its own over the sum of all sizes,
            each at the height of its schedule.
        n_parameters: Weights of its own that are trained, such as a projector's.
    """

    term: str
    value: float
    share: float
    n_parameters: int

    def __str__(self) -> str:
        own = f", {self.n_parameters:,} weights of its own" if self.n_parameters else ""
        return f"{self.term}: {self.value:.4g}, {100 * self.share:.3g} % of the pull{own}"


def check_losses(
    losses: Sequence[Loss],
    teacher: Teacher,
    student: ModelConfig | Forecaster,
    task: Task,
    *,
    training: Training | None = None,
    cache: str | Path | None = None,
) -> tuple[CheckedTerm, ...]:
    """Show that every term of a distillation works for a student, a teacher and a task, before hours are spent on it.

    The terms are bound, the teacher is asked and an optimizer is made as `td.distill` does it. Of each term it is shown
    that its value is finite on training windows; that the student's gradient is another with it than without it; that
    nothing flows back to the teacher; and that all weights it uses besides the student's are moved by the optimizer
    and come back from a checkpoint that is written and read. A term without a gradient on the student as it starts
    (`SmoothnessLoss`, where the student is smooth) must have one on a student whose weights are shaken a little.

    Use it in the tests of losses and models of your own, and ahead of a long run. Nothing is trained, and what is given
    is left as it is; the teacher forecasts all training windows, as for `td.distill`: name its `cache` to have
    that done once.

    Args:
        losses: What `td.distill` would be given.
        teacher: A forecaster, or anything else that can teach.
        student: The architecture of a new student, or a forecaster to go on from.
        task: Data, context and horizon; its training part is used.
        training: How the student would be trained: its seed draws the weights of a new one.
        cache: Folder for the teacher's forecasts.

    Returns:
        A record per term, in order.

    Raises:
        ContractError: a term breaks a rule; the message names it.
        ShapeError: the teacher forecasts other channels or another horizon than the task's.
        UnsupportedError: a loss that this teacher or this student cannot serve.
        OrderError: an exported or quantized model was given where a trainable one is needed.

    Example:
        >>> from tsdistill.losses import FeatureLoss, OutputLoss
        >>> from tsdistill.models import LSTMConfig, MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> teacher = MLPConfig(width=7).build(task.signature)
        >>> terms = check_losses([OutputLoss(), FeatureLoss()], teacher, LSTMConfig(widths=(5,), patch=11), task)
        >>> [(term.term, term.n_parameters) for term in terms][1]
        ('0.1 * MSE(projector(student.hidden), norm(teacher.hidden))', 42)
    """
    training = Training() if training is None else training
    refuse_deployed(student, "distill")
    refuse_deployed(teacher, "distill")
    check_type("student", student, (ModelConfig, Forecaster), "Pass a config, such as td.LSTMConfig(), or a forecaster")
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    check_losses_type(losses)
    check_type("training", training, Training, "Pass td.Training(epochs=...)")
    teacher = adapt(teacher, task)
    model = student.build(task.signature, training.seed) if isinstance(student, ModelConfig) else copy.deepcopy(student)
    if model.n_parameters == 0:
        raise UnsupportedError(f"A {model.config.kind!r} model has no weights that a teacher could shape.")
    objective = TeacherObjective(losses, CachedTeacher(teacher, cache))
    objective.bind(model, task.train)
    index = torch.linspace(0, len(task.train) - 1, min(N_WINDOWS, len(task.train))).long()
    batch = task.train.batch(index)
    checked = _TermGradients(model.eval(), objective, batch)
    for term, value, gradient in zip(losses, checked.values, checked.gradients, strict=True):
        require(value.ndim == 0 and bool(value.isfinite()), f"{term} is not a finite number on training windows")
        require(bool(gradient.isfinite().all()), f"{term} gives the student a gradient that is not finite")
    _check_leaves(checked, _run(model, objective, task, training))
    stirred: _TermGradients | None = None
    for place, term in enumerate(losses):
        if not checked.changes(place):
            stirred = stirred or _TermGradients(shaken(model).eval(), objective, batch)
            require(stirred.changes(place), f"{term} does not change the student's gradient")
    pulls = [checked.pull(place) for place in range(len(losses))]
    return tuple(
        CheckedTerm(
            term=str(term),
            value=term.weight * float(value.detach()),
            share=pull / (sum(pulls) or 1.0),
            n_parameters=sum(parameter.numel() for parameter in bound.parameters()),
        )
        for term, bound, value, pull in zip(losses, objective.sum.bound, checked.values, pulls, strict=True)
    )


class _TermGradients:
    """The terms of an objective on a batch, each by itself, and their gradients on a student's weights.

    What the teacher outputs is made a leaf of the graph, so that a gradient that reaches it is seen.
    """

    def __init__(self, model: Forecaster, objective: TeacherObjective, batch: Batch) -> None:
        self.model = model
        self.objective = objective
        self.batch = batch
        self.terms = objective.losses.terms
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        student, outputs = objective.sides(model, batch)
        self.teacher_outputs = {name: part.detach().clone().requires_grad_() for name, part in outputs.parts().items()}
        teacher = Activations.of_parts(self.teacher_outputs)
        self.values = [
            _value(term, bound, student, teacher, batch)  # type: ignore[arg-type]
            for term, bound in zip(self.terms, objective.sum.bound, strict=True)
        ]
        self.gradients = [self._gradient(value) for value in self.values]

    def changes(self, place: int) -> bool:
        """Whether the gradient of all terms, as training computes it, is another than that of all but one."""
        progress = self._height(place)
        self.objective.at(progress)
        whole, _ = self.objective(self.model, self.batch)
        everything = self._gradient(whole)
        others = torch.zeros_like(everything)
        for number, gradient in enumerate(self.gradients):
            if number != place:
                others += self._weight(number, progress) * gradient
        return float((everything - others).norm()) > NEGLIGIBLE * float(everything.norm())

    def pull(self, place: int) -> float:
        """Size of a term's gradient, at the height of its schedule."""
        return self._weight(place, self._height(place)) * float(self.gradients[place].norm())

    def _height(self, place: int) -> float:
        """When a term weighs most: at the start or at the end, since schedules only rise or only fall."""
        return max((0.0, 1.0), key=lambda progress: self._weight(place, progress))

    def _weight(self, place: int, progress: float) -> float:
        term = self.terms[place]
        return term.weight * (1.0 if term.schedule is None else term.schedule.factor(progress))

    def _gradient(self, value: Tensor) -> Tensor:
        """On all weights of the student, in double precision, (weight,)."""
        if not value.requires_grad:
            return torch.zeros(sum(weight.numel() for weight in self.weights), dtype=torch.float64)
        gradients = torch.autograd.grad(value, self.weights, retain_graph=True, allow_unused=True)
        pairs = zip(self.weights, gradients, strict=True)
        flat = [torch.zeros_like(weight) if gradient is None else gradient for weight, gradient in pairs]
        return torch.cat([gradient.double().flatten() for gradient in flat])


def _value(term: Loss, bound: BoundLoss, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
    try:
        return bound(student, teacher, batch)
    except TsdistillError:
        raise
    except Exception as error:
        raise ContractError(
            f"{term} cannot be computed from what it says it reads of the teacher ({sorted(bound.reads)}): {error!r}."
        ) from error


def _run(model: Forecaster, objective: TeacherObjective, task: Task, training: Training) -> TrainingRun:
    """A training run before its first step, its optimizer made."""
    return TrainingRun(
        model=model,
        objective=objective,
        windows=task.train,
        training=training,
        so_far=checkpoint.Progress("check", "float32"),
        n_steps=1,
        parameters=trainable(model, objective),
        average=None,
        ranks=Ranks(),
    )


def _check_leaves(checked: _TermGradients, run: TrainingRun) -> None:
    """Whatever a term's value depends on is the student's, or is trained and kept; it is never the teacher's."""
    names = {id(parameter): name for name, parameter in run.objective.named_parameters()}
    moved = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    students = {id(parameter) for parameter in run.model.parameters()}
    teachers = {id(part): name for name, part in checked.teacher_outputs.items()}
    stored = _written(run)
    for term, bound, value in zip(checked.terms, checked.objective.sum.bound, checked.values, strict=True):
        leaves = _leaves(value)
        leaks = sorted(teachers[id(leaf)] for leaf in leaves if id(leaf) in teachers)
        require(not leaks, f"{term} sends a gradient to the teacher, through {', '.join(leaks)}")
        for leaf in leaves:
            if id(leaf) in students:
                continue
            what = f"{term} uses weights of its own, of shape {tuple(leaf.shape)},"
            require(
                id(leaf) in moved,
                f"{what} that no parameter group of the optimizer holds: make them a parameter of the bound loss, or "
                "of a module that is an attribute of it and does not sit in a list",
            )
            kept = stored.get(names.get(id(leaf), ""))
            require(kept is not None and torch.equal(kept, leaf), f"{what} that a checkpoint does not store")
        reached = {id(leaf) for leaf in leaves}
        for name, parameter in bound.named_parameters():
            idle = parameter.requires_grad and id(parameter) not in reached
            require(not idle, f"{name} of {term} gets no gradient")


def _written(run: TrainingRun) -> dict[str, Tensor]:
    """What a checkpoint of a run, written and read again, holds of the objective."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        checkpoint.write(path, run.so_far, run.state())
        read = checkpoint.read(path, run.so_far.key, run.ranks)
    assert read is not None  # it was written just now
    return read[1].get("objective", {})


def _leaves(value: Tensor) -> list[Tensor]:
    """The tensors that a gradient of a value ends in."""
    waiting = [value.grad_fn]
    seen = set()
    leaves: list[Tensor] = []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return leaves
