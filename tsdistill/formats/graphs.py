"""What an ONNX file holds, checked before anything heavier than the standard library reads it.

A file is accepted only if every parser must see in it what is seen here (`protobuf`), and if that is a plain graph of
known operators, with all its numbers inside, of sizes that can be told and are not absurd (`sizes`).
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from tsdistill.formats.errors import FormatError
from tsdistill.formats.operators import DOMAINS
from tsdistill.formats.protobuf import REFUSED, count_varints, parse, varints

MAX_NODES = 2**15
MAX_TENSORS = 2**15
MAX_RANK = 16
MAX_DIM = 2**40
MAX_NAME = 4096
MAX_NUMBERS = 64
"""So many numbers of a constant can say how large something else is."""

_BITS = {
    **dict.fromkeys((1, 6, 12), 32),  # float, int32, uint32
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),  # uint8, int8, bool, float8
    **dict.fromkeys((4, 5, 10, 16), 16),  # uint16, int16, float16, bfloat16
    **dict.fromkeys((7, 11, 13), 64),  # int64, double, uint64
    **dict.fromkeys((21, 22, 23), 4),  # uint4, int4, float4
    **dict.fromkeys((25, 26), 2),  # uint2, int2
}
"""Bits of an element by its type in onnx.proto; text and complex numbers are not read."""

_PLACES = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data", 13: "uint64_data"}
"""Where numbers of a type stand if not in `raw_data`; those of all other types stand in `int32_data`."""

_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}


class Tensor(NamedTuple):
    """Numbers of a graph: the type as onnx.proto counts them, the shape, and the bytes.

    `numbers` are those of small tensors, None of others.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    content: bytes | memoryview
    is_raw: bool
    numbers: tuple[int | float, ...] | None


class Node(NamedTuple):
    """One operator with its inputs (an empty name: left out), outputs and attributes."""

    domain: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Graph(NamedTuple):
    """A graph; an axis of an input that is not fixed is None."""

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]

    def constants(self) -> Iterable[Tensor]:
        """All tensors of the file: initializers and those in attributes, under the name of what they become."""
        yield from self.tensors.values()
        for node in self.nodes:
            for value in node.attributes.values():
                if isinstance(value, Tensor):
                    yield value._replace(name=node.outputs[0] if node.outputs else "")


def read_graph(content: bytes) -> Graph:
    """The graph of an ONNX file, without a look at sizes.

    Raises:
        FormatError: The file is not plain, or holds what no forecaster needs.
    """
    if content[4:8] == b"ORTM":
        # The runtime takes it for its own format, whatever else it is.
        raise FormatError("it is in the format of ONNX Runtime (ORT), not an ONNX model")
    model = parse(content)
    if "graph" not in model:
        raise FormatError("it holds no graph, so it is not an ONNX model")
    if any(entry.get("key") == "ort_config" for entry in model.get("metadata_props", ())):
        raise FormatError("it holds settings for the runtime (ort_config), which are never followed")
    graph = model["graph"]
    nodes, initializers = graph.get("node", ()), graph.get("initializer", ())
    for entries, limit, what in ((nodes, MAX_NODES, "nodes"), (initializers, MAX_TENSORS, "tensors")):
        if len(entries) > limit:
            raise FormatError(f"it holds {len(entries)} {what}, more than the {limit} allowed")
    inputs = {_name(port): _port(port) for port in graph.get("input", ())}
    tensors = {_name(tensor): _tensor(tensor) for tensor in initializers}
    n_names = len(graph.get("input", ())) + len(initializers)
    known = inputs.keys() | tensors.keys()
    if len(known) != n_names:
        raise FormatError("a name stands twice among its inputs and tensors")
    for port in (*graph.get("output", ()), *graph.get("value_info", ())):
        _port(port)
    checked = _sorted([_node(values) for values in nodes], known)
    outputs = tuple(_name(port) for port in graph.get("output", ()))
    if missing := [name for name in outputs if name not in known]:
        raise FormatError(f"nothing makes its output {_shown(missing[0])}")
    return Graph(tuple(checked), tensors, inputs, outputs)


def _sorted(nodes: list[Node], known: set[str]) -> list[Node]:
    """The nodes in an order of computing, as quantizers write them in others; what they make is added to `known`."""
    makers: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for name in filter(None, node.outputs):
            if name in known or name in makers:
                raise FormatError(f"the name {_shown(name)} stands twice among what its nodes make")
            makers[name] = position
    waits: list[set[int]] = []
    users: dict[int, list[int]] = {}
    for position, node in enumerate(nodes):
        needed = {name for name in node.inputs if name and name not in known}
        if missing := [name for name in needed if name not in makers]:
            raise FormatError(f"nothing makes {_shown(missing[0])}, which its node {node.operator} uses")
        waits.append({makers[name] for name in needed})
        for maker in waits[-1]:
            users.setdefault(maker, []).append(position)
    ready = deque(position for position, left in enumerate(waits) if not left)
    ordered = []
    while ready:
        position = ready.popleft()
        ordered.append(nodes[position])
        for user in users.get(position, ()):
            waits[user].discard(position)
            if not waits[user]:
                ready.append(user)
    if len(ordered) < len(nodes):
        raise FormatError("its nodes feed themselves")
    known.update(makers)
    return ordered


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}...")


