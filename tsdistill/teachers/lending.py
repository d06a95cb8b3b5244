"""Memory of its own for code from elsewhere: whatever it writes to, nobody else reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tsdistill.data.task import Batch


def own_copy(value: Any) -> Any:
    """A value whose tensors and arrays are copies, also inside lists, tuples, dictionaries and batches."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Batch):
        fields = {field.name: own_copy(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        return {key: own_copy(entry) for key, entry in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(own_copy, value))
    if type(value) in (list, tuple):
        return type(value)(map(own_copy, value))
    return value
