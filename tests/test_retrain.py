"""Retraining: the better of candidate and incumbent is served, whatever happens in between."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from tests import retraining
from tests.retraining import (
    FIRST,
    PIPELINE,
    SECOND,
    RetrainRuns,
    job,
    same_job,
    served_digest,
    without_controls,
)
from tsdistill import runtime
from tsdistill.data import Task
from tsdistill.evaluation import LossComparison
from tsdistill.exporting import Deployed, export
from tsdistill.models import LinearConfig
from tsdistill.recipe import Source
from tsdistill.retrain import DataGate, Gate, Store, Verdict, run_job
from tsdistill.retrain.gate import rule
from tsdistill.retrain.judging import Served, judge
from tsdistill.training import train

TEACHER_BUILDER = importlib.import_module("tsdistill.recipe.teacher_builder")


@pytest.fixture(scope="module", autouse=True)
def _no_controls() -> Iterator[None]:
    with without_controls():
        yield


# ------------------------------------------------------------------------------------------------------------ decisions
@pytest.mark.parametrize(
    ("run", "decision", "words"),
    [
        ("spoilt_first", "rejected-first", ["does not beat the seasonal naive forecast's"]),
        ("first", "promoted", ["No model was served yet", "% below the seasonal naive forecast's"]),
        ("spoilt_second", "kept", ["does not beat the seasonal naive"]),
        ("second", "promoted", ["the incumbent's", "47 windows, p = ", "seasonal naive 0."]),
        ("again", "kept", ["The candidate is the incumbent itself"]),
        ("backwards", "kept", ["The incumbent has seen these windows", "until 2024-01-14T06:00:00+00:00"]),
    ],
)
def test_every_run_ends_in_a_decision_with_its_reason(
    after: RetrainRuns, run: str, decision: str, words: list[str]
) -> None:
    verdict = getattr(after, run)
    assert verdict.decision == decision
    for word in words:
        assert word in str(verdict)
    assert "\n" not in str(verdict)


def test_what_is_served_is_the_candidate_of_the_last_promotion(after: RetrainRuns) -> None:
    store = Store(after.folder / "store")
    digest = after.second.scores["candidate"].model
    assert served_digest(store.folder) == digest
    model, details = store.load(str(after.second.current))
    assert model.digest == digest
    assert details["seen_until"] == after.second.seen_until == "2024-01-14T06:00:00+00:00"
    assert details["judged_until"] == after.second.as_of == "2024-01-16T11:00:00+00:00"
    assert runtime.load(store.previous).signature.horizon == 7


def test_all_models_are_scored_on_the_same_windows(after: RetrainRuns) -> None:
    """Through td.evaluate on a task made by hand: judging begins where the split says, in the candidate's scale."""
    verdict = after.second
    panel = job(after.folder).load(SECOND)
    task = Task(panel, context=29, horizon=7, split=job(after.folder).cut(panel).split)
    assert verdict.n_windows == retraining.JUDGE - retraining.HORIZON + 1 == len(task.test)
    from tsdistill.evaluation import evaluate

    for name, place in (("candidate", "current"), ("incumbent", "previous")):
        model, _ = Store(after.folder / "store").load(place)
        assert evaluate(model, task, "test")["mse"] == pytest.approx(verdict.scores[name].mse, rel=1e-9)
    assert verdict.difference == pytest.approx(verdict.scores["candidate"].mse - verdict.scores["incumbent"].mse)
    assert verdict.scores["incumbent"].model == after.first.scores["candidate"].model


def test_training_and_selection_do_not_see_the_judging_windows(after: RetrainRuns, tmp_path: Path) -> None:
    df = retraining.frame()
    held_out = df["ds"] >= pd.Timestamp(str(after.first.judged_from))
    df.loc[held_out, ["load", "wind"]] = np.random.default_rng(7).normal(size=(int(held_out.sum()), 2)) * 1e3
    retraining.write_csv(tmp_path / "fresh.csv", df)
    verdict = run_job(job(tmp_path, data_gate=DataGate(spikes="off")), as_of=FIRST)
    assert verdict.scores["candidate"].model == after.first.scores["candidate"].model
    assert verdict.data == after.first.data
    assert verdict.scores["candidate"].mse != after.first.scores["candidate"].mse


def test_every_verdict_is_in_the_history_and_in_its_run(after: RetrainRuns) -> None:
    store = after.folder / "store"
    assert Store(store).history() == after[1:]
    assert Verdict.from_file(store / "last-verdict.json") == after.backwards
    assert Verdict.from_file(store / str(after.first.run) / "verdict.json").decision == "kept"  # of the last run there
    assert Verdict.from_file(store / str(after.spoilt_first.run) / "verdict.json") == after.spoilt_first
    assert (store / str(after.first.run) / "recipe.toml").is_file()


