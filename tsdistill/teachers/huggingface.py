"""Forecasters in the Hugging Face layout as teachers, from a local folder and nowhere else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

from tsdistill.data.task import Signature, Task
from tsdistill.errors import ShapeError, UnsupportedError, listed, must
from tsdistill.teachers.folders import load_weights, read_config
from tsdistill.teachers.foundation_models import FOUNDATION
from tsdistill.teachers.hooks import Tap, found_at
from tsdistill.teachers.wrapped import WrappedTeacher, wrap

PATCHED = ("batch", "channel", "token", "width")
TAPS: dict[str, dict[str, tuple[Tap, ...]]] = {
    "PatchTSTForPrediction": {
        # What a layer gives out; the library's own list holds what goes in, so that the last layer is not in it.
        "hidden": (Tap(path="model.encoder.layers.*", axes=PATCHED, output=0),),
        "attention": (
            Tap(path="model.encoder.layers.*.self_attn", axes=("batch*channel", "head", "query", "key"), output=1),
        ),
    },
    "PatchTSMixerForPrediction": {
        "hidden": (Tap(path="model.encoder.mlp_mixer_encoder.mixers.*", axes=PATCHED),),
    },
}
"""Where each architecture that can teach shows its insides."""


def from_huggingface(
    folder: str | Path, task: Task | Signature, *, units: Literal["scaled", "raw"] = "scaled"
) -> WrappedTeacher:
    """Let a forecaster saved by `save_pretrained` teach: `PatchTSTForPrediction` and `PatchTSMixerForPrediction`.

    Hidden states after every layer are shown, and PatchTST's attention. Nothing is fetched: the folder holds
    `config.json` and safetensors. Weights in a pickle are refused, as is a folder that brings code of its own, and
    nothing in it is executed. A PatchTST's class token is a token like the others. For models that are asked
    otherwise (TimesFM, Informer, distributions), write their forecasts into a table (`td.teachers.read_forecasts`), or
    `td.wrap` them.

    Args:
        folder: The folder.
        task: What it forecasts; its context may be longer than the model's, which sees the last steps.
        units: Whether the model was trained on scaled values or raw ones. Models that standardise each window
            (`scaling="std"`) forecast the same either way.

    Returns:
        A teacher; `module` is the model.

    Raises:
        ArtifactError: the folder lacks its config or its safetensors, is damaged, or its weights are not those of the
            model that its config describes.
        ShapeError: the model is for another horizon, more context or other channels; all of it in one error.
        UnsupportedError: transformers is not installed, or an architecture or a head that cannot teach from here.

    Example:
        >>> from transformers import PatchTSTConfig, PatchTSTForPrediction
        >>> from tsdistill.testing import toy_task
        >>> config = PatchTSTConfig(
        ...     num_input_channels=3, context_length=47, prediction_length=11, patch_length=7, patch_stride=5,
        ...     d_model=6, num_attention_heads=2, ffn_dim=13, num_hidden_layers=2,
        ... )
        >>> PatchTSTForPrediction(config).save_pretrained("patchtst")
        >>> from_huggingface("patchtst", toy_task())
        <WrappedTeacher PatchTSTForPrediction, 47 to 11 steps>
    """
    folder = Path(folder)
    signature = task.signature if isinstance(task, Task) else task
    config = _config(folder)
    (name,) = config["architectures"]
    _check_question(config, signature, name)
    model = _loaded(folder, name)
    taps = TAPS[name]
    attention = [tap for tap in taps.get("attention", ()) if found_at(model, tap.path)]
    return wrap(
        model,
        task,
        input="past_values",
        output="prediction_outputs",
        units=units,
        context=config["context_length"],
        hidden=taps["hidden"],
        attention=attention,
    )


def _config(folder: Path) -> dict[str, Any]:
    """The folder's config, after a look at what the folder holds."""
    if importlib.util.find_spec("transformers") is None:
        raise UnsupportedError(
            "Reading a Hugging Face folder needs transformers. Install it with: pip install 'tsdistill[huggingface]'."
        )
    advice = (
        "Load another model yourself and td.wrap it, or write its forecasts into a table (td.teachers.read_forecasts)."
    )
    foundation = dict.fromkeys(FOUNDATION, "This is a foundation model: td.teachers.from_foundation loads it.")
    return read_config(folder, TAPS, {"": advice, **foundation})


def _check_question(config: dict[str, Any], signature: Signature, name: str) -> None:
    """Refuse a model of other steps or channels, and one whose head gives more than a forecast."""
    if config.get("loss", "mse") != "mse":
        raise UnsupportedError(
            f"The {name} must give forecasts, got one that was trained with loss={config['loss']!r} and gives "
            "parameters of a distribution. Write its means into a table of forecasts (td.teachers.read_forecasts)."
        )
    asked = {"context_length": 32, "prediction_length": 24, "num_input_channels": 1}  # the defaults of the library
    sizes = {key: config.get(key, default) for key, default in asked.items()}
    config |= sizes
    problems = []
    if not isinstance(sizes["context_length"], int) or not 1 <= sizes["context_length"] <= signature.context:
        rule, remedy = f"be at most the task's context of {signature.context}", "Give the task the model's context"
        problems.append(must("context_length", rule, sizes["context_length"], remedy))
    if sizes["prediction_length"] != signature.horizon:
        rule, remedy = f"be the task's horizon of {signature.horizon}", "Give the task the model's horizon"
        problems.append(must("prediction_length", rule, sizes["prediction_length"], remedy))
    if sizes["num_input_channels"] != len(signature.channels):
        rule = f"be the task's {len(signature.channels)} channels {list(signature.channels)}"
        problems.append(must("num_input_channels", rule, sizes["num_input_channels"], "Select the model's columns"))
    if config.get("prediction_channel_indices") is not None:
        remedy = "A teacher forecasts every channel of its task"
        problems.append(must("prediction_channel_indices", "be None", config["prediction_channel_indices"], remedy))
    if problems:
        raise ShapeError(listed(problems, f"the {name} for this task"))


def _loaded(folder: Path, name: str) -> Any:
    """The model with the folder's weights, all of them and no others."""
    import transformers

    # The only attention that shows its weights.
    return load_weights(getattr(transformers, name), folder, name, attn_implementation="eager")
