"""Quantization-aware training: a forecaster learns to forecast well with the weights and inputs it is going to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tsdistill.data.task import Task
from tsdistill.errors import UnsupportedError
from tsdistill.models.base import Forecaster
from tsdistill.quantization.fake_quantized import Rounding, fake_quantize, fold_rounded
from tsdistill.quantization.judging import Candidate
from tsdistill.quantization.spec import Quantization
from tsdistill.spec import digest_of
from tsdistill.teachers import CachedTeacher, Teacher, check_teacher
from tsdistill.training import Objective, TeacherObjective, TruthObjective, fit
from tsdistill.training.steps import device_of


def deployed_form(forecaster: Forecaster, spec: Quantization) -> Quantization:
    """The spec of the form that a forecaster trained with `spec` is deployed in; of another method the spec itself.

    With 4 bits weights alone are rounded, with 7 or 8 what layers read as well: in calibrated ranges where there are
    convolutions, which nothing else makes faster, and in those of the batch elsewhere.
    """
    if spec.method != "qat":
        return spec
    if spec.bits == 4:
        return spec.replace(method="weight-only")
    convolves = any(
        isinstance(each, nn.Conv1d) and name not in spec.keep_float for name, each in forecaster.named_modules()
    )
    return spec.replace(method="static" if convolves else "dynamic")


def rounding_of(form: Quantization) -> Rounding:
    """What the form that `deployed_form` gives rounds; weight-only forms have a scale per output whatever was asked."""
    per_channel = form.per_channel or form.method == "weight-only"
    return Rounding(form.method, form.bits, per_channel, form.block_size, form.keep_float)


def refuse_untrainable(forecaster: Forecaster, spec: Quantization) -> None:
    """UnsupportedError for a forecaster that cannot be trained while it rounds."""
    rounding_of(deployed_form(forecaster, spec)).layers(forecaster)
    if forecaster.closed_form:
        raise UnsupportedError(
            f"`method` must fit the model, got method='qat' for a {forecaster.config.kind!r} one, which is solved in "
            "closed form and not trained by steps. Use method='dynamic'."
        )


def train_rounded(
    forecaster: Forecaster,
    task: Task,
    spec: Quantization,
    *,
    teacher: Teacher | None = None,
    cache: Path | None = None,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> tuple[Forecaster, dict[str, Any]]:
    """Train a copy of a forecaster while it computes as its deployed form will.

    In every forward pass weights, and what layers read, are rounded on the grids of the deployed form; gradients pass
    the rounding straight through and move the exact weights, until a step of the grid is crossed where that helps.
    The loop, its early stopping and its checkpoints are those of `td.train`.

    Args:
        forecaster: What to train; left as it is.
        task: Its task; the test part is not read.
        spec: Bits, training and losses.
        teacher: Who teaches; without one the truth alone does.
        cache: Folder for the teacher's forecasts.
        checkpoint: A file to keep the state in.
        progress: Show a progress bar.

    Returns:
        An ordinary forecaster with its weights on the grid, and what to record of the training.

    Raises:
        UnsupportedError: there is no layer to round, or the architecture is solved in closed form.

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, section 3. Differs from the source: activations are rounded over the range of the batch, as
    dynamic INT8 does, instead of over a running mean of ranges; weights lose no outliers; there is no batch
    normalisation to fold.
    """
    refuse_untrainable(forecaster, spec)
    objective: Objective = TruthObjective()
    if teacher is not None:
        check_teacher(teacher, task)
        cached_teacher = CachedTeacher(teacher, cache, progress=progress, device=device_of(spec.training))
        objective = TeacherObjective(spec.losses, cached_teacher)
    rounding = rounding_of(deployed_form(forecaster, spec))
    # A checkpoint of the same forecaster trained without rounding is one of another run.
    objective.digest = digest_of([objective.digest, repr(rounding)])
    model = fake_quantize(forecaster, rounding)
    found = fit(model, task, spec.training, objective, checkpoint=checkpoint, progress=progress)
    return fold_rounded(model, forecaster), found


def refuse_vain_training(trained: Candidate, plain: Candidate) -> None:
    """Add to a trained form why it is not taken: the same form without the training forecasts as well."""
    # A quantile head is trained for its quantiles; the error of the median alone may well rise.
    name, title = ("wql", "weighted quantile loss") if "wql" in trained.numbers else ("mse", "MSE")
    mine, theirs = trained.numbers[name], plain.numbers[name]
    if not mine < theirs:
        trained.refused.append(
            f"its validation {title} is {mine:.4g} against {theirs:.4g} with method={plain.name!r}, which trains "
            "nothing"
        )
