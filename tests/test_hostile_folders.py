"""Hugging Face folders, kept forecasts and studies that somebody made to hurt whoever reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tsdistill as td
from tests.tampering import header
from tsdistill.errors import ArtifactError, TsdistillError, UnsupportedError
from tsdistill.search.journals import open_journal
from tsdistill.teachers import from_huggingface
from tsdistill.teachers.mapped import mapped
from tsdistill.testing import toy_task

Change = Callable[[Path], object]

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="files as POSIX has them")


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra `huggingface` is not installed")
    torch.manual_seed(4)
    config = transformers.PatchTSTConfig(
        num_input_channels=3, context_length=43, prediction_length=11, patch_length=7, patch_stride=5, d_model=6,
        num_attention_heads=2, ffn_dim=13, num_hidden_layers=2,
    )  # fmt: skip
    transformers.PatchTSTForPrediction(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))

    return change


def text(content: str) -> Change:
    return lambda folder: (folder / "config.json").write_text(content)


def instead(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**35)


def not_a_number(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def leading_out(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"model.x": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


WEIGHTS = "model.safetensors"
ATTACKS: dict[str, tuple[Change, type[TsdistillError], str]] = {
    "10^6 layers": (config(num_hidden_layers=10**6), ArtifactError, "`num_hidden_layers` must be at most"),
    "a width of 10^9": (config(d_model=10**9), ArtifactError, "`d_model` must be at most"),
    "a feed-forward of 10^9": (config(ffn_dim=10**9), ArtifactError, "`ffn_dim` must be at most"),
    "patches of 10^9": (config(patch_length=10**9), ArtifactError, "`patch_length` must be at most"),
    "layers as text": (config(num_hidden_layers="2"), ArtifactError, "`num_hidden_layers` must be a number"),
    "an architecture that is a list": (config(architectures=[["x"]]), UnsupportedError, "must hold one of"),
    "architectures by name": (config(architectures={"a": 1}), UnsupportedError, "must hold one of"),
    "a quantized model": (config(quantization_config={"a": 1}), UnsupportedError, "quantized model or an adapter"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), UnsupportedError, "an adapter"),
    "a list": (text("[1]"), ArtifactError, "JSON object, got list"),
    "nested without end": (text("[" * 10**5), ArtifactError, "nested too deeply"),
    "a number of 5,000 digits": (text('{"a": ' + "9" * 5000 + "}"), ArtifactError, "5000 digits"),
    "a doubled key": (text('{"a": 1, "a": 2}'), ArtifactError, "'a' stands in it twice"),
    "a config that is a loop": (instead("config.json", lambda p: os.symlink(p.name, p)), ArtifactError, "config.json"),
    "a config that is a FIFO": (instead("config.json", os.mkfifo), ArtifactError, "config.json"),
    "a config of 32 GiB": (instead("config.json", sparse), ArtifactError, "config.json"),
    "weights that are a FIFO": (instead(WEIGHTS, os.mkfifo), ArtifactError, "not a regular file"),
    "weights that are a loop": (instead(WEIGHTS, lambda p: os.symlink(p.name, p)), ArtifactError, "symbolic links"),
    "weights of 32 GiB": (instead(WEIGHTS, sparse), ArtifactError, "Cannot load"),
    "weights with a list for a header": (
        instead(WEIGHTS, lambda p: p.write_bytes(header(b"[1]"))), ArtifactError, "JSON object, got list"
    ),
    "weights that are not numbers": (not_a_number, ArtifactError, "weights of .* are not finite"),
    "files from elsewhere": (leading_out, ArtifactError, "must name files of the folder"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "words"), ATTACKS.values(), ids=ATTACKS.keys())
def test_a_hostile_hugging_face_folder_is_one_clear_error(
    change: Change, kind: type[TsdistillError], words: str, folder: Path, task: td.Task
) -> None:
    change(folder)
    with pytest.raises(kind, match=words) as error:
        from_huggingface(folder, task)
    assert len(str(error.value)) < 5000


def written(folder: Path, name: str, values: np.ndarray) -> Path:
    np.save(folder / name, values)
    return folder / name


KEPT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "not a regular file"),
    "objects": (lambda path: np.save(path, np.array([{}] * 5), allow_pickle=True), "float16 or float32"),
    "numbers of another type": (lambda path: np.save(path, np.zeros((5, 3))), "float16 or float32"),
    "other windows": (lambda path: np.save(path, np.zeros((7, 3), np.float16)), "5 rows"),
    "text": (lambda path: path.write_bytes(b"not an array"), "magic string"),
    "nothing": (lambda path: path.write_bytes(b""), "EOF"),
    "less than its header says": (
        lambda path: path.write_bytes(written(path.parent, "w.npy", np.zeros((5, 3), np.float16)).read_bytes()[:-1]),
        "5 rows",
    ),
    "a header without end": (lambda path: path.write_bytes(b"\x93NUMPY\x01\0\xff\xff" + b"(" * 65535), "header"),
}


@pytest.mark.parametrize(("make", "words"), KEPT.values(), ids=KEPT.keys())
def test_kept_forecasts_of_another_kind_are_one_clear_error(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "kept.npy")
    with pytest.raises(ArtifactError, match=f"kept forecasts.*{words}|kept forecasts.*[Hh]eader"):
        mapped(tmp_path / "kept.npy", 5)


def test_kept_forecasts_are_mapped_and_never_written_to(tmp_path: Path) -> None:
    values = np.arange(15, dtype=np.float16).reshape(5, 3)
    array = mapped(written(tmp_path, "kept.npy", values), 5)
    np.testing.assert_array_equal(array, values)
    array[0, 0] = 7
    np.testing.assert_array_equal(np.load(tmp_path / "kept.npy"), values)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink(path.name, path)], ids=["a FIFO", "a loop"])
def test_a_study_is_not_looked_for_in_a_pipe(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "study.log")
    with pytest.raises(ArtifactError, match=r"study\.log"):
        open_journal(tmp_path / "study.log")


def test_a_study_of_holes_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    path.write_bytes((Path(__file__).parent / "older" / "study.log").read_bytes())
    os.truncate(path, 2**35)
    with pytest.raises(ArtifactError, match=r"study\.log ends with more than"):
        open_journal(path)
