"""Offsets in the signature of an artifact: what is subtracted from raw values before the graph; standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tsdistill.errors import must

OFFSETS = ("offset", "future_offset", "past_offset")
"""Fields of a signature: of the channels, and of the covariates known ahead and of the past."""

PLAIN, WITH_OFFSETS = 1, 2
"""Versions of artifacts: earlier readers, which would not subtract offsets, refuse the second."""


def version_of(signature: object) -> int:
    """The version that an artifact with a signature is written as."""
    has_offsets = isinstance(signature, dict) and any(signature.get(name) for name in OFFSETS)
    return WITH_OFFSETS if has_offsets else PLAIN


def offset_problems(signature: Mapping[str, Any]) -> list[str]:
    """What is wrong with the offsets of a signature as it was read."""
    problems = []
    for name, columns in zip(OFFSETS, ("channels", "future", "past"), strict=True):
        offset, named = signature.get(name, []), signature.get(columns, [])
        sound = isinstance(offset, list) and all(type(number) in (int, float) for number in offset)
        if not sound or len(offset) not in (0, len(named) if isinstance(named, list) else 0) or not _finite(offset):
            rule = f"hold a finite number for each of `{columns}`, or none"
            problems.append(must(f"signature.{name}", rule, offset, "Save again"))
    return problems


def _finite(numbers: list[Any]) -> bool:
    try:
        return all(map(math.isfinite, numbers))
    except OverflowError:  # a whole number beyond float64
        return False
