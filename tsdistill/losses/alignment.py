"""Bringing insides of different depth, time resolution and channel axis together, before they are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tsdistill.errors import ConfigError, UnsupportedError, listed, must
from tsdistill.losses.base import Example
from tsdistill.models.base import Forecaster
from tsdistill.spec.limits import MAX_COUNT, MAX_ITEMS

Place = Annotated[int, Field(le=MAX_COUNT)]

Layers = (
    Literal["last", "uniform"] | Annotated[tuple[tuple[Place, Place], ...], Field(min_length=1, max_length=MAX_ITEMS)]
)
"""Which depth of the student is compared with which of the teacher: the last ones, all of the student's spread evenly
over the teacher's, or pairs (student, teacher) counted from 0."""


def layer_pairs(layers: Layers, n_student: int, n_teacher: int) -> tuple[tuple[int, int], ...]:
    """The pairs of depths that a layer map stands for.

    Example:
        >>> layer_pairs("uniform", 2, 6)
        ((0, 2), (1, 5))
    """
    if layers == "last":
        return ((n_student - 1, n_teacher - 1),)
    if layers == "uniform":
        # Each layer of the student learns from the end of its share of the teacher, its last one from the last.
        return tuple((depth, max((depth + 1) * n_teacher // n_student, 1) - 1) for depth in range(n_student))
    problems = [
        must(
            f"layers[{place}]",
            f"be a student's layer below {n_student} and a teacher's below {n_teacher}",
            pair,
            "Layers are counted from 0",
        )
        for place, pair in enumerate(layers)
        if not (0 <= pair[0] < n_student and 0 <= pair[1] < n_teacher)
    ]
    if problems:
        raise ConfigError(listed(problems, "layers"))
    return tuple(layers)


def shown_pairs(
    part: Literal["hidden", "attention", "values"], layers: Layers, student: Forecaster, example: Example, remedy: str
) -> tuple[tuple[int, int], ...]:
    """The pairs of depths, if both sides show that part of themselves; `remedy` is the advice where one does not."""
    for role, side in (("student", example.student), ("teacher", example.teacher)):
        if not getattr(side, part):
            name = f" ({student.config.kind!r})" if role == "student" else ""
            missing = "hidden states" if part == "hidden" else "attention"
            raise UnsupportedError(f"The {role}{name} shows no {missing} to compare. {remedy}")
    return layer_pairs(layers, len(getattr(example.student, part)), len(getattr(example.teacher, part)))


def over_time(hidden: Tensor, tokens_are: str) -> Tensor:
    """Hidden states whose tokens are steps of time, (batch, channel, token, width).

    Of a model with one token per channel, each channel becomes a row of its own with a single token.
    """
    return hidden.transpose(1, 2) if tokens_are == "channels" else hidden


def together(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two hidden states (batch, channel, token, width) with the same channels and tokens; widths stay.

    A side that mixes channels is compared with the mean over the other's. The finer time resolution is averaged to the
    coarser one.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = (tensor.mean(dim=1, keepdim=True) for tensor in (student, teacher))
    n_tokens = min(student.shape[2], teacher.shape[2])
    return pooled(student, n_tokens), pooled(teacher, n_tokens)


def pooled(hidden: Tensor, n_tokens: int) -> Tensor:
    """Tokens averaged to fewer of them, (batch, channel, token, width) -> (batch, channel, n_tokens, width)."""
    if hidden.shape[2] == n_tokens:
        return hidden
    rows = functional.adaptive_avg_pool1d(hidden.flatten(0, 1).transpose(1, 2), n_tokens)
    return rows.transpose(1, 2).unflatten(0, hidden.shape[:2])


def parts_read(part: str, pairs: tuple[tuple[int, int], ...]) -> frozenset[str]:
    """Names of the teacher's parts that some pairs look at."""
    return frozenset(f"{part}.{teacher}" for _, teacher in pairs)


def check_tokens(example: Example, subject: str, remedy: str) -> None:
    """Refuse to compare what runs over time on one side and over channels on the other."""
    student, teacher = example.student.tokens_are, example.teacher.tokens_are
    if student != teacher:
        raise UnsupportedError(
            f"{subject} must run over the same axis on both sides, got {student} (student) and {teacher} (teacher). "
            f"{remedy}"
        )


def short(layers: Layers) -> str:
    """A layer map in a formula."""
    return layers if isinstance(layers, str) else ", ".join(f"{student}:{teacher}" for student, teacher in layers)
