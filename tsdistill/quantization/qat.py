"""Quantization-aware training: a forecaster learns to forecast well with the weights and inputs it is going to have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field
from torch import nn

from tsdistill.data.task import Task
from tsdistill.errors import UnsupportedError
from tsdistill.losses import AnyLoss, OutputLoss
from tsdistill.models.base import Forecaster
from tsdistill.quantization.base import Quantization, bits_among
from tsdistill.quantization.dynamic import Dynamic
from tsdistill.quantization.fake_quantized import fake_quantize, fold_rounded
from tsdistill.quantization.observers import Observer
from tsdistill.quantization.static import Static, convolves
from tsdistill.quantization.weight_only import BlockSize, WeightOnly
from tsdistill.spec import Tuned, digest_of
from tsdistill.spec.limits import Count
from tsdistill.teachers import CachedTeacher, Teacher, adapt
from tsdistill.training import Objective, TeacherObjective, Training, TruthObjective, fit
from tsdistill.training.steps import device_of


class QAT(Quantization):
    """The forecaster is trained on while it rounds, and then deployed in one of the other forms.

    With 4 bits weights alone are rounded (`WeightOnly`), with 7 or 8 what layers read as well: in calibrated ranges
    where there are convolutions (`Static`), and in those of the batch elsewhere (`Dynamic`). Use it where that form
    without training costs too much accuracy; it is refused where training gained nothing. For the fields that all
    methods have see `Quantization`.

    Args:
        weight_bits: 7, 8 or 4.
        training: How it trains, from the forecaster's own weights: short, and at a low rate.
        losses: What it imitates when there is a teacher.
        per_channel: Of the dynamic or static form.
        block_size: Of the weight-only form.
        n_calibration: Of the static form.
        calibration: Of the static form.
        isolate: Of the dynamic form.

    Example:
        >>> QAT(weight_bits=4).needs_teacher
        True
    """

    method: Literal["qat"] = "qat"
    weight_bits: Annotated[int, bits_among(4, 7, 8), Tuned(4, 7)] = 7
    training: Training = Training(epochs=3, learning_rate=5e-4, precision="float32")
    losses: tuple[AnyLoss, ...] = Field(default=(OutputLoss(),), min_length=1)
    per_channel: bool = True
    block_size: BlockSize = 32
    n_calibration: Count = 128
    calibration: Observer = "min-max"
    isolate: bool = False

    @property
    def bits(self) -> int:
        """Bits of a weight."""
        return self.weight_bits

    @property
    def needs_teacher(self) -> bool:
        """It trains."""
        return True

    @property
    def seed(self) -> int | None:
        """That of its training."""
        return self.training.seed

    def with_seed(self, seed: int) -> Self:
        """The same, its training drawn from another seed."""
        return self.replace(training=self.training.replace(seed=seed))

    @classmethod
    def candidates(cls, budget: Quantization) -> dict[str, Quantization]:
        """None: "auto" does not train."""
        return {}

    def deployed_form(self, forecaster: Forecaster) -> Quantization:
        """The spec of the form that the trained forecaster is deployed in."""
        cls: type[Quantization] = Static if convolves(forecaster, self.keep_float) else Dynamic
        form: Quantization = self.exchanged(WeightOnly if self.weight_bits == 4 else cls)
        return form.replace(weight_bits=self.weight_bits)

    def inability(self, forecaster: Forecaster) -> str | None:
        """Why the form it deploys cannot round all layers of a forecaster; None where it can."""
        return self.deployed_form(forecaster).inability(forecaster)

    def check_model(self, forecaster: Forecaster) -> None:
        """UnsupportedError for a forecaster that cannot be trained while it rounds."""
        self.deployed_form(forecaster).rounding().layers(forecaster)
        if problem := self.inability(forecaster):
            raise UnsupportedError(
                f"`method` must fit the model, got method='qat' with weight_bits={self.weight_bits} for a "
                f"{forecaster.config.kind!r} one: {problem}, or weight_bits=4."
            )
        if forecaster.closed_form:
            raise UnsupportedError(
                f"`method` must fit the model, got method='qat' for a {forecaster.config.kind!r} one, which is solved "
                "in closed form and not trained by steps. Use method='dynamic'."
            )

    def trained(
        self,
        forecaster: Forecaster,
        task: Task,
        *,
        teacher: Teacher | None = None,
        cache: Path | None = None,
        checkpoint: Path | None = None,
        progress: bool | None = None,
    ) -> tuple[Forecaster, dict[str, Any]]:
        """See `train_rounded`."""
        return train_rounded(
            forecaster, task, self, teacher=teacher, cache=cache, checkpoint=checkpoint, progress=progress
        )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """With each number of bits."""
        quick = Training(max_steps=2, batch_size=16, precision="float32")
        return tuple(cls(weight_bits=bits, training=quick) for bits in (7, 8, 4))


def train_rounded(
    forecaster: Forecaster,
    task: Task,
    spec: QAT,
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
    spec.check_model(forecaster)
    objective: Objective = TruthObjective()
    if teacher is not None:
        cached_teacher = CachedTeacher(adapt(teacher, task), cache, progress=progress, device=device_of(spec.training))
        objective = TeacherObjective(spec.losses, cached_teacher)
    rounding = spec.deployed_form(forecaster).rounding()
    # A checkpoint of the same forecaster trained without rounding is one of another run. GRUs came later than what else
    # is rounded: the runs of models without them are called what they were.
    has_gru = any(isinstance(module, nn.GRU) for module in forecaster.modules())
    kinds = tuple(kind for kind in rounding.layer_types if kind is not nn.GRU or has_gru)
    objective.digest = digest_of([objective.digest, repr(replace(rounding, layer_types=kinds))])
    model = fake_quantize(forecaster, rounding)
    record = fit(model, task, spec.training, objective, checkpoint=checkpoint, progress=progress)
    return fold_rounded(model, forecaster), record
