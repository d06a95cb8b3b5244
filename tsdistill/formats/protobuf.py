"""ONNX's protobuf messages, read so strictly that no parser can see anything else in the same bytes.

Parsers differ in what they do with bytes that no writer makes: a tag wider than 32 bits is cut by one and not by the
other, a field that stands twice is merged or replaced, an unknown one is skipped. All of that is refused here: numbers
must be written in the fewest bytes, tags must fit 32 bits and lengths 31, and every field must be one of the schema
below, of its own type, and stand once if it is not repeated. What is left has one reading.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tsdistill.formats.errors import FormatError

MAX_FIELDS = 2**20
"""Fields of all messages of a file together."""

MAX_LENGTH = 2**31 - 1
"""What protobuf can read at all."""


class Field(NamedTuple):
    """A field of a message that is read.

    `form` is a scalar ("int64", "int32", "enum", "float", "string", "bytes"), the numbers of a tensor, which are left
    as they are ("floats", "doubles", "varints"), or the name of another message.
    """

    name: str
    form: str
    repeated: bool = False


_TEXTS = Field("metadata_props", "entry", True)

SCHEMA: dict[str, dict[int, Field]] = {
    "model": {
        1: Field("ir_version", "int64"), 2: Field("producer_name", "string"), 3: Field("producer_version", "string"),
        4: Field("domain", "string"), 5: Field("model_version", "int64"), 6: Field("doc_string", "string"),
        7: Field("graph", "graph"), 8: Field("opset_import", "opset", True), 14: _TEXTS,
    },
    "opset": {1: Field("domain", "string"), 2: Field("version", "int64")},
    "entry": {1: Field("key", "string"), 2: Field("value", "string")},
    "graph": {
        1: Field("node", "node", True), 2: Field("name", "string"), 5: Field("initializer", "tensor", True),
        10: Field("doc_string", "string"), 11: Field("input", "port", True), 12: Field("output", "port", True),
        13: Field("value_info", "port", True), 16: _TEXTS,
    },
    "node": {
        1: Field("input", "string", True), 2: Field("output", "string", True), 3: Field("name", "string"),
        4: Field("op_type", "string"), 5: Field("attribute", "attribute", True), 6: Field("doc_string", "string"),
        7: Field("domain", "string"), 9: _TEXTS,
    },
    "attribute": {
        1: Field("name", "string"), 2: Field("f", "float"), 3: Field("i", "int64"), 4: Field("s", "bytes"),
        5: Field("t", "tensor"), 7: Field("floats", "float", True), 8: Field("ints", "int64", True),
        9: Field("strings", "bytes", True), 13: Field("doc_string", "string"), 20: Field("type", "enum"),
    },
    "tensor": {
        1: Field("dims", "int64", True), 2: Field("data_type", "int32"), 4: Field("float_data", "floats", True),
        5: Field("int32_data", "varints", True), 7: Field("int64_data", "varints", True), 8: Field("name", "string"),
        9: Field("raw_data", "bytes"), 10: Field("double_data", "doubles", True),
        11: Field("uint64_data", "varints", True), 12: Field("doc_string", "string"),
        14: Field("data_location", "enum"), 16: _TEXTS,
    },
    "port": {
        1: Field("name", "string"), 2: Field("type", "type"), 3: Field("doc_string", "string"), 4: _TEXTS,
    },
    "type": {1: Field("tensor_type", "tensor_type"), 6: Field("denotation", "string")},
    "tensor_type": {1: Field("elem_type", "int32"), 2: Field("shape", "shape")},
    "shape": {1: Field("dim", "dimension", True)},
    "dimension": {1: Field("dim_value", "int64"), 2: Field("dim_param", "string"), 3: Field("denotation", "string")},
}  # fmt: skip
"""The messages of onnx.proto and their fields that a forecaster needs; no message can hold itself."""

_EXTERNAL = "it keeps tensors in other files (external data), which is never followed"
_INNER = "it holds a graph inside of a node, as If, Loop and Scan do, which no forecaster here needs"
_SPARSE = "it holds sparse tensors, which no forecaster here needs"

REFUSED: dict[tuple[str, int], str] = {
    ("tensor", 13): _EXTERNAL,
    ("tensor", 3): "it holds tensors in segments, which nothing reads",
    ("tensor", 6): "it holds tensors of text, which no forecaster here needs",
    ("attribute", 6): _INNER,
    ("attribute", 11): _INNER,
    ("attribute", 21): "it holds an attribute that refers to a function's",
    ("attribute", 22): _SPARSE,
    ("attribute", 23): _SPARSE,
    ("graph", 15): _SPARSE,
    ("model", 20): "it holds graphs for training (training_info), which no forecaster here needs",
    ("model", 25): "it holds functions, which no forecaster here needs",
}
"""Fields of onnx.proto that an attack would use, with the reason."""

_INT32 = rb"[\x00-\x7f]|[\x80-\xff]{1,3}[\x01-\x7f]|[\x80-\xff]{4}(?:[\x01-\x07]|[\xf8-\xff]\xff{4}\x01)"
_INT64 = rb"[\x00-\x7f]|[\x80-\xff]{1,8}[\x01-\x7f]|[\x80-\xff]{9}\x01"
_VARINTS = {
    "int32_data": re.compile(rb"(?:%b)*+" % _INT32),
    "int64_data": re.compile(rb"(?:%b)*+" % _INT64),
    "uint64_data": re.compile(rb"(?:%b)*+" % _INT64),
}
"""Numbers one after the other, each in the fewest bytes and no wider than its field."""

_CONTINUED = bytes(range(128, 256))
_WIRES = {"int64": 0, "int32": 0, "enum": 0, "varints": 0, "float": 5, "floats": 5, "doubles": 1}


def parse(content: bytes, kind: str = "model") -> dict[str, Any]:
    """The fields of a message by name: numbers, text, bytes, dictionaries, and lists of what is repeated.

    Raises:
        FormatError: The bytes are no such message, or no parser but a lenient one would read them.
    """
    if len(content) > MAX_LENGTH:
        raise FormatError(f"it has {len(content)} bytes, more than the {MAX_LENGTH} that protobuf can read")
    return _Reader(content).message(kind, len(content))


def count_varints(chunk: bytes) -> int:
    """How many numbers stand in a piece of "varints"."""
    return len(chunk.translate(None, _CONTINUED))


def varints(chunk: bytes) -> list[int]:
    """The numbers in a piece of "varints", as signed ones of 64 bits."""
    reader = _Reader(chunk)
    numbers = []
    while reader.position < len(chunk):
        numbers.append(_signed(reader.varint(len(chunk), 64)))
    return numbers


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0
        self.n_fields = 0

    def varint(self, end: int, bits: int) -> int:
        """A number in the fewest bytes that fits so many bits."""
        content, position = self.content, self.position
        value = shift = 0
        while True:
            if position >= end:
                raise FormatError("it is cut short, or not a protobuf message and so not an ONNX model")
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise FormatError(f"it holds a number of more than {bits} bits")
        if byte == 0 and shift:
            raise FormatError("it holds a number in more bytes than that needs, which parsers read differently")
        if value >> bits:
            raise FormatError(f"it holds a number of more than {bits} bits, which parsers read differently")
        self.position = position
        return value

    def message(self, name: str, end: int) -> dict[str, Any]:
        fields = SCHEMA[name]
        values: dict[str, Any] = {}
        while self.position < end:
            self.n_fields += 1
            if self.n_fields > MAX_FIELDS:
                raise FormatError(f"it holds more than {MAX_FIELDS} fields")
            tag = self.varint(end, 32)
            field = fields.get(tag >> 3)
            if field is None:
                unknown = f"its {name} holds the field {tag >> 3}, which is unknown or of no use in a forecaster"
                unknown += ", or it is not an ONNX model" if name == "model" else ""
                raise FormatError(REFUSED.get((name, tag >> 3), unknown))
            value = self._value(name, field, tag & 7, end)
            if not field.repeated:
                if field.name in values:
                    raise FormatError(f"its {name} holds `{field.name}` twice")
                values[field.name] = value
            elif isinstance(value, list):
                values.setdefault(field.name, []).extend(value)
            else:
                values.setdefault(field.name, []).append(value)
        return values

    def _value(self, owner: str, field: Field, wire: int, end: int) -> Any:
        form = field.form
        plain = _WIRES.get(form)
        if wire == 2 and (plain is None or field.repeated):
            begin, stop = self._span(end)
            if form in SCHEMA:
                return self.message(form, stop)
            self.position = stop
            if form == "bytes":
                return memoryview(self.content)[begin:stop]
            if form == "string":
                return _text(self.content[begin:stop])
            return self._packed(field, begin, stop)
        if wire != plain:
            raise FormatError(f"its {owner} holds `{field.name}` in the wrong way")
        if wire == 0:
            begin = self.position
            number = _signed(self.varint(end, 64))
            if (form in ("int32", "enum") or field.name == "int32_data") and not -(2**31) <= number < 2**31:
                raise FormatError(
                    f"`{field.name}` of its {owner} has more than 32 bits, which parsers read differently"
                )
            return self.content[begin : self.position] if form == "varints" else number
        begin, stop = self.position, self.position + (4 if wire == 5 else 8)
        if stop > end:
            raise FormatError("it is cut short")
        self.position = stop
        return self.content[begin:stop]

    def _span(self, end: int) -> tuple[int, int]:
        size = self.varint(end, 31)
        if size > end - self.position:
            raise FormatError("it is cut short")
        return self.position, self.position + size

    def _packed(self, field: Field, begin: int, stop: int) -> Any:
        """Several numbers in one field; those of tensors stay bytes."""
        if field.form in ("float", "floats", "doubles"):
            width = 8 if field.form == "doubles" else 4
            if (stop - begin) % width:
                raise FormatError(f"its `{field.name}` is cut short")
            chunk = self.content[begin:stop]
            return chunk if field.form != "float" else [chunk[at : at + 4] for at in range(0, len(chunk), 4)]
        if field.form == "varints":
            if not _VARINTS[field.name].fullmatch(self.content, begin, stop):
                raise FormatError(f"its `{field.name}` holds numbers that are cut short, too wide or too long")
            return self.content[begin:stop]
        self.position = begin
        self.n_fields += stop - begin
        if self.n_fields > MAX_FIELDS:
            raise FormatError(f"it holds more than {MAX_FIELDS} fields")
        numbers = []
        while self.position < stop:
            numbers.append(_signed(self.varint(stop, 64)))
        return numbers


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("it holds text that is not UTF-8") from None
