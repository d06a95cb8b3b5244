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
from tests.deployables import CHANNELS, HORIZON, KINDS, contexts, exported, forecaster, hourly, int8, task
from tsdistill import manifest as manifests
from tsdistill.artifacts import save
from tsdistill.cli import app
from tsdistill.errors import ArtifactError, ConfigError, DataError, ShapeError
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
    found, model = verify(shelf / name), FORMS[name]() if name in FORMS else exported(name)
    assert found["max_difference"] <= 1e-6
    assert (found["n_windows"], found["n_files"], found["unlisted"]) == (8, 3, [])
    precision = {"int8": "int8", "static": "int8", "int4": "int4-weights"}.get(name, "fp32")
    assert (found["precision"], model.precision) == (precision, precision)
    assert found["tolerance"] == model.parity["tolerance"]


@pytest.mark.parametrize("name", ["lstm", "int8"])
def test_verifying_in_a_shell_shows_what_computes_in_float(shelf: Path, name: str) -> None:
    done = CliRunner().invoke(app, ["verify", str(shelf / name)])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("float_operators")]
    shown = {operator: int(n) for n, operator in (each.split() for each in line.split(maxsplit=1)[1].split(", "))}
    assert shown == (int8 if name == "int8" else exported)("lstm").float_operators
    assert ("LSTM" in shown) == (name == "lstm")


def test_shapes_in_and_out(shelf: Path) -> None:
    predictor = load(shelf / "patchtst")
    x = contexts(5)
    forecast = predictor.predict(x)
    assert (forecast.shape, forecast.dtype) == ((5, HORIZON, 3), np.float32)
    np.testing.assert_allclose(predictor.predict(x[2]), forecast[2], rtol=1e-5, atol=1e-5)
    assert predictor.predict(x[:0]).shape == (0, HORIZON, 3)
    longer = np.concatenate([np.full((5, 11, 3), np.nan, np.float32), x], axis=1)
    np.testing.assert_array_equal(predictor.predict(longer), forecast)
    np.testing.assert_array_equal(predictor.predict(x.astype(np.float64).tolist()), forecast)
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


def spoilt(value: float) -> np.ndarray:
    x = contexts(5).astype(np.float64)
    x[3, 2, 1] = x[0, 1, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X[..., :2], ShapeError, r"\(\[batch,\] 29 or more, 3\), got \(5, 29, 2\).*load, pressure, wind"),
        (X[:, 1:], ShapeError, r"got \(5, 28, 3\)"),
        (X[0, :, 0], ShapeError, r"got \(29,\)"),
        (X[None], ShapeError, r"got \(1, 5, 29, 3\)"),
        (np.float32(3), ShapeError, r"got \(\)"),
        ([[1.0], [1.0, 2.0]], ShapeError, "must be an array of shape"),
        (spoilt(np.nan), DataError, r"got 2 that are not, in the channels pressure \(2\)"),
        (spoilt(-np.inf), DataError, "pressure"),
        (spoilt(1e39), DataError, "must hold finite numbers"),
        (X.astype(complex), DataError, "real numbers, got x='complex128'"),
        (X.astype(str), DataError, "real numbers"),
        (X > 0, DataError, "real numbers, got x='bool'"),
        (None, DataError, "real numbers, got x='object'"),
    ],
)
def test_arrays_that_cannot_be_forecast(x: Any, error: type[Exception], words: str) -> None:
    for model in (exported("linear"), forecaster("linear")):
        with pytest.raises(error, match=words):
            model.predict(x)


def wide(n_rows: int = 37) -> pd.DataFrame:
    return hourly(n_rows)


def test_a_wide_frame_gives_the_steps_after_its_last_stamp() -> None:
    frame = wide()
    forecast = exported("linear").predict(frame)
    assert isinstance(forecast, pd.DataFrame)
    expected = pd.date_range(frame.index[-1] + pd.Timedelta("1h"), periods=HORIZON, freq="h", name="ds")
    pd.testing.assert_index_equal(forecast.index, expected, check_freq=False)
    assert list(forecast.columns) == list(CHANNELS)
    np.testing.assert_array_equal(forecast.to_numpy(), exported("linear").predict(frame.to_numpy()))


