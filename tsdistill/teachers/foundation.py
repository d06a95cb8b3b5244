"""Foundation models as teachers: Chronos-2, Chronos-Bolt and TinyTimeMixer, from a local folder and nowhere else."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ConfigError, ShapeError, UnsupportedError, check_type, listed, must
from tsdistill.models.activations import Activations
from tsdistill.spec import digest_of
from tsdistill.teachers.folders import read_config
from tsdistill.teachers.foundation_models import FOUNDATION, FoundationModel
from tsdistill.teachers.shards import check_sizes, stored_shapes

N_SERIES = 256
"""Channels of windows that a model is asked about at once."""

PASSING = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
"""Fields of a config that say nothing about forecasts, or are counted by themselves."""


class FoundationTeacher:
    """A pretrained model that forecasts series it was not trained on; `from_foundation` loads one.

    Attributes:
        title: Which model it is.
        signature: Steps, channels and scaling of the task it teaches; its own context where that is shorter.
        levels: Quantile levels that it shows, rising; empty for a model that gives one number per step.
        point: Which of them the forecast is.
        at_once: Steps that it forecasts at once; for a longer horizon the library goes on from its own forecasts.
        digest: Sixteen hex digits of the weights' files, the config, the library's version and how it is asked.
    """

    def __init__(
        self, model: FoundationModel, signature: Signature, point: Literal["median", "mean"], digest: str
    ) -> None:
        self.model = model
        self.signature = signature
        self.point = point
        self.digest = digest
        self.title = model.title
        self.levels = model.levels
        self.at_once = model.at_once

    @property
    def remark(self) -> str:
        """What a report says beside its row."""
        steps = f", {self.at_once} steps at a time" if self.at_once < self.signature.horizon else ""
        return f"{self.title}, zero-shot: nothing was fitted here{steps}"

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel), without gradients."""
        return self._point(self._asked(batch.context))

    def activations(
        self, context: Tensor, future: Tensor | None = None, past: Tensor | None = None, *, attention: bool = False
    ) -> Activations:
        """The forecast, and the quantiles if the model has them; it looks at no covariates."""
        answers = self._asked(context)
        distribution = answers if self.levels else None
        return Activations(self._point(answers), distribution=distribution, levels=self.levels)

    def _asked(self, context: Tensor) -> Tensor:
        """(batch, horizon, channel, level), float32, where the context is."""
        signature = self.signature
        values = context[:, -signature.context :].float().transpose(1, 2)
        size = max(1, N_SERIES // values.shape[1])
        answers = [self.model.ask(chunk, signature.horizon) for chunk in values.split(size)]
        return torch.cat(answers).to(context.device, torch.float32).transpose(1, 2)

    def _point(self, answers: Tensor) -> Tensor:
        if not self.levels:
            return answers[..., 0]
        if self.point == "median":
            return answers[..., self.levels.index(0.5)]
        return answers @ answers.new_tensor(_shares(self.levels))

    def __repr__(self) -> str:
        own = self.signature
        steps = f" ({self.at_once} at a time)" if self.at_once < own.horizon else ""
        quantiles = f", quantiles {self.levels[0]:g} to {self.levels[-1]:g}" if self.levels else ""
        return f"<FoundationTeacher {self.title}, {own.context} to {own.horizon} steps{steps}{quantiles}>"


def from_foundation(
    folder: str | Path,
    task: Task,
    *,
    point: Literal["median", "mean"] = "median",
    channels: Literal["apart", "together"] = "apart",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> FoundationTeacher:
    """Let a foundation model teach: Chronos-2, Chronos-Bolt (`tsdistill[chronos]`) or TinyTimeMixer (`tsdistill[ttm]`).

    The folder's `config.json` says which it is. Nothing is fetched: the folder holds the config and safetensors.
    Weights in a pickle are refused, as is a folder that brings code of its own, and nothing in it is executed. The
    model sees the scaled values of a window and no covariates. These models standardise each window by themselves, so
    that the scaling changes nothing but rounding; a TinyTimeMixer without a `scaling` of its own is given what it was
    made for.

    Quantiles are shown, so that `td.losses.QuantileLoss` teaches them to a student with a `td.QuantileHead`. A
    foundation model likes more context than a small student: make a task of its own, and let
    `td.teachers.PrivilegedTeacher(teacher, task, own_task)` ask it. Whether it helps on your data, the table says: the
    teacher's row is the zero-shot forecast, and `student.control` is the student without it.

    Args:
        folder: What `save_pretrained` wrote, or a copy of the model's page.
        task: What it forecasts.
        point: What the forecast is of the quantiles: their median, or the mean of the distribution that they outline,
            which suits a squared error better. A model that gives one number per step has no choice.
        channels: Whether Chronos-2 sees the channels of a window one by one or together. A TinyTimeMixer that mixes
            channels always sees them together, the others always apart.
        device: Where it computes; "auto" takes a GPU if there is one.

    Returns:
        A teacher.

    Raises:
        ConfigError: an unknown `point`, `channels` or `device`, or one that the model does not have.
        ArtifactError: the folder lacks its config or its safetensors, is damaged, or its weights are not those of the
            model that its config describes.
        ShapeError: a TinyTimeMixer of more context, a shorter horizon or other channels; all of it in one error.
        UnsupportedError: the library is not installed, or it is another architecture or one that cannot teach.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> from_foundation("chronos-bolt-small", toy_task())
        Traceback (most recent call last):
        tsdistill.errors.ArtifactError: chronos-bolt-small has no config.json. Give a local folder that save_pretrained
        wrote; nothing is downloaded.

    Source: A. F. Ansari et al., "Chronos-2: From Univariate to Universal Forecasting", 2025, and the package
    chronos-forecasting (Chronos-Bolt); V. Ekambaram et al., "Tiny Time Mixers (TTMs): Fast Pre-trained Models for
    Enhanced Zero/Few-Shot Forecasting of Multivariate Time Series", NeurIPS 2024. Differs from the sources: covariates
    are not given to the models.
    """
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    choices = {
        "point": (point, ("median", "mean")),
        "channels": (channels, ("apart", "together")),
        "device": (device, ("auto", "cpu", "cuda")),
    }
    problems = [
        must(name, f"be one of {', '.join(map(repr, known))}", value, "Leave it out for the first")
        for name, (value, known) in choices.items()
        if value not in known
    ]
    if device == "cuda" and not torch.cuda.is_available():
        problems.append(must("device", "be a device of this machine", device, 'Leave it out for "auto"'))
    if problems:
        raise ConfigError(listed(problems, "from_foundation"))
    folder = Path(folder)
    config = _config(folder)
    (name,) = config["architectures"]
    kind = FOUNDATION[name]
    version = kind.version()
    if misfits := kind.misfits(config, task):
        raise ShapeError(listed(misfits, f"the {kind.title} for this task"))
    model = kind(folder, config, task, together=channels == "together")
    if refused := _choices_refused(model, task, point, channels):
        raise ConfigError(listed(refused, f"the {model.title}"))
    if device != "cpu" and torch.cuda.is_available():
        model.model.to("cuda")
    signature = task.without_covariates().signature.replace(context=min(model.context, task.context))
    settings = [point, channels, signature.context, signature.horizon, getattr(model, "frequency", None)]
    own = {key: value for key, value in config.items() if key not in PASSING}
    digest = digest_of(["foundation", name, version, own, _weights_digest(folder), settings])
    return FoundationTeacher(model, signature, point, digest)


def _config(folder: Path) -> dict[str, Any]:
    """The folder's config, after a look at what the folder holds."""
    table = "Write its forecasts into a table, and let that teach (td.teachers.read_forecasts)."
    otherwise = {
        "": table,
        "T5ForConditionalGeneration": f"The first Chronos draws its forecasts at random. {table}",
        **dict.fromkeys(
            ("PatchTSTForPrediction", "PatchTSMixerForPrediction"), "td.teachers.from_huggingface loads this one."
        ),
    }
    config = read_config(folder, FOUNDATION, otherwise)
    (name,) = config["architectures"]
    if problems := FOUNDATION[name].refusals(config):
        raise UnsupportedError(listed(problems, f"the {FOUNDATION[name].title} in {folder}"))
    if isinstance(config.get("chronos_config"), dict):
        check_sizes(config["chronos_config"], stored_shapes(folder, name), folder)
    return config


def _choices_refused(model: FoundationModel, task: Task, point: str, channels: str) -> list[str]:
    """Choices that a model does not have."""
    problems = []
    if point == "mean" and not model.levels:
        problems.append(must("point", "be left out for a model that gives one number per step", point, "Leave it out"))
    if channels == "together" and not model.mixes and len(task.channels) > 1:
        rule = "be left out for a model that sees each channel by itself"
        problems.append(must("channels", rule, channels, "Leave it out, or take a Chronos-2"))
    return problems


def _weights_digest(folder: Path) -> str:
    """Hex digits of all weights' files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _shares(levels: tuple[float, ...]) -> list[float]:
    """The share of probability that is nearest to each level, summing to 1."""
    middles = [(low + high) / 2 for low, high in itertools.pairwise(levels)]
    return [high - low for low, high in zip((0.0, *middles), (*middles, 1.0), strict=True)]
