"""Changes to the folder of an artifact, as an accident or somebody with bad intent would make them."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tsdistill import manifest as manifests

Change = Callable[[Path], object]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
    """Change the manifest as somebody would who knows how it is signed."""
    path = folder / manifests.NAME
    values = json.loads(path.read_text())
    values.pop("sha256")
    change(values)
    if sign:
        values["sha256"] = manifests._digest(values)
    path.write_text(json.dumps(values))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Change a file and list its new digest, so that only its content can give it away."""
    (folder / name).write_bytes(content)
    entry = manifests.entry(content)._asdict()
    rewrite(folder, lambda values: values["files"].__setitem__(name, entry))


def flip(folder: Path, name: str, position: int = -1) -> None:
    content = bytearray((folder / name).read_bytes())
    content[position] ^= 1
    (folder / name).write_bytes(content)


def tensors_of(**arrays: np.ndarray) -> bytes:
    from safetensors.numpy import save as pack

    return bytes(pack({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def header(content: bytes) -> bytes:
    return len(content).to_bytes(8, "little") + content


class Exploding:
    """A pickle that leaves a trace when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("/tmp/tsdistill-pickle-was-executed",))


WEIGHTS, MODEL, GOLDEN, NAME = manifests.WEIGHTS, manifests.MODEL, manifests.GOLDEN, manifests.NAME
PICKLE = pickle.dumps(Exploding())
