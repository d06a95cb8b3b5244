"""What a search may vary: addresses in a recipe, each with the values it may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from optuna.trial import BaseTrial
from pydantic import Field, field_validator, model_validator

from tsdistill.deprecation import warn_once
from tsdistill.errors import ConfigError, Problem, listed
from tsdistill.losses import OutputLoss
from tsdistill.models import MODELS
from tsdistill.recipe import Recipe
from tsdistill.search import older
from tsdistill.search.defaults import Ranges, default_space, horizon_problems, is_prunable, unbuildable, unroundable
from tsdistill.spec import AbsentError, Among, Range, Spec, digest_of, target
from tsdistill.spec.limits import MAX_ITEMS

KIND = "student.model.kind"
"""Drawn before everything else: which other addresses there are depends on it."""

MODEL = "student.model."

SHARE = "student.losses.output.alpha"
"""The teacher's share in what a student imitates."""

VARIED = ("student", "pruning", "quantization")
"""Parts of a recipe that differ between trials; all trials share data, task and teacher."""


class Space(Spec):
    """What a search may vary in a recipe: addresses of its fields, and what each of them is drawn from.

    Everything that is not named stays as the recipe has it. A field that the drawn architecture does not have is not
    drawn. `student.model.lstm.width` means the width of LSTM students, `student.model.width` that of any kind. A loss
    whose weight becomes 0 is left out, and so is pruning at ratio 0.

    Use the default on a machine with a few cores: every architecture that the recipe's task allows, each with the sizes
    that stand beside its fields, the losses of the recipe, the learning rate, and how much is pruned. Narrow it when
    you know more.

    Args:
        vary: By address a `Range`, values to choose from, or one value; by default as above.

    Raises:
        ConfigError: something that nothing can be drawn from; every problem is listed.

    Example:
        >>> space = Space(vary={"student.model.kind": ("lstm", "tcn"), "student.model.width": Range(8, 128, log=True)})
        >>> Space.from_toml(space.to_toml()) == space
        True
    """

    vary: dict[str, Among] | None = Field(default=None, max_length=MAX_ITEMS)

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not older.FIELDS.intersection(values):
            return values
        fields = sorted(older.FIELDS.intersection(values))
        warn_once(f"Space({', '.join(fields)})", older.MOVED, stacklevel=4)
        return older.translated(values)

    @field_validator("vary", mode="before")
    @classmethod
    def _flat(cls, vary: Any) -> Any:
        """Tables of tables, as TOML reads dotted keys, as addresses."""
        return dict(_flattened(vary)) if isinstance(vary, Mapping) else vary

    def ranges(self, recipe: Recipe) -> Ranges:
        """What varies over a recipe, by address: the kind of the student first, then what else is the student's."""
        ranges = default_space(recipe) if self.vary is None else self.vary
        return dict(sorted(ranges.items(), key=lambda pair: (pair[0] != KIND, not pair[0].startswith("student."))))

    def digest_over(self, recipe: Recipe) -> str:
        """Names what varies over a recipe, whether it was spelled out or is the default."""
        return digest_of(self.written(recipe))

    def written(self, recipe: Recipe) -> dict[str, Any]:
        """What varies over a recipe as plain data."""
        return {
            address: among.to_dict() if isinstance(among, Range) else list(among)
            for address, among in self.ranges(recipe).items()
        }

    def check(self, recipe: Recipe) -> None:
        """Refuse what no trial over this recipe could do; every problem in one `ConfigError`."""
        ranges = self.ranges(recipe)
        problems: list[Problem] = []
        starts = self._starts(recipe, ranges, problems)
        for address, among in ranges.items():
            if address == KIND:
                continue
            if address.partition(".")[0] not in VARIED:
                rule = "be of the student, pruning or quantization: data, task and teacher are shared by all trials"
                problems.append(Problem((), f"`{address}` must {rule}. Set it in the recipe (--set)."))
                continue
            problems += _problems_of(address, among, starts)
        if recipe.pruning is not None and recipe.pruning.targets and "pruning.ratio" in ranges:
            aims = " and ".join(recipe.pruning.targets)
            problems.append(Problem((), f"`pruning.ratio` must stay out where the recipe prunes to {aims}. Drop one."))
        problems += horizon_problems(recipe, ranges)
        problems += _contradictions(ranges, starts)
        if problems:
            sentences = [str(problem) for problem in dict.fromkeys(problems)]
            raise ConfigError(listed(sentences, "the space over this recipe"))

    def propose(self, trial: BaseTrial, recipe: Recipe) -> Recipe:
        """The recipe of a trial: `recipe` with what the trial draws put in its place.

        INT8 is proposed without `require_gain`, because that depends on timing: the same trial could then be
        deployed in one form today and in another tomorrow. Accuracy (`max_error_increase`) still counts, and the
        search measures the bytes anyway. Candidates of the recipe are left out: trials are what competes in a search.

        Args:
            trial: An Optuna trial, or an `optuna.trial.FixedTrial` of a finished trial's parameters, which gives that
                trial's recipe again.
            recipe: Where everything comes from that is not varied.

        Returns:
            A recipe that `tsdistill.run` can run.

        Raises:
            ConfigError: an address leads nowhere, or a field refuses what was drawn; the message names the address.

        Example:
            >>> from optuna.trial import FixedTrial
            >>> from tsdistill.recipe import default_recipe
            >>> space = Space(vary={"student.model.kind": ("mlp", "lstm"), "student.model.mlp.width": (16, 32)})
            >>> drawn = {"student.model.kind": "mlp", "student.model.mlp.width": 16}
            >>> space.propose(FixedTrial(drawn), default_recipe()).student.model.width
            16
        """
        recipe = recipe.replace(student=recipe.student.replace(candidates=(), budget=None))
        ranges = self.ranges(recipe)
        if KIND in ranges:
            recipe = _with_kind(recipe, str(_draw(trial, KIND, ranges[KIND], whole=False)))
        # What can be pruned depends on the student's sizes: one with no hidden layer has no units.
        for of_student in (True, False):
            drawn = {
                address: among for address, among in ranges.items() if address.startswith("student.") == of_student
            }
            recipe = _drawn(trial, drawn, recipe)
        if recipe.pruning is not None and not is_prunable(recipe):
            recipe = recipe.replace(pruning=None)
        if recipe.quantization is not None:
            recipe = recipe.replace(quantization=recipe.quantization.replace(require_gain=False))
        return recipe

    def mark(self, recipe: Recipe) -> dict[str, Any]:
        """What a new study tries first: a student that is solved, if others compete with it, without a teacher."""
        ranges = self.ranges(recipe)
        kinds = ranges.get(KIND, ())
        solved = (
            [kind for kind in kinds if MODELS[kind].forecaster.closed_form and MODELS[kind].learns]
            if isinstance(kinds, tuple) and len(kinds) > 1
            else []
        )
        if not solved:
            return {}
        shares = ranges.get(SHARE, ())
        plain = shares.low <= 0 if isinstance(shares, Range) else len(shares) > 1 and 0 in shares
        return {KIND: solved[0], **({SHARE: 0.0} if plain else {})}

    def _starts(self, recipe: Recipe, ranges: Ranges, problems: list[Problem]) -> list[Recipe]:
        """The recipe with every kind of student that can be drawn."""
        if KIND not in ranges:
            return [_fitted(recipe, ranges)]
        among = ranges[KIND]
        kinds = among if isinstance(among, tuple) else (among,)
        starts = []
        for kind in kinds:
            try:
                starts.append(_fitted(_with_kind(recipe, cast("str", kind)), ranges))
            except ConfigError as error:
                problems += error.problems or (Problem((), f"In {KIND}: {error}"),)
        return starts


