"""The foundation models that can teach: what each can be asked, how it is loaded, and how it answers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tsdistill.data.task import Task
from tsdistill.errors import ArtifactError, UnsupportedError, must
from tsdistill.teachers.folders import load_weights

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class FoundationModel:
    """A loaded model; a subclass knows one library.

    Attributes:
        model: The library's model.
        levels: Quantile levels it answers with, rising; empty for one number per step.
        context: Steps that it sees at most.
        at_once: Steps that it forecasts at once; more are forecast from its own forecasts.
        mixes: Whether channels of a window are seen together.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    """What is imported."""

    distribution: ClassVar[str]
    """What is installed."""

    extra: ClassVar[str]
    model: Any
    levels: tuple[float, ...]
    context: int
    at_once: int
    mixes: bool

    @classmethod
    def version(cls) -> str:
        """The library's version.

        Raises:
            UnsupportedError: it is not installed.
        """
        if importlib.util.find_spec(cls.package) is None:
            raise UnsupportedError(
                f"Loading {cls.title} needs {cls.distribution}. Install it with: pip install 'tsdistill[{cls.extra}]'; "
                "or, in another environment that has it, write its forecasts with `tsdistill forecasts` and teach from "
                "that table."
            )
        return importlib.metadata.version(cls.distribution)

    @classmethod
    def refusals(cls, config: dict[str, Any]) -> list[str]:
        """Why a model of this config cannot teach at all."""
        return []

    @classmethod
    def misfits(cls, config: dict[str, Any], task: Task) -> list[str]:
        """Why it cannot teach this task."""
        return []

    def __init__(self, folder: Path, config: dict[str, Any], task: Task, *, together: bool) -> None:
        """Load it.

        Raises:
            ArtifactError: the folder is damaged.
        """
        raise NotImplementedError

    def ask(self, values: Tensor, horizon: int) -> Tensor:
        """Quantiles (or one number) for each step, (window, channel, horizon, level), of (window, channel, time)."""
        raise NotImplementedError


class _Chronos(FoundationModel):
    package = "chronos"
    distribution = "chronos-forecasting"
    extra = "chronos"
    _pipeline: Any

    def _read(self, config: dict[str, Any], folder: Path) -> None:
        own = config["chronos_config"]
        self.levels = _levels(own.get("quantiles"), folder)
        if not isinstance(own.get("context_length"), int) or own["context_length"] < 1:
            remedy = "Save the model again"
            raise ArtifactError(must("context_length", "be at least 1", own.get("context_length"), remedy))
        self.context = own["context_length"]

    @classmethod
    def refusals(cls, config: dict[str, Any]) -> list[str]:
        """A config without the part that is Chronos's own."""
        own = config.get("chronos_config")
        return [] if isinstance(own, dict) else [must("chronos_config", "be a table", own, "Save the model again")]


class Chronos2(_Chronos):
    """Chronos-2: quantiles, and channels together if asked for."""

    title = "Chronos-2"

    def __init__(self, folder: Path, config: dict[str, Any], task: Task, *, together: bool) -> None:
        """Load it."""
        self._read(config, folder)
        with _quiet_import():
            from chronos import Chronos2Model, Chronos2Pipeline
        self.model = load_weights(Chronos2Model, folder, "Chronos2Model")
        self._pipeline = Chronos2Pipeline(self.model)
        self.at_once = int(self._pipeline.model_prediction_length)
        self.mixes = together and len(task.channels) > 1
        # The library's own default, as far as the model has these levels.
        self._unrolled = [level for level in DECILES if level in self.levels] or list(self.levels)

    def ask(self, values: Tensor, horizon: int) -> Tensor:
        """Channels are series of one group where they are seen together, and of groups of their own where not."""
        groups = values if self.mixes else values.flatten(0, 1)[:, None]
        with _alone():
            answers = self._pipeline.predict(
                groups,
                prediction_length=horizon,
                batch_size=max(groups.shape[0] * groups.shape[1], 1),
                unrolled_quantiles=self._unrolled,
            )
        return torch.stack(answers).reshape(*values.shape[:2], len(self.levels), horizon).transpose(2, 3)


class ChronosBolt(_Chronos):
    """Chronos-Bolt: quantiles, each channel by itself."""

    title = "Chronos-Bolt"

    def __init__(self, folder: Path, config: dict[str, Any], task: Task, *, together: bool) -> None:
        """Load it."""
        self._read(config, folder)
        with _quiet_import():
            from chronos import ChronosBoltPipeline
            from chronos.chronos_bolt import ChronosBoltModelForForecasting
        self.model = load_weights(ChronosBoltModelForForecasting, folder, "ChronosBoltModelForForecasting")
        self._pipeline = ChronosBoltPipeline(self.model)
        self.at_once = int(self._pipeline.model_prediction_length)
        self.mixes = False

    def ask(self, values: Tensor, horizon: int) -> Tensor:
        """Every channel of every window is a series."""
        with _alone():
            answers = self._pipeline.predict(values.flatten(0, 1), prediction_length=horizon)
        return answers.reshape(*values.shape[:2], len(self.levels), horizon).transpose(2, 3)


