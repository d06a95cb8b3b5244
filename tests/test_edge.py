"""Forecasters as C: compiled by the compiler of this machine and compared with the artifact's own runtime."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsdistill as td
from tests import deployables
from tests.deployables import CHANNELS, CONTEXT, HORIZON, in_deviations
from tsdistill.edge import CSource, export_c
from tsdistill.errors import ConfigError, UnsupportedError

STRICT = ("-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c99", "-DFORECAST_SELFTEST")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler: gcc is not installed")

MAIN = """
#include "forecast.h"
#include <stdio.h>

static forecast_state state;

int main(void) {
    static forecast_value window[FORECAST_CONTEXT * FORECAST_CHANNELS], forecast[FORECAST_HORIZON * FORECAST_CHANNELS];
    if (forecast_selftest(&state) != FORECAST_OK) {
        return 99;
    }
    while (fread(window, sizeof window, 1, stdin) == 1) {
        const int code = forecast_predict(&state, window, forecast);
        fwrite(&code, sizeof code, 1, stdout);
        fwrite(forecast, sizeof forecast, 1, stdout);
    }
    return 0;
}
"""


def forecasts(files: CSource, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and forecasts of windows, by a program that the sanitizers watch."""
    folder = files.source.parent
    (folder / "main.c").write_text(MAIN)
    program = str(folder / "program")
    sources = [str(files.source), str(folder / "main.c")]
    subprocess.run(["gcc", *STRICT, *SANITIZED, "-o", program, *sources, "-lm"], check=True, timeout=120)
    kind = np.float64 if "typedef double" in files.header.read_text() else np.float32
    content = windows.astype(kind).tobytes()
    output = subprocess.run([program], input=content, capture_output=True, check=True, timeout=300).stdout
    record = np.dtype([("code", np.int32), ("forecast", kind, (HORIZON, len(CHANNELS)))])
    records = np.frombuffer(output, dtype=record)
    return records["code"], records["forecast"]


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "precision", "most"),
    [("linear", "float32", 1e-4), ("mlp", "float32", 1e-4), ("lstm", "float32", 1e-4), ("lstm", "int8", 0.02)],
)
def test_c_forecasts_what_the_artifact_does(kind: str, precision: str, most: float, tmp_path: Path) -> None:
    deployed = deployables.exported(kind) if precision == "float32" else deployables.int8(kind)
    windows = deployables.contexts(8, seed=3)
    windows[5, 3, 1], windows[6, 0, 0] = np.nan, np.inf
    codes, c_forecasts = forecasts(export_c(deployed, tmp_path), windows)
    assert codes.tolist() == [0, 0, 0, 0, 0, 1, 1, 0]
    expected = np.concatenate([deployed.predict(window[None]) for window in windows[:5]])
    assert in_deviations(c_forecasts[:5] - expected) < most


@needs_compiler
def test_pushed_steps_forecast_as_their_window(tmp_path: Path) -> None:
    files = export_c(deployables.exported("linear"), tmp_path)
    library = tmp_path / "forecast.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, files.source, "-lm"], check=True, timeout=60)
    c: Any = ctypes.CDLL(str(library))
    state, forecast = ctypes.create_string_buffer(files.state_bytes + 64), np.zeros((HORIZON, 3))
    c.forecast_reset(state)
    rows = deployables.hourly(CONTEXT * 2 + 3).to_numpy()
    pointer = forecast.ctypes.data_as(ctypes.c_void_p)
    for number, row in enumerate(rows):
        assert c.forecast_now(state, pointer) == (2 if number < CONTEXT else 0)
        assert c.forecast_push(state, np.full(3, np.nan).ctypes.data_as(ctypes.c_void_p)) == 1
        assert c.forecast_push(state, np.ascontiguousarray(row).ctypes.data_as(ctypes.c_void_p)) == 0
    assert c.forecast_now(state, pointer) == 0
    expected = deployables.exported("linear").predict(rows[None, -CONTEXT:])
    assert in_deviations(forecast - expected[0]) < 1e-4


@needs_compiler
def test_names_of_channels_stay_in_their_comment(tmp_path: Path) -> None:
    signature = deployables.task().signature.replace(channels=('a "b" */ int x;', "c??/\n\\", "/* d"))
    files = export_c(td.models.SeasonalNaiveConfig(period=5).build(signature), tmp_path, name="my_model")
    assert '0: a "b" * / int x;' in files.header.read_text()
    subprocess.run(["gcc", *STRICT, "-c", "-o", tmp_path / "x.o", files.source], check=True, timeout=60)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "2fast"}, ("`name` must be an identifier of C", "'2fast'")),
        ({"name": "while"}, ("`name` must be an identifier of C", "'while'")),
        ({"name": "a/b"}, ("`name` must be an identifier of C",)),
        ({"precision": "int9"}, ("`precision` must be float32 or int8", "Did you mean `int8`?")),
        ({"precision": "int8"}, ("`precision` must be that of the deployed forecaster, fp32",)),
        ({"max_flash_bytes": 100}, ("`max_flash_bytes` must be at least", "got max_flash_bytes=100")),
        ({"max_ram_bytes": 100}, ("`max_ram_bytes` must be at least", "got max_ram_bytes=100")),
        ({"max_ram_bytes": 0}, ("`max_ram_bytes` must be a whole number of bytes above 0",)),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    options: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        export_c(deployables.exported("linear"), tmp_path / "out", **options)
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "out").exists()


def test_an_operator_without_a_form_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tsdistill.edge import compiler

    monkeypatch.delitem(compiler.RULES, "MatMul")
    with pytest.raises(UnsupportedError, match=r"must consist of operators that have a form in C, got MatMul\."):
        export_c(deployables.exported("linear"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from tsdistill.cli import app

    td.save(deployables.exported("linear"), tmp_path / "artifact")
    result = CliRunner().invoke(app, ["export-c", str(tmp_path / "artifact"), "--out", str(tmp_path / "c"), "--json"])
    assert result.exit_code == 0, result.output
    sizes = json.loads(result.stdout)
    assert sizes["table_bytes"] >= 4 * CONTEXT * HORIZON
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["forecast.c", "forecast.h"]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "precision"), [("linear", "fp32"), ("mlp", "int8"), ("lstm", "fp32"), ("lstm", "int8")]
)
def test_ten_thousand_windows_leave_nothing_undefined(kind: str, precision: str, tmp_path: Path) -> None:
    deployed = deployables.exported(kind) if precision == "fp32" else deployables.int8(kind)
    random = np.random.default_rng(0)
    windows = random.normal(size=(10_000, CONTEXT, 3)) * 10.0 ** random.uniform(-6, 38, size=(10_000, 1, 1))
    windows[::7, 5, 1], windows[::11, 3, 2] = np.nan, np.inf
    codes, c_forecasts = forecasts(export_c(deployed, tmp_path), windows)
    assert set(codes[::7]) == set(codes[::11]) == {1}
    assert set(codes) == {0, 1}
    assert np.isfinite(c_forecasts[codes == 0]).all()
