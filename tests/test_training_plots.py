"""A training run as a table and as a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tsdistill.artifacts import save
from tsdistill.cli import app
from tsdistill.errors import ArtifactError, ConfigError
from tsdistill.models import Forecaster, LinearConfig, MLPConfig
from tsdistill.report import plot_history, read_history
from tsdistill.report.history import best, headline, table
from tsdistill.testing import toy_task
from tsdistill.training import Training, train

TRAINING = Training(epochs=3, batch_size=37, precision="float32", patience=None)
MADE_UP = [
    {"epoch": 1, "loss_pull": 0.7, "validation_mse": 0.3, "validation_error": 0.6, "step": 1001, "learning_rate": 1e-3},
    {"epoch": 2, "loss_pull": 0.5, "validation_mse": 0.4, "validation_error": 0.5, "step": 2002, "learning_rate": 5e-4},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plots")


@pytest.fixture(scope="module")
def model(folder: Path) -> Forecaster:
    """A trained model, saved, with its checkpoint and history beside it."""
    model = train(MLPConfig(width=5, depth=1), toy_task(), TRAINING, checkpoint=folder / "run.safetensors")
    save(model, folder / "model")
    return model


def without_clock(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clock = {"examples_per_s", "seconds", "precision"}
    return [{name: record[name] for name in record if name not in clock} for record in records]


def test_a_history_is_found_from_a_file_a_checkpoint_and_a_model(folder: Path, model: Forecaster) -> None:
    (folder / "alone.safetensors").write_bytes((folder / "run.safetensors").read_bytes())
    for name, title in (
        ("run.safetensors.history.jsonl", "run.safetensors"),
        ("run.safetensors", "run.safetensors"),
        ("alone.safetensors", "alone.safetensors"),
        ("model", "model: train"),
    ):
        shown, records = read_history(folder / name)
        assert shown == title
        assert without_clock(records) == model.lineage[-1].metrics["history"]


def test_a_page_is_whole_and_needs_no_network(folder: Path, model: Forecaster) -> None:
    path = plot_history(folder / "run.safetensors", folder / "new" / "run.html", title="<b>mine</b>")
    page = path.read_text()
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert "default-src 'none'" in page
    assert "<b>mine</b>" not in page
    match = re.search(r'id="history-data">(.*?)</script>', page)
    assert match
    assert json.loads(match[1]) == read_history(folder / "run.safetensors")[1]
    assert 'id="speed"' in page
    assert 'id="speed"' not in plot_history(model.lineage[-1].metrics["history"], folder / "kept.html").read_text()


def test_a_heads_own_error_decides_what_was_kept() -> None:
    assert best(MADE_UP) == 1
    assert best([{"epoch": 1, "validation_mse": 0.3}, {"epoch": 2, "validation_mse": 0.4}]) == 0
    assert headline(MADE_UP) == "2 epochs, 2,002 steps; best in epoch 2 with a validation error of 0.5000"


def test_a_table_shows_what_is_known() -> None:
    cells = table([*MADE_UP, {"epoch": 3, "validation_mse": 0.2}])
    assert list(cells) == ["epoch", "steps", "loss pull", "validation MSE", "validation error", "learning rate"]
    assert cells["steps"] == ["1,001", "2,002", "-"]
    assert cells["learning rate"] == ["0.001", "0.0005", "-"]


def test_the_shell_prints_and_plots(folder: Path, model: Forecaster) -> None:
    done = CliRunner().invoke(app, ["history", str(folder / "model"), "--html", str(folder / "shell.html")])
    assert done.exit_code == 0, done.output
    assert "model: train: 3 epochs, 21 steps" in done.output
    assert [line.split()[-5] for line in done.output.splitlines() if re.match(r" [* ]  \d", line)] == ["1", "2", "3"]
    assert (folder / "shell.html").exists()
    printed = json.loads(CliRunner().invoke(app, ["history", str(folder / "model"), "--json"]).output)
    assert printed["history"] == model.lineage[-1].metrics["history"]
    assert printed["best_epoch"] == model.lineage[-1].metrics["best_epoch"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("missing.jsonl", ArtifactError, "Cannot read the history"),
        ("missing.safetensors", ArtifactError, "There is no checkpoint"),
        ("solved", ArtifactError, "was not trained by steps"),
        ("empty.jsonl", ConfigError, "must hold at least one epoch"),
    ],
)
def test_no_history_is_one_clear_error(folder: Path, name: str, error: type[Exception], words: str) -> None:
    if not (folder / "solved").exists():
        save(train(LinearConfig(), toy_task()), folder / "solved")
        (folder / "empty.jsonl").write_text("")
    with pytest.raises(error, match=words):
        plot_history(folder / name, folder / "page.html")


def test_a_page_that_cannot_be_written_is_one_clear_error(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="Cannot write the history"):
        plot_history(MADE_UP, folder / "file" / "page.html")
