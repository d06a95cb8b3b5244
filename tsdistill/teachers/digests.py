"""What foreign objects are made of, as digests that are the same in every process; nothing is ever pickled."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsdistill.spec import Spec

UNIMPORTANT = ("training", "name_or_path")
"""Settings of a module that change no forecast: its mode, and where a library loaded it from."""


def digest_of_module(module: nn.Module) -> str:
    """Digest of what a module is made of: classes, plain settings, config, and every weight and buffer."""
    digest = hashlib.sha256()
    config = getattr(module, "config", None)
    if isinstance(config, Spec) or callable(getattr(config, "to_dict", None)):
        fields = config.to_dict()  # type: ignore[union-attr]
        # Where it was loaded from, and by which version, changes nothing.
        digest.update(json.dumps({key: plain(value) for key, value in sorted(fields.items())
                                  if not key.startswith("_") and key != "transformers_version"}).encode())  # fmt: skip
    for name, submodule in module.named_modules():
        settings = [[key, plain(value)] for key, value in sorted(vars(submodule).items())
                    if key[0] != "_" and key not in UNIMPORTANT
                    and _is_simple(*(value if isinstance(value, tuple) else [value]))]  # fmt: skip
        digest.update(json.dumps([name, type(submodule).__module__, type(submodule).__qualname__, settings]).encode())
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON that is the same in every process: tensors by their bytes, functions by name and code."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [str(value.dtype), list(value.shape), hashlib.sha256(raw).hexdigest()]
    if isinstance(value, Callable):  # type: ignore[arg-type]
        code = getattr(value, "__code__", None)
        body = (
            []
            if code is None
            else [code.co_code.hex(), *(repr(entry) for entry in code.co_consts if _is_simple(entry))]
        )
        return [getattr(value, "__module__", ""), getattr(value, "__qualname__", type(value).__name__), *body]
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if _is_simple(value):
        return value
    return re.sub(r"0x[0-9a-fA-F]+", "", repr(value))


def _is_simple(*values: Any) -> bool:
    return all(value is None or isinstance(value, bool | int | float | str) for value in values)
