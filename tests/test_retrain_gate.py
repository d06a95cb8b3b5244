"""Nights on bad data: refused before training, told, and overridden by hand."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import retraining
from tests.retraining import FIRST, SECOND, RetrainRuns, job, same_job, served_digest, without_controls
from tests.test_retrain_jobs import shell
from tsdistill import runtime
from tsdistill.errors import ArtifactError, BusyError, OrderError
from tsdistill.recipe import Source
from tsdistill.retrain import Gate, Store, export_model, run_job


@pytest.fixture(scope="module", autouse=True)
def _no_controls() -> Iterator[None]:
    with without_controls():
        yield


def spoilt(after: RetrainRuns, copy: Path, **changes: Any) -> Any:
    """The job on a file whose last row before SECOND is -1e9."""
    df = retraining.frame()
    df.loc[df["ds"] == SECOND, "load"] = -1e9
    retraining.write_csv(copy / "fresh.csv", df)
    return same_job(after, copy, data=Source(path=str(copy / "fresh.csv")), **changes)


@pytest.fixture
def first_only(after: RetrainRuns, tmp_path: Path) -> Path:
    """A store that serves the first model."""
    with without_controls():
        run_job(same_job(after, tmp_path), as_of=FIRST)
    return tmp_path


def test_one_corrupt_cell_is_refused_before_training(after: RetrainRuns, first_only: Path) -> None:
    served = served_digest(first_only / "store")
    verdict = run_job(spoilt(after, first_only), as_of=SECOND)
    assert verdict.decision == "refused"
    assert "`load` holds -1e+09" in verdict.reason
    assert "--accept-data" in verdict.reason
    assert [finding.check for finding in verdict.findings if finding.rule == "stop"]
    assert verdict.run is None
    assert served_digest(first_only / "store") == served
    assert Store(first_only / "store").history()[-1] == verdict


def test_accepted_data_is_remembered(after: RetrainRuns, first_only: Path) -> None:
    bad = spoilt(after, first_only, gate=Gate(margin=0.5))
    verdict = run_job(bad, as_of=SECOND, accept_data=True)
    assert (verdict.accepted_data, verdict.n_left_out > 0) == (True, True)
    assert "hold filled, stuck or spiked values" in " ".join((verdict.reason, *verdict.notes))
    assert verdict.scores["candidate"].mse < 10
    again = run_job(bad, as_of=SECOND)
    assert again.decision != "refused"


def test_a_renamed_column_is_refused_with_an_exit_code(
    after: RetrainRuns, first_only: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    retraining.write_csv(first_only / "fresh.csv", retraining.frame().rename(columns={"load": "laod"}))
    made = same_job(after, first_only, data=Source(path=str(first_only / "fresh.csv")))
    (first_only / "job.json").write_text(made.to_json())
    assert shell(monkeypatch, "retrain", str(first_only / "job.json"), "--as-of", SECOND) == 9
    assert "'load' is called 'laod' now" in capfd.readouterr().out


def test_columns_in_another_order_are_put_right(after: RetrainRuns, first_only: Path) -> None:
    retraining.write_csv(first_only / "fresh.csv", retraining.frame()[["ds", "wind", "load"]])
    made = same_job(after, first_only, data=Source(path=str(first_only / "fresh.csv")), gate=Gate(margin=0.5))
    verdict = run_job(made, as_of=SECOND)
    assert verdict.scores["candidate"].model == after.second.scores["candidate"].model
    assert "another order" in " ".join(verdict.notes)


def test_a_first_night_with_a_row_of_the_future_is_refused(tmp_path: Path) -> None:
    df = retraining.frame()
    df["ds"] += np.timedelta64(366 * 190, "D")
    retraining.write_csv(tmp_path / "fresh.csv", df)
    verdict = run_job(job(tmp_path))
    assert (verdict.decision, Store(tmp_path / "store").served()) == ("refused", None)
    assert "still to come" in verdict.reason


def test_an_incumbent_without_a_profile_is_compared_by_its_rows(
    after: RetrainRuns, first_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = Store.load

    def older(self: Store, folder: str) -> Any:
        model, details = fine(self, folder)
        return model, {name: value for name, value in details.items() if name != "profile"}

    monkeypatch.setattr(Store, "load", older)
    verdict = run_job(spoilt(after, first_only), as_of=SECOND)
    assert verdict.decision == "refused"
    assert "keeps no profile of its data" in " ".join(verdict.notes)


def test_a_feed_that_died_is_remarked(after: RetrainRuns, first_only: Path) -> None:
    made = same_job(after, first_only)
    run_job(made)
    assert "No row has come since the last job" in " ".join(run_job(made).notes)


def test_a_job_that_is_terminated_leaves_a_verdict(
    after: RetrainRuns, first_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    monkeypatch.setattr("tsdistill.retrain.runner.judge", stopped)
    with pytest.raises(SystemExit):
        run_job(same_job(after, first_only), as_of=SECOND)
    last = Store(first_only / "store").history()[-1]
    assert (last.decision, last.error) == ("failed", "SystemExit")
    assert "stopped from outside" in last.reason


def test_half_a_line_of_the_history_is_passed_over_and_told(after: RetrainRuns, first_only: Path) -> None:
    path = first_only / "store" / "history.jsonl"
    path.write_text(path.read_text() + '{"decision": "ke')
    store = Store(first_only / "store")
    assert [verdict.decision for verdict in store.history()] == ["promoted"]
    verdict = run_job(same_job(after, first_only), as_of=SECOND)
    assert "history.jsonl is torn in line 2" in " ".join(verdict.notes)
    assert len(store.history()) == 2


def test_a_model_is_copied_out_whole(after: RetrainRuns, first_only: Path, tmp_path: Path) -> None:
    out = export_model(first_only / "store", tmp_path / "out" / "model")
    assert runtime.load(out).predict(np.full((1, 29, 2), 5.0)).shape == (1, 7, 2)
    with pytest.raises(ArtifactError, match="must be a new folder or an empty one"):
        export_model(first_only / "store", out)
    with pytest.raises(OrderError, match="serves no previous model yet"):
        export_model(first_only / "store", tmp_path / "other", which="previous")
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]


def test_tables_are_checked_at_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    df = retraining.frame()
    january, later = tmp_path / "january.csv", tmp_path / "later.csv"
    retraining.write_csv(january, df.iloc[:300])
    retraining.write_csv(later, df.assign(load=df["load"] * 1000))
    profile = str(tmp_path / "january.json")
    assert shell(monkeypatch, "check-data", str(january), "--save-profile", profile) == 0
    assert shell(monkeypatch, "check-data", str(january), "--against", profile) == 0
    assert "The data passed." in capfd.readouterr().out
    assert shell(monkeypatch, "check-data", str(later), "--against", profile, "--json") == 9
    assert json.loads(capfd.readouterr().out)["passed"] is False
    assert shell(monkeypatch, "check-data", str(later)) == 2
    assert shell(monkeypatch, "check-data", str(later), "--against", str(tmp_path)) == 5


def test_a_busy_store_has_an_exit_code_of_its_own() -> None:
    from tsdistill.cli import EXIT_CODES

    code = next(code for kind, code in EXIT_CODES.items() if issubclass(BusyError, kind))
    assert (code, EXIT_CODES[OrderError]) == (10, 6)
