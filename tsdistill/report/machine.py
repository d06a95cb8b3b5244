"""Which machine and which versions a report was made with: what a reader needs to interpret its latencies."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, system, its INT8 abilities, and the threads that latencies are measured with."""
    model, flags = _cpu()
    details: dict[str, Any] = {"cpu": model or platform.processor() or platform.machine(), "system": platform.system()}
    if flags:
        details["vnni"] = any("vnni" in flag for flag in flags)
        details["amx"] = "amx_int8" in flags
    return {**details, "threads": 1}


def versions() -> dict[str, str]:
    """Versions of what can change the numbers of a report."""
    import onnxruntime

    from tsdistill.models import versions as training_versions

    return {
        **training_versions(),
        "onnxruntime": str(onnxruntime.__version__),
        "python": platform.python_version(),
    }


def _cpu() -> tuple[str, frozenset[str]]:
    """Model name and feature flags as Linux lists them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", frozenset()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields.get("model name", ""), frozenset(fields.get("flags", "").split())
