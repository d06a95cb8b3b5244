"""What the one training loop minimises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from tsdistill.data.task import Batch, Windows
from tsdistill.errors import ConfigError, UnsupportedError, must
from tsdistill.losses import Example, Loss, LossSum
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.models.ridge import NormalEquations
from tsdistill.spec import digest_of

BALANCING_WINDOWS = 256
"""Windows on which the pulls of losses are compared."""


class Objective(nn.Module):
    """A scalar to minimise for a batch; its parameters are trained and saved along with the model.

    `digest` names it in checkpoints; `formula` is what a log shows; `bind` is called once, before the first step.
    """

    digest: str = ""
    formula: str = ""

    def bind(self, model: Forecaster, train: Windows) -> None:
        """Get ready for a model and its training windows."""

    @property
    def notes(self) -> dict[str, Any]:
        """What a lineage should record of how it was computed, once it is bound."""
        return {}

    def at(self, progress: float) -> None:
        """Called before every step with the share of all steps that is done."""

    def equations(self, train: Windows, validation: Windows) -> NormalEquations:
        """The normal equations with the same optimum, for models that are solved in closed form."""
        raise UnsupportedError(f"{self.formula} has no closed-form optimum. Use it with a model trained by steps.")

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by name."""
        raise NotImplementedError


class TruthObjective(Objective):
    """The head's own error: MSE(forecast, truth) for a point head, pinball for quantiles, cross-entropy for bins.

    What a teacher is trained with, and a student without a teacher.

    Args:
        equations: Normal equations of the same windows, if another objective has formed them already.
    """

    digest = "truth"
    formula = "MSE(model, truth)"

    def __init__(self, equations: NormalEquations | None = None) -> None:
        super().__init__()
        self._equations = equations

    def bind(self, model: Forecaster, train: Windows) -> None:
        """Name the error after the model's head."""
        self.formula = f"{model.head.measure}(model, truth)"

    def equations(self, train: Windows, validation: Windows) -> NormalEquations:
        """Those of the truth."""
        return self._equations or NormalEquations(train, validation)

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean error over windows, steps and channels."""
        loss = model.head.error(model.activations(batch.context, batch.future, batch.past), batch.target)
        return loss, {"truth": loss.detach()}


class TeacherOutputs(Protocol):
    """The outputs of a teacher for every window of a part."""

    @property
    def live(self) -> frozenset[str]:
        """Parts that are not kept but computed by the teacher with every batch."""

    def of(self, batch: Batch) -> Activations:
        """The forecast, and what else was asked for, of a batch."""


class OutputSource(Protocol):
    """A teacher whose outputs for all windows are computed once; `tsdistill.teachers.CachedTeacher` is one."""

    @property
    def digest(self) -> str:
        """Names the teacher's exact weights."""

    def show(self, batch: Batch, *, attention: bool = False) -> Activations:
        """Everything the teacher shows of a batch, computed now."""

    def outputs(self, windows: Windows, reads: Iterable[str] = ()) -> TeacherOutputs:
        """Forecasts of all windows, and the parts named in `reads`."""


class _Truth:
    """What stands for a teacher that no loss looks at."""

    live = frozenset[str]()

    def of(self, batch: Batch) -> Activations:
        """The truth."""
        return Activations(forecast=batch.target)


