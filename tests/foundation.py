"""Foundation models from tiny random configs, saved as their libraries save them."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tsdistill as td
from tests import retraining
from tsdistill.testing import toy_panel

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
TTM = {"context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 13, "d_model": 8,
       "num_layers": 2, "decoder_num_layers": 1, "decoder_d_model": 8}  # fmt: skip
T5: dict[str, Any] = {"d_model": 8, "d_kv": 4, "d_ff": 11, "num_layers": 2, "num_heads": 2}


def needs(package: str, extra: str) -> None:
    """Skip where a library is not installed."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the extra `{extra}` is not installed; CONTRIBUTING says how to run this")


def chronos_2(folder: Path) -> None:
    needs("chronos", "chronos")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chronos import Chronos2Model
        from chronos.chronos2.config import Chronos2CoreConfig
    own = {"context_length": 32, "output_patch_size": 4, "input_patch_size": 4, "input_patch_stride": 4,
           "quantiles": LEVELS, "use_reg_token": True, "use_arcsinh": True, "max_output_patches": 3}  # fmt: skip
    saved(
        Chronos2Model,
        Chronos2CoreConfig(**T5, initializer_factor=1.0, chronos_config=own, chronos_pipeline_class="Chronos2Pipeline"),
        folder,
    )


def chronos_bolt(folder: Path) -> None:
    needs("chronos", "chronos")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chronos.chronos_bolt import ChronosBoltModelForForecasting
        from transformers import T5Config
    own = {"context_length": 32, "prediction_length": 7, "input_patch_size": 4, "input_patch_stride": 4,
           "quantiles": LEVELS, "use_reg_token": True}  # fmt: skip
    settings: dict[str, Any] = {**T5, "num_decoder_layers": 2, "decoder_start_token_id": 0, "chronos_config": own,
                                "chronos_pipeline_class": "ChronosBoltPipeline"}  # fmt: skip
    config = T5Config(**settings)
    saved(ChronosBoltModelForForecasting, config, folder)


def ttm(folder: Path, name: str = "TinyTimeMixerForPrediction", **options: Any) -> None:
    needs("tsfm_public", "ttm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tsfm_public.models import tinytimemixer
    config = tinytimemixer.TinyTimeMixerConfig(**(TTM | options))
    saved(getattr(tinytimemixer, name), config, folder)


def saved(kind: Any, config: Any, folder: Path) -> None:
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind(config).eval().save_pretrained(folder)


REAL: dict[str, Callable[[Path], None]] = {
    "Chronos-2": chronos_2,
    "Chronos-Bolt": chronos_bolt,
    "TTM": lambda folder: ttm(folder, num_input_channels=5),
    "TTM with quantiles": lambda folder: ttm(folder, multi_quantile_head=True),
    "TTM told the frequency": lambda folder: ttm(folder, resolution_prefix_tuning=True, frequency_token_vocab_size=10),
    "TTM that mixes channels": lambda folder: ttm(folder, num_input_channels=3, decoder_mode="mix_channel"),
    "TTM of trend and rest": lambda folder: ttm(folder, "TinyTimeMixerForDecomposedPrediction", decompose=True),
}
"""Every class that can teach, by what it is called in tests."""


def posed(folder: Path, architecture: str, **config: Any) -> Path:
    """A folder that looks like a foundation model's, for what is refused before anything is loaded."""
    folder.mkdir()
    own = {"chronos_config": {"context_length": 32, "quantiles": LEVELS}} if "Chronos" in architecture else TTM
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], **own, **config}))
    save_file(
        {f"weight{number}": torch.zeros(125) for number in range(8)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def task_of(*, context: int = 47, horizon: int = 11) -> td.Task:
    return td.Task(toy_panel(), context=context, horizon=horizon, split=td.Split.fractions(0.6, 0.2, 0.2))


RECIPE = """
quantization = "none"

[data]
path = "fresh.csv"

[task]
context = 29
horizon = 7
split = { kind = "fractions", train = 0.6, validation = 0.2, test = 0.2 }

[student]
model = { kind = "linear" }
losses = [{ kind = "output" }]

[teacher]
"""


def recipe_with(folder: Path, teacher: str, name: str = "recipe.toml") -> td.Recipe:
    """A recipe over two hourly channels with the given lines under [teacher]."""
    if not (folder / "fresh.csv").exists():
        retraining.write_csv(folder / "fresh.csv")
    (folder / name).write_text(RECIPE + teacher)
    return td.recipe.read_recipe(folder / name)
