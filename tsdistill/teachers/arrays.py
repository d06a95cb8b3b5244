"""Tensors and arrays by their contents."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGE = 10**6
"""Entries from which on a light walk does not read a tensor."""


class ArrayParts:
    """The part of a walk that reads numbers; the rest of it is `inventory`'s."""

    light: bool

    def put(self, path: str, text: str) -> None:
        """Put down the text of a part."""
        raise NotImplementedError

    def add(self, path: str, value: Any) -> None:
        """Put down a value and everything below it."""
        raise NotImplementedError

    def doubt(self, path: str, reason: str) -> None:
        """Put down that a part cannot be known."""
        raise NotImplementedError

    def add_tensor(self, path: str, value: Tensor) -> None:
        """A tensor: type, shape and bytes; of one that is made of others those."""
        tensor = value.detach()
        text = f"{tensor.dtype} {tuple(tensor.shape)}"
        if self.light and tensor.numel() > LARGE:
            self.put(path, f"{text} {tensor._version} {id(value)}")
        elif tensor.is_meta:
            self.doubt(path, "a tensor on the meta device, without contents")
        elif callable(flatten := getattr(tensor, "__tensor_flatten__", None)):
            names, settings = flatten()
            self.put(path, f"{type(tensor).__qualname__} {text}")
            self.add(f"{path}.settings", settings)
            for name in names:
                self.add(f"{path}.{name}", getattr(tensor, name))
        elif tensor.is_quantized:
            per_channel = tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
            scales = (
                [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points(), tensor.q_per_channel_axis()]
                if per_channel
                else [tensor.q_scale(), tensor.q_zero_point()]
            )
            self.put(path, text)
            self.add(f"{path}.scales", scales)
            self.add(f"{path}.values", tensor.int_repr())
        elif tensor.layout is not torch.strided:
            self.put(path, f"{tensor.layout} {text}")
            self.add(f"{path}.values", tensor.to_dense())
        else:
            raw = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            self.put(path, f"{text} {hashlib.sha256(raw.data).hexdigest()}")

    def add_array(self, path: str, value: np.ndarray) -> None:
        """An array: type, shape and bytes, field by field where it has fields."""
        text = f"{value.dtype} {value.shape}"
        if value.dtype.names is not None:  # field by field: the bytes between them are nobody's
            self.put(path, text)
            for name in value.dtype.names:
                self.add(f"{path}.{name}", value[name])
        elif value.dtype.hasobject:
            self.put(path, text)
            self.add(f"{path}.values", value.ravel().tolist())
        else:
            self.put(path, f"{text} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}")
