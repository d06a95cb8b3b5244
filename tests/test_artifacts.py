"""Models as folders: what is saved comes back, what was tampered with does not, and a crash leaves no half of one."""

from __future__ import annotations

import functools
import json
import math
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import deployables
from tests.deployables import KINDS, contexts, exported, forecaster, fresh, int8
from tsdistill import artifacts, runtime
from tsdistill import manifest as manifests
from tsdistill.artifacts import load, save, size_bytes, verify
from tsdistill.errors import ArtifactError, UnsupportedError
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster

Change = Callable[[Path], object]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trainable_forecaster_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    model = forecaster(kind)
    again = load(save(model, tmp_path / "deep" / "m"))
    assert isinstance(again, Forecaster)
    assert (again.digest, again.config, again.signature) == (model.digest, model.config, model.signature)
    assert again.lineage == model.lineage
    assert not again.training
    np.testing.assert_array_equal(again.predict(contexts()), model.predict(contexts()))
    assert verify(tmp_path / "deep" / "m") == {"kind": "forecaster", "n_files": 2, "unlisted": []}


@pytest.mark.parametrize("model", [exported("mlp"), int8("lstm")], ids=["fp32", "int8"])
def test_a_deployed_forecaster_comes_back_as_it_was(model: Deployed, tmp_path: Path) -> None:
    again = load(save(model, tmp_path / "m"))
    assert isinstance(again, Deployed)
    assert (again.digest, again.lineage, again.n_parameters) == (model.digest, model.lineage, model.n_parameters)
    assert (again.parity, again.files, again.isolate) == (model.parity, model.files, model.isolate)
    np.testing.assert_array_equal(again.predict(contexts()), model.predict(contexts()))
    assert verify(tmp_path / "m")["max_difference"] <= 1e-6


@pytest.mark.parametrize("kind", ["lstm", "seasonal-naive"])
def test_size_is_what_lies_on_the_disk(kind: str, tmp_path: Path) -> None:
    save(forecaster(kind), tmp_path / "trainable")
    save(exported(kind), tmp_path / "deployed")
    sizes = {path: path.stat().st_size for path in tmp_path.glob("*/*")}
    assert size_bytes(forecaster(kind)) == sum(size for path, size in sizes.items() if "trainable" in path.parts)
    needed = [size for path, size in sizes.items() if "deployed" in path.parts and path.name != manifests.GOLDEN]
    assert size_bytes(exported(kind)) == exported(kind).size_bytes == sum(needed)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(exported("linear"), tmp_path / name, metrics={"mse": 0.5})
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert manifests.read(tmp_path / "one")[0].metrics == {"mse": 0.5}


def test_permissions_are_those_of_ordinary_files(tmp_path: Path) -> None:
    save(forecaster("linear"), tmp_path / "m")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    for ours, plain in (("m", "plain"), ("m/manifest.json", "plain/file")):
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (ours, plain)]
        assert modes[0] == modes[1]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    save(forecaster("linear"), tmp_path / "m", metrics={"mase": math.nan, "more": [math.inf, 1.5]})
    assert manifests.read(tmp_path / "m")[0].metrics == {"mase": None, "more": [None, 1.5]}


def test_only_forecasters_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="got a Linear"):
        save(torch.nn.Linear(2, 3), tmp_path / "m")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- what is not an artifact


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], *, sign: bool = True) -> None:
    """Change the manifest as somebody would who knows how it is signed."""
    path = folder / manifests.NAME
    values = json.loads(path.read_text())
    values.pop("sha256")
    change(values)
    if sign:
        values["sha256"] = manifests._digest(values)
    path.write_text(json.dumps(values))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Change a file and list its new digest, so that only its content can give it away."""
    (folder / name).write_bytes(content)
    entry = manifests.entry(content)._asdict()
    rewrite(folder, lambda values: values["files"].__setitem__(name, entry))


def flip(folder: Path, name: str, position: int = -1) -> None:
    content = bytearray((folder / name).read_bytes())
    content[position] ^= 1
    (folder / name).write_bytes(content)


def tensors_of(**arrays: np.ndarray) -> bytes:
    from safetensors.numpy import save as pack

    return bytes(pack({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def header(content: bytes) -> bytes:
    return len(content).to_bytes(8, "little") + content


class Exploding:
    """A pickle that leaves a trace when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("/tmp/tsdistill-pickle-was-executed",))


WEIGHTS, MODEL, GOLDEN, NAME = manifests.WEIGHTS, manifests.MODEL, manifests.GOLDEN, manifests.NAME
PICKLE = pickle.dumps(Exploding())
ENTRY = {"sha256": "0" * 64, "size_bytes": 0}

