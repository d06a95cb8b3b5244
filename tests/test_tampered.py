"""Artifacts that somebody changed and signed anew: every one is whole or one clear error, and nothing in it runs.

`test_artifacts_refused.py` has a table of what may be wrong with a folder. Here whoever changed it knows how digests
are made, so that only the checks behind them can tell.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.deployables import contexts, exported, forecaster
from tests.tampering import GOLDEN, MODEL, NAME, WEIGHTS, flip, header, replace_file, rewrite, tensors_of
from tests.test_quantiles_deployed import made
from tsdistill import artifacts, runtime
from tsdistill.artifacts import save
from tsdistill.errors import ArtifactError

ODD: list[Any] = [None, True, -1, 0, 2.5, 1e308, 10**400, "", "x" * 7, [], [None], [[1.0]], {}, {"a": [1]}]
"""What stands in place of every value of a manifest in turn."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    save(exported("linear"), place / "deployed")
    save(forecaster("linear"), place / "trainable")
    return place


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value, the inner ones too."""
    if path:
        yield path
    keys = values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
    for key in keys:
        yield from places(values[key], (*path, key))


def put(values: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value


def outcome(read: Callable[[], object]) -> str:
    """ "read", or "refused" with one clear error; any other exception comes through."""
    try:
        read()
    except ArtifactError:
        return "refused"
    return "read"


def become(other: dict[str, Any], values: dict[str, Any]) -> None:
    """Put others in the place of values."""
    values.clear()
    values.update(other)


def replaced(folder: Path, place: Path) -> Iterator[tuple[tuple[Any, ...], Any, Path]]:
    """The artifact with one value of its manifest replaced after the other, signed anew each time."""
    twin = Path(shutil.copytree(folder, place / "twin"))
    original = json.loads((twin / NAME).read_text())
    del original["sha256"]
    for path in places(original):
        if path[0] in ("lineage", "metrics", "float_operators") and len(path) > 2:
            continue  # free text of whoever saved it: one level is enough
        for odd in ODD:
            changed = copy.deepcopy(original)
            put(changed, path, odd)
            rewrite(twin, partial(become, changed))
            yield path, odd, twin


@pytest.mark.slow
def test_no_value_of_a_manifest_can_do_more_than_be_refused(whole: Path, tmp_path: Path) -> None:
    outcomes = {"read": 0, "refused": 0}
    for path, odd, folder in replaced(whole / "deployed", tmp_path):
        for read in (lambda: runtime.load(folder).predict(contexts()), lambda: runtime.verify(folder)):  # noqa: B023
            try:
                outcomes[outcome(read)] += 1
            except Exception as error:
                raise AssertionError(f"{path} = {odd!r} was {type(error).__name__}: {error}") from error
    assert outcomes["refused"] > outcomes["read"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deployed", "trainable"])
def test_nor_when_it_is_loaded_to_be_trained_on(kind: str, whole: Path, tmp_path: Path) -> None:
    for path, odd, folder in replaced(whole / kind, tmp_path):
        try:
            outcome(lambda: artifacts.load(folder))  # noqa: B023
        except Exception as error:
            raise AssertionError(f"{path} = {odd!r} was {type(error).__name__}: {error}") from error


def test_a_flipped_bit_anywhere_in_any_file_is_found(whole: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for kind, names in (("deployed", (NAME, MODEL, GOLDEN)), ("trainable", (NAME, WEIGHTS))):
        folder = Path(shutil.copytree(whole / kind, tmp_path / kind))
        for name in names:
            content = (folder / name).read_bytes()
            for position in random.integers(len(content), size=17):
                flip(folder, name, int(position))
                if not is_same_data(folder / name, content):
                    with pytest.raises(ArtifactError, match=name):
                        artifacts.load(folder)
                (folder / name).write_bytes(content)


def is_same_data(path: Path, content: bytes) -> bool:
    """Whether a manifest says the same as before: the last digits of a number may stand for the same float."""
    if path.name != NAME:
        return False
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(content))
    except ValueError:
        return False


def test_a_graph_with_flipped_bits_and_a_good_digest_never_ends_the_process(whole: Path, tmp_path: Path) -> None:
    """In a process of its own, as a fault in the library below would take the tests along."""
    folder = Path(shutil.copytree(whole / "deployed", tmp_path / "m"))
    code = (
        "import contextlib, json, pathlib, sys\nimport numpy as np\n"
        "from tsdistill import manifest as manifests\n"
        "from tsdistill.errors import ArtifactError\nfrom tsdistill.runtime import verify\n"
        "random, folder = np.random.default_rng(0), pathlib.Path(sys.argv[1])\n"
        "def write(name, content):\n"
        "    (folder / name).write_bytes(content)\n"
        "    values = json.loads((folder / manifests.NAME).read_text())\n"
        "    del values['sha256']\n"
        "    values['files'][name] = manifests.entry(content)._asdict()\n"
        "    values['sha256'] = manifests._digest(values)\n"
        "    (folder / manifests.NAME).write_text(json.dumps(values))\n"
        "for name in (manifests.MODEL, manifests.GOLDEN):\n"
        "    whole = (folder / name).read_bytes()\n"
        "    for position in random.integers(len(whole), size=61):\n"
        "        content = bytearray(whole)\n"
        "        content[position] ^= 1 << int(random.integers(8))\n"
        "        write(name, bytes(content))\n"
        "        with contextlib.suppress(ArtifactError):\n"
        "            verify(folder)\n"
        "    write(name, whole)\n"
        "print('alive')\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.stdout.strip() == "alive", done.stderr


def zipped() -> bytes:
    """A megabyte of nothing, packed to a kilobyte; no reader of the package unpacks anything."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights", bytes(2**20))
    return packed.getvalue()


