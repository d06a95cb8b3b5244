"""What is no whole artifact is refused: a table of what may be wrong with a folder, and the words of each error."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.deployables import exported, forecaster
from tests.tampering import (
    GOLDEN,
    MODEL,
    NAME,
    PICKLE,
    WEIGHTS,
    Change,
    flip,
    header,
    replace_file,
    rewrite,
    tensors_of,
)
from tsdistill import manifest as manifests
from tsdistill import runtime
from tsdistill.artifacts import load, save, verify
from tsdistill.data.task import Signature
from tsdistill.errors import ArtifactError
from tsdistill.exporting import Deployed, export
from tsdistill.models import Forecaster, SeasonalNaiveConfig

ENTRY = {"sha256": "0" * 64, "size_bytes": 0}


@functools.cache
def wider() -> Deployed:
    signature = Signature(context=31, horizon=7, channels=("a", "b"), mean=(0.0, 1.0), scale=(1.0, 2.0))
    return export(SeasonalNaiveConfig(period=5).build(signature))


def in_turn(*changes: Change) -> Change:
    """Several changes as one."""

    def change(folder: Path) -> None:
        for step in changes:
            step(folder)

    return change


def lists(path: str) -> Change:
    """A manifest that lists this path as a file of the artifact."""
    return lambda f: rewrite(f, lambda v: v["files"].update({path: ENTRY}))


BOTH: dict[str, tuple[Change, str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "a file instead of a folder": (in_turn(shutil.rmtree, Path.touch), "must be an artifact folder"),
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
    "newer schema": (lambda f: rewrite(f, lambda v: v.update(schema_version=3)), "got schema_version=3"),
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
            lists(path),
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
        in_turn(
            lambda f: shutil.move(f / WEIGHTS, f.parent / "w"), lambda f: (f / WEIGHTS).symlink_to(f.parent / "w")
        ),
        "link to somewhere outside",
    ),
    "a folder for a file": (
        in_turn(lambda f: (f / WEIGHTS).unlink(), lambda f: (f / WEIGHTS).mkdir()), "not a regular file"
    ),
    "a pipe for a file": (
        in_turn(lambda f: (f / WEIGHTS).unlink(), lambda f: os.mkfifo(f / WEIGHTS)), "not a regular file"
    ),
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
        lambda f: replace_file(f, WEIGHTS, tensors_of(w=np.eye(2), **{"last.weight": np.zeros((2, 3), np.float32)})),
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
        lambda f: rewrite(f, lambda v: v["config"].update(width=10**6, hidden=[10**6])), "equal to 65536"
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