BOTH: dict[str, tuple[Change, str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "a file instead of a folder": (lambda f: (shutil.rmtree(f), f.touch()), "must be an artifact folder"),
    "no manifest": (lambda f: (f / NAME).unlink(), "manifest.json cannot be read"),
    "empty manifest": (lambda f: (f / NAME).write_bytes(b""), "manifest.json cannot be read"),
    "manifest is a list": (lambda f: (f / NAME).write_bytes(b"[]"), "must hold a JSON object, got list"),
    "manifest is no text": (lambda f: (f / NAME).write_bytes(b"\xff\xfe{}"), "manifest.json cannot be read"),
    "manifest is a pickle": (lambda f: (f / NAME).write_bytes(PICKLE), "manifest.json cannot be read"),
    "manifest nested deeply": (lambda f: (f / NAME).write_bytes(b'{"a":' * 99999), "nested too deeply|cannot be read"),
    "manifest with NaN": (lambda f: (f / NAME).write_bytes(b'{"a": NaN}'), "NaN, which is not JSON"),
    "manifest with doubled keys": (lambda f: (f / NAME).write_bytes(b'{"a": 1, "a": 2}'), "stands in it twice"),
    "manifest is huge": (lambda f: os.truncate(f / NAME, manifests.MAX_BYTES + 1), "more than the 16777216 allowed"),
    "manifest truncated": (lambda f: os.truncate(f / NAME, 100), "manifest.json cannot be read"),
    "manifest changed": (
        lambda f: rewrite(f, lambda v: v["signature"].update(mean=[0.0, 0.0, 0.0]), sign=False),
        "does not match its own digest",
    ),
    "newer schema": (lambda f: rewrite(f, lambda v: v.update(schema_version=2)), "at most 1, got schema_version=2"),
    "no schema": (lambda f: rewrite(f, lambda v: v.pop("schema_version")), "`schema_version` must be a whole number"),
    "schema is true": (lambda f: rewrite(f, lambda v: v.update(schema_version=True)), "got schema_version=True"),
    "unknown field": (lambda f: rewrite(f, lambda v: v.update(lineages=[])), "`lineages`. Did you mean `lineage`"),
    "unknown kind": (lambda f: rewrite(f, lambda v: v.update(kind="pickle")), "`kind` must be one of forecaster, dep"),
    "config is text": (lambda f: rewrite(f, lambda v: v.update(config="mlp")), "`config` must be a JSON object"),
    "lineage of numbers": (lambda f: rewrite(f, lambda v: v.update(lineage=[1])), "`lineage` must be a list of JSON"),
    "no files": (lambda f: rewrite(f, lambda v: v.update(files={})), "must list the file"),
    "context of zero": (lambda f: rewrite(f, lambda v: v["signature"].update(context=0)), "signature.context` must be"),
    "scale of zero": (lambda f: rewrite(f, lambda v: v["signature"].update(scale=[1, 0, 1])), "finite number above 0"),
    "too few means": (lambda f: rewrite(f, lambda v: v["signature"].update(mean=[1])), "finite number per channel"),
    "a channel twice": (
        lambda f: rewrite(f, lambda v: v["signature"].update(channels=["a", "a", "b"])), "list of distinct names"
    ),
    "a file that is not there": (
        lambda f: rewrite(f, lambda v: v["files"].update({"more.bin": ENTRY})), "more.bin cannot be read"
    ),
    "a digest that is none": (
        lambda f: rewrite(f, lambda v: v["files"].update({"more.bin": {"sha256": "x", "size_bytes": 0}})),
        "`files.more.bin` must hold sha256 and size_bytes",
    ),
    "a negative size": (
        lambda f: rewrite(f, lambda v: v["files"].update({"more.bin": {**ENTRY, "size_bytes": -1}})),
        "`files.more.bin` must hold",
    ),
    **{
        f"a path: {path!r}": (
            lambda f, path=path: rewrite(f, lambda v: v["files"].update({path: ENTRY})),
            "plain names inside the folder",
        )
        for path in ("../secret", "/etc/passwd", "sub/file", "..", ".", "", "a\\b", "a\0b", NAME, "C:file")
    },
}  # fmt: skip

TRAINABLE: dict[str, tuple[Change, str]] = {
    "weights gone": (lambda f: (f / WEIGHTS).unlink(), "weights.safetensors cannot be read"),
    "a byte flipped": (lambda f: flip(f, WEIGHTS), "must have the digest"),
    "truncated": (lambda f: os.truncate(f / WEIGHTS, 50), "must have the digest .* got .* and 50 bytes"),
    "longer than listed": (lambda f: os.truncate(f / WEIGHTS, 10**6), "has 1000000 bytes, more than the"),
    "a link outside": (
        lambda f: (shutil.move(f / WEIGHTS, f.parent / "w"), (f / WEIGHTS).symlink_to(f.parent / "w")),
        "link to somewhere outside",
    ),
    "a folder for a file": (lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), "not a regular file"),
    "a pipe for a file": (lambda f: ((f / WEIGHTS).unlink(), os.mkfifo(f / WEIGHTS)), "not a regular file"),
    "weights are a pickle": (lambda f: replace_file(f, WEIGHTS, PICKLE), "its header claims"),
    "weights are nothing": (lambda f: replace_file(f, WEIGHTS, b""), "too short to be a safetensors file"),
    "a header of exabytes": (lambda f: replace_file(f, WEIGHTS, b"\xff" * 64), "header claims 18446744073709551615"),
    "a header of no JSON": (lambda f: replace_file(f, WEIGHTS, header(b"{" * 9)), "weights.safetensors cannot be used"),
    "a tensor beyond the end": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}')),
        "'w' does not fit its place",
    ),
    "a tensor of objects": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"w":{"dtype":"O","shape":[0],"data_offsets":[0,0]}}')),
        "'w' has no known type",
    ),
    "a tensor of negative size": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"w":{"dtype":"U8","shape":[-1,-1],"data_offsets":[0,1]}}') + b"1"),
        "no sound shape and offsets",
    ),
    "bytes between tensors": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}') + b"12"),
        "overlap or leave holes",
    ),
    "bytes after the tensors": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}') + b"12"),
        "1 bytes follow its last tensor",
    ),
    "other tensors": (
        lambda f: replace_file(f, WEIGHTS, tensors_of(**{"last.weight": np.zeros((2, 3), np.float32), "w": np.eye(2)})),
        r"\d+ problems in the weights[\s\S]*'embed.bias' is missing[\s\S]*"
        r"'last.weight' must be torch.float32 of shape \(7, 5\), got torch.float32 of shape \(2, 3\)[\s\S]*"
        r"'w' is not the model's",
    ),
    "an unknown architecture": (
        lambda f: rewrite(f, lambda v: v["config"].update(kind="mpl")), "another version .*Did you mean `mlp`"
    ),
    "a config with more fields": (
        lambda f: rewrite(f, lambda v: v["config"].update(widht=5)), "another version .*Did you mean `width`"
    ),
    "a config of terabytes": (
        lambda f: rewrite(f, lambda v: v["config"].update(width=10**6, hidden=[10**6])), "problems in the weights"
    ),
    "called deployed": (lambda f: rewrite(f, lambda v: v.update(kind="deployed")), "`deployment` must be a JSON"),
    "lineage of another version": (
        lambda f: rewrite(f, lambda v: v["lineage"][0].update(schema_version=9)), "another version of tsdistill"
    ),
}  # fmt: skip

