"""What a search varies by default: architectures that suit the recipe, with the ranges of their fields."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch

from tsdistill.data import Covariates
from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, Problem, TsdistillError, UnsupportedError
from tsdistill.losses import LOSSES
from tsdistill.models import MODELS, Forecaster, ModelConfig
from tsdistill.pruning import Pruning, groups_of
from tsdistill.recipe import Recipe
from tsdistill.spec import Range, default_ranges

Ranges = dict[str, Range | tuple[Any, ...]]
"""What may vary, by address."""

CHANNELS = ("a", "b", "c")
"""Channels of a model that is built to see whether it can be; no architecture asks how many there are."""


def default_space(recipe: Recipe) -> Ranges:
    """The ranges that stand beside the fields of everything that a search may vary over a recipe."""
    ranges: Ranges = {}
    kinds = []
    for architecture in MODELS:
        try:
            config = recipe.student.model.exchanged(architecture)
        except ConfigError:
            continue  # it has no head such as the recipe's
        sizes = _sizes(config, _Shape.of(recipe))
        if sizes is None:
            continue
        kinds.append(MODELS.kind_of(architecture))
        ranges |= {f"student.model.{kinds[-1]}.{name}": among for name, among in sizes.items()}
    for loss in recipe.student.losses:
        if sum(isinstance(other, type(loss)) for other in recipe.student.losses) == 1:  # else an address means several
            fields = default_ranges(type(loss)).items()
            drawn = {name: among for name, among in fields if getattr(loss, name) is not None}
            ranges |= {f"student.losses.{loss.kind}.{name}": among for name, among in drawn.items()}
    training = default_ranges(type(recipe.student.training))
    ranges |= {f"student.training.{name}": among for name, among in training.items()}
    if recipe.pruning is None or not recipe.pruning.targets:
        ranges |= {f"pruning.{name}": among for name, among in default_ranges(Pruning).items()}
    return {"student.model.kind": tuple(kinds), **ranges}


class _Shape(NamedTuple):
    """What of a task decides whether a model can be built for it."""

    context: int
    horizon: int
    covariates: Covariates | None

    @classmethod
    def of(cls, recipe: Recipe) -> _Shape:
        task = recipe.task
        return cls(task.context, task.horizon, task.covariates)


@functools.lru_cache(maxsize=256)
def _sizes(config: ModelConfig, shape: _Shape) -> Ranges | None:
    """The default ranges of an architecture without what does not fit the task; None where nothing of it does."""
    ranges = default_ranges(type(config))
    # A default that does not fit, such as a patch longer than the context, is no reason against the others.
    for name, among in ranges.items():
        if _problem(config, shape) is not None:
            fitting = _fitting(config, name, among, shape)
            config = config.replace_at({name: fitting[0]}) if fitting else config
    if _problem(config, shape) is not None:
        return None
    sizes: Ranges = {}
    for name, among in ranges.items():
        fitting = _fitting(config, name, among, shape)
        if isinstance(among, tuple) and fitting:
            sizes[name] = fitting
        elif isinstance(among, Range) and len(fitting) == 2:
            sizes[name] = among
    return sizes


def _fitting(config: ModelConfig, name: str, among: Range | tuple[Any, ...], shape: _Shape) -> tuple[Any, ...]:
    """The values of a range, of its ends if it has no list of them, with which a model can be built."""
    values = among if isinstance(among, tuple) else (among.low, among.high)
    return tuple(value for value in values if _problem(config.replace_at({name: value}), shape) is None)


def unbuildable(recipe: Recipe) -> str | None:
    """Why the recipe's student cannot be built for its task; None where it can."""
    return _problem(recipe.student.model, _Shape.of(recipe))


def _problem(config: ModelConfig, shape: _Shape) -> str | None:
    model = _built(config, shape)
    return None if isinstance(model, Forecaster) else model


def unroundable(recipe: Recipe) -> str | None:
    """Why the recipe's quantization cannot round its student; None where it can."""
    model = _built(recipe.student.model, _Shape.of(recipe))
    if recipe.quantization is None or isinstance(model, str):
        return None
    problem = recipe.quantization.inability(model)
    return None if problem is None else f"a {recipe.student.model.kind!r} student cannot be rounded so: {problem}."


def is_prunable(recipe: Recipe) -> bool:
    """Whether the recipe's student has units that its pruning, or pruning as such, could take out."""
    pruning = recipe.pruning or Pruning()
    model = _built(recipe.student.model, _Shape.of(recipe))
    if isinstance(model, str):
        return False
    try:
        return pruning.masks or bool(groups_of(model, pruning))
    except UnsupportedError:
        return False


def horizon_problems(recipe: Recipe, ranges: Ranges) -> list[Problem]:
    """Losses that the space brings in and that are undefined for so short a horizon."""
    problems = []
    horizon = recipe.task.horizon
    held = {loss.kind: loss for loss in recipe.student.losses}
    for kind in LOSSES.kinds:
        among = ranges.get(f"student.losses.{kind}.weight")
        if among is None:
            continue
        largest = among.high if isinstance(among, Range) else max(among)
        loss = held.get(kind) or LOSSES.read(kind)
        if largest > 0 and loss.shortest_horizon > horizon:
            rule = f"be 0 with a horizon of {horizon}: the loss needs {loss.shortest_horizon} steps"
            problems.append(Problem((), f"`student.losses.{kind}.weight` must {rule}. Leave it out."))
    return problems


@functools.lru_cache(maxsize=1024)
def _built(config: ModelConfig, shape: _Shape) -> Forecaster | str:
    """A model of shapes without numbers, or why there can be none."""
    covariates = shape.covariates
    future = () if covariates is None else covariates.known_ahead
    past = () if covariates is None else covariates.past
    signature = Signature(
        context=shape.context,
        horizon=shape.horizon,
        channels=CHANNELS,
        mean=(0.0,) * len(CHANNELS),
        scale=(1.0,) * len(CHANNELS),
        frequency="h",  # of which a day holds a whole number, as clocks ask for
        covariates=covariates,
        future=future,
        past=past,
        future_mean=(0.0,) * len(future),
        future_scale=(1.0,) * len(future),
        past_mean=(0.0,) * len(past),
        past_scale=(1.0,) * len(past),
    )
    try:
        with torch.device("meta"):
            return config.build(signature)
    except TsdistillError as error:
        return str(error)
