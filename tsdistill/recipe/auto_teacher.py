"""A teacher that makes itself: diverse models are trained within a time budget, and the good ones teach together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from tsdistill.data import Covariates, Task
from tsdistill.errors import ConfigError, DataError, DivergenceError, ShapeError, TsdistillError, UnsupportedError
from tsdistill.evaluation import evaluate
from tsdistill.models import versions
from tsdistill.recipe.auto_candidates import default_candidates
from tsdistill.recipe.auto_timing import operations, seconds_per_epoch
from tsdistill.recipe.teacher import TEACHERS, AnyTeacher, RecipeTeacher, TeacherBuilder, TeacherSpec
from tsdistill.spec import Spec, digest_of
from tsdistill.spec.limits import MAX_ITEMS, Seed
from tsdistill.teachers import Teacher, TeacherEnsemble, TrustedTeacher

MAX_MINUTES = 60 * 24 * 31

MIN_EPOCHS = 3
"""A candidate for which so many do not fit is skipped: what is hardly trained is worth nothing."""

PASSED_OVER = (ConfigError, DataError, DivergenceError, ShapeError, UnsupportedError)
"""Errors after which the next of the default candidates is tried; after one that a user named only if it diverged."""


class TriedTeacher(Spec):
    """What became of one candidate.

    Args:
        spec: The candidate as it was trained, with the epochs that the budget allowed; as it was given if skipped.
        status: "chosen" until it is trained, then "trained", or "skipped".
        seconds: How long it took.
        error: Its mean squared error on the task's validation windows.
        teacher: Digest of the trained teacher.
        reason: Why it was skipped, or trained for less.
        weight: Its weight in the teacher, 0 where it is no member; None until they are weighed.
    """

    spec: AnyTeacher
    status: Literal["chosen", "trained", "skipped"]
    seconds: float = Field(default=0.0, ge=0)
    error: float | None = None
    teacher: str | None = None
    reason: str | None = None
    weight: float | None = None

    @property
    def title(self) -> str:
        """Its architecture or kind, its context and its covariates."""
        return title_of(self.spec)

    @property
    def line(self) -> str:
        """What a lineage holds of it, in few bytes; no times, which differ from run to run."""
        if self.status == "skipped":
            return f"skipped: {self.title}"
        epochs = ""
        if isinstance(self.spec, TeacherSpec) and _steps(self.spec):
            epochs = f", {self.spec.training.epochs} epochs"
        return f"{self.weight or 0:.3f} {self.title}{epochs}: {self.error:.5f}"


class _Note(Spec):
    """What is kept of a run: a key of all that shaped it, and the candidates in order."""

    key: str
    candidates: tuple[TriedTeacher, ...] = ()


class AutoTeacher(TeacherEnsemble):
    """The teacher of an `AutoTeacherSpec`: members within reach of the best, weighed on validation.

    Args:
        teachers: The members by their number among the candidates.
        task: The task they teach.
        candidates: What became of every candidate; the weights of the members are found and filled in where they lack.

    Attributes:
        candidates: What became of every candidate, in order.
    """

    def __init__(self, teachers: dict[int, Teacher], task: Task, candidates: Sequence[TriedTeacher]) -> None:
        weights = {number: candidates[number].weight for number in teachers}
        known = [weight for weight in weights.values() if weight is not None]
        if len(known) < len(weights):
            weighed = TeacherEnsemble(list(teachers.values()), task, "validation").weights
            assert weighed is not None  # only those of the best per window are not known
            weights = dict(zip(teachers, weighed, strict=True))
        members = {number: teacher for number, teacher in teachers.items() if weights[number]}
        super().__init__(list(members.values()), task, "equal")
        self.weighing = "validation"
        self.weights = tuple(float(weights[number] or 0.0) for number in members)
        self.candidates = tuple(
            candidate.replace(weight=float(weights.get(number) or 0.0)) if candidate.status == "trained" else candidate
            for number, candidate in enumerate(candidates)
        )

    @property
    def record(self) -> list[str]:
        """What a lineage holds of it: weight, name and validation error of each candidate, without times."""
        return [candidate.line for candidate in self.candidates]

    @property
    def remark(self) -> str:
        """Members with weights and validation errors, and who is no member and why, for a report."""
        members = [c for c in self.candidates if c.weight]
        members = sorted(members, key=lambda candidate: candidate.weight or 0.0, reverse=True)
        sentences = ["; ".join(f"{c.weight:.2f} {c.title} (validation MSE {c.error:.4f})" for c in members)]
        others = [f"{c.title} ({c.error:.4f})" for c in self.candidates if c.status == "trained" and not c.weight]
        if others:
            sentences.append(f"trained without getting a weight: {', '.join(others)}")
        if skipped := [f"{c.title} ({c.reason})" for c in self.candidates if c.status == "skipped"]:
            sentences.append(f"not trained: {', '.join(skipped)}")
        return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)

    def __repr__(self) -> str:
        members = sorted((c for c in self.candidates if c.weight), key=lambda c: c.weight or 0.0, reverse=True)
        weights = ", ".join(f"{candidate.weight:.2f} {candidate.title}" for candidate in members)
        return f"<AutoTeacher of {len(self.candidates)} candidates: {weights}>"


class AutoTeacherSpec(RecipeTeacher):
    """A teacher that makes itself: candidates are trained within a time budget, and the good ones teach together.

    Candidates are trained one by one, each a stage of its own. Before one is trained a few of its steps are timed: it
    gets the epochs that fit into its share of what is left, three at least, and is skipped where these do not fit; the
    first is always trained. Those whose validation error is within reach of the best are weighed on validation (see
    `td.teachers.TeacherEnsemble`). What the clock decided is kept beside the stages and in the lineage: the same run
    again asks no clock, and `Run.replay` says it as a recipe.

    Args:
        minutes: How long to train, all candidates together; None trains every one as it is, and asks no clock.
        candidates: Who is tried, in order; None takes what suits the task (`default_candidates`), the cheapest first.
        reach: How much worse than the best a member's validation error may be, as a share of it.
        seed: Of the default candidates, each of which counts on from it. Others have seeds of their own.
        trust: See `td.teachers.TrustedTeacher`; None believes it everywhere.

    Example:
        >>> AutoTeacherSpec(minutes=2).kind
        'auto'
    """

    several: ClassVar[bool] = True

    kind: Literal["auto"] = "auto"
    minutes: float | None = Field(default=5.0, gt=0, le=MAX_MINUTES)
    candidates: tuple[AnyTeacher, ...] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)
    reach: float = Field(default=0.1, ge=0)
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_by_one(self) -> Self:
        if any(candidate.several for candidate in self.candidates or ()):
            raise ValueError("`candidates` must not be ensembles themselves: name their members here.")
        if any(candidate.trust is not None for candidate in self.candidates or ()):
            raise ValueError("`trust` must be set on the teacher, not on its candidates: they are weighed as they are.")
        return self

    @property
    def paths(self) -> dict[str, str]:
        """Where candidates are read from."""
        return {
            f"candidates.{number}.{name}": path
            for number, candidate in enumerate(self.candidates or ())
            for name, path in candidate.paths.items()
        }

    def moved(self, move: Callable[[str], str]) -> Self:
        """The same candidates read from other places."""
        if self.candidates is None:
            return self
        return self.replace(candidates=tuple(candidate.moved(move) for candidate in self.candidates))

    def with_seed(self, seed: int) -> Self:
        """The same candidates with other seeds: one each, so that several of a kind stay several."""
        given = self.candidates
        seeded = None if given is None else tuple(one.with_seed(seed + number) for number, one in enumerate(given))
        return self.replace(seed=seed, candidates=seeded)

    def build(self, builder: TeacherBuilder) -> Teacher:
        """Train what the budget allows, weigh what is good."""
        task = builder.task
        specs = self.candidates or default_candidates(task, self.seed)
        key = digest_of([task.fingerprint, self.replace(trust=None).to_dict(), versions()["tsdistill"]])
        return _Making(builder, specs, self, key, _read_note(builder.note(), key, specs)).teacher()

    def replayed(self, teacher: Teacher) -> RecipeTeacher:
        """The candidates that were trained, as they were trained, without a budget."""
        teacher = teacher.teacher if isinstance(teacher, TrustedTeacher) else teacher
        if not isinstance(teacher, AutoTeacher):
            return self
        trained = tuple(candidate.spec for candidate in teacher.candidates if candidate.status == "trained")
        return self.replace(minutes=None, candidates=trained)


def _read_note(text: str, key: str, specs: Sequence[RecipeTeacher]) -> list[TriedTeacher]:
    """What an earlier run has decided; nothing where it was another run's or is damaged."""
    try:
        note = _Note.from_json(text) if text else None
    except ConfigError:
        return []
    alike = note is not None and note.key == key and len(note.candidates) <= len(specs)
    return list(note.candidates) if note is not None and alike else []