DEPLOYED: dict[str, tuple[Change, str]] = {
    "graph gone": (lambda f: (f / MODEL).unlink(), "model.onnx cannot be read"),
    "a byte of the graph flipped": (lambda f: flip(f, MODEL, 1000), "model.onnx must have the digest"),
    "a byte of the golden windows flipped": (lambda f: flip(f, GOLDEN), "golden.safetensors must have the digest"),
    "graph is a pickle": (lambda f: replace_file(f, MODEL, PICKLE), "it is not an ONNX model|it is cut short"),
    "graph is empty": (lambda f: replace_file(f, MODEL, b""), "holds no graph"),
    "graph cut short": (
        lambda f: replace_file(f, MODEL, (f / MODEL).read_bytes()[:-40]), "cut short|onnxruntime .* cannot load"
    ),
    "graph is text": (lambda f: replace_file(f, MODEL, b"import os; os.system('ls')"), "not an ONNX model|cut short"),
    "graph of another model": (
        lambda f: replace_file(f, MODEL, wider().onnx), r"inputs must be 'context' \(batch, 29, 3\), float32"
    ),
    "golden windows of other steps": (
        lambda f: replace_file(f, GOLDEN, wider().files[GOLDEN]), "golden windows must have the float32 shapes"
    ),
    "no golden windows": (lambda f: replace_file(f, GOLDEN, header(b"{}")), "golden windows must have"),
    "called a forecaster": (
        lambda f: rewrite(f, lambda v: v.update(kind="forecaster")), "a deployment, but its kind is 'forecaster'"
    ),
    "unknown precision": (
        lambda f: rewrite(f, lambda v: v["deployment"].update(precision="int2")), "`deployment.precision` must be one"
    ),
    "a deployment without a field": (
        lambda f: rewrite(f, lambda v: v["deployment"].pop("isolate")), "`deployment.isolate` must be a bool"
    ),
    "an unknown field of the deployment": (
        lambda f: rewrite(f, lambda v: v["deployment"].update(isolated=True)), "Did you mean `isolate`"
    ),
}  # fmt: skip


