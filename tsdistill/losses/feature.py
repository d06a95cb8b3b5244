"""Losses on hidden states: what a student should represent, not only forecast."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.losses.alignment import Layers, over_time, parts_read, short, shown_pairs, together
from tsdistill.losses.base import SMALL, BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster

REMEDY = "Use losses on forecasts, such as td.OutputLoss and td.TemporalLoss, or models with layers on both sides."

TINY = 1e-8

CACHED = 2**20
"""Numbers of a teacher's hidden states that a processor is given at a time."""


class FeatureLoss(Loss):
    """The student's hidden states come to hold what the teacher's hold.

    hint: mean of (norm(teacher) - projector(student))^2, the projector a trained linear map from the student's width to
    the teacher's, norm the standardisation of each token's vector;
    cka: 1 - |Y'X|^2 / (|X'X| |Y'Y|) of centred hidden states X (student) and Y (teacher), rows being tokens;
    relational: Huber(D(student), D(teacher)) of distances between the windows of a batch, each divided by their mean.

    Use "hint" where the student is a narrower relative of the teacher, "cka" where the two are of different kinds and
    only the geometry should carry over, "relational" where even tokens do not correspond. Leave all of them out where
    the teacher's advantage is small: they cost memory for cached hidden states, and a student too small to represent
    what it imitates forecasts worse for it.

    Time resolutions may differ (the finer is averaged to the coarser), as may depth (`layers`) and channel handling (a
    side that mixes channels is compared with the mean over the other's).

    Args:
        method: "hint", "cka" or "relational".
        layers: "last"; "uniform", every layer of the student with its share of the teacher's; or pairs (student,
            teacher) counted from 0.
        weight: Factor in a sum of losses.

    Example:
        >>> str(FeatureLoss(weight=0.1))
        '0.1 * MSE(projector(student.hidden), norm(teacher.hidden))'

    Source: hint: A. Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3. CKA: S. Kornblith et
    al., "Similarity of Neural Network Representations Revisited", ICML 2019, equation 5 (linear kernel). Relational: W.
    Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 5 and 6. Differs from the source: teacher
    vectors are standardised, so that a weight means the same for every teacher; all pairs count in the relational mean,
    a window with itself too, so that the value does not depend on the batch's size; tokens are aligned in time.
    """

    kind: Literal["feature"] = "feature"
    method: Literal["hint", "cka", "relational"] = "hint"
    layers: Layers = "last"
    weight: Annotated[float, SMALL] = Field(default=0.1, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Every method, and every way to pair layers."""
        return (
            cls(),
            cls(layers=((0, 1),), weight=0.3),
            cls(method="cka", layers="uniform"),
            cls(method="relational"),
        )

    @property
    def formula(self) -> str:
        """The comparison and what is compared."""
        which = "hidden" if self.layers == "last" else f"hidden[{short(self.layers)}]"
        if self.method == "hint":
            return f"MSE(projector(student.{which}), norm(teacher.{which}))"
        if self.method == "cka":
            return f"(1 - CKA(student.{which}, teacher.{which}))"
        return f"Huber(distances(student.{which}), distances(teacher.{which}))"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for two sides with hidden states; builds the projectors of hints."""
        pairs = shown_pairs("hidden", self.layers, student, example, REMEDY)
        kind = {"hint": _Hint, "cka": _CKA, "relational": _Relational}[self.method]
        return kind(pairs, example)


class _Hidden(BoundLoss):
    """The mean over pairs of layers of a comparison of two aligned hidden states."""

    def __init__(self, pairs: tuple[tuple[int, int], ...], example: Example) -> None:
        super().__init__()
        self.pairs = pairs
        self.reads = parts_read("hidden", pairs)
        self.axes = example.student.tokens_are, example.teacher.tokens_are

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        terms = [
            self.measure(number, student.hidden[student_layer], teacher.hidden[teacher_layer].detach())
            for number, (student_layer, teacher_layer) in enumerate(self.pairs)
        ]
        return torch.stack(terms).mean()

    def measure(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        """What one pair of layers is apart, as they come from the models."""
        return self.compare(number, *self.aligned(student, teacher))

    def aligned(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides in float32, with the same channels and tokens."""
        return together(over_time(student.float(), self.axes[0]), over_time(teacher.float(), self.axes[1]))

    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        raise NotImplementedError


class _Hint(_Hidden):
    def __init__(self, pairs: tuple[tuple[int, int], ...], example: Example) -> None:
        super().__init__(pairs, example)
        self.projectors = nn.ModuleList(
            nn.Linear(example.student.hidden[student_layer].shape[-1], example.teacher.hidden[teacher_layer].shape[-1])
            for student_layer, teacher_layer in pairs
        )

    def measure(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        # A few windows at a time stay in the processor's caches: a whole batch at once takes twice as long.
        size = max(1, CACHED // teacher[0].numel()) if student.device.type == "cpu" else len(student)
        parts = zip(student.split(size), teacher.split(size), strict=True)
        sums = [self.compare(number, *self.aligned(*part)) * len(part[0]) for part in parts]
        return torch.stack(sums).sum() / len(student)

    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        wanted = functional.layer_norm(teacher, teacher.shape[-1:])
        return functional.mse_loss(self.projectors[number](student), wanted)


class _CKA(_Hidden):
    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        x, y = (rows - rows.mean(dim=0) for rows in (student.flatten(0, 2), teacher.flatten(0, 2)))
        # Products of features are small where widths are; those of rows grow with the batch.
        shared, student_gram, teacher_gram = (y.T @ x).square().sum(), (x.T @ x).norm(), (y.T @ y).norm()
        return 1 - shared / (student_gram * teacher_gram).clamp(min=TINY)


class _Relational(_Hidden):
    def compare(self, number: int, student: Tensor, teacher: Tensor) -> Tensor:
        apart = [torch.cdist(rows.flatten(1), rows.flatten(1)) for rows in (student, teacher)]
        student_gram, teacher_gram = (rows / rows.mean().clamp(min=TINY) for rows in apart)
        return functional.smooth_l1_loss(student_gram, teacher_gram)