class TeacherObjective(Objective):
    """A sum of losses against a teacher whose outputs for all training windows are computed once.

    Args:
        losses: The terms.
        cached_teacher: Who teaches.
        balance: "fixed" leaves the weights as they are; "start" divides each term by the size of its gradient on the
            untrained student, relative to the first term's, so that weights hold whatever the units of the terms.
    """

    def __init__(
        self, losses: Sequence[Loss], cached_teacher: OutputSource, *, balance: Literal["fixed", "start"] = "fixed"
    ) -> None:
        super().__init__()
        if balance not in ("fixed", "start"):
            raise ConfigError(must("balance", 'be "fixed" or "start"', balance, "Leave it out for the default"))
        self.losses = LossSum(losses)
        self.cached_teacher = cached_teacher
        self.balance = balance
        self._equations: NormalEquations | None = None
        self.formula = str(self.losses)
        balancing = [] if balance == "fixed" else [balance]
        self.digest = digest_of([[term.digest for term in self.losses.terms], cached_teacher.digest, *balancing])

    def bind(self, model: Forecaster, train: Windows) -> None:
        """Bind the losses to student and teacher, and look up the outputs of the teacher for every window."""
        self._check(model)
        example = self._example(model, train)
        with torch.random.fork_rng(devices=[]):
            # Projectors are drawn anew for every student, and alike whenever that student starts.
            torch.manual_seed(int(digest_of([model.digest, self.digest]), 16) % 2**63)
            self.sum = self.losses.bind(model, example)
        # A teacher that no term looks at is not asked about every window: that takes longer than a small student.
        taught = self.losses.needs_teacher
        self._outputs = self.cached_teacher.outputs(train, self.sum.reads) if taught else _Truth()
        if self.balance == "start" and not model.closed_form:
            self.sum.balance(self._pulls(model, train))

    @property
    def notes(self) -> dict[str, Any]:
        """Which parts of the teacher did not fit into its cache and were computed with every batch."""
        return {"asked_every_batch": sorted(self._outputs.live)} if self._outputs.live else {}

    def at(self, progress: float) -> None:
        """Weights follow their schedules."""
        self.sum.progress = progress

    def equations(self, train: Windows, validation: Windows) -> NormalEquations:
        """Those of the blend of teacher and truth, if the losses need no more than that."""
        alphas = self._check_solvable()
        self._equations = NormalEquations(train, validation, lambda batch: self._outputs.of(batch).forecast, alphas)
        return self._equations

    def untaught(self) -> TruthObjective:
        """The objective of the same student without a teacher; what was found out about the windows is shared."""
        return TruthObjective(self._equations.untaught() if self._equations is not None else None)

    def _check_solvable(self) -> tuple[float, ...]:
        alphas = self.losses.terms[0].alphas if len(self.losses.terms) == 1 else None
        if alphas is None:
            raise UnsupportedError(
                f"{self.formula} has no closed-form optimum: only a single td.OutputLoss of squared errors that weighs "
                "all steps alike has. Use that alone, or distil into a model that is trained by steps."
            )
        return alphas

    def _check(self, model: Forecaster) -> None:
        """Refuse what the student cannot learn by, before the teacher computes anything."""
        if model.closed_form:
            self._check_solvable()
        elif any(len(term.alphas or ()) > 1 for term in self.losses.terms):
            raise UnsupportedError(
                f"`alpha` must be a number for a {model.config.kind!r} model, which is trained by steps, got "
                'alpha="validation". Give a number or search for one (td.search.Space), or distil into '
                "td.LinearConfig(), which is solved for every share at once."
            )

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms."""
        loss = self.sum(*self.sides(model, batch), batch)
        return loss, self.sum.breakdown()

    def sides(self, model: Forecaster, batch: Batch) -> tuple[Activations, Activations]:
        """What the student and the teacher show of a batch of training windows."""
        return self._seen(model, batch), self._outputs.of(batch)

    def _seen(self, model: Forecaster, batch: Batch) -> Activations:
        return model.activations(batch.context, batch.future, batch.past, attention=self.losses.sees_attention)

    def _example(self, model: Forecaster, train: Windows) -> Example:
        # The first and the last window: neighbours may both be a stretch where nothing happens.
        batch = train.batch(torch.tensor([0, len(train) - 1]))
        with _at_rest(model), torch.no_grad():
            student = self._seen(model, batch)
        return Example(student, self.cached_teacher.show(batch, attention=self.losses.sees_attention), batch)

    def _pulls(self, model: Forecaster, train: Windows) -> list[float]:
        """Size of each term's gradient on the student's weights, over windows from all of the training part."""
        index = torch.linspace(0, len(train) - 1, min(BALANCING_WINDOWS, len(train))).long()
        batch = train.batch(index)
        with _at_rest(model):
            student, teacher = self.sides(model, batch)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        norms = []
        for bound in self.sum.bound:
            gradients = torch.autograd.grad(
                bound(student, teacher, batch), weights, retain_graph=True, allow_unused=True
            )
            norms.append(
                math.sqrt(
                    sum(float(gradient.double().square().sum()) for gradient in gradients if gradient is not None)
                )
            )
        return norms


@contextmanager
def _at_rest(model: Forecaster) -> Iterator[None]:
    """The model in evaluation mode: nothing is dropped, no random number drawn."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
