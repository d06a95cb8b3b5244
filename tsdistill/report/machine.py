"""Which machine and which versions a report was made with: what a reader needs to interpret its latencies."""

from __future__ import annotations

import platform
from typing import Any

from tsdistill.models.provenance import processor


def machine() -> dict[str, Any]:
    """Processor, system, its INT8 abilities, and the threads that latencies are measured with."""
    name, flags = processor()
    details: dict[str, Any] = {"cpu": name, "system": platform.system()}
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
