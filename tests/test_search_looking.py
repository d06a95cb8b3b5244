"""Looking at a study from the shell: status, best, front, export, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pandas as pd
import pytest

from tests.recipes import float_recipe
from tsdistill.cli import main
from tsdistill.recipe import Recipe
from tsdistill.search import create_study, load_study, plot_study

SIZES = {0: (0.3, 900, 0.9), 1: (0.2, 1500, 0.5), 2: (0.5, 400, 0.1), 3: (0.6, 2000, 1.3)}
"""Error, bytes and learning rate of each trial; the last one is beaten by every other."""


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a search with four finished trials, one stopped and one failed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    study = create_study("<b>toy", storage=f"journal:{tmp_path / 'out' / 'study.log'}")
    recipe = float_recipe(tmp_path).to_json()
    for error, size, rate in SIZES.values():
        attrs = {"recipe": recipe, "size_bytes": size, "n_parameters": size // 4, "precision": "fp32", "seconds": 1.0}
        study.add_trial(
            optuna.trial.create_trial(
                value=error,
                params={"student.training.learning_rate": rate, "student.model.kind": "mlp"},
                distributions={
                    "student.training.learning_rate": optuna.distributions.FloatDistribution(0.01, 2.0),
                    "student.model.kind": optuna.distributions.CategoricalDistribution(("mlp", "lstm")),
                },
                user_attrs=attrs,
            )
        )
    for state in (optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL):
        study.add_trial(optuna.trial.create_trial(state=state))
    return tmp_path / "out"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["tsdistill", "search", *words, *(() if "--out" in words else ("--out", "out"))])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_status_front_and_best(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "status") == 0
    text = capsys.readouterr().out
    assert "4 complete, 1 pruned, 1 fail" in text
    assert "Best 0.2000 in 1,500 bytes, trial 1" in text
    assert run(monkeypatch, "status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["trials"] == {"complete": 4, "pruned": 1, "fail": 1}
    assert status["best"][0]["trial"] == 1
    assert run(monkeypatch, "front", "--json") == 0
    assert [row["trial"] for row in json.loads(capsys.readouterr().out)] == [2, 0, 1]
    assert run(monkeypatch, "best", "--max-bytes", "950", "--file", "best.toml") == 0
    assert "tsdistill run best.toml" in capsys.readouterr().out
    assert Recipe.from_file("best.toml").student == float_recipe(out.parent).student


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("best", "--max-bytes", "3"), 6, "the smallest, trial 2, takes 400 bytes"),
        (("best", "--max-ms", "3"), 6, "was timed"),
        (("status", "--name", "toi"), 2, "`name` must be one of <b>toy"),
        (("status", "--out", "nowhere"), 5, "There is no study in nowhere/study.log"),
        (("status", "--storage", "sqlite:///nowhere.db"), 5, "There is no study in nowhere.db"),
        (("export", "study.xls"), 2, "`file` must end in .html"),
    ],
)
@pytest.mark.usefixtures("out")
def test_what_cannot_be_shown_is_one_sentence(
    words: tuple[str, ...],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert not Path("nowhere.db").exists()


def test_a_study_goes_to_a_page_and_to_tables(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("html", "csv", "json", "parquet"):
        assert run(monkeypatch, "export", f"study.{kind}") == 0
    errors = [error for error, _, _ in SIZES.values()]
    for frame in (pd.read_csv("study.csv"), pd.read_json("study.json"), pd.read_parquet("study.parquet")):
        assert frame["value"].dropna().astype(float).tolist() == pytest.approx(errors)
    page = Path("study.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;toy" in page
    assert "<h1><b>" not in page
    for heading in ("What a byte is worth", "As the search went on", "What mattered", "Address by address"):
        assert heading in page


def test_a_page_of_one_trial_has_what_one_trial_shows(out: Path) -> None:
    study = create_study("one", objectives=("error", "size_bytes"))
    whole = load_study(storage=f"journal:{out / 'study.log'}").trials[0]
    study.add_trial(optuna.trial.create_trial(values=[0.5, 9.0], user_attrs=whole.user_attrs))
    page = plot_study(study, out / "one.html").read_text(encoding="utf-8")
    assert "As the search went on" in page
    assert "What mattered" not in page
