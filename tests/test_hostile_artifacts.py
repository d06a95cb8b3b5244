"""Folders that somebody made to hurt whoever reads them: one clear error, soon, and without much memory."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tampering import GOLDEN, MODEL, NAME, WEIGHTS, header, replace_file, rewrite, tensors_of
from tsdistill import artifacts, runtime
from tsdistill import manifest as manifests
from tsdistill.errors import ArtifactError, DivergenceError
from tsdistill.exporting import export
from tsdistill.models import MLPConfig
from tsdistill.pruning import Pruning, prune
from tsdistill.quantization import Quantization, quantize
from tsdistill.report.history import read_history
from tsdistill.retrain.store import Store
from tsdistill.testing import toy_signature, toy_task
from tsdistill.training import checkpoint, history

OLDER = Path(__file__).parent / "older"
Change = Callable[[Path], object]

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="files as POSIX has them")


@pytest.fixture(autouse=True)
def _limited() -> Iterator[None]:
    """A read that takes a gigabyte more than there is fails in the test itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def field(name: str, value: Any) -> Change:
    return lambda folder: rewrite(folder, lambda values: values.__setitem__(name, value))


def inner(outer: str, name: str, value: Any) -> Change:
    return lambda folder: rewrite(folder, lambda values: values[outer].__setitem__(name, value))


def text(content: str) -> Change:
    return lambda folder: (folder / NAME).write_text(content)