@pytest.mark.parametrize("name", ["ds", "measured_at"])
def test_stamps_may_be_a_column(name: str) -> None:
    frame = wide().rename_axis(index=name)
    forecast = exported("linear").predict(frame.reset_index())
    assert list(forecast.columns) == [name, *CHANNELS]
    pd.testing.assert_frame_equal(forecast.set_index(name), exported("linear").predict(frame))


def test_the_order_of_columns_does_not_matter() -> None:
    frame = wide()
    turned = frame[["wind", "load", "pressure"]]
    pd.testing.assert_frame_equal(exported("linear").predict(turned), exported("linear").predict(frame))


def test_text_stamps_are_read() -> None:
    frame = wide().reset_index()
    text = frame.assign(ds=frame["ds"].astype(str))
    pd.testing.assert_frame_equal(exported("linear").predict(text), exported("linear").predict(frame))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_time_zones_are_kept_also_where_clocks_change(zone: str) -> None:
    # In Berlin clocks go back in the night to the 27th, among the steps to come: an hour stands there twice.
    stamps = pd.date_range("2013-10-25", periods=47 + HORIZON, freq="h", tz=zone, name="ds")
    frame = pd.DataFrame(hourly(47).to_numpy(), index=stamps[:47], columns=list(CHANNELS))
    forecast = exported("linear").predict(frame)
    assert str(forecast.index.tz) == zone
    assert list(forecast.index) == list(stamps[47:])
    assert forecast.index.tz_localize(None).has_duplicates == (zone == "Europe/Berlin")


def test_rows_without_stamps_are_numbered_on() -> None:
    plain = wide(37).reset_index(drop=True)
    assert list(exported("linear").predict(plain).index) == list(range(37, 37 + HORIZON))
    every_other = plain.set_axis(pd.RangeIndex(10, 10 + 2 * 37, 2))
    assert list(exported("linear").predict(every_other).index) == list(range(84, 84 + 2 * HORIZON, 2))
    assert list(exported("linear").predict(plain.sample(frac=1, random_state=0)).index) == list(range(37, 44))


def test_a_long_frame_gives_one_forecast_per_item() -> None:
    items = {"b": hourly(31, seed=1), "a": hourly(37, seed=2)}
    parts = [frame.reset_index().assign(unique_id=name) for name, frame in items.items()]
    mixed = pd.concat(parts).sort_values("ds", kind="stable")
    forecast = exported("linear").predict(mixed)
    assert list(forecast.columns) == ["unique_id", "ds", *CHANNELS]
    assert list(forecast["unique_id"].unique()) == ["b", "a"]
    assert list(forecast.index) == list(range(2 * HORIZON))
    for name, frame in items.items():
        one = forecast[forecast["unique_id"] == name].drop(columns="unique_id").reset_index(drop=True)
        pd.testing.assert_frame_equal(one, exported("linear").predict(frame.reset_index()), rtol=1e-5)


def test_without_a_frequency_the_frames_own_step_goes_on() -> None:
    model = exported("linear")
    predictor = Predictor(model.onnx, model.signature.replace(frequency=None))
    every_day = wide().set_axis(pd.date_range("2013-01-01", periods=37, freq="D"))
    assert predictor.predict(every_day).index[0] == pd.Timestamp("2013-02-07")
    with pytest.raises(DataError, match="must step by"):
        predictor.predict(every_day.drop(every_day.index[20]))


def test_torch_and_runtime_agree_on_frames() -> None:
    frame = wide().reset_index()
    pd.testing.assert_frame_equal(
        forecaster("mlp").predict(frame), exported("mlp").predict(frame), rtol=1e-5, atol=1e-4
    )


