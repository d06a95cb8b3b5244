"""Losses on where a model looks: attention between tokens, and what stands for it in models without any."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.errors import UnsupportedError, must
from tsdistill.losses.alignment import Layers, check_tokens, parts_read, pooled, short, shown_pairs, together
from tsdistill.losses.base import SMALL, BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster

INSTEAD = 'Use td.AttentionLoss(source="self-similarity"), which compares hidden states along time.'

TINY = 1e-8

PARTS: dict[str, Literal["hidden", "attention", "values"]] = {
    "attention": "attention",
    "value-relation": "values",
    "self-similarity": "hidden",
}


class AttentionLoss(Loss):
    """The student relates moments of its context to each other as the teacher does.

    attention: mean over rows of KL(teacher's attention || student's attention);
    value-relation: the same of softmax(V V' / sqrt(head width)), V the values of a head;
    self-similarity: MSE(cos(student), cos(teacher)), cos the cosines between the hidden states of all pairs of tokens.

    Use "attention" or "value-relation" between transformers, and "self-similarity" where a side has no attention, so
    that a transformer can teach an LSTM. Leave it out where the student has one token only (an MLP) or where attention
    maps are nearly uniform: there is nothing to learn from them.

    Heads are matched where both sides have the same number and averaged otherwise; the finer time resolution is
    averaged to the coarser one, rows of attention then sum to 1 again.

    Args:
        source: "attention", "value-relation" or "self-similarity".
        layers: "last"; "uniform", every layer of the student with its share of the teacher's; or pairs (student,
            teacher) counted from 0.
        weight: Factor in a sum of losses.

    Example:
        >>> str(AttentionLoss(source="self-similarity", weight=0.1))
        '0.1 * MSE(cosines(student.hidden), cosines(teacher.hidden))'

    Source: attention and value relation: W. Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic
    Compression of Pre-Trained Transformers", NeurIPS 2020, equations 7 to 9. Self-similarity: F. Tung and G. Mori,
    "Similarity-Preserving Knowledge Distillation", ICCV 2019, equations 1 to 4. Differs from the source: any layers
    may be compared, heads and tokens need not be the same number; similarities are between the tokens of a window
    instead of between the examples of a batch, cosines instead of rows of unit length.
    """

    kind: Literal["attention"] = "attention"
    source: Literal["attention", "value-relation", "self-similarity"] = "attention"
    layers: Layers = "last"
    weight: Annotated[float, SMALL] = Field(default=0.1, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Every source."""
        return (
            cls(source="self-similarity"),
            cls(layers="uniform"),
            cls(source="value-relation", layers=((0, 0),)),
        )

    @property
    def formula(self) -> str:
        """The comparison and what is compared."""
        which = "" if self.layers == "last" else f"[{short(self.layers)}]"
        if self.source == "self-similarity":
            return f"MSE(cosines(student.hidden{which}), cosines(teacher.hidden{which}))"
        part = "attention" if self.source == "attention" else "values"
        return f"KL(teacher.{part}{which}, student.{part}{which})"

    @property
    def sees_attention(self) -> bool:
        """Cosines need hidden states only."""
        return self.source != "self-similarity"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for two sides that have what is compared, over several tokens."""
        similar = self.source == "self-similarity"
        remedy = "Use losses on forecasts, such as td.TemporalLoss." if similar else INSTEAD
        pairs = shown_pairs(PARTS[self.source], self.layers, student, example, remedy)
        check_tokens(example, "Tokens", "Use td.FeatureLoss, which brings channels and time together.")
        for role, side in (("student", example.student), ("teacher", example.teacher)):
            if side.hidden and side.hidden[-1].shape[2] < 2:
                remedy = f"The {role} has one token only: leave the loss out, or use td.FeatureLoss"
                raise UnsupportedError(must("source", "have several tokens to relate", self.source, remedy))
        return {"attention": _Attention, "value-relation": _Values, "self-similarity": _Cosines}[self.source](pairs)


class _Related(BoundLoss):
    """The mean over pairs of layers of a comparison of two maps from tokens to tokens."""

    part: Literal["hidden", "attention", "values"]

    def __init__(self, pairs: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.pairs = pairs
        self.reads = parts_read(self.part, pairs)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        values = []
        for student_layer, teacher_layer in self.pairs:
            student_part, teacher_part = (
                getattr(student, self.part)[student_layer],
                getattr(teacher, self.part)[teacher_layer],
            )
            values.append(self.compare(student_part.float(), teacher_part.detach().float()))
        return torch.stack(values).mean()

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        raise NotImplementedError


class _Attention(_Related):
    part = "attention"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return _divergence(student, teacher)


class _Values(_Related):
    part = "values"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        student_map, teacher_map = (
            (tensor @ tensor.mT / tensor.shape[-1] ** 0.5).softmax(dim=-1) for tensor in (student, teacher)
        )
        return _divergence(student_map, teacher_map)


class _Cosines(_Related):
    part = "hidden"

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        student_map, teacher_map = (
            functional.normalize(tensor, dim=-1, eps=TINY) for tensor in together(student, teacher)
        )
        return functional.mse_loss(student_map @ student_map.mT, teacher_map @ teacher_map.mT)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over rows of KL(teacher || student), both (batch, channel, head, query, key)."""
    if student.shape[2] != teacher.shape[2]:
        student, teacher = (tensor.mean(dim=2, keepdim=True) for tensor in (student, teacher))
    if student.shape[1] != teacher.shape[1]:
        student, teacher = (tensor.mean(dim=1, keepdim=True) for tensor in (student, teacher))
    n_tokens = min(student.shape[-1], teacher.shape[-1])
    student_map, teacher_map = (_resampled(tensor, n_tokens).clamp(min=TINY) for tensor in (student, teacher))
    return (teacher_map * (teacher_map.log() - student_map.log())).sum(dim=-1).mean()


def _resampled(maps: Tensor, n_tokens: int) -> Tensor:
    """Attention maps over fewer tokens, and with rows that sum to exactly 1 (half precision keeps them nearly so)."""
    if maps.shape[-1] != n_tokens:
        square = maps.flatten(0, 1)
        square = pooled(pooled(square, n_tokens).mT, n_tokens).mT
        maps = square.unflatten(0, maps.shape[:2])
    return maps / maps.sum(dim=-1, keepdim=True).clamp(min=TINY)
