"""Which teachers are tried for a task that nobody has said anything about: diverse ones, the cheapest first."""

from __future__ import annotations

from typing import Literal, get_args

from tsdistill import clock
from tsdistill.data import Covariates, Task
from tsdistill.models import (
    AveragedLinearConfig,
    CycleNetConfig,
    DLinearConfig,
    InvertedTransformerConfig,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    MultiResolutionConfig,
    PatchTSTConfig,
    SparseTSFConfig,
)
from tsdistill.recipe.teacher import TeacherSpec
from tsdistill.training import Training

MAX_UNREACHED = 4
"""A context may be as long as the training rows of the shortest item over this: no more windows go without a lesson."""

LONGEST = 2048
"""Steps beyond which no context is lengthened: a closed form takes the cube of them."""

Cycle = Literal["time-of-day", "time-of-week"]

TRAINING = Training(epochs=8, windows_per_epoch=8192, learning_rate=1e-3, patience=2)
"""How candidates are trained that say nothing else."""


def default_candidates(task: Task, seed: int = 0) -> tuple[TeacherSpec, ...]:
    """Teachers to try for a task: contexts that the panel bears, periods of its frequency, a clock where it has one.

    Ridges at the task's context and at longer ones, one for every channel, their mean, one with the calendar, one over
    means that grow coarser with age; SparseTSF, CycleNet, DLinear; an MLP and an inverted transformer with the calendar
    and what else the task knows; a patch transformer, an LSTM. Cheap ones come first. Each is trained from a seed of
    its own.

    Example:
        >>> import tsdistill as td
        >>> task = td.Task(td.datasets.load("nyc-weather"), context=336, horizon=24)
        >>> [(spec.model.kind, spec.context) for spec in default_candidates(task)][:3]
        [('linear', 336), ('linear', 672), ('linear', 336)]
    """
    context = task.context
    longer = [steps for steps in (2 * context, 4 * context) if steps <= _longest(task)]
    double, longest = [context, *longer][:2][-1], [context, *longer][-1]
    n_channels = len(task.channels)
    specs = [_spec(LinearConfig(), context)]
    specs += [_spec(LinearConfig(), steps) for steps in longer[:1]]
    specs += [_spec(LinearConfig(individual=True), context)] if n_channels > 1 else []
    specs += [_spec(AveragedLinearConfig(), longest), _spec(MultiResolutionConfig(), longest)]
    cycles = _cycles(task)
    known = _known(task, cycles)
    if known is not None and not known.past:  # a closed form does not take what is known of the past alone
        specs.append(_spec(LinearConfig(), context, known))
    # A period has to fit in often enough to be one.
    specs += [
        _spec(SparseTSFConfig(period=period), double, learning_rate=2e-2, batch_size=256, weight_decay=0.0)
        for period in task.panel.periods
        if 1 < period <= double // 2
    ][:1]
    specs += [
        _spec(CycleNetConfig(clock=cycle), context, Covariates(calendar=(cycle,)), learning_rate=5e-3, batch_size=128)
        for cycle in cycles[:1]
    ]
    specs += [_spec(DLinearConfig(), context, batch_size=128)]
    specs += [_spec(MLPConfig(), context, known, average=0.99)] if known is not None else []
    patch = max(1, min(24, context // 8))
    if n_channels > 1 or known is not None:
        specs += [_spec(InvertedTransformerConfig(), context, known)]
    transformer = PatchTSTConfig(depth=2, width=32, heads=4, patch=patch, stride=patch, dropout=0.3, shortcut=True)
    specs += [_spec(transformer, context, average=0.99)]
    specs += [_spec(LSTMConfig(widths=(64,), patch=patch, dropout=0.3), context)]
    return tuple(spec.with_seed(seed + number) for number, spec in enumerate(specs))


def _spec(model: ModelConfig, context: int, covariates: Covariates | None = None, **training: object) -> TeacherSpec:
    return TeacherSpec(model=model, training=TRAINING.replace(**training), context=context, covariates=covariates)


def _longest(task: Task) -> int:
    """The longest context that leaves most training windows with a lesson, in every item that has any."""
    needed = task.context + task.horizon
    rows = [cut.train for cut in task.borders if cut.train >= needed]
    return min(LONGEST, min(rows, default=0) // MAX_UNREACHED)


def _cycles(task: Task) -> tuple[Cycle, ...]:
    """Clocks of the panel's stamps that the training part has seen go round a few times, the shortest first."""
    if any(item.ds is None for item in task.panel.items):
        return ()
    n_rows = max(cut.train for cut in task.borders)
    steps: dict[Cycle, int | None] = {cycle: clock.steps(cycle, task.panel.frequency) for cycle in get_args(Cycle)}
    return tuple(cycle for cycle, length in steps.items() if length is not None and 4 * length <= n_rows)


def _known(task: Task, cycles: tuple[Cycle, ...]) -> Covariates | None:
    """What a model that takes covariates is given: the task's, and the clocks."""
    own = task.covariates
    calendar = tuple(dict.fromkeys([*(own.calendar if own is not None else ()), *cycles]))
    if own is not None:
        return own.replace(calendar=calendar)
    return Covariates(calendar=calendar) if calendar else None