def graph(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = onnx.load_from_string(exported("linear").onnx)
    change(model)
    return bytes(model.SerializeToString())


def feeding_itself(model: onnx.ModelProto) -> None:
    (last,) = [node for node in model.graph.node if "forecast" in node.output]
    last.input[0] = "forecast"


def asking_for_exabytes(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("many", TensorProto.INT64, [2], [2**31, 2**31]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["many"], ["huge"]))


def dims(*sizes: int) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
        tensor.dims[:] = sizes

    return change


def of_another_machine(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example.custom"


GRAPHS: dict[str, Callable[[onnx.ModelProto], object]] = {
    "an operator of a library that is not there": of_another_machine,
    "a graph that feeds itself": feeding_itself,
    "a tensor larger than its content": dims(2**20, 2**20),
    "a tensor of negative sides": dims(-29, -7),
    "a tensor of more than 64 bits": dims(2**62, 2**62),
    "a format of the future": lambda model: setattr(model, "ir_version", 10**6),
    "operators of the future": lambda model: setattr(model.opset_import[0], "version", 10**6),
    "no operators known": lambda model: model.ClearField("opset_import"),
    "a node without inputs": lambda model: model.graph.node[0].ClearField("input"),
    "no outputs": lambda model: model.graph.ClearField("output"),
    "one more input": lambda model: model.graph.input.add().CopyFrom(
        helper.make_tensor_value_info("more", TensorProto.FLOAT, [1])
    ),
    "numbers of another type": lambda model: setattr(
        model.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE
    ),
}


@pytest.mark.parametrize("change", GRAPHS.values(), ids=GRAPHS.keys())
def test_graphs_that_mislead_are_refused(
    change: Callable[[onnx.ModelProto], object], whole: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole / "deployed", tmp_path / "m"))
    replace_file(folder, MODEL, graph(change))
    for read in (runtime.load, runtime.verify, artifacts.load):
        with pytest.raises(ArtifactError, match=r"cannot load the graph|must be|cannot be used"):
            read(folder)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Callable[[], bool]]:
    """Asks the kernel whether anybody, also below Python, has opened a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    listener = libc.inotify_init1(os.O_NONBLOCK)
    opened = 0x20
    assert libc.inotify_add_watch(listener, os.fsencode(path), opened) > 0

    def was_opened() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(listener, 4096))
        return False

    try:
        yield was_opened
    finally:
        os.close(listener)


def keeping_weights_in(file: Path) -> Callable[[onnx.ModelProto], object]:
    """Writes the weights there, and names the place instead."""

    def change(model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
        file.write_bytes(numpy_helper.to_array(tensor).tobytes())
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=file.name)

    return change


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_graph_with_weights_in_another_file_is_refused_and_the_file_not_opened(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(whole / "deployed", tmp_path / "m"))
    content = graph(keeping_weights_in(folder / "weights.bin"))
    replace_file(folder, MODEL, content)
    monkeypatch.chdir(folder)  # where the library looks when it is given bytes
    with watched(folder / "weights.bin") as was_opened:
        for read in (runtime.load, runtime.verify, artifacts.load, artifacts.verify):
            with pytest.raises(ArtifactError, match=r"model\.onnx .*external data.*never followed"):
                read(folder)
        assert not was_opened()
        onnxruntime.InferenceSession(content)  # it alone would follow
        assert was_opened()


def zeros(**more: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Golden windows of the right shapes, and more of others."""
    shapes = {"context": (8, 29, 3), "forecast": (8, 7, 3), **more}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


