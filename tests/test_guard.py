"""The guard before ONNX Runtime: what it lets through has one reading and reaches nothing outside of the file."""

from __future__ import annotations

import functools
import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from tests.deployables import KINDS, exported, int8
from tests.mutations import SMUGGLED, field, mutants, varint
from tsdistill.errors import ArtifactError
from tsdistill.formats import check_onnx, protobuf
from tsdistill.formats.graphs import read_graph
from tsdistill.formats.operators import MICROSOFT, STANDARD
from tsdistill.runtime import Predictor
from tsdistill.testing import toy_signature

Change = Callable[[onnx.ModelProto], object]


@functools.cache
def plain() -> bytes:
    """A model of version 0.1: recurrent, in INT8, with operators of both domains."""
    return (Path(__file__).parent / "older" / "deployed" / "model.onnx").read_bytes()


def with_change(change: Change) -> bytes:
    model = onnx.load_from_string(plain())
    change(model)
    return bytes(model.SerializeToString())


def messages(message: Any) -> Iterator[Any]:
    """A message and all inside of it."""
    yield message
    for description, value in message.ListFields():
        if description.type == description.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from messages(inner)


def check_one_reading(content: bytes) -> bool:
    """Whether the guard lets a file through; if so, the real parser sees in it what the guard saw and nothing more."""
    try:
        graph = check_onnx(content)
    except ArtifactError:
        return False
    model = onnx.load_from_string(content)
    assert not any(len(UnknownFieldSet(message)) for message in messages(model))
    nodes = Counter((node.domain, node.op_type, *node.input, "->", *node.output) for node in model.graph.node)
    assert nodes == Counter((node.domain, node.operator, *node.inputs, "->", *node.outputs) for node in graph.nodes)
    assert not model.functions
    assert not model.training_info
    assert not model.graph.sparse_initializer
    kinds = {attribute.type for node in model.graph.node for attribute in node.attribute}
    assert not kinds & {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS, onnx.AttributeProto.SPARSE_TENSOR}
    tensors = [message for message in messages(model) if isinstance(message, TensorProto)]
    assert not any(tensor.external_data or tensor.data_location for tensor in tensors)
    assert {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer} == {
        tensor.name: (tensor.dtype, tensor.shape) for tensor in graph.tensors.values()
    }
    for tensor in model.graph.initializer:
        if tensor.name in graph.tensors and (numbers := graph.tensors[tensor.name].numbers) is not None:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor).reshape(-1), numbers)
    assert set(graph.inputs) == {port.name for port in model.graph.input}
    return True


def check_mutants(graphs: list[bytes], count: int, seed: int) -> None:
    n_accepted = sum(
        check_one_reading(mutant) for graph in graphs for mutant in mutants(graph, count // len(graphs), seed)
    )
    # Flipped bits of weights and names, and other orders of fields, are let through.
    assert count / 40 < n_accepted < count / 2


def test_what_the_guard_lets_through_is_what_the_parser_sees() -> None:
    assert check_one_reading(plain())
    check_mutants([plain()], 200, seed=0)


@pytest.mark.slow
def test_ten_thousand_damaged_files_have_one_reading_or_none() -> None:
    graphs = [plain(), *(exported(kind).onnx for kind in KINDS), *(int8(kind).onnx for kind in ("mlp", "lstm"))]
    assert all(check_one_reading(graph) for graph in graphs)
    check_mutants(graphs, 10_000, seed=1)


def test_the_schema_is_that_of_onnx() -> None:
    """Names, numbers and types of the fields that are read, against the library's description of them."""
    own = {
        "model": onnx.ModelProto, "opset": onnx.OperatorSetIdProto, "entry": onnx.StringStringEntryProto,
        "graph": onnx.GraphProto, "node": onnx.NodeProto, "attribute": onnx.AttributeProto, "tensor": onnx.TensorProto,
        "port": onnx.ValueInfoProto, "type": onnx.TypeProto, "tensor_type": onnx.TypeProto.Tensor,
        "shape": onnx.TensorShapeProto, "dimension": onnx.TensorShapeProto.Dimension,
    }  # fmt: skip
    kinds = {
        "floats": "float", "doubles": "double",
        "varints": {"int32_data": "int32", "int64_data": "int64", "uint64_data": "uint64"},
    }  # fmt: skip
    scalars = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 9: "string", 12: "bytes", 14: "enum"}
    assert set(protobuf.SCHEMA) == set(own)
    for name, message in own.items():
        described = {one.number: one for one in message.DESCRIPTOR.fields}  # type: ignore[attr-defined]
        for number, entry in protobuf.SCHEMA[name].items():
            description = described[number]
            assert (entry.name, entry.repeated) == (description.name, description.is_repeated), name
            expected: Any = kinds.get(entry.form, entry.form)
            expected = expected[entry.name] if isinstance(expected, dict) else expected
            if entry.form in own:
                assert description.message_type.full_name == own[entry.form].DESCRIPTOR.full_name  # type: ignore[attr-defined]
            else:
                assert scalars[description.type] == expected, (name, entry.name)
        for kind, number in protobuf.REFUSED:
            assert kind != name or number in described
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert names >= STANDARD
    assert STANDARD.isdisjoint({"If", "Loop", "Scan", "SequenceMap", "RandomNormal", "Bernoulli", "StringConcat"})
    assert "MatMulNBits" not in MICROSOFT


