"""Models as folders: what is saved comes back, an artifact is replaced whole, and a crash leaves no half of one."""

from __future__ import annotations

import math
import os
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
from tests.tampering import NAME, Change
from tsdistill import artifacts
from tsdistill import manifest as manifests
from tsdistill.artifacts import load, save, size_bytes, verify
from tsdistill.errors import ArtifactError, UnsupportedError
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster


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
    for artifact, plain in (("m", "plain"), ("m/manifest.json", "plain/file")):
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (artifact, plain)]
        assert modes[0] == modes[1]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    save(forecaster("linear"), tmp_path / "m", metrics={"mase": math.nan, "more": [math.inf, 1.5]})
    assert manifests.read(tmp_path / "m")[0].metrics == {"mase": None, "more": [None, 1.5]}


def test_only_forecasters_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="got a Linear"):
        save(torch.nn.Linear(2, 3), tmp_path / "m")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


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
            digest: str | None = load(place / "m").digest
        except ArtifactError:
            digest = None
        assert digest in ((old.digest, new.digest) if there else (None, new.digest))
        outcomes.append(digest)
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
        "from tests import deployables\nfrom tsdistill.artifacts import save\n"
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
                assert load(tmp_path / "m").digest in {saved.digest for saved in models}
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