@functools.cache
def wider() -> Deployed:
    from tsdistill.data.task import Signature
    from tsdistill.exporting import export
    from tsdistill.models import SeasonalNaiveConfig

    signature = Signature(context=31, horizon=7, channels=("a", "b"), mean=(0.0, 1.0), scale=(1.0, 2.0))
    return export(SeasonalNaiveConfig(period=5).build(signature))


def check_refused(model: Forecaster | Deployed, change: Change, words: str, place: Path) -> None:
    folder = save(model, place / "m")
    change(folder)
    readers: list[Callable[[Path], object]] = [load, verify]
    if isinstance(model, Deployed) and "golden" not in words:
        readers.append(runtime.load)
    for reader in readers:
        with pytest.raises(ArtifactError, match=words):
            reader(folder)
    assert not Path("/tmp/tsdistill-pickle-was-executed").exists()


@pytest.mark.parametrize(("change", "words"), BOTH.values(), ids=BOTH.keys())
def test_what_is_wrong_with_any_artifact(change: Change, words: str, tmp_path: Path) -> None:
    check_refused(forecaster("mlp"), change, words, tmp_path)
    check_refused(exported("mlp"), change, words, tmp_path / "deployed")


@pytest.mark.parametrize(("change", "words"), TRAINABLE.values(), ids=TRAINABLE.keys())
def test_what_is_wrong_with_a_trainable_artifact(change: Change, words: str, tmp_path: Path) -> None:
    check_refused(forecaster("mlp"), change, words, tmp_path)


@pytest.mark.parametrize(("change", "words"), DEPLOYED.values(), ids=DEPLOYED.keys())
def test_what_is_wrong_with_a_deployed_artifact(change: Change, words: str, tmp_path: Path) -> None:
    check_refused(exported("mlp"), change, words, tmp_path)


def test_every_problem_of_an_artifact_comes_in_one_error(tmp_path: Path) -> None:
    folder = save(exported("mlp"), tmp_path / "m")
    flip(folder, MODEL)
    (folder / GOLDEN).unlink()
    with pytest.raises(ArtifactError, match=r"2 problems in artifact [\s\S]*golden.safetensors[\s\S]*model.onnx"):
        load(folder)


def test_forecasts_that_differ_on_this_machine_are_found(tmp_path: Path) -> None:
    folder = save(exported("mlp"), tmp_path / "m")
    golden = dict(exported("mlp").golden)
    golden["forecast"] = golden["forecast"] + np.array([0, 0.1, 0], dtype=np.float32)
    replace_file(folder, GOLDEN, tensors_of(**golden))
    with pytest.raises(ArtifactError, match=r"within 1.0e-04 standard deviations .* got \S+ at window \d+.*'pressure'"):
        verify(folder)
    golden["forecast"] = golden["forecast"] * np.float32(np.nan)
    replace_file(folder, GOLDEN, tensors_of(**golden))
    with pytest.raises(ArtifactError, match="got inf"):
        verify(folder)


def test_strangers_in_the_folder_are_not_read_and_are_named(tmp_path: Path) -> None:
    folder = save(exported("linear"), tmp_path / "m")
    (folder / "stranger.pkl").write_bytes(PICKLE)
    assert verify(folder)["unlisted"] == ["stranger.pkl"]
    assert not Path("/tmp/tsdistill-pickle-was-executed").exists()


# ---------------------------------------------------------------------------------------------------------- replacing


def other() -> Forecaster:
    return fresh("linear", seed=1)


def test_an_artifact_is_replaced_by_any_other(tmp_path: Path) -> None:
    for model in (forecaster("linear"), exported("mlp"), other()):
        save(model, tmp_path / "m")
        assert load(tmp_path / "m").digest == model.digest
        assert os.listdir(tmp_path) == ["m"]