def _drawn(trial: BaseTrial, ranges: Ranges, recipe: Recipe) -> Recipe:
    """The recipe with what a trial draws for the addresses that lead somewhere in it."""
    values: dict[str, Any] = {}
    for address, among in ranges.items():
        if address == KIND or not _applies(recipe, address):
            continue
        try:
            place = target(recipe, address)
        except AbsentError:
            continue  # a field of another kind than the one that was drawn
        values[address] = _draw(trial, address, among, whole=place.is_whole)
    return recipe.replace_at(values) if values else recipe


def _with_kind(recipe: Recipe, kind: str) -> Recipe:
    """The recipe with a student of another kind; of one that is solved, with the losses that it can be solved for."""
    student = recipe.student
    model = MODELS[kind]
    if kind == student.model.kind:
        return recipe
    if not model.forecaster.closed_form:
        # A share that validation chooses is for students that are solved for every share at once.
        losses = tuple(
            loss.replace(alpha=OutputLoss().alpha) if len(loss.alphas or ()) > 1 else loss for loss in student.losses
        )
        return recipe.replace_at({KIND: kind, "student.losses": losses})
    losses = student.solvable_losses[:1] or (OutputLoss(),)
    return recipe.replace_at({KIND: kind, "student.losses": losses})


def _fitted(recipe: Recipe, ranges: Ranges) -> Recipe:
    """The recipe with a first value from the space where the student's own does not fit the task."""
    for address, among in ranges.items():
        if unbuildable(recipe) is None:
            break
        if address == KIND or not address.startswith(MODEL):
            continue
        for value in (among.low, among.high) if isinstance(among, Range) else among:
            try:
                changed = recipe.replace_at({address: value})
            except ConfigError:
                continue  # of another kind, or refused: reported where the range is checked
            if unbuildable(changed) is None:
                recipe = changed
                break
    return recipe


