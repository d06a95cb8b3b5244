"""ONNX files with damage that an attacker would do to them, at any field of any message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tsdistill.formats.protobuf import SCHEMA


class Piece(NamedTuple):
    """A field as it is written: tag, length if it has one, and its content, or the fields of the message it holds."""

    number: int
    wire: int
    content: bytes
    inner: tuple[Piece, ...] | None
    kind: str | None


def varint(number: int, n_bytes: int = 0) -> bytes:
    """As protobuf writes it, or padded to so many bytes."""
    written = bytearray()
    while number >= 0x80 or len(written) + 1 < n_bytes:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def pieces(content: bytes, kind: str = "model") -> tuple[Piece, ...]:
    """The fields of a sound message."""
    place, read = 0, []
    while place < len(content):
        tag, place = _varint(content, place)
        begin = place
        known = SCHEMA[kind].get(tag >> 3)
        inner = known.form if known is not None and known.form in SCHEMA else None
        if tag & 7 == 0:
            _, place = _varint(content, place)
        elif tag & 7 == 2:
            size, begin = _varint(content, place)
            place = begin + size
        else:
            place += 4 if tag & 7 == 5 else 8
        held = pieces(content[begin:place], inner) if inner else None
        read.append(Piece(tag >> 3, tag & 7, content[begin:place], held, inner))
    return tuple(read)


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while content[place] >= 0x80:
        value |= (content[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
    return value | content[place] << shift, place + 1


def written(fields: tuple[Piece, ...], change: Callable[[Piece], bytes | None] = lambda piece: None) -> bytes:
    """The bytes of a message; a change may write a field otherwise, from the innermost outwards."""
    content = b""
    for piece in fields:
        if piece.inner is not None:
            piece = piece._replace(content=written(piece.inner, change))
        instead = change(piece)
        content += plain(piece) if instead is None else instead
    return content


def plain(piece: Piece) -> bytes:
    size = varint(len(piece.content)) if piece.wire == 2 else b""
    return varint(piece.number << 3 | piece.wire) + size + piece.content


SMUGGLED = {
    "data_location": field(14, 1),
    "external_data": field(13, field(1, b"location") + field(2, b"/etc/passwd")),
    "inner graph": field(6, field(2, b"g")),
    "inner graphs": field(11, field(2, b"g")),
    "function": field(25, field(1, b"f")),
    "sparse": field(15, b""),
    "sparse value": field(22, b""),
    "training": field(20, b""),
    "reference": field(21, b"other"),
    "unknown": field(1000, b"?"),
    "group": varint(99 << 3 | 3) + varint(99 << 3 | 4),
}
"""Fields that parsers act on, or skip, wherever they stand."""


def mutants(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged copies of a file."""
    random = np.random.default_rng(seed)
    fields = pieces(content)
    assert written(fields) == content
    total = sum(1 for _ in _all(fields))
    kinds: list[Callable[[Any, Piece], bytes]] = [
        _wide_tag, _long_tag, _long_length, _twice, _longer, _shorter, _smuggled, _wrapped, _hidden, _dropped,
        _other_wire,
    ]  # fmt: skip
    for _ in range(count):
        yield _mutant(content, fields, total, kinds, random)


def _mutant(
    content: bytes,
    fields: tuple[Piece, ...],
    total: int,
    kinds: list[Callable[[Any, Piece], bytes]],
    random: np.random.Generator,
) -> bytes:
    chance = random.random()
    if chance < 0.2:  # bits
        changed = bytearray(content)
        for place in random.integers(len(content), size=random.integers(1, 4)):
            changed[place] ^= 1 << int(random.integers(8))
        return bytes(changed)
    if chance < 0.25:
        return content[: random.integers(len(content))]
    if chance < 0.3:  # a stretch of it once more, or instead
        begin, end, place = sorted(map(int, random.integers(len(content), size=3)))
        return content[:place] + content[begin : begin + min(end - begin, 99)] + content[place:]
    if chance < 0.35:
        order = random.permutation(len(fields))
        return written(tuple(fields[place] for place in order))
    chosen, at = int(random.integers(total)), iter(range(total))
    kind = kinds[int(random.integers(len(kinds)))]
    return written(fields, lambda piece: kind(random, piece) if next(at) == chosen else None)


def _all(fields: tuple[Piece, ...]) -> Iterator[Piece]:
    for piece in fields:
        yield from _all(piece.inner or ())
        yield piece


def _parts(piece: Piece) -> tuple[int, bytes]:
    return piece.number << 3 | piece.wire, plain(piece)[len(varint(piece.number << 3 | piece.wire)) :]


def _wide_tag(random: Any, piece: Piece) -> bytes:
    """The tag with a bit above the 32nd, which some parsers cut off."""
    tag, rest = _parts(piece)
    return varint(tag | 1 << int(random.integers(32, 64))) + rest


def _hidden(random: Any, piece: Piece) -> bytes:
    """A smuggled field behind such a tag."""
    name = sorted(SMUGGLED)[int(random.integers(len(SMUGGLED)))]
    tag, place = _varint(SMUGGLED[name], 0)
    return plain(piece) + varint(tag | 1 << int(random.integers(32, 64))) + SMUGGLED[name][place:]


def _long_tag(random: Any, piece: Piece) -> bytes:
    tag, rest = _parts(piece)
    return varint(tag, int(random.integers(len(varint(tag)) + 1, 11))) + rest


def _long_length(random: Any, piece: Piece) -> bytes:
    number = len(piece.content) if piece.wire == 2 else _varint(piece.content, 0)[0] if piece.wire == 0 else 0
    long = varint(number | 1 << 35 if random.random() < 0.3 else number, int(random.integers(2, 11)))
    return varint(piece.number << 3 | piece.wire) + long + (piece.content if piece.wire == 2 else b"")


def _twice(random: Any, piece: Piece) -> bytes:
    return plain(piece) * 2


def _longer(random: Any, piece: Piece) -> bytes:
    tag = varint(piece.number << 3 | 2)
    return tag + varint(len(piece.content) + int(random.integers(1, 300))) + piece.content


def _shorter(random: Any, piece: Piece) -> bytes:
    cut = piece.content[: int(random.integers(len(piece.content) + 1))]
    return plain(piece._replace(content=cut)) if piece.wire == 2 else b""


def _smuggled(random: Any, piece: Piece) -> bytes:
    name = sorted(SMUGGLED)[int(random.integers(len(SMUGGLED)))]
    if piece.inner is not None and random.random() < 0.7:
        return plain(piece._replace(content=piece.content + SMUGGLED[name]))
    return plain(piece) + SMUGGLED[name]


def _wrapped(random: Any, piece: Piece) -> bytes:
    content = plain(piece)
    for _ in range(int(random.integers(1, 40))):
        content = field(piece.number, content)
    return content


def _dropped(random: Any, piece: Piece) -> bytes:
    return b""


def _other_wire(random: Any, piece: Piece) -> bytes:
    return varint(piece.number << 3 | int(random.integers(8))) + plain(piece)[1:]