def weights(model: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2 and tensor.raw_data)


def after_weights(more: bytes) -> bytes:
    """The file with more at the end of the message of its weights, all lengths right."""
    marked = with_change(lambda model: setattr(weights(model), "doc_string", "@" * len(more)))
    old = field(12, b"@" * len(more))
    assert marked.count(old) == 1
    padding = field(12, b"@" * (len(old) - len(more) - 2)) if len(old) - len(more) >= 2 else b""
    return marked.replace(old, padding + more)


def with_constant(name: str, values: list[Any]) -> Change:
    return lambda model: model.graph.initializer.append(
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
    )


def with_node(operator: str, inputs: list[str], constants: dict[str, Any], **attributes: Any) -> Change:
    """A node whose output nothing uses, as the runtime would still take it for a constant."""

    def change(model: onnx.ModelProto) -> None:
        for name, values in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        model.graph.node.append(helper.make_node(operator, inputs, ["extra"], **attributes))

    return change


def doubling(model: onnx.ModelProto) -> None:
    """Every node makes twice of what it is given, forty times."""
    for step in range(40):
        source = "context" if step == 0 else f"twice{step - 1}"
        model.graph.node.append(helper.make_node("Concat", [source, source], [f"twice{step}"], axis=0))


def outer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2**15, 1), np.float32), "tall"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2**15), np.float32), "broad"))
    model.graph.node.append(helper.make_node("Mul", ["tall", "broad"], ["extra"]))


def through_shapes(model: onnx.ModelProto) -> None:
    """The size comes out of arithmetic."""
    for name, values in (("a", [2**7, 2**7]), ("b", [2**8, 2**8])):
        with_constant(name, values)(model)
    model.graph.node.append(helper.make_node("Mul", ["a", "b"], ["c"]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["c"], ["extra"]))


def setting(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="ort_config", value="{}")


def many_nodes(model: onnx.ModelProto) -> None:
    for step in range(2**15):
        model.graph.node.append(helper.make_node("Identity", ["context"], [f"copy{step}"]))


