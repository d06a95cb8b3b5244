"""When a candidate replaces the incumbent: rules as data, numbers in, decision and reason out."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from tsdistill.errors import must, printable
from tsdistill.evaluation import SIGNIFICANT, LossComparison
from tsdistill.quality import Finding
from tsdistill.spec import Spec

Decision = Literal["promoted", "kept", "rejected-first", "refused", "failed", "rolled-back"]

SAME = 1e-6
"""Relative difference of errors that rounding alone can make."""


class Gate(Spec):
    """What a candidate has to show on the judging windows before it is served.

    candidate MSE <= incumbent MSE * (1 - min_improvement) beyond chance, and candidate MSE < seasonal naive MSE

    Use `min_improvement` when replacing a model costs something, `margin` when a fresh model is welcome as long as it
    is shown not to be worse by more than that, and `max_p_value=1` when chance may decide.

    Args:
        min_improvement: Share by which the candidate's MSE must be below the incumbent's; at 0 it must not be worse.
        margin: Also promote a candidate that is not better, if the 95 % interval of its disadvantage ends below this
            share of the incumbent's MSE (non-inferiority), whatever the mean says; None never does.
        max_p_value: Largest p-value of the difference (Diebold-Mariano, see `compare_losses`) of a better candidate;
            1 or None reports the p-value and asks for nothing, so that chance decides between equals. Not used with
            `margin`.
        must_beat_naive: The candidate's MSE must be below that of the seasonal naive forecast.

    Raises:
        ConfigError: a field breaks its rule, or `margin` is given together with `min_improvement` or `max_p_value`.

    Example:
        >>> Gate(min_improvement=0.02).must_beat_naive
        True
    """

    min_improvement: float = Field(default=0.0, ge=0, lt=1)
    margin: float | None = Field(default=None, gt=0, lt=1)
    max_p_value: float | None = Field(default=SIGNIFICANT, gt=0, le=1)
    must_beat_naive: bool = True

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if self.margin is not None and (self.min_improvement > 0 or self.max_p_value not in (None, SIGNIFICANT)):
            rule = "not be given together with `min_improvement` or `max_p_value`"
            raise ValueError(must("margin", rule, self.margin, "Ask for an improvement or accept a margin, not both"))
        return self


class Score(Spec):
    """One model on the judging windows.

    Args:
        mse: Mean squared error, in the candidate task's scale.
        mae: Mean absolute error, in the candidate task's scale.
        size_bytes: Bytes of the files needed to serve it; None for the seasonal naive forecast.
        model: Digest of the deployed model.
        seen_until: Newest row that its training and selection saw.
    """

    mse: float
    mae: float
    size_bytes: int | None = None
    model: str | None = None
    seen_until: str | None = None


class Verdict(Spec):
    """What a retraining job decided, why, and the numbers it decided by; written for every job, failed ones too.

    Args:
        decision: "promoted" (the candidate is served), "kept" (the incumbent stays), "rejected-first" (no model is
            served yet and the candidate is not good enough), "refused" (the data did not pass its gate; see
            `findings`), "failed" (see `error`) or "rolled-back" (by hand).
        reason: Why, in words and numbers.
        notes: Remarks on the numbers.
        time: When it was written (UTC).
        as_of: Newest row of the data.
        seen_until: Newest row that the candidate's training and selection saw.
        judged_from: First row of the judging windows' targets.
        n_windows: Judging windows.
        n_left_out: Judging windows that hold filled, stuck or spiked values, and judge nothing.
        mae_p_value: As `p_value`, of the mean absolute error.
        findings: What the gate for data saw.
        accepted_data: The data was accepted by hand in spite of it.
        scores: By "candidate", "incumbent" and "seasonal naive".
        difference: Candidate MSE less incumbent MSE.
        low: Lower end of its 95 % interval; None when there are too few windows for one.
        high: Upper end.
        p_value: Chance of such a difference between equally good models.
        data: Fingerprint of the training and validation windows.
        job: Digest of the job.
        run: Folder of the run, relative to the store.
        current: Folder of the served model afterwards, relative to the store.
        seconds: Duration of the job.
        error: Kind of error of a failed job.

    Example:
        >>> str(Verdict(decision="kept", reason="The candidate is 3 % worse.", time="2024-01-01T03:00:00+00:00"))
        'kept: The candidate is 3 % worse.'
    """

    decision: Decision
    reason: str
    notes: tuple[str, ...] = ()
    time: str
    as_of: str | None = None
    seen_until: str | None = None
    judged_from: str | None = None
    n_windows: int = 0
    n_left_out: int = 0
    mae_p_value: float | None = None
    findings: tuple[Finding, ...] = ()
    accepted_data: bool = False
    scores: dict[str, Score] = Field(default_factory=dict)
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    data: str | None = None
    job: str | None = None
    run: str | None = None
    current: str | None = None
    seconds: float = 0.0
    error: str | None = None

    def __str__(self) -> str:
        when = f" (as of {self.as_of})" if self.as_of else ""
        return printable(" ".join(f"{self.decision}{when}: {' '.join((self.reason, *self.notes))}".split()))


class Ruling(NamedTuple):
    """A decision and its reason."""

    decision: Decision
    reason: str


def rule(
    gate: Gate,
    *,
    candidate: float,
    naive: float,
    incumbent: float | None = None,
    comparison: LossComparison | None = None,
    robust: LossComparison | None = None,
    obstacle: str | None = None,
    first: bool = True,
) -> Ruling:
    """Decide between a candidate and an incumbent from their errors on the same windows.

    Args:
        gate: The rules.
        candidate: MSE of the candidate.
        naive: MSE of the seasonal naive forecast.
        incumbent: MSE of the incumbent; None when there is none that could be scored.
        comparison: Test of the two models' window losses, candidate first.
        robust: The same of mean absolute errors; where it shows the candidate to be worse, the incumbent is kept.
        obstacle: Why a comparison with the incumbent would not be fair or possible; it is then kept.
        first: Nothing is served yet.

    Returns:
        The decision and its reason with numbers.
    """
    refused: Decision = "rejected-first" if first else "kept"
    if obstacle is not None:
        return Ruling(refused, obstacle)
    against_naive = f"the seasonal naive forecast's {naive:.4g}"
    if gate.must_beat_naive and not candidate < naive:
        better = (
            f", though below the incumbent's {incumbent:.4g}" if incumbent is not None and candidate < incumbent else ""
        )
        return Ruling(refused, f"The candidate's MSE {candidate:.4g} does not beat {against_naive}{better}.")
    if incumbent is None:
        begins = "No model was served yet" if first else "There was no usable incumbent"
        return Ruling(
            "promoted", f"{begins}; the candidate's MSE {candidate:.4g} is {_apart(candidate, naive)} {against_naive}."
        )
    numbers = f"The candidate's MSE {candidate:.4g} is {_apart(candidate, incumbent)} the incumbent's {incumbent:.4g}"
    numbers += f" ({_significance(comparison)}; seasonal naive {naive:.4g})"
    highest = incumbent * (1 - gate.min_improvement)
    if robust is not None and robust.low is not None and robust.low > 0:
        return Ruling("kept", f"{numbers}: by its mean absolute error it is worse beyond chance.")
    if gate.margin is not None:
        high = comparison.high if comparison is not None else None
        allowed = gate.margin * incumbent
        if high is not None and high < allowed:
            return Ruling("promoted", f"{numbers}: at most {high:.2g} worse, within the margin of {allowed:.2g}.")
        disadvantage = "cannot be tested on so few windows" if high is None else f"could be {high:.2g} worse"
        return Ruling("kept", f"{numbers}: it {disadvantage}, and the margin is {allowed:.2g}.")
    if candidate <= highest * (1 + SAME):
        p_value = comparison.p_value if comparison is not None else None
        asks = gate.max_p_value is not None and gate.max_p_value < 1
        if not asks or (p_value is not None and gate.max_p_value is not None and p_value <= gate.max_p_value):
            return Ruling("promoted", f"{numbers}.")
        return Ruling("kept", f"{numbers}: not beyond chance, which the gate asks for (p <= {gate.max_p_value:g}).")
    if candidate <= incumbent:
        return Ruling("kept", f"{numbers}: the gate asks for {100 * gate.min_improvement:.3g} % below.")
    return Ruling("kept", f"{numbers}.")


def _apart(value: float, reference: float) -> str:
    """'3.1 % below', or 'equal to'."""
    if abs(value - reference) <= SAME * reference:
        return "equal to"
    share = abs(value - reference) / reference if reference else float("inf")
    return f"{100 * share:.3g} % {'below' if value < reference else 'above'}"


def _significance(comparison: LossComparison | None) -> str:
    if comparison is None or comparison.p_value is None:
        return "too few windows to test the difference"
    beyond = "beyond chance" if comparison.p_value <= SIGNIFICANT else "within what chance does"
    return f"{comparison.n_windows} windows, p = {comparison.p_value:.2g}, {beyond}"
