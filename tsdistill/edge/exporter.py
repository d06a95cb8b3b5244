"""A forecaster as a C source and its header."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tsdistill.edge import layer_rules, recurrent_rules, simple_rules
from tsdistill.edge.cells import View
from tsdistill.edge.compiler import Compiler
from tsdistill.edge.memory import Statement, plan
from tsdistill.edge.source import Program, body, header
from tsdistill.edge.static_graph import static_graph
from tsdistill.errors import ArtifactError, ConfigError, UnsupportedError, check_type, must, nearest
from tsdistill.exporting import Deployed, export, refuse_foreign
from tsdistill.files import write_atomic
from tsdistill.models.base import Forecaster, levels_of
from tsdistill.quantization.dynamic import dynamic_graph
from tsdistill.quantization.weight_only import weight_only_graph
from tsdistill.runtime import OUTPUT, QUANTILES, Predictor

__all__ = ["CSource", "export_c", "layer_rules", "recurrent_rules", "simple_rules"]

PRECISIONS = ("float32", "int8")
N_GOLDEN = 2
"""Golden windows in the self-test: it is source text that somebody has to compile."""

TOLERANCE = 2e-4
INT8_TOLERANCE = 2e-2
"""How far the C code may be from ONNX Runtime, in standard deviations of a channel: where activations are rounded, the
last bit of a float can move one of them by a whole step."""

KEYWORDS = frozenset(
    {
        *("auto", "bool", "break", "case", "catch", "char", "class", "const", "continue", "default", "delete"),
        *("do", "double", "else", "enum", "extern", "false", "float", "for", "friend", "goto", "if", "inline"),
        *("int", "long", "namespace", "new", "operator", "private", "protected", "public", "register"),
        *("restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch", "template", "this"),
        *("throw", "true", "try", "typedef", "typename", "union", "unsigned", "using", "virtual", "void"),
        *("volatile", "while"),
    }
)


@dataclass(frozen=True)
class CSource:
    """A forecaster as C: where it stands and what it takes.

    Attributes:
        source: The C file.
        header: Its header.
        table_bytes: Weights and other constants; code comes on top, a few KiB.
        state_bytes: Memory of one stream, all that changes: the steps that it keeps and the working memory.
        work_bytes: The working memory in it, without the steps.
        n_products: Multiplications with weights for one forecast.
    """

    source: Path
    header: Path
    table_bytes: int
    state_bytes: int
    work_bytes: int
    n_products: int


def export_c(
    model: Forecaster | Deployed,
    folder: str | Path,
    *,
    precision: Literal["float32", "int8"] | None = None,
    name: str = "forecast",
    max_flash_bytes: int | None = None,
    max_ram_bytes: int | None = None,
) -> CSource:
    """Write a forecaster as one C99 source and one header, for devices without an operating system.

    The code is made from the graph that an artifact holds: raw units in, raw units out, one window at a time. It needs
    `<stdint.h>`, `<math.h>` and `<string.h>`, allocates nothing, and keeps everything that changes in a state that the
    caller owns, so that several streams can run beside each other. Inputs that are not finite are refused by a return
    code. Compiled with `-D<NAME>_SELFTEST`, it holds golden windows and a function that checks them.

    Use it for microcontrollers; a machine that runs Python serves the artifact itself.

    Args:
        model: A deployed forecaster, or a trained one, which is exported first.
        folder: Where `<name>.c` and `<name>.h` are written; made if it is not there.
        precision: Of a trained forecaster: "float32" (also when left out), or "int8": dynamic INT8 where the
            architecture has it, else weights of 8 bits that are multiplied in float. A deployed one stays what it is.
        name: What files, functions and macros begin with.
        max_flash_bytes: Most bytes that weights and other constants may take.
        max_ram_bytes: Most bytes that the state of a stream may take.

    Returns:
        Where the files stand, and the bytes they take on the device.

    Raises:
        ArtifactError: The files cannot be written.
        ConfigError: `name` is no identifier, `precision` is another than the artifact's, or a budget is too small.
        UnsupportedError: The graph has an operator without a form in C.

    Example:
        >>> from tsdistill.models import LinearConfig
        >>> from tsdistill.testing import toy_signature
        >>> files = export_c(LinearConfig().build(toy_signature()), "firmware")
        >>> files.source.name, files.table_bytes > 4 * 47 * 11
        ('forecast.c', True)
    """
    _check(name, precision, max_flash_bytes, max_ram_bytes)
    check_type("folder", folder, (str, os.PathLike), "Pass the path of a folder as text or as a pathlib.Path")
    deployed = _deployed(model, precision)
    source = _source(deployed, name)
    tables = sum(array.nbytes for array in source.compiler.tables.values())
    signature = deployed.signature
    width = 8 if source.has_offsets else 4
    work = 4 * max(source.plan.n_words, 1)
    state = 2 * signature.context * len(signature.channels) * width + work + 8
    for title, limit, size in (("max_flash_bytes", max_flash_bytes, tables), ("max_ram_bytes", max_ram_bytes, state)):
        if limit is not None and size > limit:
            raise ConfigError(
                must(title, f"be at least {size}, what the {deployed.config.kind} takes", limit, "Prune or quantize it")
            )
    texts = {f"{name}.h": header(source), f"{name}.c": body(source)}
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            write_atomic(target / file, text)
    except OSError as error:
        raise ArtifactError(f"cannot write to {folder}: {error.strerror or error}. Check the path.") from error
    return CSource(target / f"{name}.c", target / f"{name}.h", tables, state, work, source.compiler.n_products)


def _check(name: str, precision: str | None, *budgets: int | None) -> None:
    check_type("name", name, str, "Pass a name such as forecast")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name) or name in KEYWORDS:
        rule = "be an identifier of C: a letter, then at most 40 letters, digits and underscores"
        raise ConfigError(must("name", rule, name, "Use forecast"))
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(
            must("precision", "be float32 or int8", precision, nearest(str(precision), PRECISIONS).strip())
        )
    for title, budget in zip(("max_flash_bytes", "max_ram_bytes"), budgets, strict=True):
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
            raise ConfigError(must(title, "be a whole number of bytes above 0", budget, "Leave it out for no limit"))


def _deployed(model: Forecaster | Deployed, precision: str | None) -> Deployed:
    """The graph in the precision that was asked for."""
    if isinstance(model, Deployed):
        is_float = model.precision == "fp32"
        if precision is not None and (precision == "float32") != is_float:
            remedy = "Leave `precision` out, or pass the trained forecaster"
            rule = f"be that of the deployed forecaster, {model.precision}"
            raise ConfigError(must("precision", rule, precision, remedy))
        return model
    refuse_foreign(model)
    deployed = export(model)
    if precision != "int8":
        return deployed
    try:
        return replace(deployed, onnx=dynamic_graph(deployed.onnx), precision="int8")
    except UnsupportedError:  # a GRU or a convolution, which have no dynamic form
        return replace(deployed, onnx=weight_only_graph(deployed.onnx), precision="int8-weights")


def _source(deployed: Deployed, name: str) -> Program:
    signature, levels = deployed.signature, levels_of(deployed.config)
    inputs = {title: values for title, values in deployed.golden.items() if title not in (OUTPUT, QUANTILES)}
    window = {title: np.ascontiguousarray(values[:1]) for title, values in inputs.items()}
    graph = static_graph(deployed.onnx, window)
    compiler = Compiler(graph, {title: values.size for title, values in window.items()})
    offsets = dict(
        zip(
            ("context", "future", "past"),
            (signature.offset, signature.future_offset, signature.past_offset),
            strict=True,
        )
    )
    has_offsets = any(map(any, offsets.values()))
    if has_offsets:
        _take_offsets(compiler, offsets)
    compiler.compile()
    predictor = Predictor(deployed.onnx, signature, precision=deployed.precision, isolate=True, levels=levels)
    golden = {title: values[:N_GOLDEN] for title, values in inputs.items()}
    golden |= predictor.outputs(**golden)
    for title in golden:
        offset = np.asarray(offsets.get(title, offsets["context"]))
        if offset.any():
            golden[title] = golden[title].astype(np.float64) + (offset[:, None] if title == QUANTILES else offset)
    unit = np.asarray(deployed.parity.get("unit", signature.scale), dtype=np.float64)
    tolerance = (INT8_TOLERANCE if deployed.precision == "int8" else TOLERANCE) * unit
    tolerance += np.spacing(np.abs(golden[OUTPUT].astype(np.float32)).max(axis=(0, 1)))
    title = f"{deployed.config.kind}, {deployed.precision}: {signature.context} steps in, {signature.horizon} out"
    layout = plan(compiler.statements, compiler.fixed)
    return Program(name, title, signature, len(levels), compiler, layout, golden, tolerance)


def _take_offsets(compiler: Compiler, offsets: dict[str, tuple[float, ...]]) -> None:
    """Inputs far from zero: their offsets go off in double precision, before anything is a float."""
    for title, offset in offsets.items():
        value = compiler.values.get(title)
        if not isinstance(value, View):
            continue
        n_features = value.shape[-1]
        less = compiler.new(value.cells.size)
        lines = []
        for place in range(n_features):
            shift = f" - {offset[place]!r}" if offset and offset[place] else ""
            head = f"for (int i = {place}; i < {value.cells.size}; i += {n_features}) {{"
            lines += [head, f"    @{less.name}@[i] = (float)({title}[i]{shift});", "}"]
        compiler.statements.append(Statement(tuple(lines), (value.buffer,), (less,)))
        compiler.values[title] = View(less, less.cells.reshape(value.shape))
