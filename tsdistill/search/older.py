"""Spaces as version 0.1 spelled them, translated to addresses; they go with version 0.3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tsdistill.errors import ConfigError, must
from tsdistill.spec import Among, Range, Spec

FIELDS = frozenset({"students", "alpha", "temporal", "ratio", "learning_rate", "methods"})
"""Fields that a space had."""

MOVED = (
    "Spaces name addresses now: Space(vary={'student.model.kind': ('lstm', 'mlp'), 'student.losses.output.alpha': "
    "Range(0, 1)}). Space(students=..., alpha=..., ...) works until version 0.3; space.to_toml() writes the new form."
)


class LSTMSpace(Spec):
    """LSTM students of a space in the older spelling."""

    kind: Literal["lstm"] = "lstm"
    width: Among = (16, 32, 64, 128)
    depth: Among = (1, 2)
    patch: Among = (12, 24, 48)


class MLPSpace(Spec):
    """MLP students of a space in the older spelling."""

    kind: Literal["mlp"] = "mlp"
    width: Among = (16, 32, 64, 128)
    depth: Among = (1, 2, 3)


class PatchTSTSpace(Spec):
    """Transformer students of a space in the older spelling; their patches do not overlap."""

    kind: Literal["patchtst"] = "patchtst"
    width: Among = (16, 32)
    depth: Among = (1, 2)
    patch: Among = (16, 24, 48)
    overlap: Among = (False,)


STUDENTS: dict[str, type[Spec]] = {"lstm": LSTMSpace, "mlp": MLPSpace, "patchtst": PatchTSTSpace}

DEFAULTS: dict[str, Any] = {
    "students": (LSTMSpace(), MLPSpace(), PatchTSTSpace()),
    "alpha": Range(0.0, 1.0),
    "temporal": (0.0, 0.03, 0.1, 0.3),
    "ratio": (0.0, 0.25, 0.5),
    "learning_rate": Range(5e-4, 1e-2, log=True),
    "methods": None,
}

ADDRESSES = {
    "alpha": "student.losses.output.alpha",
    "temporal": "student.losses.temporal.weight",
    "ratio": "pruning.ratio",
    "learning_rate": "student.training.learning_rate",
    "methods": "quantization.method",
}


def translated(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a space in the older spelling as addresses; other fields stay, to be refused by name."""
    fields = {**DEFAULTS, **{name: values[name] for name in FIELDS.intersection(values)}}
    vary: dict[str, Any] = {}
    if fields["students"] is not None:
        students = [_student(student) for student in fields["students"]]
        kinds = [student.kind for student in students]  # type: ignore[attr-defined]
        if not kinds or len(set(kinds)) < len(kinds):
            remedy = "Give one of each, or none at all (None) to keep the recipe's student"
            raise ConfigError(must("students", "hold every kind at most once, and one at least", kinds, remedy))
        vary["student.model.kind"] = tuple(kinds)
        for student, kind in zip(students, kinds, strict=True):
            sizes = {name: getattr(student, name) for name in type(student).model_fields if name != "kind"}
            vary |= {f"student.model.{kind}.{name}": among for name, among in sizes.items()}
    vary |= {address: fields[name] for name, address in ADDRESSES.items() if fields[name] is not None}
    others = {name: value for name, value in values.items() if name not in FIELDS}
    return {**others, "vary": {**vary, **(others.pop("vary", None) or {})}}


def _student(value: Any) -> Spec:
    if isinstance(value, LSTMSpace | MLPSpace | PatchTSTSpace):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in STUDENTS:
        raise ConfigError(must("students", f"name {', '.join(STUDENTS)}", value, "Others are named by address"))
    return STUDENTS[kind](**value)
