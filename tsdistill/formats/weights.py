"""The header of a safetensors file, walked as plain bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from tsdistill.formats.errors import FormatError
from tsdistill.formats.regular import read_head
from tsdistill.formats.texts import is_count, parse_json

MAX_HEADER_BYTES = 8 * 2**20
MAX_AXES = 8
MAX_TENSORS = 2**15

_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_ITEM_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1}


class TensorEntry(NamedTuple):
    """Where one tensor lies in a safetensors file: `content[begin:end]`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def tensors(content: bytes) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file, by walking its header; FormatError says what is wrong with it."""
    return _walked(*_header(content, len(content)), len(content))


def tensors_of_file(path: str | Path) -> dict[str, TensorEntry]:
    """The same of a file that is not read whole.

    Raises:
        OSError: The file cannot be opened; a `FormatError` when it is not regular or not sound.
    """
    head, size = read_head(path, 8)
    head, size = read_head(path, 8 + min(int.from_bytes(head, "little"), MAX_HEADER_BYTES + 1))
    return _walked(*_header(head, size), size)


def _walked(start: int, header: dict[str, Any], size: int) -> dict[str, TensorEntry]:
    note = header.pop("__metadata__", {})
    if not isinstance(note, dict) or not all(isinstance(text, str) for text in note.values()):
        raise FormatError("its `__metadata__` is not text by name")
    if len(header) > MAX_TENSORS:
        raise FormatError(f"it holds {len(header)} tensors, more than the {MAX_TENSORS} allowed")
    entries = {name: _tensor(name, values, start, size) for name, values in header.items()}
    position = start
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != position:
            raise FormatError("its tensors overlap or leave holes")
        position = entry.end
    if position != size:
        raise FormatError(f"{size - position} bytes follow its last tensor")
    return entries


def safetensors_note(content: bytes) -> dict[str, str]:
    """The text by name that a safetensors file keeps beside its tensors; FormatError when the file is not sound."""
    tensors(content)
    return _header(content, len(content))[1].get("__metadata__", {})


def _header(content: bytes, size: int) -> tuple[int, dict[str, Any]]:
    """Where the tensors begin, and what is written before."""
    if len(content) < 8:
        raise FormatError("it is too short to be a safetensors file")
    length = int.from_bytes(content[:8], "little")
    if length > min(MAX_HEADER_BYTES, size - 8) or length > len(content) - 8:
        raise FormatError(
            f"its header claims {length} bytes, more than the file or the limit of {MAX_HEADER_BYTES} has"
        )
    return 8 + length, parse_json(content[8 : 8 + length])


def _tensor(name: str, values: Any, start: int, size: int) -> TensorEntry:
    """One entry of a safetensors header, with offsets into the file."""
    if not isinstance(values, dict) or not isinstance(values.get("dtype"), str) or values["dtype"] not in _ITEM_BYTES:
        raise FormatError(f"its tensor {name[:80]!r} has no known type")
    shape: Any = values.get("shape")
    offsets: Any = values.get("data_offsets")
    is_sound = isinstance(shape, list) and len(shape) <= MAX_AXES and isinstance(offsets, list) and len(offsets) == 2
    if not is_sound or not all(is_count(number) for number in (*shape, *offsets)):
        raise FormatError(f"its tensor {name[:80]!r} has no sound shape and offsets")
    begin, end = start + offsets[0], start + offsets[1]
    if end > size or end - begin != math.prod(shape) * _ITEM_BYTES[values["dtype"]]:
        raise FormatError(f"its tensor {name[:80]!r} does not fit its place in the file")
    return TensorEntry(values["dtype"], tuple(shape), begin, end)
