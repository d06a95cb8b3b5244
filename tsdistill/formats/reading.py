"""The record of how the table was read that a model was trained on, as it stands in manifests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tsdistill.errors import must, nearest

READING: dict[str, Any] = {
    "time": "ds",
    **dict.fromkeys(("id", "frequency", "fill", "time_zone", "day_first", "time_format")),
    "separator": ",",
    "decimal": ".",
    "encoding": "utf-8",
    "left_out": (),
}
"""What the record may hold, and what stands where it says nothing."""

REMEDY = "Save the model again"


def restored(values: dict[str, Any] | None) -> SimpleNamespace | None:
    """A record whose fields can be asked for; None where an artifact has none."""
    return None if values is None else SimpleNamespace(**{**READING, **values})


def reading_problems(values: Any) -> list[str]:
    """What is wrong with a record; empty when nothing is."""
    if not isinstance(values, dict):
        return [must("reading", "be a JSON object", values, REMEDY)]
    problems = [
        f"`reading.{name}` is not a known field. {nearest(name, READING)}" for name in values.keys() - set(READING)
    ]
    for name, value in values.items():
        kind: Any = {"day_first": bool, "left_out": list}.get(name, str)
        if name not in READING or value is None:
            continue
        if not isinstance(value, kind) or (kind is list and not all(isinstance(item, str) for item in value)):
            rule = "be a list of names" if kind is list else f"be a {kind.__name__}"
            problems.append(must(f"reading.{name}", rule, value, REMEDY))
        elif kind is str and not value.isprintable() and value != "\t":
            problems.append(must(f"reading.{name}", "be printable", value, REMEDY))
    return sorted(problems)
