"""One call from a file and a budget to a deployed model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState, create_trial

import tsdistill as td
from tests.recipes import float_recipe, toy_csv
from tsdistill.cli import main
from tsdistill.data import Item, Panel
from tsdistill.search import create_study
from tsdistill.search.compressing import _finalists, _is_same, _kept
from tsdistill.search.space import KIND


def study_of(recipe: td.Recipe, rows: list[tuple[str, float, int, float]]) -> optuna.Study:
    """A study of finished trials: kind, error, bytes, seconds."""
    study = create_study("toy")
    among = optuna.distributions.CategoricalDistribution(("linear", "mlp", "lstm"))
    for kind, error, size, seconds in rows:
        attrs = {"recipe": recipe.to_json(), "size_bytes": size, "n_parameters": 9, "precision": "fp32"}
        study.add_trial(
            create_trial(
                value=error,
                params={KIND: kind},
                distributions={KIND: among},
                user_attrs={**attrs, "seconds": seconds},
            )
        )
    return study


def test_finalists_are_better_than_a_ridge_within_the_budget_and_fit_the_time(tmp_path: Path) -> None:
    study = study_of(
        float_recipe(tmp_path),
        [
            ("lstm", 0.10, 9000, 1.0),  # the best, over the budget
            ("lstm", 0.20, 800, 1.0),
            ("mlp", 0.30, 900, 1.0),  # larger than a better one
            ("mlp", 0.40, 400, 90.0),  # takes too long
            ("linear", 0.50, 300, 0.1),
            ("mlp", 0.60, 100, 0.1),  # smaller than the ridge, and worse
        ],
    )
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": "it diverged"}))
    chosen, reasons = _finalists(study, td.Budget(max_size_bytes=1000), None, 60.0)
    assert len(chosen) == 2
    assert reasons == {
        0: "lstm: 9,000 bytes, 8,000 over the budget",
        2: "a trial with less error is no larger",
        3: "others with less error took the time that was left",
        5: "its error, 0.6000, is above that of a ridge, 0.5000",
        6: "it diverged",
    }


def test_what_nothing_meets_says_by_how_much(tmp_path: Path) -> None:
    study = study_of(float_recipe(tmp_path), [("lstm", 0.1, 9000, 1.0), ("mlp", 0.3, 900, 1.0)])
    with pytest.raises(td.errors.UnsupportedError, match="mlp: 900 bytes, 890 over the budget"):
        _finalists(study, td.Budget(max_size_bytes=10), None, 60.0)
    with pytest.raises(
        td.errors.UnsupportedError, match=r"validation MSE of 0\.1000; max_error_increase allows 0\.0500"
    ):
        _finalists(study, None, 0.05, 60.0)
    with pytest.raises(td.errors.UnsupportedError, match="no trial was finished"):
        _finalists(create_study("empty"), None, None, 60.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-bytes", "many"), "`--max-bytes` must be a number of bytes, got --max-bytes='many'"),
        (("--minutes", "0"), "`timeout` must be a number of seconds above 0"),
        (("--max-ms", "-1"), "max_latency_ms"),
    ],
)
def test_a_wish_that_makes_no_sense_is_one_sentence(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tsdistill", "compress", str(toy_csv(tmp_path)), *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("n_items", [1, 3])
@pytest.mark.parametrize("stamped", [True, False])
def test_a_panel_is_kept_as_it_is(n_items: int, stamped: bool, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=60, freq="D") if stamped else None
    items = tuple(Item(f"i{number}", stamps, draw.normal(size=(60, 2)) / 3) for number in range(n_items))
    panel = Panel(items, channels=("x", "y"), frequency="D" if stamped else None)
    source = _kept(panel, tmp_path)
    assert _is_same(source.load(), panel)
    assert source.dataset is None


def test_a_part_of_a_data_set_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    whole = td.datasets.load("nyc-weather")
    assert _kept(whole, tmp_path).dataset == "nyc-weather"
    part = whole.until("2013-06-30")
    source = _kept(part, tmp_path)
    assert source.dataset is None
    assert _is_same(source.load(), part)


def test_the_shell_reads_as_every_command_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.csv").write_text("when;v\n" + "\n".join(f"2024-01-{day:02};{day},5" for day in range(1, 29)))
    words = ["odd.csv", "--time", "when", "--separator", ";", "--decimal", ",", "--horizon", "90"]
    monkeypatch.setattr("sys.argv", ["tsdistill", "compress", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 4
    assert (
        "has 19 rows for the train part" in capsys.readouterr().err
    )  # it was read; what is wrong is that it is too short


@pytest.mark.slow
def test_a_file_becomes_an_artifact_within_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--horizon", "12", "--max-bytes", "40kB", "--minutes", "1", "--out", "out", "--json", "--quiet"]
    monkeypatch.setattr("sys.argv", ["tsdistill", "compress", str(toy_csv(tmp_path)), *words])
    main()
    output: dict[str, Any] = json.loads(capsys.readouterr().out)
    deployed = td.load(output["artifact"])
    assert isinstance(deployed, td.Deployed)
    assert deployed.size_bytes <= 40_000
    assert json.loads((tmp_path / "out" / "front.json").read_text()) == output["front"]
    assert (tmp_path / "out" / "report.html").exists()
    panel = td.read_csv(toy_csv(tmp_path))
    again = td.compress(panel, tmp_path / "panel", horizon=12, minutes=0.2, progress=False)
    assert again.artifact.exists()
