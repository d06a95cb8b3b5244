"""The history beside a checkpoint: whole lines, no epoch twice, and nothing of a clock in the lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tsdistill.data.task import Task
from tsdistill.errors import ArtifactError
from tsdistill.models import MLPConfig
from tsdistill.testing import toy_task
from tsdistill.training import Training, train
from tsdistill.training import checkpoint as state
from tsdistill.training.history import append, beside, cut, read

CONFIG = MLPConfig(width=5, depth=1)
QUICK = Training(epochs=3, batch_size=37, learning_rate=5e-3, precision="float32", patience=None)
CLOCK = {"examples_per_s", "seconds", "precision"}


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def test_every_epoch_leaves_a_line_that_equals_the_lineage_but_for_the_clock(task: Task, tmp_path: Path) -> None:
    model = train(CONFIG, task, QUICK, checkpoint=tmp_path / "run.safetensors")
    records = read(tmp_path / "run.safetensors.history.jsonl")
    kept = model.lineage[-1].metrics["history"]
    assert [{name: record[name] for name in record if name not in CLOCK} for record in records] == kept
    assert [record["step"] for record in records] == [7, 14, 21]
    assert all(record["examples_per_s"] > 0 and record["seconds"] > 0 for record in records)
    assert {record["precision"] for record in records} == {"float32"}
    assert kept[0]["learning_rate"] == pytest.approx(QUICK.rate(6, 21))
    assert not CLOCK & set(kept[0])


class StopError(Exception):
    """Stands for a kill between the history and the checkpoint."""


def test_a_resumed_run_repeats_no_line(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, n_writes = tmp_path / "run.safetensors", 0
    write = state.write

    def stops_before_the_second(*arguments: Any) -> None:
        nonlocal n_writes
        n_writes += 1
        if n_writes == 2:
            raise StopError
        write(*arguments)

    monkeypatch.setattr(state, "write", stops_before_the_second)
    with pytest.raises(StopError):
        train(CONFIG, task, QUICK, checkpoint=checkpoint)
    assert [record["epoch"] for record in read(beside(checkpoint))] == [1, 2]
    with open(beside(checkpoint), "a") as file:
        file.write('{"epoch": 3, "lo')
    assert [record["epoch"] for record in read(beside(checkpoint))] == [1, 2]
    train(CONFIG, task, QUICK, checkpoint=checkpoint)
    assert [record["epoch"] for record in read(beside(checkpoint))] == [1, 2, 3]
    train(CONFIG, task, QUICK, checkpoint=checkpoint)  # done already
    assert [record["epoch"] for record in read(beside(checkpoint))] == [1, 2, 3]


def test_a_new_run_begins_a_new_history(task: Task, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.safetensors"
    train(CONFIG, task, QUICK, checkpoint=checkpoint)
    checkpoint.unlink()
    train(CONFIG, task, QUICK.replace(epochs=2), checkpoint=checkpoint)
    assert [record["epoch"] for record in read(beside(checkpoint))] == [1, 2]


def test_cutting_keeps_whole_lines_of_finished_epochs(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    cut(path, 5)  # nothing there yet
    for epoch in (1, 2, 3):
        append(path, {"epoch": epoch})
    whole = path.read_bytes()
    cut(path, 3)
    assert path.read_bytes() == whole
    path.write_bytes(whole + b"no JSON\n[1]\n" + b'{"epoch": 2}')
    cut(path, 2)
    assert path.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["no JSON\n", "[1]\n", json.dumps({"loss": 1}) + "\n"])
def test_what_is_no_history_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(content)
    with pytest.raises(ArtifactError, match="is no history of a training run"):
        read(tmp_path / "history.jsonl")


def test_a_history_that_is_missing_or_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"Cannot read the history .*missing"):
        read(tmp_path / "missing")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="Cannot write the checkpoint's history"):
        append(tmp_path / "file" / "history.jsonl", {"epoch": 1})
