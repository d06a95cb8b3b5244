"""Students from teachers: a smaller forecaster of the same class that starts from some of a teacher's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tsdistill.errors import ConfigError, UnsupportedError, listed, must
from tsdistill.exporting import refuse_deployed
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import WidthGroup
from tsdistill.models.provenance import machine, versions
from tsdistill.pruning.criteria import unit_norms
from tsdistill.pruning.rebuilding import rebuild
from tsdistill.spec import LineageStep

FREE = ("dropout",)
"""Fields of configs that no weight depends on: a student may have its own."""


def shrink(
    teacher: Forecaster, config: ModelConfig | None = None, *, context: int | None = None, **sizes: Any
) -> Forecaster:
    """Start a smaller student of the teacher's class from layers and units picked out of the teacher's weights.

    Of N blocks, the n at round(i * (N - 1) / (n - 1)) for i = 0 ... n - 1 stay, from the first to the last one
    (recurrent layers without which others do not fit together stay anyway), and of each width, in each block, the units
    of the largest weights (the "magnitude" of `Pruning`); of the context the last steps. What a unit is and which
    slices of weights belong to it is the same as in pruning.

    Use it where student and teacher are alike and data or epochs are few: the student starts near to where it is
    going. It is not trained yet: give it to `td.distill` as the student. Its control then starts from random weights,
    as a model that no teacher has touched. Use `td.prune` to make a trained model smaller by a share, with repair and
    recovery; the fewer units stay, the less is left of what the teacher knew.

    Args:
        teacher: A forecaster; left as it is.
        config: What the student is to be: the teacher's class, with sizes no larger than the teacher's and all else
            alike (dropout apart). Of TCN blocks the picked ones keep their dilations.
        context: Past steps the student looks at, if fewer than the teacher.
        **sizes: In the place of `config`, the fields that change, such as `depth=2, width=16`; all others stay as they
            are, those of a block with their block.

    Returns:
        A forecaster that is not trained; the one step of its lineage, "shrink", records what was kept.

    Raises:
        ConfigError: sizes that are larger than the teacher's, or fields that no cut can change; every one is named.
        UnsupportedError: the model has no units (linear, seasonal naive), or is no forecaster of this package.
        OrderError: the teacher was exported or quantized.

    Example:
        >>> from tsdistill.models import PatchTSTConfig
        >>> from tsdistill.testing import toy_signature
        >>> teacher = PatchTSTConfig(depth=3, width=32, heads=4, patch=7).build(toy_signature())
        >>> student = shrink(teacher, depth=2, width=16, heads=2, feedforward=24)
        >>> student.config.heads, student.config.head_width, student.lineage[-1].metrics["layers"]
        ((2, 2), 8, [0, 2])

    Source: V. Sanh et al., "DistilBERT, a Distilled Version of BERT: Smaller, Faster, Cheaper and Lighter", 2019,
    section 2 (a student that starts from one layer out of two); S. Shleifer and A. Rush, "Pre-trained Summarization
    Distillation", 2020 ("shrink and fine-tune", layers as far apart as can be); Z. Xu et al., "Initializing Models with
    Larger Ones", ICLR 2024 (slices of every layer as well). Differs from the sources: units are picked by the size of
    their weights, all slices of a unit together, instead of evenly or by their place.
    """
    refuse_deployed(teacher, "shrink")
    _check_kind(teacher, config, sizes)
    layers = next((group for group in teacher.width_groups() if group.is_stack), None)
    picked: Tensor | None = None
    whole = teacher
    if layers is not None:
        name = layers.field[0]
        asked = sizes.get(name, layers.size) if config is None else getattr(config, name)
        picked = _spread(name, asked, layers.size, layers.pinned)
        whole = rebuild(teacher, {layers.name: picked})
    if config is None:
        own = {name: getattr(whole.config, name) for name in type(whole.config).model_fields}
        config = type(whole.config)(**{**own, **sizes})
    context = whole.context if context is None else context
    keep = _kept(whole, config, context)
    cut = rebuild(whole, keep)
    free = {name: getattr(config, name) for name in FREE if name in type(config).model_fields}
    student = cut.config.replace(**free).build(cut.signature)
    student.load_state_dict(cut.state_dict())
    kept_units = {
        group.name: f"{len(keep[group.name])} of {group.size}" for group in whole.width_groups() if group.name in keep
    }
    step = LineageStep(
        verb="shrink",
        spec={"config": student.config.to_dict(), "context": context, "teacher": teacher.digest},
        metrics={"kept": kept_units} if picked is None else {"layers": picked.tolist(), "kept": kept_units},
        versions=versions(),
        machine=machine(),
    )
    return student.eval().with_step(step)


def _check_kind(teacher: Forecaster, config: ModelConfig | None, sizes: dict[str, Any]) -> None:
    """Refuse what has no units, and what is of two kinds."""
    if not isinstance(teacher, Forecaster):
        raise UnsupportedError(
            f"`teacher` must be a forecaster of tsdistill, whose units are known, got a {type(teacher).__name__}. "
            "Distil from it into any architecture instead."
        )
    kind = type(teacher.config)
    if not teacher.width_groups():
        raise UnsupportedError(
            f"A {teacher.config.kind!r} model has no units, blocks or steps that could go, so that no student can be "
            "cut out of it. Distil from it into any architecture instead."
        )
    if config is not None and sizes:
        raise ConfigError(
            must("config", f"stand alone, without {', '.join(sizes)}", config.kind, "Give one or the other")
        )
    if config is not None and type(config) is not kind:
        remedy = "Distil into another architecture from its config alone"
        raise ConfigError(must("config", f"be a {kind.__name__}, as the teacher's is", type(config).__name__, remedy))


def _spread(name: str, asked: Any, size: int, pinned: tuple[int, ...] = ()) -> Tensor:
    """As many blocks as asked for, or as there are entries, as far apart as can be; those that must stay among them."""
    n_kept = len(asked) if isinstance(asked, tuple | list) else asked
    least = max(1, len(pinned))
    if not isinstance(n_kept, int) or isinstance(n_kept, bool) or not least <= n_kept <= size:
        rule = f"ask for {least} to {size} blocks, which the teacher has"
        raise ConfigError(must(name, rule, asked, "Take fewer" if least == 1 else "The others do not fit together"))
    free = torch.tensor([block for block in range(size) if block not in pinned], dtype=torch.long)
    places = torch.linspace(0, len(free) - 1, n_kept - len(pinned), dtype=torch.float64).round().long()
    return torch.cat([torch.tensor(pinned, dtype=torch.long), free[places]]).sort().values


def _kept(model: Forecaster, config: ModelConfig, context: int) -> dict[str, Tensor]:
    """The units that stay of every group, for a student of this config; what no cut can reach is refused."""
    problems = _unlike(model, config)
    counts: dict[str, int] = {}
    groups = [group for group in model.width_groups() if not group.is_stack]
    for group in groups:
        name, place = group.field
        asked: Any = context if group.ordered else getattr(config, name)
        if place is not None:
            if place >= len(asked):
                continue  # reported already
            name = f"{name}[{place}]"
            asked = asked[place]
        n_kept = asked
        rest = 0
        rule = f"be from {group.minimum} to the teacher's {group.size}"
        if group.ordered and isinstance(asked, int):
            least = model.context - (group.size - group.minimum) * group.steps
            rule = f"be the teacher's {model.context} less a multiple of {group.steps}, and at least {least}"
            n_gone, rest = divmod(model.context - asked, group.steps)
            n_kept = group.size - n_gone
        if not isinstance(n_kept, int) or rest or not group.minimum <= n_kept <= group.size:
            problems.append(must(name, rule, asked, "A student is no larger than its teacher"))
        counts[group.name] = n_kept
    if problems:
        raise ConfigError(listed(problems, "the student"))
    return {group.name: _strongest(model, group, counts[group.name]) for group in groups}


def _unlike(model: Forecaster, config: ModelConfig) -> list[str]:
    """A problem for every field that no cut changes and that is not the teacher's; None is whatever comes out."""
    sizes = {group.field[0] for group in model.width_groups()}
    problems = []
    for name in type(config).model_fields:
        value, teacher_value = getattr(config, name), getattr(model.config, name)
        if name in sizes:
            if isinstance(teacher_value, tuple) and len(value) != len(teacher_value):
                rule = f"have the teacher's {len(teacher_value)} entries"
                problems.append(must(name, rule, value, "Its layers are not cut whole"))
        elif name not in FREE and value not in (teacher_value, None):
            problems.append(
                must(name, f"be the teacher's {teacher_value!r}", value, "No cut changes it: leave it as it is")
            )
    return problems


def _strongest(model: Forecaster, group: WidthGroup, n_kept: int) -> Tensor:
    """Units of the largest weights, ascending; of a context the last ones."""
    if group.ordered or n_kept == group.size:
        return torch.arange(group.size - n_kept, group.size)
    return torch.sort(unit_norms(model, group).topk(n_kept).indices).values