def external(model: onnx.ModelProto) -> None:
    tensor = weights(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def looping(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="If", input=["context"], output=["extra"])
    node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.name = "inner"


def not_finite(model: onnx.ModelProto) -> None:
    tensor = weights(model)
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = np.inf
    tensor.raw_data = values.tobytes()


ONES = np.ones(1, np.float32)
ATTACKS: dict[str, tuple[Callable[[], bytes] | Change, str]] = {
    "external data behind a tag of 33 bits": (
        lambda: after_weights(varint(14 << 3 | 1 << 32) + b"\1"), "more than 32 bits"
    ),
    "external entries behind a tag of 35 bits": (
        lambda: after_weights(varint(13 << 3 | 2 | 1 << 34) + SMUGGLED["external_data"][1:]), "more than 32 bits"
    ),
    "external data behind a tag of too many bytes": (
        lambda: after_weights(varint(14 << 3, 5) + b"\1"), "more bytes than"
    ),
    "external data by a number of 33 bits": (lambda: after_weights(b"\x70" + varint(1 << 32 | 1)), "more than 32 bits"),
    "external data": (external, "external data.*never followed"),
    "a graph inside of a node": (looping, "a graph inside of a node"),
    "a function": (lambda model: model.functions.add(name="f"), "functions"),
    "graphs for training": (lambda model: model.training_info.add().algorithm.node.add(), "training"),
    "sparse weights": (lambda model: model.graph.sparse_initializer.add(), "sparse"),
    "a tensor of text": (
        lambda model: model.graph.initializer.append(numpy_helper.from_array(np.array(["x"], object), "t")), "text"
    ),
    "a field of the future": (lambda: plain() + field(100, b""), "field 100"),
    "two graphs": (lambda: plain() + field(7, b""), "`graph` twice"),
    "the runtime's own format in disguise": (
        lambda: field(2, bytes([8, 0]) + b"ORTM") + plain(), "ORT"
    ),
    "the runtime's own format": (lambda: b"\x12\x04\0\0ORTM" + plain(), "ORT"),
    "settings of the runtime": (setting, "ort_config"),
    "an operator that draws": (with_node("RandomNormal", [], {}, shape=[3]), "'RandomNormal'"),
    "an operator of nobody": (with_node("Gelu", ["context"], {}, domain="com.example"), "com.example.Gelu"),
    "a loop in functions' clothes": (with_node("SequenceMap", ["context"], {}), "'SequenceMap'"),
    "more nodes than any": (many_nodes, "more than the 32768"),
    "a gibibyte of zeros": (with_node("ConstantOfShape", ["s"], {"s": [2**14, 2**14]}), "numbers for one window"),
    "its size worked out": (through_shapes, "numbers for one window"),
    "a gibibyte by repeating": (
        with_node("Tile", ["o", "r"], {"o": np.ones((1, 1), np.float32), "r": [2**15, 2**14]}), "numbers for one window"
    ),
    "a gibibyte by spreading": (with_node("Expand", ["context", "s"], {"s": [2**28, 1, 1]}), "numbers for one window"),
    "a gibibyte in a row": (
        with_node("Range", ["a", "b", "c"], {"a": np.int64(0), "b": np.int64(2**29), "c": np.int64(1)}), "numbers for"
    ),
    "a gibibyte of edges": (with_node("Pad", ["o", "p"], {"o": ONES, "p": [0, 2**30]}), "numbers for one window"),
    "a gibibyte of pixels": (
        with_node("Resize", ["o", "", "s"], {"o": ONES[None], "s": np.full(2, 2.0**15, np.float32)}), "numbers"
    ),
    "a gibibyte of marks": (
        with_node("OneHot", ["i", "d", "v"], {"i": np.zeros(2**12, int), "d": np.int64(2**20), "v": [0, 1]}), "numbers"
    ),
    "a gibibyte by convolution": (
        with_node("Conv", ["x", "w"], {"x": np.ones((1, 1, 3), np.float32), "w": np.ones((1, 1, 1), np.float32)},
                  pads=[2**29, 2**29]), "numbers for one window"
    ),
    "a gibibyte of products": (outer, "numbers for one window"),
    "twice and twice again": (doubling, "numbers for one window"),
    "constants together too large": (
        with_node("Expand", ["o", "s"], {"o": ONES, "s": [2**27]}), "constants would take more memory"
    ),
    "a size that cannot be told": (
        with_node("ConstantOfShape", ["s"], {"s": np.ones(65, np.int64)}), "cannot be told"
    ),
    "weights that are not finite": (not_finite, "weights .* are not finite"),
    "numbers missing": (lambda model: weights(model).dims.append(3), "as many numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "words"), ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_are_refused_before_anything_is_built(
    attack: Callable[[], bytes] | Change, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = with_change(attack) if inspect.signature(attack).parameters else attack()  # type: ignore[call-arg,arg-type]

    def unreached(*_: object, **__: object) -> None:
        raise AssertionError("the runtime was given it")

    monkeypatch.setattr(onnxruntime, "InferenceSession", unreached)
    began = time.perf_counter()
    assert isinstance(content, bytes)
    with pytest.raises(ArtifactError, match=words):
        Predictor(content, toy_signature())
    assert time.perf_counter() - began < 20  # two seconds on a machine that does nothing else


def masked(model: onnx.ModelProto) -> None:
    """Minus infinity where an attention must not look."""
    mask = np.triu(np.full((3, 3), -np.inf, np.float32), 1)
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    model.graph.node.append(helper.make_node("Add", ["context", "mask"], ["extra"]))


ACCEPTED: dict[str, Change] = {
    "a mask": masked,
    "a bound": with_node("Max", ["context", "b"], {"b": np.float32(-np.inf)}),
    "a negative number": lambda model: setattr(model, "model_version", -1),
    "a shape of the batch": with_node("Shape", ["context"], {}),
    "a few zeros": with_node("ConstantOfShape", ["s"], {"s": [3, 5]}),
    "dropout that drops nothing": with_node("Dropout", ["context"], {}),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_a_forecaster_may_hold_is_let_through(change: Change) -> None:
    assert check_one_reading(with_change(change))


def test_nodes_may_stand_in_any_order() -> None:
    def turned(model: onnx.ModelProto) -> None:
        nodes = list(model.graph.node)[::-1]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    known = {*read_graph(plain()).tensors, "context", ""}
    for node in read_graph(with_change(turned)).nodes:
        assert known.issuperset(node.inputs)
        known.update(node.outputs)
    assert "forecast" in known