GOLDENS: dict[str, bytes] = {
    "an archive": zipped(),
    "an empty tensor": header(b'{"context":{"dtype":"F32","shape":[0,29,3],"data_offsets":[0,0]}}'),
    "a tensor of many axes": header(
        b'{"context":{"dtype":"F32","shape":[' + b"1," * 99 + b'1],"data_offsets":[0,4]}}'
    ) + bytes(4),
    "an empty tensor of endless sides": header(
        b'{"context":{"dtype":"F32","shape":[0,' + b"9" * 300 + b'],"data_offsets":[0,0]}}'
    ),
    "a name that is no text": header(b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "the same tensor twice": header(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
    "numbers of another type": tensors_of(context=np.zeros((8, 29, 3)), forecast=np.zeros((8, 7, 3))),
    "forecasts of nothing": tensors_of(forecast=np.zeros((8, 7, 3), np.float32)),
    "quantiles of a model without": tensors_of(**zeros(quantiles=(8, 7, 3, 4))),
    "one number more": tensors_of(**zeros(), more=np.zeros(1)),
}  # fmt: skip


@pytest.mark.parametrize("content", GOLDENS.values(), ids=GOLDENS.keys())
def test_golden_windows_that_mislead_are_refused(content: bytes, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole / "deployed", tmp_path / "m"))
    replace_file(folder, GOLDEN, content)
    for read in (runtime.verify, artifacts.load):
        with pytest.raises(ArtifactError, match=r"golden\.safetensors|golden windows must"):
            read(folder)


QUANTILES: dict[str, tuple[np.ndarray, str]] = {
    "a level too few": (np.zeros((8, 7, 3, 3), np.float32), "golden windows must"),
    "levels before channels": (np.zeros((8, 7, 4, 3), np.float32), "golden windows must"),
    "of fewer windows": (np.zeros((7, 7, 3, 4), np.float32), "golden windows must"),
    "numbers of another type": (np.zeros((8, 7, 3, 4)), "golden windows must .* bytes of F64"),
    "not a number": (np.full((8, 7, 3, 4), np.nan, np.float32), "replayed golden forecasts .* got inf"),
    "of another model": (np.zeros((8, 7, 3, 4), np.float32), r"replayed golden forecasts .* quantile 0\.\d+"),
}


@pytest.mark.parametrize(("quantiles", "words"), QUANTILES.values(), ids=QUANTILES.keys())
def test_golden_quantiles_that_mislead_are_refused(quantiles: np.ndarray, words: str, tmp_path: Path) -> None:
    _, deployed = made("mlp")
    folder = save(deployed, tmp_path / "m")
    replace_file(folder, GOLDEN, tensors_of(**{**deployed.golden, "quantiles": quantiles}))
    with pytest.raises(ArtifactError, match=words):
        runtime.verify(folder)
    if "must" in words:
        with pytest.raises(ArtifactError, match=words):
            artifacts.load(folder)


def test_a_graph_that_cannot_be_run_is_one_clear_error(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole / "deployed", tmp_path / "m"))

    def misfit(model: onnx.ModelProto) -> None:
        """Reshape to a size that only shows when it runs."""
        (last,) = [node for node in model.graph.node if "forecast" in node.output]
        last.output[0] = "before"
        model.graph.initializer.append(helper.make_tensor("odd", TensorProto.INT64, [3], [-1, 1009, 3]))
        model.graph.node.append(helper.make_node("Reshape", ["before", "odd"], ["forecast"]))

    replace_file(folder, MODEL, graph(misfit))
    with pytest.raises(ArtifactError, match=r"cannot (run|load) the graph|outputs must be"):
        runtime.load(folder).predict(contexts(1))


def test_what_is_refused_leaves_nothing_behind(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole / "trainable", tmp_path / "m"))
    replace_file(folder, WEIGHTS, zipped())
    before = sorted(path for path in tmp_path.rglob("*"))
    for read in (artifacts.load, artifacts.verify, runtime.load):
        with contextlib.suppress(ArtifactError):
            read(folder)
            raise AssertionError("it was read")
    assert sorted(path for path in tmp_path.rglob("*")) == before