def test_a_finished_run_is_not_trained_again(after: RetrainRuns, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TEACHER_BUILDER, "train", None)
    monkeypatch.setattr(PIPELINE, "distill", None)
    assert run_job(same_job(after, copy), as_of=SECOND).decision == "kept"


def test_data_that_ends_early_is_remarked(after: RetrainRuns, copy: Path) -> None:
    """As of a day without new rows: nothing is trained, and the verdict says how old the data is."""
    cut = retraining.frame().loc[lambda df: df["ds"] <= pd.Timestamp(SECOND, tz="UTC")]
    retraining.write_csv(copy / "fresh.csv", cut)
    verdict = run_job(same_job(after, copy, data=Source(path=str(copy / "fresh.csv"))), as_of="2024-01-17 12:00")
    assert "The data ends 1 days 01:00:00 before the time asked for." in verdict.notes


# --------------------------------------------------------------------------------------------------------------- gate
def losses(p_value: float | None, high: float | None) -> LossComparison:
    return LossComparison(0.0, None if high is None else -high, high, None, p_value, 5, 47, 47)


@pytest.mark.parametrize(
    ("gate", "candidate", "incumbent", "comparison", "decision", "word"),
    [
        (Gate(), 1.0, None, None, "promoted", "50 % below the seasonal naive"),
        (Gate(), 2.0, None, None, "kept", "does not beat"),
        (Gate(must_beat_naive=False), 3.0, None, None, "promoted", "50 % above the seasonal naive"),
        (Gate(max_p_value=1), 1.0, 1.1, losses(0.4, 0.1), "promoted", "9.09 % below the incumbent's 1.1"),
        (Gate(max_p_value=1), 1.0, 1.0, losses(1.0, 0.1), "promoted", "equal to the incumbent's"),
        (Gate(), 1.1, 1.0, losses(0.4, 0.1), "kept", "p = 0.4, within what chance does"),
        (Gate(), 1.0, 1.1, losses(0.4, 0.1), "kept", "not beyond chance"),
        (Gate(), 1.0, 1.1, losses(0.04, -0.1), "promoted", "p = 0.04, beyond chance"),
        (Gate(), 1.0, 1.1, losses(None, None), "kept", "too few windows to test the difference"),
        (Gate(max_p_value=1), 1.0, 1.1, losses(None, None), "promoted", "too few windows to test the difference"),
        (Gate(), 2.5, 3.0, losses(0.01, -0.1), "kept", "though below the incumbent's 3"),
        (Gate(min_improvement=0.05), 0.96, 1.0, losses(0.01, 0.0), "kept", "the gate asks for 5 % below"),
        (Gate(min_improvement=0.05), 0.94, 1.0, losses(0.01, 0.0), "promoted", "beyond chance"),
        (Gate(max_p_value=0.05), 0.9, 1.0, losses(0.06, 0.0), "kept", "not beyond chance"),
        (Gate(max_p_value=0.05), 0.9, 1.0, losses(None, None), "kept", "not beyond chance"),
        (Gate(max_p_value=0.05), 0.9, 1.0, losses(0.04, 0.0), "promoted", "p = 0.04"),
        (Gate(margin=0.1), 1.01, 1.0, losses(0.5, 0.05), "promoted", "at most 0.05 worse, within the margin of 0.1"),
        (Gate(margin=0.1), 1.01, 1.0, losses(0.5, 0.2), "kept", "could be 0.2 worse, and the margin is 0.1"),
        (Gate(margin=0.1), 1.01, 1.0, losses(None, None), "kept", "cannot be tested on so few windows"),
    ],
)
def test_the_gate(
    gate: Gate, candidate: float, incumbent: float | None, comparison: Any, decision: str, word: str
) -> None:
    ruling = rule(gate, candidate=candidate, naive=2.0, incumbent=incumbent, comparison=comparison, first=False)
    assert (ruling.decision, word in ruling.reason) == (decision, True), ruling.reason


def test_nothing_is_kept_where_nothing_is_served() -> None:
    assert rule(Gate(), candidate=3.0, naive=2.0, first=True).decision == "rejected-first"


# ----------------------------------------------------------------------------------------- incumbents hard to compare
class Bench(NamedTuple):
    """A task cut by the toy job and a deployed ridge regression for it."""

    task: Task
    cut: Any
    model: Deployed