def _applies(recipe: Recipe, address: str) -> bool:
    """Whether a field changes what becomes of this recipe's student."""
    model = recipe.student.model
    if address.startswith("pruning"):
        return is_prunable(recipe)
    if not model.forecaster.closed_form:
        return True
    if address.startswith("student.losses"):  # a student that is solved has one loss, and takes no others
        held = [f"student.losses.{loss.kind}." for loss in recipe.student.losses]
        return model.learns and address.startswith(tuple(held))
    return not address.startswith("student.training")


def _problems_of(address: str, among: Range | tuple[Any, ...], starts: list[Recipe]) -> list[Problem]:
    """What is wrong with a range, over every kind of student that it applies to."""
    ends = (among.low, among.high) if isinstance(among, Range) else among
    applied = False
    problems: list[Problem] = []
    for recipe in starts:
        try:
            place = target(recipe, address)
        except AbsentError:
            continue
        except ConfigError as error:
            return [Problem((), str(error))]
        applied = True
        if isinstance(among, Range) and place.is_whole and not among.is_whole:
            got = f"got {among.low:g} to {among.high:g}"
            return [Problem((), f"`{address}` must have a range of whole numbers, {got}.")]
        if not _applies(recipe, address):
            continue
        for end in ends:
            try:
                changed = recipe.replace_at({address: end})
            except ConfigError as error:
                problems += list(error.problems) or [Problem((), f"In {address}: {error}")]
                continue
            problem = unbuildable(changed) if address.startswith(MODEL) else None
            problem = unroundable(changed) if address.startswith("quantization.") else problem
            if problem is not None:
                problems.append(Problem((), f"In {address}: {problem}"))
    if not applied:
        return [Problem((), f"`{address}` must be a field of a student that can be drawn. Add its kind to `{KIND}`.")]
    return problems


def _contradictions(ranges: Ranges, starts: list[Recipe]) -> list[Problem]:
    """Addresses that mean the same field of a student, such as the width of LSTMs and that of any kind."""
    problems = []
    for recipe in starts:
        leading: dict[tuple[type, str], str] = {}
        for address in ranges:
            if address.startswith("student.losses") or address.partition(".")[0] not in VARIED:
                continue  # of losses there may be several of a kind
            try:
                place = target(recipe, address)
            except ConfigError:
                continue  # reported where the range is checked
            if place.name is None:
                continue
            other = leading.setdefault((place.cls, place.name), address)
            if other != address:
                kind = recipe.student.model.kind
                rule = f"be left out beside `{other}`: both are the {place.name} of a {kind!r} student"
                problems.append(Problem((), f"`{address}` must {rule}. Keep one."))
    return problems


def _draw(trial: BaseTrial, address: str, among: Range | tuple[Any, ...], *, whole: bool) -> Any:
    """A value for an address; where there is one only, it is taken and not drawn."""
    if isinstance(among, Range):
        if whole:
            return trial.suggest_int(address, int(among.low), int(among.high), log=among.log)
        return trial.suggest_float(address, among.low, among.high, log=among.log)
    return among[0] if len(among) == 1 else trial.suggest_categorical(address, among)


def _flattened(vary: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in vary.items():
        address = f"{before}.{name}" if before else str(name)
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            pairs += _flattened(value, address)
        else:
            pairs.append((address, value))
    return pairs
