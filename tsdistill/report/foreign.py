"""Rows of foreign teachers: scored where they can forecast, and never exported or timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tsdistill.errors import DataError, UnsupportedError

if TYPE_CHECKING:
    from tsdistill.data.task import Part, Task

RUNTIME = "foreign"
"""What stands where other rows name the runtime that was measured."""


def is_foreign(model: Any) -> bool:
    """Whether a model can only be asked for forecasts."""
    from tsdistill.evaluation import StatisticalForecaster
    from tsdistill.exporting import Deployed
    from tsdistill.models import Forecaster

    return not isinstance(model, Forecaster | Deployed | StatisticalForecaster)


def unwrapped(models: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The models with teachers in the place of what only teaching does to them, and what there is to say of that."""
    from tsdistill.teachers import RescaledTeacher, TrustedTeacher

    unwrapped_models, remarks = dict[str, Any](), dict[str, str]()
    for name, model in models.items():
        if isinstance(model, TrustedTeacher):
            remarks[name] = "the teacher itself, without the trust that weakened it in training"
            model = model.teacher
        unwrapped_models[name] = model.forecaster if isinstance(model, RescaledTeacher) else model
    return unwrapped_models, remarks


def silence(model: Any, task: Task, part: Part) -> str | None:
    """Why a foreign teacher cannot be asked about a part; None where it can."""
    import torch

    try:
        model.forecast(task.windows(part).batch(torch.arange(1)))
    except (DataError, UnsupportedError) as error:
        return f"not scored: {str(error).removesuffix('.')}"
    return None


def refuse_misfit(model: Any, task: Task) -> None:
    """Refuse a foreign teacher of another question, or what is no teacher at all."""
    from tsdistill.teachers import check_teacher

    if is_foreign(model):
        check_teacher(model, task)


def chosen_reference(models: Mapping[str, Any], reference: str | None, silent: Mapping[str, str]) -> str:
    """The name of the row that ratios refer to, which has to have an error, as the last model has to."""
    for name, what in ((reference, "`reference`"), (list(models)[-1], "The last of `models`")):
        if name is not None and name in silent:
            raise UnsupportedError(
                f"{what} must be able to forecast this part, and {name!r} is {silent[name]}. Name another one."
            )
    return reference or next(name for name in models if name not in silent)