def _name(values: dict[str, Any]) -> str:
    name: str = values.get("name", "")
    if not name or len(name) > MAX_NAME:
        raise FormatError(f"its names must have 1 to {MAX_NAME} letters, got {len(name)}")
    return name


def _port(values: dict[str, Any]) -> tuple[int | None, ...]:
    kind = values.get("type", {}).get("tensor_type")
    if kind is None:
        raise FormatError(f"its port {_shown(_name(values))} is no tensor")
    dims = kind.get("shape", {}).get("dim", ())
    if len(dims) > MAX_RANK:
        raise FormatError(f"its port {_shown(_name(values))} has {len(dims)} axes, more than the {MAX_RANK} allowed")
    for dim in dims:
        if {"dim_value", "dim_param"} <= dim.keys() or not 0 <= dim.get("dim_value", 0) <= MAX_DIM:
            raise FormatError(f"its port {_shown(_name(values))} has no sound shape")
    return tuple(dim.get("dim_value") for dim in dims)


def _node(values: dict[str, Any]) -> Node:
    domain, operator = values.get("domain", ""), values.get("op_type", "")
    if operator not in DOMAINS.get(domain, ()):
        name = f"{domain}.{operator}" if domain else operator
        raise FormatError(f"it holds the operator {_shown(name)}, which no forecaster here needs")
    inputs, outputs = tuple(values.get("input", ())), tuple(values.get("output", ()))
    if any(len(name) > MAX_NAME for name in (*inputs, *outputs)):
        raise FormatError(f"its names must have at most {MAX_NAME} letters")
    if not outputs or not any(outputs):
        raise FormatError(f"its node {operator} makes nothing")
    attributes: dict[str, Any] = {}
    for attribute in values.get("attribute", ()):
        name = _name(attribute)
        if name in attributes:
            raise FormatError(f"its node {operator} has the attribute {_shown(name)} twice")
        attributes[name] = _attribute(attribute)
    if operator == "Dropout" and len(inputs) > 2:
        raise FormatError("it holds Dropout as in training, which draws at random")
    if operator == "Constant" and (len(attributes) != 1 or not attributes.keys() <= _CONSTANTS):
        raise FormatError("it holds a Constant that is no tensor and no number")
    return Node(domain, operator, inputs, outputs, attributes)


_CONSTANTS = {"value", "value_float", "value_floats", "value_int", "value_ints"}


def _attribute(values: dict[str, Any]) -> Any:
    place = _ATTRIBUTES.get(values.get("type", 0))
    others = values.keys() & set(_ATTRIBUTES.values()) - {place}
    if place is None or others:
        raise FormatError(f"its attribute {_shown(_name(values))} has no sound type")
    if place == "t":
        return _tensor(values.get("t", {}))
    value = values.get(place, () if place in ("floats", "ints", "strings") else _UNSET[place])
    if place == "f":
        return struct.unpack("<f", value)[0]
    return struct.unpack(f"<{len(value)}f", b"".join(value)) if place == "floats" else _plain(value)


_UNSET = {"f": bytes(4), "i": 0, "s": b""}


def _plain(value: Any) -> Any:
    """Numbers and bytes as they are, lists as tuples."""
    return (
        tuple(map(_plain, value))
        if isinstance(value, list)
        else bytes(value)
        if isinstance(value, memoryview)
        else value
    )


def _tensor(values: dict[str, Any]) -> Tensor:
    if values.get("data_location", 0) != 0:
        raise FormatError(REFUSED["tensor", 13])
    name, dtype, shape = values.get("name", ""), values.get("data_type", 0), tuple(values.get("dims", ()))
    if dtype not in _BITS:
        raise FormatError(f"its tensor {_shown(name)} has no known type")
    if len(shape) > MAX_RANK or not all(0 <= size <= MAX_DIM for size in shape):
        raise FormatError(f"its tensor {_shown(name)} has no sound shape")
    place = _PLACES.get(dtype, "int32_data")
    places = values.keys() & {"raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data"}
    if not places <= {"raw_data", place} or len(places) > 1:
        raise FormatError(f"its tensor {_shown(name)} keeps numbers in more than one place")
    count = math.prod(shape)
    bits = _BITS[dtype]
    is_raw = "raw_data" in values
    content = values["raw_data"] if is_raw else b"".join(values.get(place, ()))
    if is_raw:
        size, needed = len(content), -(-count * bits // 8)
    elif place in ("float_data", "double_data"):
        size, needed = len(content), count * bits // 8
    else:
        size, needed = count_varints(content), -(-count * bits // 8) if bits < 8 else count
    if size != needed:
        raise FormatError(f"its tensor {_shown(name)} does not hold as many numbers as its shape says")
    return Tensor(name, dtype, shape, content, is_raw, _numbers(dtype, count, content, is_raw))


def _numbers(dtype: int, count: int, content: bytes | memoryview, is_raw: bool) -> tuple[int | float, ...] | None:
    """The numbers of a small tensor of int32, int64 or float."""
    if dtype not in (1, 6, 7) or count > MAX_NUMBERS:
        return None
    if dtype == 1:
        numbers = struct.unpack(f"<{count}f", content)
        return numbers if all(map(math.isfinite, numbers)) else None
    if not is_raw:
        return tuple(varints(bytes(content)))
    width = 8 if dtype == 7 else 4
    return tuple(
        int.from_bytes(content[at : at + width], "little", signed=True) for at in range(0, len(content), width)
    )
