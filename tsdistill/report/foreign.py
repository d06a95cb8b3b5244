"""Rows of foreign teachers: scored where they can forecast, and never exported or timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tsdistill.errors import DataError, UnsupportedError

if TYPE_CHECKING:
    from tsdistill.data.task import Part, Task

RUNTIME = "foreign"
"""What foreign rows have in the place of a runtime."""


def is_foreign(model: Any) -> bool:
    """Whether a model is a foreign teacher: it can forecast, and nothing else is known of it."""
    from tsdistill.evaluation import StatisticalForecaster
    from tsdistill.exporting import Deployed
    from tsdistill.models import Forecaster

    return not isinstance(model, Forecaster | Deployed | StatisticalForecaster)


def unwrapped(models: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The models with wrappers that only serve training removed, and remarks on those and on what is made of others."""
    from tsdistill.teachers import (
        FoundationTeacher,
        PrivilegedTeacher,
        RescaledTeacher,
        TeacherEnsemble,
        TrustedTeacher,
    )

    unwrapped_models = dict[str, Any]()
    remarks = dict[str, str]()
    for name, model in models.items():
        if isinstance(model, TrustedTeacher):
            remarks[name] = "the teacher itself, without the trust that weakened it in training"
            model = model.teacher
        if isinstance(model, FoundationTeacher | PrivilegedTeacher | TeacherEnsemble):
            inside = getattr(model, "teacher", None)
            first = [inside.remark] if isinstance(inside, FoundationTeacher) else []
            remarks[name] = "; ".join([*([remarks[name]] if name in remarks else []), *first, model.remark])
        unwrapped_models[name] = model.forecaster if isinstance(model, RescaledTeacher) else model
    return unwrapped_models, remarks


def unscored_reason(model: Any, task: Task, part: Part) -> str | None:
    """Why a foreign teacher cannot forecast a part; None where it can."""
    import torch

    try:
        model.forecast(task.windows(part).batch(torch.arange(1)))
    except (DataError, UnsupportedError) as error:
        return f"not scored: {str(error).removesuffix('.')}"
    return None


def refuse_misfit(model: Any, task: Task) -> None:
    """Refuse a foreign teacher that does not fit the task, or an object that is no teacher."""
    from tsdistill.teachers import check_teacher

    if is_foreign(model):
        check_teacher(model, task)


def chosen_reference(models: Mapping[str, Any], reference: str | None, unscored: Mapping[str, str]) -> str:
    """The name of the row that ratios refer to; it and the last model must have an error."""
    for name, argument in ((reference, "`reference`"), (list(models)[-1], "The last of `models`")):
        if name is not None and name in unscored:
            raise UnsupportedError(
                f"{argument} must be able to forecast this part, and {name!r} is {unscored[name]}. Name another one."
            )
    return reference or next(name for name in models if name not in unscored)