@dataclass
class _Making:
    """One making of a teacher: the candidates that are decided, and what their training has shown about costs."""

    builder: TeacherBuilder
    specs: Sequence[RecipeTeacher]
    spec: AutoTeacherSpec
    key: str
    decided: list[TriedTeacher]
    teachers: dict[int, Teacher] = field(default_factory=dict)
    pace: float | None = None  # seconds per operation of a closed form

    def teacher(self) -> AutoTeacher:
        failures: list[TsdistillError] = []
        for number, spec in enumerate(self.specs):
            try:
                self._make(number, spec)
            except PASSED_OVER as error:
                if self.spec.candidates is not None and not isinstance(error, DivergenceError):
                    raise
                failures.append(error)
                reason = f"could not be trained: {str(error).splitlines()[0]}"
                self._decide(number, TriedTeacher(spec=spec, status="skipped", reason=reason))
        if not self.teachers:
            self.builder.keep_note("")
            raise failures[0]
        errors = {number: self._error(number) for number in self.teachers}
        limit = min(errors.values()) * (1 + self.spec.reach)
        near = {number: teacher for number, teacher in self.teachers.items() if errors[number] <= limit}
        teacher = AutoTeacher(near, self.builder.task, self.decided)
        self.decided = list(teacher.candidates)
        self._keep()
        return teacher

    def _make(self, number: int, spec: RecipeTeacher) -> None:
        """Decide about a candidate, unless an earlier run has, and make it."""
        kept = self.decided[number] if number < len(self.decided) else None
        candidate = kept or self._decide(number, self._choice(number, spec))
        if candidate.status == "skipped":
            return
        if kept is None:
            self.builder.say(f"candidate {number + 1} of {len(self.specs)}: {candidate.title}{_why(candidate)}")
        began = time.perf_counter()
        teacher = self.builder.member(candidate.spec, number)
        if candidate.status == "trained" and candidate.teacher == teacher.digest:
            self.teachers[number] = teacher
            return
        error = float(evaluate(teacher, self.builder.task, part="validation")["mse"])
        seconds = round(time.perf_counter() - began, 3)
        if isinstance(spec, TeacherSpec) and spec.model.forecaster.closed_form:
            self.pace = seconds / operations(spec, self.builder.own_task(spec))
        self.teachers[number] = teacher
        # Weights are found anew where a member has changed.
        self.decided = [other.replace(weight=None) for other in self.decided]
        done = {"status": "trained", "error": error, "teacher": teacher.digest, "seconds": candidate.seconds + seconds}
        self._decide(number, candidate.replace(**done, weight=None))
        self.builder.say(f"candidate {number + 1}: validation MSE {error:.4f}, {seconds:.0f} s")

    def _error(self, number: int) -> float:
        error = self.decided[number].error
        assert error is not None  # every trained one has one
        return error

    def _choice(self, number: int, spec: RecipeTeacher) -> TriedTeacher:
        """A candidate as the budget allows it; by the clock, unless there is no budget."""
        if self.spec.minutes is None or not isinstance(spec, TeacherSpec):
            return TriedTeacher(spec=spec, status="chosen")
        left = 60 * self.spec.minutes - sum(candidate.seconds for candidate in self.decided)
        began = time.perf_counter()
        own_task = self.builder.own_task(spec)
        if spec.model.forecaster.closed_form or not spec.model.learns:
            needed = 0.0 if self.pace is None else self.pace * operations(spec, own_task)
            return self._fitted(spec, needed, 1, left, number)
        of_epoch = seconds_per_epoch(spec, own_task)
        left -= time.perf_counter() - began
        n_left = sum(isinstance(other, TeacherSpec) for other in self.specs[number:])
        least = min(spec.training.epochs, MIN_EPOCHS)
        if least * of_epoch > left and not self.teachers:
            least = 1
        epochs = max(least, min(spec.training.epochs, int(left / n_left / of_epoch)))
        return self._fitted(spec, least * of_epoch, epochs, left, number)

    def _fitted(self, spec: TeacherSpec, needed: float, epochs: int, left: float, number: int) -> TriedTeacher:
        """The candidate with so many epochs, or skipped where too few fit; somebody has to teach."""
        if needed > left and self.teachers:
            what = f"{min(spec.training.epochs, MIN_EPOCHS)} epochs" if _steps(spec) else "it"
            reason = f"{what} would take {needed:.0f} s, and {max(left, 0.0):.0f} s are left"
            self.builder.say(f"candidate {number + 1} of {len(self.specs)}: {title_of(spec)} is skipped, {reason}")
            return TriedTeacher(spec=spec, status="skipped", reason=reason)
        if epochs < spec.training.epochs and _steps(spec):
            reason = f"{epochs} of {spec.training.epochs} epochs, as the budget allows"
            spec = spec.replace(training=spec.training.replace(epochs=epochs))
            return TriedTeacher(spec=spec, status="chosen", reason=reason)
        return TriedTeacher(spec=spec, status="chosen")

    def _decide(self, number: int, candidate: TriedTeacher) -> TriedTeacher:
        """Keep what was decided before it is done: a run that is stopped goes on with it."""
        self.decided[number : number + 1] = [candidate]
        self._keep()
        return candidate

    def _keep(self) -> None:
        self.builder.keep_note(_Note(key=self.key, candidates=tuple(self.decided)).to_json())


def title_of(spec: RecipeTeacher) -> str:
    """A candidate in a line for people: its architecture or kind, and what it sees."""
    if not isinstance(spec, TeacherSpec):
        return " ".join([spec.kind, *spec.paths.values()])
    seen = [] if spec.context is None else [f"context {spec.context}"]
    known = spec.covariates
    if isinstance(known, Covariates):
        seen += [*known.calendar, *(["holidays"] if known.holidays else []), *known.columns]
    individual = " per channel" if getattr(spec.model, "individual", False) else ""
    return f"{spec.model.kind}{individual}" + (f", {', '.join(seen)}" if seen else "")


def _why(candidate: TriedTeacher) -> str:
    return "" if candidate.reason is None else f" ({candidate.reason})"


def _steps(spec: TeacherSpec) -> bool:
    return spec.model.learns and not spec.model.forecaster.closed_form


TEACHERS.include(AutoTeacherSpec)