def instead(name: str, make: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def sparse(path: Path, size: int = 2**35) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def listed_sparse(folder: Path) -> None:
    """A file of nothing but holes, with its size and some digest in the manifest."""
    os.truncate(folder / WEIGHTS, 2**31)
    entry = {"sha256": "0" * 64, "size_bytes": 2**31}
    rewrite(folder, lambda values: values["files"].__setitem__(WEIGHTS, entry))


def named_twice(folder: Path) -> None:
    content = (folder / NAME).read_text()
    (folder / NAME).write_text(content.replace("{", '{"kind": "forecaster", ', 1))


def many_files(folder: Path) -> None:
    entry = {"sha256": "0" * 64, "size_bytes": 1}
    rewrite(folder, lambda values: values["files"].update({f"file{place}": entry for place in range(10**5)}))


def linked(target: str) -> Callable[[Path], object]:
    return lambda path: os.symlink(target, path)


MANY = {f"field{place}": 1 for place in range(10**5)}
ANY: dict[str, tuple[Change, str]] = {
    "nested without end": (text("[" * 10**5), "nested too deeply"),
    "objects nested without end": (text('{"a":' * 10**5), "nested too deeply"),
    "a number of 5,000 digits": (text('{"schema_version": ' + "9" * 5000 + "}"), "5000 digits"),
    "a number beyond any float": (text('{"schema_version": 1e999}'), "no float can hold"),
    "NaN": (text('{"schema_version": NaN}'), "NaN"),
    "a doubled key": (named_twice, "'kind' stands in it twice"),
    "a list": (text("[1]"), "must hold a JSON object, got list"),
    "no UTF-8": (lambda folder: (folder / NAME).write_bytes(b'{"a": "\xff"}'), "UTF-8"),
    "10^5 files": (many_files, "at most 64 files, got 1000"),
    "10^5 unknown fields": (
        lambda f: rewrite(f, lambda values: values.update(MANY)),
        "at most 64 fields .*unknown field",
    ),
    "a name of a megabyte": (field("x" * 10**6, 1), "unknown field `xxx"),
    "a kind of a megabyte": (field("kind", "x" * 10**6), "`kind` must"),
    "a file of another type": (field("files", [1]), "`files` must be a JSON object"),
    "a digest of another type": (inner("files", "model.onnx", {"sha256": ["0" * 64], "size_bytes": 1}), "hold sha256"),
    "a size of another type": (inner("files", "model.onnx", {"sha256": "0" * 64, "size_bytes": "1"}), "hold sha256"),
    "a size beyond any file": (inner("files", "model.onnx", {"sha256": "0" * 64, "size_bytes": 2**60}), "hold sha256"),
    "a config of another type": (field("config", [1]), "`config` must be a JSON object"),
    "a lineage of another type": (field("lineage", {"a": 1}), "`lineage` must be a list"),
    "a context of years": (inner("signature", "context", 10**9), "`signature.context` must"),
    "a manifest that is a FIFO": (instead(NAME, os.mkfifo), "not a regular file"),
    "a manifest that is a loop": (instead(NAME, linked(NAME)), "symbolic links"),
    "a manifest that is a device": (instead(NAME, linked("/dev/zero")), "outside the folder"),
    "a manifest of 32 GiB": (instead(NAME, sparse), "more than the .* allowed"),
}
TRAINABLE: dict[str, tuple[Change, str]] = {
    "weights that are a FIFO": (instead(WEIGHTS, os.mkfifo), "not a regular file"),
    "weights that are a loop": (instead(WEIGHTS, linked(WEIGHTS)), "symbolic links"),
    "weights from elsewhere": (instead(WEIGHTS, linked("../elsewhere")), "outside the folder"),
    "weights of 32 GiB": (instead(WEIGHTS, sparse), "more than the .* allowed"),
    "weights of holes": (listed_sparse, "holes that were never written"),
    "a width of 10^9": (inner("config", "widths", [10**9]), "widths"),
    "10^6 layers": (inner("config", "widths", [1] * 10**6), "more than 1000000 values"),
    "10^5 layers": (inner("config", "widths", [1] * 10**5), "widths"),
    "a header of 10^18 bytes": (lambda f: replace_file(f, WEIGHTS, b"\xff" * 7 + b"\0" + b"{}"), "header claims"),
    "a header that is a list": (lambda f: replace_file(f, WEIGHTS, header(b"[1]")), "JSON object, got list"),
    "metadata that is a list": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"__metadata__": [1]}')), "__metadata__"
    ),
    "a type that is a list": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"a":{"dtype":["F32"],"shape":[],"data_offsets":[0,4]}}')), "type"
    ),
    "a tensor of 10^18 numbers": (
        lambda f: replace_file(f, WEIGHTS, header(b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,4]}}' % 10**18)),
        "does not fit",
    ),
}  # fmt: skip
DEPLOYED: dict[str, tuple[Change, str]] = {
    "a graph that is a FIFO": (instead(MODEL, os.mkfifo), "not a regular file"),
    "golden windows that are a loop": (instead(GOLDEN, linked(GOLDEN)), "symbolic links"),
    "a precision of another type": (inner("deployment", "precision", ["fp32"]), "precision` must"),
    "operators of another type": (inner("deployment", "float_operators", [1]), "float_operators` must"),
    "a parity of another type": (inner("deployment", "parity", "none"), "parity` must"),
}
CASES = [
    *(("student", name, *case) for name, case in ANY.items()),
    *(("deployed", name, *case) for name, case in ANY.items() if not name.startswith("10^")),
    *(("student", name, *case) for name, case in TRAINABLE.items()),
    *(("deployed", name, *case) for name, case in DEPLOYED.items()),
]


@pytest.mark.parametrize(("kind", "name", "change", "words"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_a_hostile_folder_is_one_clear_error(kind: str, name: str, change: Change, words: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"secret")
    folder = Path(shutil.copytree(OLDER / kind, tmp_path / "m"))
    change(folder)
    readers: list[Callable[[Path], object]] = [artifacts.load, artifacts.verify]
    if kind == "deployed" and "golden" not in name:
        readers.append(runtime.load)
    if name.startswith("10^"):
        del readers[1:]
    for reader in readers:
        with pytest.raises(ArtifactError, match=f"(?s){words}") as error:
            reader(folder)
        assert len(str(error.value)) < 50_000
        assert "secret" not in str(error.value)


def test_a_folder_that_is_no_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.symlink("loop", tmp_path / "loop")
    for name in ("pipe", "loop", "missing", "pipe/inner"):
        for reader in (artifacts.load, artifacts.verify, runtime.load, runtime.verify):
            with pytest.raises(ArtifactError, match="no such folder"):
                reader(tmp_path / name)


def test_a_link_to_a_file_of_the_same_folder_is_read(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLDER / "student", tmp_path / "m"))
    (folder / WEIGHTS).rename(folder / "blob")
    os.symlink("blob", folder / WEIGHTS)
    assert artifacts.verify(folder)["unlisted"] == ["blob"]


def with_weight(value: float, name: str) -> Change:
    """The weights with one of them replaced, and listed as they are."""

    def change(folder: Path) -> None:
        from safetensors.numpy import load

        arrays = {key: array.copy() for key, array in load((folder / WEIGHTS).read_bytes()).items()}
        arrays[name].reshape(-1)[0] = value
        replace_file(folder, WEIGHTS, tensors_of(**arrays))

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named_when_they_are_read(value: float, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLDER / "student", tmp_path / "m"))
    with_weight(value, "embed.bias")(folder)
    for reader in (artifacts.load, artifacts.verify):
        with pytest.raises(ArtifactError, match=r"weights of `embed` are not finite.*1 numbers of `embed\.bias`"):
            reader(folder)