class TinyTimeMixer(FoundationModel):
    """TinyTimeMixer: a number for each step, or quantiles where it has a head for them."""

    title = "TinyTimeMixer"
    package = "tsfm_public"
    distribution = "granite-tsfm"
    extra = "ttm"
    name = "TinyTimeMixerForPrediction"

    @classmethod
    def refusals(cls, config: dict[str, Any]) -> list[str]:
        """Inputs that a task does not have, and outputs that are no forecast of every channel."""
        rules: list[tuple[str, str, bool]] = [
            ("loss", 'not be "nll"', config.get("loss") == "nll"),
            ("prediction_channel_indices", "be null", config.get("prediction_channel_indices") is not None),
            ("exogenous_channel_indices", "be null", bool(config.get("exogenous_channel_indices"))),
            ("categorical_vocab_size_list", "be null", bool(config.get("categorical_vocab_size_list"))),
            (
                "quantile",
                "be 0.5 for a model without quantiles that was trained with the pinball loss",
                config.get("loss") == "pinball"
                and not config.get("multi_quantile_head")
                and config.get("quantile", 0.5) != 0.5,
            ),
        ]
        remedy = "Write its forecasts into a table (td.teachers.read_forecasts)"
        return [must(name, rule, config.get(name), remedy) for name, rule, broken in rules if broken]

    @classmethod
    def misfits(cls, config: dict[str, Any], task: Task) -> list[str]:
        """It sees a fixed number of steps, and forecasts a fixed number at once."""
        problems = []
        context = config.get("context_length", 64)
        if not isinstance(context, int) or not 1 <= context <= task.context:
            problems.append(
                must(
                    "context_length",
                    f"be at most the task's context of {task.context} steps",
                    context,
                    f"Give the teacher a task of its own, task.with_context({context}), and let "
                    "td.teachers.PrivilegedTeacher(teacher, task, own_task) ask it; in a recipe: teacher.context",
                )
            )
        steps = cls._steps(config)
        if not isinstance(steps, int) or steps < task.horizon:
            rule = f"be at least the task's horizon of {task.horizon} steps"
            problems.append(must("prediction_length", rule, steps, "Take a model that forecasts so many"))
        n_channels = config.get("num_input_channels", 1)
        if cls._mixes(config) and n_channels != len(task.channels):
            rule = f"be the task's {len(task.channels)} channels, as the model mixes them"
            problems.append(must("num_input_channels", rule, n_channels, "Select the model's columns"))
        return problems

    @staticmethod
    def _steps(config: dict[str, Any]) -> Any:
        filtered = config.get("prediction_filter_length")
        return config.get("prediction_length", 16) if filtered is None else filtered

    @staticmethod
    def _mixes(config: dict[str, Any]) -> bool:
        modes = (config.get("mode"), config.get("decoder_mode"))
        return "mix_channel" in modes or bool(config.get("enable_forecast_channel_mixing"))

    def __init__(self, folder: Path, config: dict[str, Any], task: Task, *, together: bool) -> None:
        """Load it; one that does not mix channels is asked about each by itself, however many it was made for."""
        self.levels = (
            _levels(config.get("quantile_levels", DECILES), folder) if config.get("multi_quantile_head") else ()
        )
        self.context, self.at_once, self.mixes = (
            config.get("context_length", 64),
            self._steps(config),
            self._mixes(config),
        )
        with _quiet_import():
            from tsfm_public.models import tinytimemixer
            from tsfm_public.toolkit.time_series_preprocessor import DEFAULT_FREQUENCY_MAPPING
        settings = {} if self.mixes else {"num_input_channels": 1}
        self.model = load_weights(getattr(tinytimemixer, self.name), folder, self.name, **settings)
        self.frequency: int | None = None
        if config.get("resolution_prefix_tuning"):
            step = task.panel.frequency or ""
            token = DEFAULT_FREQUENCY_MAPPING.get(step, DEFAULT_FREQUENCY_MAPPING.get(step.split("-")[0], 0))
            self.frequency = token if token < config.get("frequency_token_vocab_size", 5) else 0

    def ask(self, values: Tensor, horizon: int) -> Tensor:
        """A window is a series of its channels where they are mixed; else every channel is one."""
        series = values.transpose(1, 2) if self.mixes else values.flatten(0, 1)[..., None]
        series = series[:, -self.context :].to(self.model.device)
        token = None if self.frequency is None else torch.full((len(series),), self.frequency, device=series.device)
        with torch.no_grad():
            outputs = self.model(past_values=series, freq_token=token, return_loss=False, return_dict=True)
        answers = outputs.quantile_outputs if self.levels else outputs.prediction_outputs[:, None]
        answers = answers[:, :, :horizon].permute(0, 3, 2, 1)  # (series, channel, time, level)
        return answers.reshape(*values.shape[:2], horizon, answers.shape[-1])


class DecomposedTinyTimeMixer(TinyTimeMixer):
    """A TinyTimeMixer for the trend and one for the rest."""

    name = "TinyTimeMixerForDecomposedPrediction"


FOUNDATION: dict[str, type[FoundationModel]] = {
    "Chronos2Model": Chronos2,
    "ChronosBoltModelForForecasting": ChronosBolt,
    "TinyTimeMixerForPrediction": TinyTimeMixer,
    "TinyTimeMixerForDecomposedPrediction": DecomposedTinyTimeMixer,
}
"""Foundation models by the architecture that their folder names."""


def _levels(values: Any, folder: Path) -> tuple[float, ...]:
    """Quantile levels of a config, checked."""
    good = isinstance(values, list | tuple) and all(isinstance(level, float) and 0 < level < 1 for level in values)
    if not good or list(values) != sorted(set(values)) or 0.5 not in values:
        rule = "be rising levels in (0, 1), 0.5 among them"
        raise ArtifactError(f"In {folder}: {must('quantiles', rule, values, 'Save the model again')}")
    return tuple(values)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """What a library warns of while it is imported is about its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _alone() -> Iterator[None]:
    """A forecast draws nothing from anybody's random numbers; that it is a long one is said by the teacher itself."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="We recommend keeping prediction length")
        yield
