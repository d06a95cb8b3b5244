"""What a step of a lineage was made with: versions, processor and threads, all of which can change its numbers."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch


def versions() -> dict[str, str]:
    """Versions of what can change the numbers of a training step."""
    from tsdistill import __version__

    return {"tsdistill": __version__, "torch": str(torch.__version__).split("+")[0], "numpy": np.__version__}


def machine() -> dict[str, Any]:
    """Name of the processor, and torch's number of threads: sums that are split another way round another way."""
    return {"processor": processor()[0], "threads": torch.get_num_threads()}


@functools.cache
def processor() -> tuple[str, frozenset[str]]:
    """Name of the processor, and its abilities where Linux lists them."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    except OSError:
        fields = {}
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, frozenset(fields.get("flags", "").split())
