"""The text of the C source and its header."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

import numpy as np

from tsdistill.edge.compiler import Compiler, number
from tsdistill.edge.memory import MemoryLayout
from tsdistill.runtime import SignatureLike

KERNELS = (
    *(
        "is_finite",
        "square",
        "gelu",
        "softplus",
        "rounded",
        "gates",
        "dense",
        "dense_w8",
        "dense_i8",
        "quantize",
        "lstm_cell",
        "gru_cell",
    ),
    *("layer_norm", "softmax", "conv", "conv_w8"),
)
"""Functions that a source may need, in the order in which they call each other."""

COLUMNS = 12
"""Numbers on a line of a table, at most."""


class Program(NamedTuple):
    """Everything the text is made of."""

    name: str
    title: str
    signature: SignatureLike
    n_levels: int
    compiler: Compiler
    plan: MemoryLayout
    golden: Mapping[str, np.ndarray]
    tolerance: np.ndarray
    ring: bool = True

    @property
    def prefix(self) -> str:
        """What macros begin with."""
        return self.name.upper()

    @property
    def offsets(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """What is taken off the channels and features in double precision; empty where nothing is."""
        signature = self.signature
        return tuple(tuple(getattr(signature, name, ())) for name in ("offset", "future_offset", "past_offset"))  # type: ignore[return-value]

    @property
    def has_offsets(self) -> bool:
        """Whether values are doubles, as they stand too far from zero for float."""
        return any(any(values) for values in self.offsets)

    @property
    def inputs(self) -> list[tuple[str, int, str]]:
        """Covariates: name, how many numbers, and what they are."""
        signature = self.signature
        inputs = []
        if signature.future:
            steps = signature.context + signature.horizon
            inputs.append(("future", steps * len(signature.future), f"[{steps}][{len(signature.future)}]"))
        if signature.past:
            inputs.append(
                ("past", signature.context * len(signature.past), f"[{signature.context}][{len(signature.past)}]")
            )
        return inputs


def commented(text: str) -> str:
    """A text that can stand in a comment of C whatever it holds."""
    plain = "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in text)
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").replace("\\", "/")


def header(source: Program) -> str:
    """The header: sizes, the state and the functions."""
    name, prefix, signature = source.name, source.prefix, source.signature
    channels = "\n".join(f" *   {place}: {commented(channel)}" for place, channel in enumerate(signature.channels))
    kind = "double" if source.has_offsets else "float"
    covariates = "".join(f", const {name}_value *{title}" for title, _, _ in source.inputs)
    results = f"{name}_value *forecast" + (f", {name}_value *quantiles" if source.n_levels else "")
    notes = "".join(
        f" * {title}{sizes}: the covariates, computed by the caller.\n" for title, _, sizes in source.inputs
    )
    macros = {
        "CONTEXT": signature.context,
        "HORIZON": signature.horizon,
        "CHANNELS": len(signature.channels),
        **({"QUANTILES": source.n_levels} if source.n_levels else {}),
        "WORK_WORDS": max(source.plan.n_words, 1),
    }
    sizes = "\n".join(f"#define {prefix}_{title} {value}" for title, value in macros.items())
    return f"""/* {commented(source.title)}
 *
 * Channels, in order:
{channels}
 *
 * Made by tsdistill export-c; do not edit. Needs nothing but the C library's math and string functions.
 */
#ifndef {prefix}_H
#define {prefix}_H

#ifdef __cplusplus
extern "C" {{
#endif

{sizes}

/* What the functions return. */
#define {prefix}_OK 0
#define {prefix}_NOT_FINITE 1 /* an input is NaN or infinite, or so large that the forecast is */
#define {prefix}_TOO_FEW 2    /* fewer than {prefix}_CONTEXT steps were pushed */
#define {prefix}_WRONG 3      /* a golden window was not forecast as it should be */

typedef {kind} {name}_value;

/* Everything that changes. One for each stream; its memory may be static. */
typedef struct {{
    {name}_value window[2 * {prefix}_CONTEXT * {prefix}_CHANNELS]; /* each step twice: a window is one piece */
    float work[{prefix}_WORK_WORDS];
    int place;
    int n_steps;
}} {name}_state;

/* Forget all steps. */
void {name}_reset({name}_state *state);

/* Take one step of {prefix}_CHANNELS values in raw units. A step that is not finite is refused and not kept. */
int {name}_push({name}_state *state, const {name}_value *values);

/* Forecast from the last {prefix}_CONTEXT steps pushed: forecast[{prefix}_HORIZON][{prefix}_CHANNELS], raw units.
{notes} */
int {name}_now({name}_state *state{covariates}, {results});

/* Forecast from a window: context[{prefix}_CONTEXT][{prefix}_CHANNELS]. Leaves what was pushed alone. */
int {name}_predict({name}_state *state, const {name}_value *context{covariates}, {results});

#ifdef {prefix}_SELFTEST
/* Forecast the golden windows and compare: {prefix}_OK or {prefix}_WRONG. */
int {name}_selftest({name}_state *state);
#endif

#ifdef __cplusplus
}}
#endif

