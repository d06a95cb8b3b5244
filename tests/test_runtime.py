"""Forecasts from an artifact without torch: arrays and frames, threads, bad input, files that would mislead it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests import deployables, matrix
from tests.deployables import HORIZON, KINDS, contexts, exported, forecaster, hourly, int8, task
from tsdistill import manifest as manifests
from tsdistill.artifacts import save
from tsdistill.cli import app
from tsdistill.errors import ArtifactError, ConfigError
from tsdistill.exporting import Deployed
from tsdistill.formats import check_onnx
from tsdistill.inputs import CHUNK, predict_raw
from tsdistill.runtime import Predictor, load, verify

FORMS: dict[str, Callable[[], Deployed]] = {
    "int8": lambda: int8("lstm"),
    "static": lambda: matrix.deployed("tcn", "static"),
    "int4": lambda: matrix.deployed("mlp", "weight-only-4"),
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact of every architecture that tests use, convolutions, and one of every other form."""
    place = tmp_path_factory.mktemp("shelf")
    for kind in KINDS:
        save(exported(kind), place / kind)
    save(matrix.exported("tcn"), place / "tcn")
    for name, make in FORMS.items():
        save(make(), place / name)
    return place


def test_a_machine_without_torch_forecasts_what_torch_did(shelf: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", contexts())
    blocked = ("torch", "pandas", "pydantic", "onnx", "safetensors")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import numpy, pathlib\nfrom tsdistill.runtime import load, verify\n"
        f"x = numpy.load({str(tmp_path / 'x.npy')!r})\n"
        f"for folder in pathlib.Path({str(shelf)!r}).iterdir():\n"
        f"    numpy.save(pathlib.Path({str(tmp_path)!r}) / folder.name, load(folder).predict(x))\n"
        "    assert verify(folder)['n_windows'] == 8\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment, timeout=60)
    trained = {**{kind: forecaster(kind) for kind in KINDS}, "tcn": matrix.forecaster("tcn")}
    assert sorted([*trained, *FORMS]) == sorted(place.stem for place in shelf.iterdir())
    for name in (*trained, *FORMS):
        expected = trained[name] if name in trained else FORMS[name]()
        gap = deployables.in_deviations(np.load(tmp_path / f"{name}.npy") - expected.predict(contexts()))
        assert gap < 1e-4, name


@pytest.mark.parametrize("name", [*KINDS, *FORMS])
def test_an_artifact_verifies_where_it_was_made(shelf: Path, name: str) -> None:
    result, model = verify(shelf / name), FORMS[name]() if name in FORMS else exported(name)
    assert result["max_difference"] <= 1e-6
    assert (result["n_windows"], result["n_files"], result["unlisted"]) == (8, 3, [])
    precision = {"int8": "int8", "static": "int8", "int4": "int4-weights"}.get(name, "fp32")
    assert (result["precision"], model.precision) == (precision, precision)
    assert result["tolerance"] == model.parity["tolerance"]


@pytest.mark.parametrize("name", ["lstm", "int8"])
def test_verifying_in_a_shell_shows_what_computes_in_float(shelf: Path, name: str) -> None:
    done = CliRunner().invoke(app, ["verify", str(shelf / name)])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("float_operators")]
    shown = {operator: int(n) for n, operator in (part.split() for part in line.split(maxsplit=1)[1].split(", "))}
    assert shown == (int8 if name == "int8" else exported)("lstm").float_operators
    assert ("LSTM" in shown) == (name == "lstm")


def test_shapes_in_and_out(shelf: Path) -> None:
    predictor = load(shelf / "patchtst")
    x = contexts(5)
    forecast = predictor.predict(x)
    assert forecast.shape == (5, HORIZON, 3)
    assert forecast.dtype == np.float32
    np.testing.assert_allclose(predictor.predict(x[2]), forecast[2], rtol=1e-5, atol=1e-5)
    assert predictor.predict(x[:0]).shape == (0, HORIZON, 3)
    longer = np.concatenate([np.full((5, 11, 3), np.nan, np.float32), x], axis=1)
    np.testing.assert_array_equal(predictor.predict(longer), forecast)
    exact = predictor.predict(x.astype(np.float64).tolist())
    np.testing.assert_array_equal(exact.astype(np.float32), forecast)
    flipped = x[:, ::-1][:, ::-1]
    np.testing.assert_array_equal(predictor.predict(np.asfortranarray(flipped)), forecast)


@pytest.mark.parametrize("kind", KINDS)
def test_in_float_a_forecast_does_not_depend_on_its_batch(kind: str) -> None:
    x = contexts(11)
    together = exported(kind).predict(x)
    alone = np.concatenate([exported(kind).predict(x[row : row + 1]) for row in range(len(x))])
    assert deployables.in_deviations(together - alone) < 2e-5


def test_large_batches_are_run_in_pieces() -> None:
    sizes = []

    def run(context: np.ndarray) -> np.ndarray:
        sizes.append(len(context))
        return context[:, :HORIZON]

    x = contexts(2 * CHUNK + 3)
    np.testing.assert_array_equal(predict_raw(x, task().signature, run), x[:, :HORIZON])
    assert sizes == [CHUNK, CHUNK, 3]