def test_a_link_to_an_artifact_keeps_pointing_to_it(tmp_path: Path) -> None:
    save(forecaster("linear"), tmp_path / "real")
    (tmp_path / "current").symlink_to("real")
    save(other(), tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    assert load(tmp_path / "real").digest == other().digest


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda f: f.touch(), "is a file"),
        (lambda f: (f.mkdir(), (f / "thesis.tex").touch()), r"holds other things: thesis.tex\. Choose another"),
        (lambda f: (f.mkdir(), (f / NAME).write_text('{"name": "a web app"}')), "other things: manifest.json"),
        (lambda f: (save(forecaster("linear"), f), (f / "notes.txt").touch()), "other things: notes.txt"),
    ],
)
def test_what_is_no_artifact_is_never_replaced(fill: Change, words: str, tmp_path: Path) -> None:
    fill(tmp_path / "m")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArtifactError, match=words):
        save(other(), tmp_path / "m")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert load(save(other(), tmp_path / "m")).digest == other().digest


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"cannot save to .*file"):
        save(other(), tmp_path / "file" / "m")


class Killed(BaseException):
    """Stands for a process that ends here and now."""


def crash_at(monkeypatch: pytest.MonkeyPatch, moment: int, *, exchange: bool) -> list[str]:
    """Let the save end at the given one of its steps on the file system; returns the steps as they are taken."""
    steps: list[str] = []
    real_exchange = artifacts._exchange

    def stopping(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if len(steps) == moment:
                raise Killed(name)
            steps.append(name)
            return function(*args, **options)

        return step

    for module, name in ((os, "rename"), (os, "fsync"), (Path, "mkdir"), (artifacts, "write_new"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, stopping(name, getattr(module, name)))
    swap = real_exchange if exchange else lambda one, other: False
    monkeypatch.setattr(artifacts, "_exchange", stopping("_exchange", swap))
    return steps


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("there", [True, False], ids=["replacing", "new"])
def test_a_crash_at_any_moment_leaves_the_old_or_the_new(there: bool, exchange: bool, tmp_path: Path) -> None:
    old, new = forecaster("linear"), other()
    outcomes = []
    for moment in range(99):
        place = tmp_path / str(moment)
        place.mkdir()
        if there:
            save(old, place / "m")
        with pytest.MonkeyPatch.context() as patch:
            steps = crash_at(patch, moment, exchange=exchange)
            try:
                save(new, place / "m")
                finished = True
            except Killed:
                finished = False
            assert len(steps) == moment or finished
        try:
            found: str | None = load(place / "m").digest
        except ArtifactError:
            found = None
        assert found in ((old.digest, new.digest) if there else (None, new.digest))
        outcomes.append(found)
        save(old, place / "m")
        assert load(place / "m").digest == old.digest
        assert [name for name in os.listdir(place) if name != "m"] == []
        if finished:
            break
    assert outcomes[-1] == new.digest
    assert {old.digest if there else None, new.digest} == set(outcomes)


@pytest.mark.parametrize("rounds", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_kill_minus_nine_leaves_an_artifact_that_loads(rounds: int, tmp_path: Path) -> None:
    digests = {forecaster("linear").digest, other().digest}
    save(other(), tmp_path / "m")
    code = (
        "import deployables\nfrom tsdistill.artifacts import save\n"
        "models = [deployables.forecaster('linear'), deployables.fresh('linear', seed=1)]\nprint('go', flush=True)\n"
        f"while True:\n    for model in models:\n        save(model, {str(tmp_path / 'm')!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for number in range(rounds):
        saver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
        assert saver.stdout is not None
        try:
            assert saver.stdout.readline() == b"go\n"
            until, n_reads = time.monotonic() + 0.3 + 0.037 * number, 0
            while time.monotonic() < until:
                assert load(tmp_path / "m").digest in digests
                n_reads += 1
        finally:
            saver.send_signal(signal.SIGKILL)
            saver.wait()
            saver.stdout.close()
        assert n_reads > 3
        assert load(tmp_path / "m").digest in digests
        save(other(), tmp_path / "m")
        assert os.listdir(tmp_path) == ["m"]


def test_two_savers_do_not_disturb_each_other(tmp_path: Path) -> None:
    models = [forecaster("linear"), other()]
    problems: list[BaseException] = []

    def work(model: Forecaster) -> None:
        try:
            for _ in range(15):
                save(model, tmp_path / "m")
                assert load(tmp_path / "m").digest in {each.digest for each in models}
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert os.listdir(tmp_path) == ["m"]


def test_folders_of_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in (".m2.new-0123abcd", ".x.new-0123abcd", "m.new-0123abcd"):
        (tmp_path / name).mkdir()
    (tmp_path / ".m.new-0123abcd").mkdir()
    save(other(), tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == [".m2.new-0123abcd", ".x.new-0123abcd", "m", "m.new-0123abcd"]


def test_deployables_are_distinct() -> None:
    assert len({deployables.exported(kind).digest for kind in KINDS}) == len(KINDS)
