"""Remove whole units and let the smaller model recover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, UnsupportedError, check_type, must, optional_path
from tsdistill.exporting import refuse_deployed, refuse_foreign
from tsdistill.models.base import Forecaster
from tsdistill.models.finite import refuse_not_finite
from tsdistill.models.provenance import machine, versions
from tsdistill.pruning.evidence import Evidence, error_of
from tsdistill.pruning.ranking import UnitRanking, groups_of, notes_of
from tsdistill.pruning.rebuilding import rebuild
from tsdistill.pruning.repairing import folded, refitted
from tsdistill.pruning.spec import Pruning
from tsdistill.pruning.targets import MEASURES, STEPS, ratio_for
from tsdistill.pruning.unstructured import cut_weights, held, zeros_in
from tsdistill.spec import LineageStep
from tsdistill.teachers import CachedTeacher, Teacher, adapt, teacher_info
from tsdistill.training import Objective, TeacherObjective, TruthObjective, fit
from tsdistill.training.steps import device_of

ATTEMPTS = 6
"""Times that a cut is made deeper because its result missed what was estimated."""

TRIES = 16
"""Ratios tried for a validation error are multiples of one by this."""


def prune(
    forecaster: Forecaster,
    task: Task,
    pruning: Pruning | None = None,
    *,
    teacher: Teacher | None = None,
    cache: str | Path | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Forecaster:
    """Remove the least worthy units of every width group; the result is an ordinary, smaller forecaster.

    The config shrinks, a model is built from it, and what stays is copied: nothing is masked, so that bytes and time
    shrink with the ratio. Recovery trains the result, on the teacher's forecasts and the truth if a teacher is given,
    on the truth alone if not. A control is pruned to the same sizes and recovers without a teacher. See `Pruning` for
    what is cut, in how many rounds and up to which target, and `plan_pruning` to look first.

    Args:
        forecaster: What to prune; left as it is.
        task: Data for criteria, repair and recovery; its test part is not read.
        pruning: What to remove; defaults to `Pruning()`.
        teacher: Who teaches the recovery.
        cache: Folder for the teacher's forecasts.
        checkpoint: A file to keep the recovery's state in (further rounds and the control keep theirs beside it).
        progress: Show progress bars; None shows them in a terminal only.

    Returns:
        A new forecaster of the same class; the last step of its lineage records what was kept and what was reached.

    Raises:
        OrderError: the model was already exported or quantized.
        ConfigError: an argument of another type, or a teacher is given though the spec recovers from the unpruned self.
        UnsupportedError: the architecture has nothing that can be removed (linear, seasonal naive), a name fits no
            group, a criterion cannot rank one, or a target is out of reach.
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
    refuse_foreign(forecaster)
    refuse_not_finite(forecaster, "prune")
    pruning = Pruning() if pruning is None else pruning
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    check_type("pruning", pruning, Pruning, "Pass td.Pruning(ratio=...)")
    checkpoint = optional_path("checkpoint", checkpoint)
    cache = optional_path("cache", cache)
    if teacher is not None:
        refuse_deployed(teacher, "prune")
        teacher = adapt(teacher, task)
        if pruning.recover_from is not None:
            rule = "be None where a teacher is given"
            raise ConfigError(must("recover_from", rule, pruning.recover_from, "Leave one of the two out"))
    if not pruning.masks:
        groups_of(forecaster, pruning)  # refuses what cannot be cut
    run = _PruningRun(task, pruning, teacher, cache, checkpoint, progress)
    smaller, counts = run.pruned(forecaster)
    if forecaster.control is not None:
        beside = checkpoint.with_name(f"control-{checkpoint.name}") if checkpoint else None
        alone = replace(run, teacher=None, cache=None, checkpoint=beside, counts=counts)
        smaller.control, _ = alone.pruned(forecaster.control)
    return smaller