#endif
"""


def _kernel(folder: Traversable, kernel: str) -> str:
    """A function in C; a convolution with weights of 8 bits is the one in float but for their type."""
    if kernel == "conv_w8":
        return _kernel(folder, "conv").replace("conv(", "conv_w8(").replace("float *w,", "int8_t *w,")
    return (folder / f"{kernel}.c").read_text(encoding="utf-8")


def body(source: Program) -> str:
    """The source file."""
    name, prefix, compiler = source.name, source.prefix, source.compiler
    value = f"{name}_value"
    kernels = [kernel for kernel in KERNELS if kernel in compiler.kernels | {"is_finite"}]
    parts = [
        f'/* {commented(source.title)}; made by tsdistill export-c, do not edit. */\n#include "{name}.h"\n\n'
        "#include <math.h>\n#include <stdint.h>\n#include <string.h>\n"
    ]
    if "dense" in kernels:
        parts.append("#ifndef DENSE_BLOCK\n#define DENSE_BLOCK 16 /* outputs that are summed at a time */\n#endif\n")
    folder = resources.files("tsdistill.edge") / "kernels"
    parts += [_table(title, array) for title, array in compiler.tables.items()]
    parts += [_kernel(folder, kernel).replace("VALUE", value) for kernel in kernels]
    covariates = "".join(f", const {value} *{title}" for title, _, _ in source.inputs)
    passed = "".join(f", {title}" for title, _, _ in source.inputs)
    quantiles = f", {value} *quantiles" if source.n_levels else ""
    quantiles_passed = ", quantiles" if source.n_levels else ""
    parts.append(_predict(source, covariates, quantiles))
    parts.append(f"""void {name}_reset({name}_state *state) {{
    state->place = 0;
    state->n_steps = 0;
}}

int {name}_push({name}_state *state, const {value} *values) {{
    {value} *first = state->window + state->place * {prefix}_CHANNELS;
    if (!is_finite(values, {prefix}_CHANNELS)) {{
        return {prefix}_NOT_FINITE;
    }}
    memcpy(first, values, {prefix}_CHANNELS * sizeof *values);
    memcpy(first + {prefix}_CONTEXT * {prefix}_CHANNELS, values, {prefix}_CHANNELS * sizeof *values);
    state->place = (state->place + 1) % {prefix}_CONTEXT;
    state->n_steps += state->n_steps < {prefix}_CONTEXT;
    return {prefix}_OK;
}}