def test_weights_that_are_not_finite_are_named_by_every_verb() -> None:
    model = MLPConfig(width=5, depth=1).build(toy_signature())
    with torch.no_grad():
        model.get_parameter("embed.weight")[0, 0] = float("nan")
    verbs: dict[str, Callable[[], object]] = {
        "export": lambda: export(model),
        "prune": lambda: prune(model, toy_task(), Pruning(ratio=0.5, recovery=None)),
        "quantize": lambda: quantize(model, toy_task(), Quantization(method="dynamic")),
    }
    for verb, call in verbs.items():
        with pytest.raises(DivergenceError, match=rf"`{verb}` must .*weights of `embed` are not finite.*embed\.weight"):
            call()


FILES: dict[str, Callable[[Path], object]] = {
    "a history": history.read,
    "a checkpoint": checkpoint.read_progress,
    "a run's history": read_history,
}
KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a loop": lambda path: os.symlink(path.name, path),
    "a folder": Path.mkdir,
    "32 GiB of holes": sparse,
    "nested without end": lambda path: path.write_bytes(b"[" * 10**5 + b"\n"),
    "a header nested without end": lambda path: path.write_bytes(header(b'{"a":' * 10**5) + b"\n"),
    "a list": lambda path: path.write_bytes(b"[1]\n"),
    "a number of 5,000 digits": lambda path: path.write_bytes(b'{"epoch": ' + b"9" * 5000 + b"}\n"),
    "a doubled key": lambda path: path.write_bytes(b'{"epoch": 1, "epoch": 2}\n'),
    "a note that is a list": lambda path: path.write_bytes(header(b'{"__metadata__": {"progress": "[1]"}}') + b"\n"),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("read", FILES.values(), ids=FILES.keys())
def test_files_of_a_run_are_read_with_the_same_care(
    read: Callable[[Path], object], make: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / ("run.jsonl" if read is not checkpoint.read_progress else "run.safetensors")
    make(path)
    with pytest.raises(ArtifactError, match=r"run\.|no history|manifest\.json"):
        read(path)


STORES: dict[str, Change] = {
    "a history that is a FIFO": lambda store: os.mkfifo(store / "history.jsonl"),
    "a history that is a loop": lambda store: os.symlink("history.jsonl", store / "history.jsonl"),
    "a history of 32 GiB": lambda store: sparse(store / "history.jsonl"),
    "a history of lists": lambda store: (store / "history.jsonl").write_text("[1]\n"),
    "a history nested without end": lambda store: (store / "history.jsonl").write_text("[" * 10**5 + "\n"),
    "a history with a doubled key": lambda store: (store / "history.jsonl").write_text('{"time": "", "time": ""}\n'),
}


@pytest.mark.parametrize("change", STORES.values(), ids=STORES.keys())
def test_a_store_is_read_with_the_same_care(change: Change, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    change(store.folder)
    with pytest.raises(ArtifactError, match=r"history\.jsonl"):
        store.history()


def test_links_of_a_store_are_links(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    (store.folder / ".live").mkdir()
    (store.folder / ".live" / "current").mkdir()
    with pytest.raises(ArtifactError, match="must be a link"):
        store.served()


def test_a_target_that_holds_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    os.mkfifo(tmp_path / "m" / manifests.NAME)
    with pytest.raises(ArtifactError, match="holds other things"):
        artifacts.save(MLPConfig(width=5).build(toy_signature()), tmp_path / "m")
