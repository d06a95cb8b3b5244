"""Remove whole units and let the smaller model recover."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from tsdistill.data.task import Task
from tsdistill.errors import UnsupportedError, nearest
from tsdistill.exporting import refuse_deployed
from tsdistill.losses import AnyLoss, OutputLoss
from tsdistill.models.base import Forecaster, versions
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning.criteria import CRITERIA
from tsdistill.pruning.rebuilding import rebuild
from tsdistill.spec import LineageStep, Spec
from tsdistill.teachers import CachedTeacher, Teacher, check_teacher
from tsdistill.training import Objective, TeacherObjective, Training, TruthObjective, fit


class Pruning(Spec):
    """What to remove, and how to recover from it.

    Args:
        ratio: Share of units removed from every width group, 0 = nothing. At least one unit of a group always stays.
        criterion: How units are ranked.
        groups: What is cut: kinds of groups or names of them, in which * stands for anything ("block*.feedforward").
            Kinds are "units" and "heads", which None stands for, "width" (of residual vectors and embeddings),
            "layers" (whole blocks) and "context" (the oldest steps or patches; most weights of a `PatchTSTConfig` are
            there to read those). A context can be as short as one step, patch or period, or a moving average's kernel.
        recovery: Training after the cut; None for none.
        losses: What recovery imitates when there is a teacher.

    Example:
        >>> Pruning(ratio=0.5).criterion
        'magnitude'
    """

    ratio: float = Field(default=0.5, ge=0, lt=1)
    criterion: Literal["magnitude"] = "magnitude"
    groups: tuple[str, ...] | None = Field(default=None, min_length=1)
    recovery: Training | None = Training(epochs=3, learning_rate=5e-4)
    losses: tuple[AnyLoss, ...] = Field(default=(OutputLoss(),), min_length=1)


def prune(
    forecaster: Forecaster,
    task: Task,
    pruning: Pruning | None = None,
    *,
    teacher: Teacher | None = None,
    cache: Path | None = None,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> Forecaster:
    """Remove the least worthy units of every width group; the result is an ordinary, smaller forecaster.

    Units are ranked within their group. The config shrinks, a model is built from it, and what stays is copied:
    nothing is masked, so that bytes and time shrink with the ratio. Recovery trains the result, on the teacher's
    forecasts and the truth if a teacher is given, on the truth alone if not. A control is pruned alike and recovers
    without a teacher.

    Args:
        forecaster: What to prune; left as it is.
        task: Data for the recovery.
        pruning: What to remove; defaults to `Pruning()`.
        teacher: Who teaches the recovery.
        cache: Folder for the teacher's forecasts.
        checkpoint: A file to keep the recovery's state in (the control keeps its own beside it).
        progress: Show progress bars; None shows them in a terminal only.

    Returns:
        A new forecaster of the same class.

    Raises:
        OrderError: the model was already exported or quantized.
        UnsupportedError: the architecture has nothing that can be removed (linear, seasonal naive).
        DivergenceError: recovery met an infinite or NaN loss.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> student = MLPConfig(width=8, depth=1, hidden=16).build(task.signature)
        >>> prune(student, task, Pruning(ratio=0.25, recovery=None)).config.hidden
        (12,)
    """
    refuse_deployed(forecaster, "prune")
    if teacher is not None:
        refuse_deployed(teacher, "prune")
        check_teacher(teacher, task)
    pruning = pruning or Pruning()
    if not _cuttable(forecaster, pruning):
        kind = forecaster.config.kind
        raise UnsupportedError(
            f"A {kind!r} model has no units, heads or widths to prune. Leave this step out, or distil into a smaller "
            "architecture."
        )
    smaller = _prune_one(forecaster, task, pruning, teacher, cache, checkpoint, progress)
    if forecaster.control is not None:
        beside = checkpoint.with_name(f"control-{checkpoint.name}") if checkpoint else None
        smaller.control = _prune_one(forecaster.control, task, pruning, None, None, beside, progress)
    return smaller


def _prune_one(
    forecaster: Forecaster,
    task: Task,
    pruning: Pruning,
    teacher: Teacher | None,
    cache: Path | None,
    checkpoint: Path | None,
    progress: bool | None,
) -> Forecaster:
    groups = _cuttable(forecaster, pruning)
    keep = {group.name: _kept(forecaster, group, pruning) for group in groups}
    smaller = rebuild(forecaster, keep)
    found: dict[str, Any] = {
        "kept": {group.name: f"{len(keep[group.name])} of {group.size}" for group in groups},
        "n_parameters_before": forecaster.n_parameters,
        "n_parameters": smaller.n_parameters,
    }
    if pruning.recovery is not None:
        objective: Objective = (
            TruthObjective() if teacher is None else TeacherObjective(pruning.losses, CachedTeacher(teacher, cache))
        )
        found |= fit(smaller, task, pruning.recovery, objective, checkpoint=checkpoint, progress=progress)
    step = LineageStep(
        verb="prune",
        spec=pruning.to_dict() | ({"teacher": teacher.digest} if teacher is not None else {}),
        seed=pruning.recovery.seed if pruning.recovery else None,
        data=task.fingerprint if pruning.recovery else None,
        metrics=found,
        versions=versions(),
    )
    return smaller.eval().with_step(step)


def _cuttable(model: Forecaster, pruning: Pruning) -> list[WidthGroup]:
    """The groups that a spec names; a name that fits none is refused."""
    named, groups = pruning.groups or ("units", "heads"), model.width_groups()
    found = [group for group in groups if any(name == group.kind or fnmatchcase(group.name, name) for name in named)]
    for name in pruning.groups or ():
        if not any(name == group.kind or fnmatchcase(group.name, name) for group in groups) and groups:
            known = sorted({group.kind for group in groups} | {group.name for group in groups})
            raise UnsupportedError(
                f"`groups` must name what a {model.config.kind!r} model has, got {name!r}. {nearest(name, known)}"
            )
    return found


def _kept(model: Forecaster, group: WidthGroup, pruning: Pruning) -> Tensor:
    """Units that stay, ascending: the highest scores, at least one."""
    n_kept = max(group.minimum, group.size - round(group.size * pruning.ratio))
    if group.ordered:
        return torch.arange(group.size - n_kept, group.size)
    scores = CRITERIA[pruning.criterion](model, group)
    return torch.sort(scores.topk(n_kept).indices).values