int {name}_now({name}_state *state{covariates}, {value} *forecast{quantiles}) {{
    if (state->n_steps < {prefix}_CONTEXT) {{
        return {prefix}_TOO_FEW;
    }}
    return {name}_predict(state, state->window + state->place * {prefix}_CHANNELS{passed}, forecast{quantiles_passed});
}}
""")
    parts.append(_selftest(source))
    return "\n".join(parts)


def _predict(source: Program, covariates: str, quantiles: str) -> str:
    name, prefix, compiler = source.name, source.prefix, source.compiler
    value = f"{name}_value"
    offsets = source.plan.offsets
    widths = {
        buffer.name: buffer for statement in compiler.statements for buffer in (*statement.reads, *statement.writes)
    }

    def pointer(match: re.Match[str]) -> str:
        title = match[1]
        if title not in offsets:
            return title
        is_bytes = title in widths and widths[title].width == 1
        start = f"work + {offsets[title]}" if offsets[title] else "work"
        return f"((uint8_t *)({start}))" if is_bytes else f"({start})" if offsets[title] else "work"

    lines: list[str] = []
    for statement in compiler.statements:
        lines += [re.sub(r"@(\w+)@", pointer, line) for line in statement.lines]
    lines = [re.sub(r"\(work \+ (\d+)\)\[0\]", r"work[\1]", line) for line in lines]
    lines = [re.sub(r"\(work \+ (\d+)\)\[([^\]]+)\]", r"work[\1 + \2]", line) for line in lines]
    text = "\n".join(f"    {line}" for line in lines)
    locals_ = "".join(f"    int {title} = 0;\n" for title in compiler.integers)
    sizes = [
        ("context", source.signature.context * len(source.signature.channels)),
        *(item[:2] for item in source.inputs),
    ]
    checks = " || ".join(f"!is_finite({title}, {size})" for title, size in sizes)
    n_out = source.signature.horizon * len(source.signature.channels)
    results = f"!is_finite(forecast, {n_out})"
    text += "".join(f"\n    {line}" for line in _offsets_added(source))
    if source.n_levels:
        results += f" || !is_finite(quantiles, {n_out * source.n_levels})"
    arguments = f"{name}_state *state, const {value} *context{covariates}, {value} *forecast{quantiles}"
    return f"""int {name}_predict({arguments}) {{
    float *const work = state->work;
{locals_}    (void)work;
    if ({checks}) {{
        return {prefix}_NOT_FINITE;
    }}
{text}
    return {results} ? {prefix}_NOT_FINITE : {prefix}_OK;
}}
"""


def _offsets_added(source: Program) -> list[str]:
    """What was taken off the channels before the graph comes back to its forecasts."""
    lines = []
    n_out = source.signature.horizon * len(source.signature.channels)
    for place, offset in enumerate(source.offsets[0]):
        if offset:
            step = len(source.signature.channels)
            lines.append(f"for (int i = {place}; i < {n_out}; i += {step}) {{ forecast[i] += {offset!r}; }}")
            if source.n_levels:
                inner = f"quantiles[i * {source.n_levels} + j] += {offset!r};"
                head = f"for (int i = {place}; i < {n_out}; i += {step})"
                lines.append(f"{head} {{ for (int j = 0; j < {source.n_levels}; ++j) {{ {inner} }} }}")
    return lines


def _table(name: str, array: np.ndarray) -> str:
    kind = {"i1": "int8_t", "i4": "int32_t"}.get(array.dtype.str[1:], "float")
    flat = array.reshape(-1)
    texts = [_plain(value) for value in flat.tolist()] if kind == "float" else [str(value) for value in flat.tolist()]
    return f"static const {kind} {name}[{len(texts)}] = {{\n{_rows(texts)}\n}};\n"


def _plain(value: float) -> str:
    return number(value).strip("()")


def _rows(texts: Sequence[str]) -> str:
    return "\n".join(
        "    " + ", ".join(texts[start : start + COLUMNS]) + "," for start in range(0, len(texts), COLUMNS)
    )


def _selftest(source: Program) -> str:
    name, prefix, golden = source.name, source.prefix, source.golden
    value = f"{name}_value"
    parts = [f"#ifdef {prefix}_SELFTEST"]
    for title, array in (*golden.items(), ("tolerance", source.tolerance)):
        one = array.reshape(len(array), -1) if title != "tolerance" else array
        kind = "float" if title == "tolerance" else value
        shape = "".join(f"[{size}]" for size in one.shape)
        rows = one if one.ndim == 2 else one[None]
        write = _plain if kind == "float" or not source.has_offsets else repr
        texts = [_rows([write(float(entry)) for entry in row]) for row in rows]
        inner = "\n".join(f"    {{\n{text}\n    }}," for text in texts) if one.ndim == 2 else texts[0]
        parts.append(f"static const {kind} golden_{title}{shape} = {{\n{inner}\n}};\n")
    n_windows = len(golden["context"])
    n_out = golden["forecast"][0].size
    covariates = "".join(f", golden_{title}[window]" for title, _, _ in source.inputs)
    quantiles = ", quantiles" if source.n_levels else ""
    more = f"    static {value} quantiles[{n_out * source.n_levels}];\n" if source.n_levels else ""
    levels = f"i / {source.n_levels} % {prefix}_CHANNELS"
    compared = (
        f"""        for (int i = 0; i < {n_out * source.n_levels}; ++i) {{
            const {value} gap = quantiles[i] - golden_quantiles[window][i];
            if (!(gap <= golden_tolerance[{levels}] && -gap <= golden_tolerance[{levels}])) {{
                return {prefix}_WRONG;
            }}
        }}
"""
        if source.n_levels
        else ""
    )
    parts.append(f"""int {name}_selftest({name}_state *state) {{
    static {value} forecast[{n_out}];
{more}    for (int window = 0; window < {n_windows}; ++window) {{
        if ({name}_predict(state, golden_context[window]{covariates}, forecast{quantiles}) != {prefix}_OK) {{
            return {prefix}_WRONG;
        }}
        for (int i = 0; i < {n_out}; ++i) {{
            const {value} gap = forecast[i] - golden_forecast[window][i];
            if (!(gap <= golden_tolerance[i % {prefix}_CHANNELS] && -gap <= golden_tolerance[i % {prefix}_CHANNELS])) {{
                return {prefix}_WRONG;
            }}
        }}
{compared}    }}
    return {prefix}_OK;
}}
#endif
""")
    return "\n".join(parts)
