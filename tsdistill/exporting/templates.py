"""Traced graphs without weights, kept in the user's cache: another process need not trace the same architecture again.

What is read back was written by the same user, by the same code and versions, and is whole. The graph that is made from
it is checked like any other: against torch's forecasts, and by the guard of everything that a runtime is given.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import torch

from tsdistill.data.catalog import cache_folder
from tsdistill.files import write_atomic
from tsdistill.formats import read_regular

if TYPE_CHECKING:
    import onnx

MAX_FILES = 256
"""Graphs that are kept; the oldest go first."""

MAX_BYTES = 1 << 26
"""Larger ones are not kept."""

DIGEST_BYTES = 32

PACKAGES = ("torch", "onnx", "onnx_ir", "onnxscript")
"""Packages that decide how a graph is traced."""


def template_of(key: tuple[Any, ...] | None, make: Callable[[], bytes]) -> bytes:
    """The template that was kept under a key by this code, or a new one, which is kept if its key can be written."""
    text = None if key is None else _written(key)
    if text is None:
        return make()
    name = hashlib.sha256("\n".join((text, _code(), *_versions())).encode()).hexdigest()
    path = cache_folder().parent / "graphs" / f"{name[:32]}.onnx"
    template = _read(path)
    if template is None:
        template = make()
        if len(template) <= MAX_BYTES:
            # A cache that cannot be written to costs time and nothing else.
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, hashlib.sha256(template).digest() + template)
                _clear(path.parent)
    return template


def _read(path: Path) -> bytes | None:
    """A template that is whole, this user's own, and holds all of itself; None without one."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        content = read_regular(path, DIGEST_BYTES + MAX_BYTES)
        digest, template = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(template).digest() != digest:
            return None
        graph = onnx.ModelProto.FromString(template)
    except (OSError, ValueError, DecodeError):
        return None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(graph)):
        return None
    return template


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever it stands."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _clear(folder: Path) -> None:
    """Remove the oldest beyond `MAX_FILES`; another process may do so at the same time."""
    files = [(file.stat().st_mtime, file) for file in folder.glob("*.onnx")]
    for _, file in sorted(files)[:-MAX_FILES]:
        file.unlink(missing_ok=True)


def _written(value: Any) -> str | None:
    """A key as text that is the same in every process; None where something of it cannot be named."""
    if isinstance(value, tuple | list):
        parts = [_written(part) for part in value]
        return None if None in parts else f"({','.join(map(str, parts))})"
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        module = value.__module__ or ""
        is_known = module.partition(".")[0] in ("torch", "tsdistill", "builtins")
        return f"{module}.{value.__qualname__}" if is_known and "<" not in value.__qualname__ else None
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        return repr(value)
    return None


@functools.cache
def _code() -> str:
    """Digest of the package's own code that decides how a model is traced."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted((*(package / "models").glob("*.py"), Path(__file__).with_name("tracing.py"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _versions() -> tuple[str, ...]:
    from importlib.metadata import PackageNotFoundError, version

    versions = []
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return tuple(versions)
