"""Forecasts without Python: the example in JavaScript replays golden windows, in node and in a browser.

It needs what is no Python package: node, the npm packages of `examples/javascript` in the folder that
TSDISTILL_TEST_NODE_MODULES names, and Chromium for the browser. Where TSDISTILL_TEST_BROWSER names a browser, as
`.ci/run` does, it has to be there; elsewhere its test is skipped without one.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import matrix
from tests.deployables import FORCED, exported, int8, quantized
from tests.tampering import GOLDEN, replace_file, tensors_of
from tests.test_quantiles_deployed import made
from tsdistill.artifacts import save

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "javascript"
PACKAGES = os.environ.get("TSDISTILL_TEST_NODE_MODULES", "")
BROWSER = os.environ.get("TSDISTILL_TEST_BROWSER", "")

pytestmark = [
    pytest.mark.javascript,
    pytest.mark.skipif(not PACKAGES, reason="TSDISTILL_TEST_NODE_MODULES names no folder of npm packages"),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The example with its packages, ready to run."""
    shutil.copytree(EXAMPLE, tmp_path / "example")
    (tmp_path / "example" / "node_modules").symlink_to(Path(PACKAGES).resolve())
    return tmp_path / "example"


def node(place: Path, artifact: Path) -> tuple[int, dict[str, Any]]:
    command = ["node", "replay.mjs", str(artifact)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["patchtst", "lstm"])
def test_node_forecasts_what_python_did(kind: str, place: Path) -> None:
    code, result = node(place, save(exported(kind), place / "artifact"))
    assert (code, result["n_windows"], result["agrees"]) == (0, 8, True)
    assert result["max_difference"] < 2e-5


def test_node_replays_quantiles(place: Path) -> None:
    _, deployed = made("mlp")
    folder = save(deployed, place / "artifact")
    code, result = node(place, folder)
    assert (code, result["agrees"], result["max_difference"] < 2e-5) == (0, True, True)
    golden = dict(deployed.golden)
    golden["quantiles"] = golden["quantiles"] + np.array([[0], [0.1], [0]], np.float32)
    replace_file(folder, GOLDEN, tensors_of(**golden))
    code, result = node(place, folder)
    assert (code, result["agrees"]) == (1, False)
    assert result["max_difference"] == pytest.approx(0.1 / deployed.parity["unit"][1], rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "form"),
    [("lstm", "dynamic"), ("tcn", "static"), ("mlp", "static"), ("mlp", "weight-only-4"), ("lstm", "weight-only-4")],
)
def test_node_runs_every_form(kind: str, form: str, place: Path) -> None:
    code, result = node(place, save(matrix.deployed(kind, form), place / "artifact"))
    assert (code, result["agrees"]) == (0, True)
    # Weights in few bits are multiplied in float; an integer may fall to the other side on another processor.
    assert result["max_difference"] < (2e-5 if "weight-only" in form else 1e-2)


def test_node_forecasts_one_window_at_a_time_where_the_artifact_says_so(place: Path) -> None:
    alone = quantized("mlp", FORCED.replace(isolate=True))
    code, result = node(place, save(alone, place / "artifact"))
    assert (code, result["n_windows"], result["agrees"]) == (0, 8, True)
    moved = np.abs(int8("mlp").predict(alone.golden["context"]) - alone.golden["forecast"]) / alone.parity["unit"]
    assert result["max_difference"] < 1e-2 < moved.max()  # what other windows would do


def test_node_tells_when_forecasts_differ(place: Path) -> None:
    folder = save(exported("mlp"), place / "artifact")
    golden = dict(exported("mlp").golden)
    golden["forecast"] = golden["forecast"] + np.float32(0.1)
    replace_file(folder, GOLDEN, tensors_of(**golden))
    code, result = node(place, folder)
    assert (code, result["agrees"]) == (1, False)
    assert result["max_difference"] == pytest.approx(0.1 / min(exported("mlp").parity["unit"]), rel=1e-3)


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that does not talk, and knows what modules are."""

    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address(place: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_browser_forecasts_what_python_did(place: Path, address: str) -> None:
    browser = shutil.which(BROWSER or "chromium")
    if browser is None and BROWSER:
        pytest.fail(
            f"TSDISTILL_TEST_BROWSER must name a browser that is here, got {BROWSER!r}. Install it, or unset it."
        )
    if browser is None:
        pytest.skip("there is no chromium, and TSDISTILL_TEST_BROWSER names no browser that there should be")
    save(exported("lstm"), place / "artifact")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place / 'profile'}"]
    command = [browser, *flags, "--virtual-time-budget=60000", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    shown = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert shown is not None, done.stderr
    result = json.loads(html.unescape(shown[1]))
    assert result.get("agrees"), result
    assert (result["n_windows"], result["max_difference"] < 2e-5) == (8, True)
