"""The file formats of an artifact, walked as plain bytes: strict JSON, safetensors headers, ONNX messages.

Standard library only. Nothing is executed or followed: an ONNX file that points to tensors elsewhere, a header that
claims more than the file holds, or a pickle in disguise is a `FormatError` whose text says what is wrong.
"""

from __future__ import annotations

from tsdistill.formats.errors import FormatError
from tsdistill.formats.finite import check_finite
from tsdistill.formats.graphs import Graph, read_graph
from tsdistill.formats.regular import MAX_FILE_BYTES, read_inside, read_regular
from tsdistill.formats.sizes import check_sizes
from tsdistill.formats.texts import is_count, parse_json, parse_json_value
from tsdistill.formats.weights import TensorEntry, safetensors_note, tensors, tensors_of_file

__all__ = [
    "MAX_FILE_BYTES",
    "FormatError",
    "TensorEntry",
    "check_onnx",
    "is_count",
    "parse_json",
    "parse_json_value",
    "read_inside",
    "read_regular",
    "safetensors_note",
    "tensors",
    "tensors_of_file",
]


def check_onnx(content: bytes) -> Graph:
    """What an ONNX file holds, once it is known that a runtime may have it.

    Raises:
        FormatError: It could be read differently by another parser, points to other files, holds operators, graphs or
            functions that no forecaster needs, weights that are not finite, or asks for more memory than one can need.
    """
    graph = read_graph(content)
    check_sizes(graph)
    check_finite(graph)
    return graph
