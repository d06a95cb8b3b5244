"""Folders in the Hugging Face layout: looked at before anything is built, and loaded without executing anything."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tsdistill.errors import ArtifactError, UnsupportedError, shown
from tsdistill.formats import parse_json, read_regular
from tsdistill.models.finite import described, not_finite
from tsdistill.teachers.shards import check_sizes, stored_shapes

MAX_CONFIG_BYTES = 2**20


def read_config(folder: Path, names: Collection[str], otherwise: Mapping[str, str]) -> dict[str, Any]:
    """The config of a folder that holds one of the named architectures as safetensors, and nothing to be executed.

    Args:
        folder: The folder.
        names: Architectures that are wanted.
        otherwise: What to do with others, by architecture; "" for all that are not named.

    Raises:
        ArtifactError: the folder lacks its config or its safetensors, or they are damaged.
        UnsupportedError: another architecture, code of its own, an adapter or quantized weights.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ArtifactError(
            f"{folder} has no config.json. Give a local folder that save_pretrained wrote; nothing is downloaded."
        )
    try:
        config = parse_json(read_regular(path, MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"Cannot read {path}: {error}. Save the model again.") from None
    held = config.get("architectures")
    name = held[0] if isinstance(held, list) and len(held) == 1 and isinstance(held[0], str) else ""
    if name not in names:
        raise UnsupportedError(
            f"{folder} must hold one of {', '.join(names)}, got {shown(held)}. {otherwise.get(name, otherwise[''])}"
        )
    if "auto_map" in config:
        raise UnsupportedError(f"{folder} brings code of its own (auto_map), which is never run. Save a plain one.")
    if "quantization_config" in config or (folder / "adapter_config.json").exists():
        raise UnsupportedError(
            f"{folder} holds a quantized model or an adapter, which only other libraries can read. Save a plain one."
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".pkl"))
        weights = f"only {', '.join(pickled)}, which could execute anything when read" if pickled else "no weights"
        raise ArtifactError(
            f"{folder} must hold its weights as safetensors, got {weights}. Save it again with save_pretrained where "
            "you trust it."
        )
    check_sizes(config, stored_shapes(folder, name), folder)
    return config


def load_weights(kind: Any, folder: Path, name: str, **settings: Any) -> Any:
    """A model with the folder's weights, all of them and no others, in evaluation mode.

    Args:
        kind: Its class, which has `from_pretrained`.
        folder: The folder, after `read_config`.
        name: What the class is called, for messages.
        settings: Further arguments of `from_pretrained`.

    Raises:
        ArtifactError: the weights cannot be read, are not those of the class, or are not finite.
    """
    import torch

    try:
        with quietly():
            model, report = kind.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **settings,
            )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:500].rstrip(".")
        raise ArtifactError(f"Cannot load {name} from {folder}: {reason}. Save the model again.") from error
    # The library draws at random whatever the files lack, and says so in a log, or not even there where a class asks.
    state = model.state_dict()
    unsaid = "|".join(getattr(kind, "_keys_to_ignore_on_load_missing", None) or ())
    missing = {*report["missing_keys"], *(key for key in state if unsaid and re.search(unsaid, key))}
    missing -= set(stored_shapes(folder, name))
    lacking = [f"{key} is missing" for key in sorted(missing)]
    lacking += [f"{key} is unknown" for key in sorted(report["unexpected_keys"])]
    lacking += [f"{key} has another shape" for key in sorted(str(entry[0]) for entry in report["mismatched_keys"])]
    if lacking:
        raise ArtifactError(
            f"The weights in {folder} are not those of the {name} that its config describes: {', '.join(lacking[:5])}"
            f"{', ...' if len(lacking) > 5 else ''}. Save the whole model again."
        )
    counts = not_finite(state, frozenset(key for key, _ in model.named_parameters()))
    if counts:
        raise ArtifactError(f"The {name} in {folder} cannot teach: {described(counts)}")
    return model.eval()


@contextmanager
def quietly() -> Iterator[None]:
    """No bars and no advice while weights are read: the errors raised here name what is wrong with them."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
