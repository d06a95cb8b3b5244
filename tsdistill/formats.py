"""The three file formats of an artifact, walked as plain bytes: strict JSON, safetensors headers, ONNX messages.

Standard library only. Nothing is executed or followed: an ONNX file that points to tensors elsewhere, a header that
claims more than the file holds, or a pickle in disguise is a `ValueError` whose text says what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_HEADER_BYTES = 8 * 2**20
MAX_AXES = 8

_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_ITEM_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1}


class TensorEntry(NamedTuple):
    """Where one tensor lies in a safetensors file: `content[begin:end]`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_json(text: bytes) -> dict[str, Any]:
    """Strict JSON object: no NaN, no repeated keys, no text that cannot be written; ValueError otherwise."""
    try:
        values = json.loads(text.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constant)
        json.dumps(values, ensure_ascii=False).encode("utf-8")  # halves of surrogate pairs cannot
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError(f"it must hold a JSON object, got {type(values).__name__}")
    return values


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands in it twice")
    return values


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not JSON")


def is_count(value: object, least: int = 0) -> bool:
    """Whether this is a whole number of at least `least` (True and False are not numbers)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def tensors(content: bytes) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file, by walking its header; ValueError says what is wrong with it."""
    if len(content) < 8:
        raise ValueError("it is too short to be a safetensors file")
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"its header claims {length} bytes, more than the file or the limit of {MAX_HEADER_BYTES} has")
    header = parse_json(content[8 : 8 + length])
    header.pop("__metadata__", None)
    entries = {name: _tensor(name, values, 8 + length, len(content)) for name, values in header.items()}
    position = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: entry.begin):
        if entry.begin != position:
            raise ValueError("its tensors overlap or leave holes")
        position = entry.end
    if position != len(content):
        raise ValueError(f"{len(content) - position} bytes follow its last tensor")
    return entries


def check_onnx(content: bytes) -> None:
    """ValueError unless this is an ONNX model that keeps all its tensors inside."""
    has_graph = False
    for kind, number, value in _walk(memoryview(content), "model", 0):
        has_graph |= kind == "model" and number == 7
        # TensorProto.external_data, or TensorProto.data_location set to EXTERNAL.
        if kind == "tensor" and (number == 13 or (number == 14 and value == 1)):
            raise ValueError("it keeps tensors in other files (external data), which is never followed")
    if not has_graph:
        raise ValueError("it holds no graph, so it is not an ONNX model")


def _tensor(name: str, values: Any, start: int, size: int) -> TensorEntry:
    """One entry of a safetensors header, with offsets into the file."""
    if not isinstance(values, dict) or values.get("dtype") not in _ITEM_BYTES:
        raise ValueError(f"its tensor {name!r} has no known type")
    shape: Any = values.get("shape")
    offsets: Any = values.get("data_offsets")
    is_sound = isinstance(shape, list) and len(shape) <= MAX_AXES and isinstance(offsets, list) and len(offsets) == 2
    if not is_sound or not all(is_count(number) for number in (*shape, *offsets)):
        raise ValueError(f"its tensor {name!r} has no sound shape and offsets")
    begin, end = start + offsets[0], start + offsets[1]
    if end > size or end - begin != math.prod(shape) * _ITEM_BYTES[values["dtype"]]:
        raise ValueError(f"its tensor {name!r} does not fit its place in the file")
    return TensorEntry(values["dtype"], tuple(shape), begin, end)


# The message fields of onnx.proto that can lead to a tensor: message, field number, message of that field.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[tuple[str, int, int]]:
    """Every (message kind, field number, number or length) of a protobuf message and of those inside it."""
    if depth > 64:
        raise ValueError("its messages are nested too deeply")
    inner = _MESSAGES[kind]
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(message, position)
        elif wire in (1, 5):
            value = 0
            position += 8 if wire == 1 else 4
        elif wire == 2:
            value, position = _varint(message, position)
            position += value
        else:
            raise ValueError("it is not a protobuf message, so it is not an ONNX model")
        if position > len(message):
            raise ValueError("it is cut short")
        yield kind, number, value
        if wire == 2 and number in inner:
            yield from _walk(message[position - value : position], inner[number], depth + 1)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError("it is not a protobuf message, so it is not an ONNX model")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
