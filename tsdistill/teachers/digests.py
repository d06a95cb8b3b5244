"""Digests of teachers from elsewhere, and what they are not sure of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature
from tsdistill.errors import ConfigError, must
from tsdistill.spec import digest_of
from tsdistill.teachers.inventory import Inventory

N_PROBES = 32
"""Windows whose forecasts stand in a digest that is not sure of everything else."""


def teacher_digest(
    parts: Inventory,
    details: list[Any],
    name: str | None,
    probe: Callable[[], Tensor],
    left_out: set[str] | None = None,
) -> str:
    """Sixteen hex digits of a teacher's parts and details; of its forecasts too where parts are unknown.

    Forecasts are rounded otherwise on other machines, so that they count only where nothing else tells teachers apart,
    and not where the user's name does.
    """
    digits = [parts.digest(), *details, *([] if name is None else [name])]
    if parts.doubts and name is None:
        digits.append(_rounded(probe))
    return digest_of(digits)


def check_name(name: object) -> None:
    """Refuse a name for a teacher that is no text."""
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise ConfigError(must("name", "be a text", name, "Leave it out, or name exactly this version of the teacher"))


def probe_batch(signature: Signature) -> Batch:
    """Windows that are the same everywhere: noise, random walks, waves, constants and large values."""
    noise = np.random.Generator(np.random.PCG64(0))
    steps, n_channels = signature.context, len(signature.channels)
    contexts = noise.standard_normal((N_PROBES, steps, n_channels))
    contexts[8:16] = contexts[8:16].cumsum(axis=1) / np.sqrt(steps)
    contexts[16:20] = np.sin(np.arange(steps)[:, None] * np.array([0.1, 0.26, 0.9, 3.0])[:, None, None])
    contexts[20:24] = np.array([0.0, 1.0, -3.0, 50.0])[:, None, None]
    contexts[24:28] *= 30
    contexts[28:30] *= 1e-3
    contexts[30:] = 0.0
    contexts[30:, -1] = np.array([5.0, -5.0])[:, None]

    def drawn(n_steps: int, n_columns: int) -> Tensor | None:
        values = noise.standard_normal((N_PROBES, n_steps, n_columns)).astype(np.float32)
        return torch.from_numpy(values) if n_columns else None

    return Batch(
        torch.from_numpy(contexts.astype(np.float32)),
        torch.zeros(N_PROBES, signature.horizon, n_channels),
        torch.arange(N_PROBES),
        future=drawn(steps + signature.horizon, len(signature.future)),
        past=drawn(steps, len(signature.past)),
    )


def _rounded(probe: Callable[[], Tensor]) -> list[str]:
    """Forecasts of the probe windows to four digits; of a teacher that refuses them, how it does."""
    try:
        forecasts = probe().double().numpy()
    except Exception as error:
        return [type(error).__name__]
    return [f"{value:.4g}" for value in forecasts.ravel()]
