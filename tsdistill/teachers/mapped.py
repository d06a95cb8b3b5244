"""Kept forecasts as memory-mapped arrays, from files that somebody else may have put there."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from tsdistill.errors import ArtifactError

TYPES = (np.dtype("<f2"), np.dtype("<f4"))


def mapped(path: Path, n_windows: int) -> np.ndarray[Any, Any]:
    """An .npy file of one row per window, copy-on-write: torch wants writable memory, and nothing is written to it.

    It is opened once, without waiting, and what is opened is checked: a regular file of half or single precision that
    is as long as its header says.

    Raises:
        ArtifactError: It is anything else.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        try:
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a regular file")
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"it is of the format {version}")
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
            size = math.prod(shape) * dtype.itemsize + file.tell()
            if is_fortran or dtype not in TYPES or shape[:1] != (n_windows,) or size != status.st_size:
                raise ValueError(f"it must hold {n_windows} rows of float16 or float32, got {dtype} of shape {shape}")
        except (ValueError, EOFError) as error:
            raise ArtifactError(
                f"{path} holds no kept forecasts of these windows: {str(error).splitlines()[0]}. Delete it, so that "
                "the teacher is asked again."
            ) from None
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype=dtype, mode="c", offset=file.tell(), shape=shape)