def gap(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(frame.index[20])


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (wide().drop(columns="wind"), DataError, "column 'wind' is missing"),
        (
            wide().rename(columns={"wind": "wnid"}),
            DataError,
            r"2 problems[\s\S]*'wind' is missing. Did you mean `wnid`",
        ),
        (wide().assign(extra=1.0), DataError, "column 'extra' is unknown.*Drop it"),
        (wide().assign(load="much"), DataError, "column 'load' must hold numbers"),
        (wide()[["load", "load", "pressure", "wind"]], DataError, "column 'load' stands in the frame twice"),
        (wide(28), ShapeError, "at least context = 29 steps, got 28"),
        (wide().replace({"load": {wide()["load"].iloc[-3]: np.nan}}), DataError, r"In x: .*load \(1\)"),
        (gap(wide()), DataError, r"must step by h, sorted and without gaps.* is 2013-01-01 19:00"),
        (wide().iloc[::-1], DataError, "must step by h, sorted"),
        (wide().set_axis(pd.date_range("2013", periods=37, freq="D")), DataError, "must step by h"),
        (wide().reset_index().assign(ds=range(37)), DataError, "`ds` must hold time stamps in x, got ds='int64'"),
        (wide().reset_index().assign(ds="noon"), DataError, "`ds` must hold time stamps"),
        (
            wide().reset_index().assign(at=pd.Timestamp("2013")).rename(columns={"ds": "t"}),
            DataError,
            "2 columns of st",
        ),
        (wide().set_axis(pd.period_range("2013", periods=37, freq="h")), DataError, r"\.to_timestamp\(\)"),
        (wide().assign(unique_id=[None] * 7 + ["a"] * 30), DataError, "`unique_id` must name an item in every row"),
        (wide().assign(unique_id=["a"] * 7 + ["b"] * 30), DataError, "got 7 in item 'a'"),
        (wide().iloc[:0].assign(unique_id=[]), DataError, "at least one item"),
        (wide().assign(load=pd.NA).astype({"load": "Float64"}), DataError, r"load \(29\)"),
    ],
)
def test_frames_that_cannot_be_forecast(frame: pd.DataFrame, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        exported("linear").predict(frame)


def test_a_frame_of_another_library_is_refused() -> None:
    class Table:
        columns = CHANNELS

    with pytest.raises(DataError, match=r"a pandas frame, got x='Table'.*to_pandas"):
        exported("linear").predict(Table())  # type: ignore[arg-type]


def test_gaps_before_the_context_do_not_matter() -> None:
    frame = hourly(60)
    assert len(exported("linear").predict(gap(frame))) == HORIZON


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_be_a_count(shelf: Path, threads: Any) -> None:
    with pytest.raises(ConfigError, match="`threads` must be a whole number"):
        load(shelf / "linear", threads=threads)


def test_threads_are_one_unless_more_are_asked_for(shelf: Path) -> None:
    for how, n_threads in (({}, 1), ({"threads": 1}, 1), ({"threads": 2}, 2)):
        options = load(shelf / "linear", **how).session.get_session_options()
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
        with pytest.raises(ArtifactError, match=r"onnxruntime .* cannot load the graph"):
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
    with pytest.raises(ValueError, match="external data"):
        check_onnx(external(place))


def test_the_walk_through_a_graph_knows_every_way_to_a_tensor() -> None:
    """Our table of fields against onnx's own description of its messages."""
    from tsdistill import formats

    names = {
        "model": onnx.ModelProto, "training": onnx.TrainingInfoProto, "graph": onnx.GraphProto,
        "function": onnx.FunctionProto, "node": onnx.NodeProto, "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto, "tensor": onnx.TensorProto,
    }  # fmt: skip
    ours = {message.DESCRIPTOR.name: name for name, message in names.items()}
    for name, message in names.items():
        fields = {
            field.number: ours[field.message_type.name]
            for field in message.DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in ours
        }
        assert formats._MESSAGES[name] == fields, name
    numbers = {field.name: field.number for field in onnx.TensorProto.DESCRIPTOR.fields}
    assert (numbers["external_data"], numbers["data_location"], onnx.TensorProto.EXTERNAL) == (13, 14, 1)


# ------------------------------------------------------------------------------------------- rolling through a history


@pytest.mark.parametrize("rolling", [1, 5, 29, 500])
def test_rolling_forecasts_are_those_of_each_past_moment(shelf: Path, rolling: int) -> None:
    predictor, history = load(shelf / "linear"), hourly(3 * CHUNK + 1).to_numpy()
    forecast = predictor.predict(history, rolling=rolling)
    ends = list(range(len(history), 28, -rolling))[::-1]
    assert forecast.shape == (len(ends), HORIZON, 3)
    for end, one in list(zip(ends, forecast, strict=True))[:: max(len(ends) // 7, 1)]:
        assert deployables.in_deviations(one - predictor.predict(history[:end])) < 2e-5


def test_a_rolled_frame_names_each_cutoff_and_never_looks_beyond_it() -> None:
    frame = hourly(61)
    forecast = exported("linear").predict(frame, rolling=11)
    assert list(forecast.columns) == ["cutoff", *CHANNELS]
    assert list(forecast["cutoff"].unique()) == [frame.index[row] for row in (38, 49, 60)]
    for cutoff, part in forecast.groupby("cutoff"):
        known = exported("linear").predict(frame.loc[:cutoff])
        pd.testing.assert_frame_equal(part.drop(columns="cutoff"), known, rtol=1e-4, check_freq=False)
    spoilt_later = frame.copy()
    spoilt_later.iloc[50:] = 1e6
    again = exported("linear").predict(spoilt_later, rolling=11)
    pd.testing.assert_frame_equal(again.iloc[: 2 * HORIZON], forecast.iloc[: 2 * HORIZON], rtol=1e-4)


def test_rolling_goes_item_by_item() -> None:
    items = {"b": hourly(45, seed=1), "a": hourly(37, seed=2)}
    mixed = pd.concat([frame.reset_index().assign(unique_id=name) for name, frame in items.items()])
    forecast = exported("linear").predict(mixed, rolling=7)
    assert list(forecast.columns) == ["unique_id", "ds", "cutoff", *CHANNELS]
    assert forecast.groupby("unique_id", sort=False)["cutoff"].nunique().to_dict() == {"b": 3, "a": 2}
    assert (forecast["ds"] > forecast["cutoff"]).all()


def test_rows_without_stamps_roll_as_well() -> None:
    forecast = exported("linear").predict(hourly(31).reset_index(drop=True), rolling=1)
    assert forecast["cutoff"].unique().tolist() == [28, 29, 30]
    assert forecast.index.tolist() == [*range(29, 36), *range(30, 37), *range(31, 38)]


def test_a_long_history_is_cut_into_windows_a_piece_at_a_time() -> None:
    history = np.zeros((20_011, 3), np.float32)
    largest = []

    def run(context: np.ndarray) -> np.ndarray:
        largest.append(context.nbytes)
        return context[:, :HORIZON]

    assert predict_raw(history, task().signature, run, rolling=1).shape == (19_983, HORIZON, 3)
    assert max(largest) == CHUNK * 29 * 3 * 4


@pytest.mark.parametrize(
    ("x", "rolling", "error", "words"),
    [
        (X[0], 0, ConfigError, "`rolling` must be a whole number of at least 1, or None, got rolling=0"),
        (X[0], True, ConfigError, "`rolling` must be"),
        (X[0], 2.0, ConfigError, "`rolling` must be"),
        (X, 3, ShapeError, r"one history \(time, channel\)"),
        (X[0, :28], 3, ShapeError, r"29 or more, 3\), got \(28, 3\)"),
        (np.concatenate([np.full((5, 3), np.nan), X[0]]), 3, DataError, "got 15 that are not"),
        (hourly(28), 3, ShapeError, "at least context = 29 steps, got 28"),
        (hourly(60).drop(hourly(60).index[20]), 3, DataError, "the last 59 stamps of x must step by h"),
    ],
)
def test_what_cannot_be_rolled_through(x: Any, rolling: Any, error: type[Exception], words: str) -> None:
    for model in (exported("linear"), forecaster("linear")):
        with pytest.raises(error, match=words):
            model.predict(x, rolling=rolling)