def test_threads_share_a_predictor(shelf: Path) -> None:
    predictor = load(shelf / "lstm")
    inputs = [contexts(5, seed) for seed in range(7)]
    expected = [predictor.predict(x) for x in inputs]
    wrong: list[int] = []
    start = threading.Barrier(len(inputs))

    def work(number: int) -> None:
        start.wait()
        for _ in range(20):
            if not np.array_equal(predictor.predict(inputs[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


X = contexts(5)


def gap(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(frame.index[20])


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_be_a_count(shelf: Path, threads: Any) -> None:
    with pytest.raises(ConfigError, match="`threads` must be a whole number"):
        load(shelf / "linear", threads=threads)


def test_threads_are_one_unless_more_are_asked_for(shelf: Path) -> None:
    cases: list[tuple[dict[str, Any], int]] = [({}, 1), ({"threads": 1}, 1), ({"threads": 2}, 2)]
    for arguments, n_threads in cases:
        options = load(shelf / "linear", **arguments).session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (n_threads, 1)
    assert exported("linear").predictor.session.get_session_options().intra_op_num_threads == 1


def test_more_threads_forecast_the_same(shelf: Path) -> None:
    x = contexts(11)
    one, two = (load(shelf / "patchtst", threads=threads).predict(x) for threads in (1, 2))
    assert deployables.in_deviations(one - two) < 2e-5


def test_a_trainable_artifact_is_not_served(tmp_path: Path) -> None:
    save(forecaster("linear"), tmp_path / "m")
    with pytest.raises(ArtifactError, match=r"must hold a deployed model, got kind='forecaster'.*tsdistill.export"):
        load(tmp_path / "m")


def test_golden_windows_may_stay_at_home(shelf: Path, tmp_path: Path) -> None:
    for name in (manifests.NAME, manifests.MODEL):
        (tmp_path / name).write_bytes((shelf / "mlp" / name).read_bytes())
    np.testing.assert_array_equal(load(tmp_path).predict(X), load(shelf / "mlp").predict(X))
    with pytest.raises(ArtifactError, match=r"golden.safetensors cannot be read"):
        verify(tmp_path)


def test_a_graph_of_other_steps_is_refused() -> None:
    graph = exported("linear").onnx
    for field, value, words in (
        ("context", 31, r"inputs must be 'context' \(batch, 31, 3\), float32"),
        ("horizon", 11, r"outputs must be 'forecast' \(batch, 11, 3\), float32"),
        ("channels", ("a", "b"), r"\(batch, 29, 2\)"),
    ):
        with pytest.raises(ArtifactError, match=words):
            Predictor(graph, task().signature.model_copy(update={field: value}))
    model = onnx.load_from_string(graph)
    model.graph.input[0].name = "x"
    for node in model.graph.node:
        node.input[:] = ["x" if name == "context" else name for name in node.input]
    with pytest.raises(ArtifactError, match=r"inputs must be 'context'.*got .*'x'"):
        Predictor(model.SerializeToString(), task().signature)


def test_a_graph_that_onnxruntime_does_not_know_is_one_clear_error() -> None:
    model = onnx.load_from_string(exported("linear").onnx)
    model.graph.node[0].op_type = "Frobnicate"
    for graph in (model.SerializeToString(), b"", b"not a graph"):
        with pytest.raises(ArtifactError, match="the graph cannot be used"):
            Predictor(graph, task().signature)


def external(place: str) -> bytes:
    """A graph with a tensor in another file: in its initializers, in a node's attribute, or in an inner graph."""
    model = onnx.load_from_string(exported("linear").onnx)
    tensor = onnx.TensorProto(name="secret", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    if place == "marker only":
        del tensor.external_data[:]
    if place == "entries only":
        tensor.ClearField("data_location")
    holder = model.graph
    if place == "inner graph":
        node = model.graph.node.add(op_type="If")
        holder = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
    if place == "function":
        model.functions.add(name="f").node.add(op_type="Constant").attribute.add(name="value").t.CopyFrom(tensor)
    elif place == "attribute":
        holder.node.add(op_type="Constant").attribute.add(name="value").t.CopyFrom(tensor)
    elif place == "sparse":
        holder.sparse_initializer.add().values.CopyFrom(tensor)
    else:
        holder.initializer.append(tensor)
    return model.SerializeToString()


PLACES = ["initializer", "marker only", "entries only", "attribute", "inner graph", "function", "sparse"]


@pytest.mark.parametrize("place", PLACES)
def test_tensors_in_other_files_are_never_followed(place: str) -> None:
    with pytest.raises(ValueError, match=r"external data|a graph inside of a node|functions|sparse"):
        check_onnx(external(place))


@pytest.mark.parametrize("rolling", [1, 5, 29, 500])
def test_rolling_forecasts_are_those_of_each_past_moment(shelf: Path, rolling: int) -> None:
    predictor, history = load(shelf / "linear"), hourly(3 * CHUNK + 1).to_numpy()
    forecast = predictor.predict(history, rolling=rolling)
    ends = list(range(len(history), 28, -rolling))[::-1]
    assert forecast.shape == (len(ends), HORIZON, 3)
    for end, one in list(zip(ends, forecast, strict=True))[:: max(len(ends) // 7, 1)]:
        assert deployables.in_deviations(one - predictor.predict(history[:end])) < 2e-5