@pytest.fixture(scope="module")
def bench(after: RetrainRuns) -> Bench:
    panel = job(after.folder).load(SECOND)
    cut = job(after.folder).cut(panel)
    task = Task(panel, context=29, horizon=7, split=cut.split)
    model, _ = Store(after.folder / "store").load("current")
    return Bench(task, cut, model)


def served(model: Deployed, **changes: Any) -> Served:
    return Served("models/x", model, {"seen_until": "2024-01-13T06:00:00+00:00", **changes})


def shaped(model: Deployed, **changes: Any) -> Deployed:
    return dataclasses.replace(model, signature=model.signature.replace(**changes))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"horizon": 11}, "`horizon` must be the model's 11 steps"),
        ({"channels": ("wind", "load")}, "`channels` must be the model's ['wind', 'load']"),
        ({"frequency": "15min"}, "it forecasts steps of 15min, the data has steps of h"),
        ({"context": 337}, "fewer than context + horizon = 344"),
    ],
)
def test_an_incumbent_of_another_shape_is_kept(bench: Bench, change: dict[str, Any], word: str) -> None:
    ruling = judge(Gate(), bench.task, bench.cut, bench.model, served(shaped(bench.model, **change)))
    assert ruling["decision"] == "kept"
    assert word in ruling["reason"]
    assert "another store" in ruling["reason"]
    assert set(ruling["scores"]) == {"candidate", "seasonal naive"}


def test_an_incumbent_with_a_longer_context_is_scored_on_the_same_windows(bench: Bench) -> None:
    longer = Task(bench.task.panel, context=47, horizon=7, split=bench.task.split)
    incumbent = export(train(LinearConfig(), longer), longer)
    ruling = judge(Gate(), bench.task, bench.cut, bench.model, served(incumbent))
    alone = judge(Gate(), bench.task, bench.cut, bench.model, Served())
    assert ruling["n_windows"] == alone["n_windows"] == len(bench.task.test)
    assert ruling["scores"]["candidate"].mse == pytest.approx(alone["scores"]["candidate"].mse, rel=1e-12)
    assert ruling["scores"]["incumbent"].mse != ruling["scores"]["candidate"].mse
    assert ruling["p_value"] is not None


def other(model: Deployed) -> Deployed:
    """The same forecasts under another digest."""
    return dataclasses.replace(model, isolate=True)


@pytest.mark.parametrize(
    ("details", "decision", "word"),
    [
        ({}, "promoted", "equal to the incumbent's"),
        ({"seen_until": None}, "kept", "does not say until when it has seen data"),
        ({"seen_until": "2024-01-14T07:00:00+00:00"}, "kept", "has seen these windows"),
        ({"seen_until": "2024-01-14T06:00:00+00:00"}, "promoted", "equal to"),
        ({"seen_until": "2024-01-14T06:00:00"}, "promoted", "equal to"),
    ],
)
def test_an_incumbent_that_may_have_seen_the_windows_is_kept(
    bench: Bench, details: dict[str, Any], decision: str, word: str
) -> None:
    ruling = judge(Gate(max_p_value=1), bench.task, bench.cut, other(bench.model), served(bench.model, **details))
    assert (ruling["decision"], word in ruling["reason"]) == (decision, True), ruling["reason"]


@pytest.mark.parametrize(("until", "n_notes"), [("2024-01-14T06:00:00+00:00", 0), ("2024-01-14T07:00:00+00:00", 1)])
def test_windows_that_judged_the_incumbent_before_are_remarked(bench: Bench, until: str, n_notes: int) -> None:
    incumbent = served(bench.model, judged_until=until)
    ruling = judge(Gate(max_p_value=1), bench.task, bench.cut, other(bench.model), incumbent)
    assert len([note for note in ruling["notes"] if "favours it a little" in note]) == n_notes


def test_an_incumbent_that_forecasts_no_numbers_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = other(bench.model)
    monkeypatch.setattr(broken.predictor, "run", lambda context: np.full((len(context), 7, 2), np.nan, np.float32))
    ruling = judge(Gate(), bench.task, bench.cut, bench.model, served(broken))
    assert ruling["decision"] == "promoted"
    assert "There was no usable incumbent" in ruling["reason"]
    assert "The incumbent cannot be used" in ruling["notes"][0]


def test_a_damaged_incumbent_is_replaced_and_not_gone_back_to(after: RetrainRuns, copy: Path) -> None:
    graph = copy / "store" / "current" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    before = os.readlink(copy / "store/.live/previous")
    verdict = run_job(same_job(after, copy), as_of=SECOND)
    assert verdict.decision == "promoted"
    assert "The incumbent cannot be loaded" in verdict.notes[0]
    assert served_digest(copy / "store") == verdict.scores["candidate"].model
    assert os.readlink(copy / "store/.live/previous") == before
