"""The safetensors of a Hugging Face folder, looked at before the library that reads them builds anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tsdistill.errors import ArtifactError, listed, must, shown
from tsdistill.formats import parse_json, read_regular, tensors_of_file

INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 16 * 2**20
MAX_SHARDS = 1000


def stored_shapes(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all stored tensors, from the files' headers.

    Raises:
        ArtifactError: A file is not sound, or the list of files leads out of the folder.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))[: MAX_SHARDS + 1]
    try:
        if (folder / INDEX).exists():
            index = parse_json(read_regular(folder / INDEX, MAX_INDEX_BYTES)).get("weight_map")
            if not isinstance(index, dict) or not set(map(str, index.values())) <= set(names):
                raise ValueError(f"{INDEX} must name files of the folder by tensor")
        if len(names) > MAX_SHARDS:
            raise ValueError(f"it holds more than {MAX_SHARDS} files of weights")
        shapes: dict[str, tuple[int, ...]] = {}
        for shard in names:
            try:
                shapes |= {key: entry.shape for key, entry in tensors_of_file(folder / shard).items()}
            except (OSError, ValueError) as error:
                raise ValueError(f"{shard}: {error}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"Cannot load {name} from {folder}: {error}. Save the model again.") from None
    return shapes


def check_sizes(config: dict[str, Any], shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    """ArtifactError when a config asks for more layers or wider ones than there are weights.

    Every layer has a tensor and every width is a side of one, so that what is built is as large as what is stored.
    """
    n_weights = sum(map(math.prod, shapes.values()))
    limits = {name: len(shapes) for name in config if name.endswith(("layers", "layer"))}
    limits |= {
        name: n_weights
        for name in config
        if name.endswith(
            ("_dim", "_heads", "_size", "channels", "d_model", "patch_length", "_tokens", "d_ff", "d_kv", "_factor")
        )
    }
    problems = []
    for name, limit in limits.items():
        value = config[name]
        if isinstance(value, int | float) and not isinstance(value, bool) and value > limit:
            rule = f"be at most {limit}, as there are {len(shapes)} tensors of {n_weights} weights together"
            problems.append(must(name, rule, value, "Save the whole model again"))
        elif isinstance(value, str | dict):
            problems.append(must(name, "be a number", shown(value), "Save the model again"))
    if problems:
        raise ArtifactError(listed(problems, f"config.json of {folder}"))