@dataclass(frozen=True)
class _PruningRun:
    """Everything a model is pruned with.

    `counts` are the units that stay of every group after each round, where another model has set them.
    """

    task: Task
    pruning: Pruning
    teacher: Teacher | None
    cache: Path | None
    checkpoint: Path | None
    progress: bool | None
    counts: tuple[dict[str, int], ...] | None = None

    def pruned(self, model: Forecaster) -> tuple[Forecaster, tuple[dict[str, int], ...]]:
        """The smaller forecaster with its lineage, and how many units stayed after each round."""
        pruning = self.pruning
        if pruning.masks:
            return self._finished(model, *self._masked(model)), ()
        if self.counts is None and pruning.max_error_increase is not None:
            smaller, metrics, counts = self._within_error(model)
        elif self.counts is None and pruning.sizes:
            smaller, metrics, counts = self._within_size(model)
        else:
            # Where another model has set the counts, a target's ratio is not asked for again.
            smaller, metrics, counts = self._cut(model, pruning.ratio or 0.0, self.checkpoint)
        return self._finished(model, smaller, metrics), counts

    def _finished(self, model: Forecaster, smaller: Forecaster, metrics: dict[str, Any]) -> Forecaster:
        teacher = self._recovery_teacher(model)
        recovery = self.pruning.recovery
        step = LineageStep(
            verb="prune",
            spec=self.pruning.to_dict() | (teacher_info(teacher) if teacher is not None else {}),
            seed=recovery.seed if recovery else None,
            data=self.task.fingerprint if recovery or _looks_at_data(self.pruning) else None,
            metrics=metrics,
            versions=versions(),
            machine=machine(),
        )
        smaller.lineage = model.lineage
        return smaller.eval().with_step(step)

    def _recovery_teacher(self, model: Forecaster) -> Teacher | None:
        return model if self.pruning.recover_from is not None else self.teacher

    def _within_size(self, model: Forecaster) -> tuple[Forecaster, dict[str, Any], tuple[dict[str, int], ...]]:
        """Cut as much as the targets for sizes ask for, and see that the result keeps to them."""
        ranks = self._ranks(model, self.pruning)
        limits = self.pruning.sizes
        ratio = ratio_for(ranks, limits)
        asked = dict(limits)
        for _ in range(ATTEMPTS):
            smaller, metrics, counts = self._cut(model, ratio, self._beside(f"ratio{ratio:.4f}"))
            # Measured with the manifest that it is going to have: a longer lineage makes a larger file.
            done = self._finished(model, smaller, {**metrics, "ratio": ratio, "reached": limits})
            reached = {name: MEASURES[name](done) for name in limits}
            over = {name: value for name, value in reached.items() if value > limits[name]}
            if not over:
                return smaller, {**metrics, "ratio": ratio, "reached": reached}, counts
            asked |= {name: asked[name] - (value - limits[name]) for name, value in over.items()}
            try:
                ratio = max(ratio_for(ranks, asked), ratio + 1 / STEPS)
            except UnsupportedError:
                break
        missed = ", ".join(f"{name}={limits[name]:g} (reached: {value:g})" for name, value in reached.items())
        raise UnsupportedError(
            f"No cut was found that keeps to {missed}. Raise the target. The forecaster is left as it was."
        )

    def _within_error(self, model: Forecaster) -> tuple[Forecaster, dict[str, Any], tuple[dict[str, int], ...]]:
        """Cut as much as the validation error allows, by halving the range of ratios."""
        allowed = self.pruning.max_error_increase
        assert allowed is not None  # the caller asked
        before = error_of(model, self.task.validation)
        tried: list[dict[str, Any]] = []
        best: tuple[Forecaster, dict[str, Any], tuple[dict[str, int], ...]] | None = None
        low, high = 0, TRIES
        reached = 0.0
        while high - low > 1:
            middle = (low + high) // 2
            ratio = middle / TRIES
            smaller, metrics, counts = self._cut(model, ratio, self._beside(f"ratio{ratio:.4f}"))
            error = error_of(smaller, self.task.validation)
            if smaller.n_parameters == model.n_parameters:
                low = middle  # too small a share of every group to cut anything
                continue
            tried.append({"ratio": ratio, "n_parameters": smaller.n_parameters, "error_increase": error / before - 1})
            if error <= before * (1 + allowed):
                low = middle
                best = (smaller, metrics, counts)
                reached = ratio
            else:
                high = middle
        if best is None:
            closest = min(tried, key=lambda row: row["error_increase"])
            raise UnsupportedError(
                f"No cut keeps to max_error_increase={allowed:g}, got {closest['error_increase']:.3g} at the closest, "
                f"a ratio of {closest['ratio']:g}. Allow more, recover longer, or leave this step out. The forecaster "
                "is left as it was."
            )
        return best[0], {**best[1], "ratio": reached, "tried": tried}, best[2]

    def _cut(
        self, model: Forecaster, ratio: float, checkpoint: Path | None
    ) -> tuple[Forecaster, dict[str, Any], tuple[dict[str, int], ...]]:
        """Rounds of ranking, cutting, repairing and recovering."""
        pruning = self.pruning
        smaller = model
        done: list[dict[str, int]] = []
        sizes = {group.name: group.size for group in groups_of(model, pruning)}
        recovery_metrics: dict[str, Any] = {}
        notes: list[str] = []
        recoveries = []
        for number in range(1, pruning.n_rounds + 1):
            ranks = self._ranks(smaller, pruning)
            last = number == pruning.n_rounds
            if not last:
                # Blocks are numbered by their place, and a context has to go from its start: both in the last round.
                ranks = replace(ranks, groups=[g for g in ranks.groups if not (g.is_stack or g.ordered)])
            if self.counts is not None:
                counts = dict(self.counts[number - 1])
            else:
                share = pruning.share(number, ratio)
                own = {group.name: sizes[group.name] for group in ranks.groups}
                counts = ranks.counts(share, own)
                # What has to stay may have become more: layers that were cut to different sizes no longer fit.
                notes = notes_of([replace(group, size=own[group.name]) for group in ranks.groups], counts, share)
            smaller = self._repaired(smaller, ranks.kept(counts))
            done.append(counts)
            if pruning.recovery is not None:
                beside = checkpoint
                if checkpoint is not None and not last:
                    beside = checkpoint.with_name(f"round{number}-{checkpoint.name}")
                objective = self._objective(model)
                recovery_metrics = fit(
                    smaller, self.task, pruning.recovery, objective, checkpoint=beside, progress=self.progress
                )
                recoveries.append(recovery_metrics.get("validation_mse"))
        metrics: dict[str, Any] = {
            "kept": {name: f"{done[-1][name]} of {size}" for name, size in sizes.items()},
            "n_parameters_before": model.n_parameters,
            "n_parameters": smaller.n_parameters,
        }
        if notes:
            metrics["notes"] = notes
        if pruning.n_rounds > 1:
            metrics["rounds"] = [{"kept": counts, "validation_mse": error} for counts, error in
                              zip(done, recoveries or [None] * len(done), strict=True)]  # fmt: skip
        return smaller, metrics | recovery_metrics, tuple(done)

    def _ranks(self, model: Forecaster, pruning: Pruning) -> UnitRanking:
        return UnitRanking(model, groups_of(model, pruning), pruning, Evidence(model, self.task))

    def _repaired(self, model: Forecaster, keep: Mapping[str, Tensor]) -> Forecaster:
        if not self.pruning.repair:
            return rebuild(model, keep)
        windows = Evidence(model, self.task).train
        smaller = rebuild(model, keep, mend=lambda whole, units: folded(whole, units, windows))
        return refitted(smaller, model, windows)

    def _masked(self, model: Forecaster) -> tuple[Forecaster, dict[str, Any]]:
        """Rounds of setting single weights to zero and recovering."""
        pruning = self.pruning
        smaller = model
        recovery_metrics: dict[str, Any] = {}
        for number in range(1, pruning.n_rounds + 1):
            assert pruning.ratio is not None  # the spec allows no target here
            smaller, masks = cut_weights(smaller, pruning, pruning.share(number, pruning.ratio))
            if pruning.recovery is not None:
                beside = self.checkpoint
                if beside is not None and number < pruning.n_rounds:
                    beside = beside.with_name(f"round{number}-{beside.name}")
                with held(smaller, masks):
                    objective = self._objective(model)
                    recovery_metrics = fit(
                        smaller, self.task, pruning.recovery, objective, checkpoint=beside, progress=self.progress
                    )
        sizes = {"n_parameters_before": model.n_parameters, "n_parameters": smaller.n_parameters}
        return smaller, {**sizes, **zeros_in(smaller, model), **recovery_metrics}

    def _objective(self, model: Forecaster) -> Objective:
        teacher = self._recovery_teacher(model)
        if teacher is None:
            return TruthObjective()
        device = device_of(self.pruning.recovery) if self.pruning.recovery else None
        return TeacherObjective(self.pruning.losses, CachedTeacher(teacher, self.cache, device=device))

    def _beside(self, what: str) -> Path | None:
        return None if self.checkpoint is None else self.checkpoint.with_name(f"{what}-{self.checkpoint.name}")


def _looks_at_data(pruning: Pruning) -> bool:
    return pruning.repair or pruning.criterion.looks_at_data or pruning.max_error_increase is not None
