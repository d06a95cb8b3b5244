"""What to prune, how far, and how to recover."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tsdistill.errors import listed, must
from tsdistill.losses import AnyLoss, OutputLoss
from tsdistill.pruning.criteria import AnyCriterion, Magnitude
from tsdistill.spec import Spec, Tuned
from tsdistill.spec.limits import LARGEST, MAX_ITEMS, Depth
from tsdistill.training import Training

SIZES = ("max_parameters", "max_bytes", "max_latency_ms")
"""Targets that a model is measured by before it has recovered."""

TARGETS = (*SIZES, "max_error_increase")
"""All that can be asked for instead of a ratio."""


class Pruning(Spec):
    """What to remove, and how to recover from it.

    Args:
        ratio: Share of units removed, 0 = nothing. Every group keeps a documented minimum, one unit in most, and the
            lineage records where it did. None with a target below, which finds the ratio.
        criterion: How units are ranked, a `Criterion` or the word for one: "magnitude" (L2 norm) and "l1" of their
            weights; "taylor" (what the loss on training windows would lose with them, to first order); "activation"
            (their weights times what passes through them); "redundancy" (those that others can replace go first);
            "loss" (what the error on validation windows gains when each is silenced: slow).
        ranking: "local" removes the same share of every group, "global" the lowest of all groups, whose scores are
            divided by their mean.
        groups: What is cut: kinds of groups or names of them, in which * stands for anything ("block*.feedforward").
            Kinds are "units" and "heads", which None stands for, "width" (of residual vectors and embeddings),
            "layers" (whole blocks; of an LSTM or GRU those that give as many numbers as they read) and "context"
            (the oldest steps or patches; most weights of a `PatchTSTConfig` are there to read those). A context can be
            as short as one step, patch or period, or a moving average's kernel.
        method: "structured" removes units and leaves a smaller model; "unstructured" sets single weights to zero by
            their magnitude, in each tensor ("local") or over all ("global"): the textbook row, which makes neither the
            deployed file smaller nor the model faster, only its compressed weights smaller.
        repair: Make the units that stay replace those that go: a least-squares fit on training windows, folded
            into the weights, before any recovery. See `tsdistill.pruning.repairing`.
        recovery: Training after every round; None for none.
        losses: What recovery imitates when there is a teacher.
        recover_from: "self" teaches the recovery by the unpruned forecaster; None by the teacher that `prune` is given,
            or by the truth alone.
        n_rounds: Rounds of cutting and recovering; blocks and context go in the last one.
        schedule: How the share removed grows over the rounds: "cubic" cuts most in the first ones, "linear" evenly.
        max_parameters: Cut no more than this number of weights asks for.
        max_bytes: The same for the bytes of the exported model.
        max_latency_ms: The same for the median time of a forecast of the exported model at batch 1 on one thread.
        max_error_increase: Cut as much as the validation error allows, which may grow by this share (0.01 is 1 %)
            after recovery. Several ratios are tried, each with its own recovery.

    Example:
        >>> Pruning(ratio=0.5, criterion="taylor").criterion
        Taylor(kind='taylor')

    Source: M. Zhu and S. Gupta, "To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression",
    2017, equation 1 (cubic schedule). Sources of criteria and repair stand beside them. Differs from the source: rounds
    instead of steps, and units instead of masks.
    """

    left_out_at: ClassVar[tuple[str, float] | None] = ("ratio", 0)
    late: ClassVar[frozenset[str]] = frozenset(
        {"ranking", "groups", "method", "repair", "recover_from", "n_rounds", "schedule", *TARGETS}
    )

    ratio: Annotated[float | None, Tuned(0.0, 0.25, 0.5)] = Field(default=0.5, ge=0, lt=1)
    criterion: AnyCriterion = Magnitude()
    ranking: Literal["local", "global"] = "local"
    groups: tuple[str, ...] | None = Field(default=None, min_length=1)
    method: Literal["structured", "unstructured"] = "structured"
    repair: bool = False
    recovery: Training | None = Training(epochs=3, learning_rate=5e-4)
    losses: tuple[AnyLoss, ...] = Field(default=(OutputLoss(),), min_length=1, max_length=MAX_ITEMS)
    recover_from: Literal["self"] | None = None
    n_rounds: Depth = 1
    schedule: Literal["cubic", "linear"] = "cubic"
    max_parameters: Annotated[int | None, Field(ge=1, lt=LARGEST)] = None
    max_bytes: Annotated[int | None, Field(ge=1, lt=LARGEST)] = None
    max_latency_ms: float | None = Field(default=None, gt=0)
    max_error_increase: float | None = Field(default=None, ge=0)

    @property
    def masks(self) -> bool:
        """Whether single weights are set to zero, so that nothing becomes smaller."""
        return self.method == "unstructured"

    @property
    def ranks_locally(self) -> bool:
        """Whether every group loses the same share."""
        return self.ranking == "local"

    @property
    def needs_teacher(self) -> bool:
        """Whether recovery is taught by the teacher that `prune` is given, where there is one."""
        return self.recovery is not None and self.recover_from is None

    def with_seed(self, seed: int) -> Self:
        """The same pruning, its recovery drawn from another seed."""
        return self if self.recovery is None else self.replace(recovery=self.recovery.replace(seed=seed))

    @property
    def sizes(self) -> dict[str, float]:
        """The targets for sizes, by name."""
        return {name: value for name in SIZES if (value := getattr(self, name)) is not None}

    @property
    def targets(self) -> dict[str, float]:
        """All targets, by name: those for sizes, or the one for the error."""
        error = self.max_error_increase
        return self.sizes | ({} if error is None else {"max_error_increase": error})

    def share(self, done: int, ratio: float) -> float:
        """Share removed after `done` rounds of `n_rounds`, of a whole `ratio`."""
        left = 1 - done / self.n_rounds
        return ratio * (1 - (left**3 if self.schedule == "cubic" else left))

    @model_validator(mode="before")
    @classmethod
    def _leave_ratio_to_target(cls, values: Any) -> Any:
        """A spec that gives a target alone has no ratio."""
        if isinstance(values, dict) and any(values.get(name) is not None for name in TARGETS):
            return {"ratio": None, **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.targets and self.ratio is not None:
            rule = f"be None with {' and '.join(self.targets)}, which finds it"
            problems.append(must("ratio", rule, self.ratio, "Ask for one or the other"))
        if not self.targets and self.ratio is None:
            problems.append(
                must("ratio", "be a number without a target", None, f"Give it, or one of {', '.join(TARGETS)}")
            )
        if self.sizes and self.max_error_increase is not None:
            rule = f"stand alone, without {', '.join(self.sizes)}"
            problems.append(must("max_error_increase", rule, self.max_error_increase, "Ask for one or the other"))
        if self.recover_from is not None and self.recovery is None:
            problems.append(must("recover_from", "be None with recovery=None", "self", "Give a td.Training"))
        if self.method == "unstructured":
            asked = {name: getattr(self, name) for name in (*TARGETS, "groups")}
            for name, value in (asked | {"repair": self.repair or None}).items():
                if value is not None:
                    rule = "be left out with method='unstructured', which makes nothing smaller"
                    problems.append(must(name, rule, value, "Use method='structured'"))
            if not self.criterion.of_single_weights:
                rule = "be 'magnitude' with method='unstructured'"
                problems.append(must("criterion", rule, self.criterion.kind, "Leave it out"))
        if problems:
            raise ValueError(listed(problems, "Pruning"))
        return self
