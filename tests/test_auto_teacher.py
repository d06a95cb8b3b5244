"""A teacher that makes itself: within a budget, by validation alone, and the same again without a clock."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tsdistill as td
from tests import retraining
from tests.typed import instance_of, known
from tsdistill.data import Covariates, Task
from tsdistill.errors import ConfigError, DivergenceError, UnsupportedError
from tsdistill.recipe import (
    AutoTeacher,
    AutoTeacherSpec,
    Recipe,
    TeacherSpec,
    auto_teacher,
    default_candidates,
    make_teacher,
    read_recipe,
)
from tsdistill.recipe.workspace import Workspace
from tsdistill.search import shared_teacher
from tsdistill.search.question import recipe_of
from tsdistill.teachers import PrivilegedTeacher, RescaledTeacher, TeacherEnsemble, TrustedTeacher
from tsdistill.testing import toy_frame, toy_task

MODULE = importlib.import_module("tsdistill.recipe.auto_teacher")  # the package shows the function of this name
SPLIT = td.Split.fractions(0.6, 0.2, 0.2)
STEPS = td.Training(epochs=5, batch_size=64, precision="float32", device="cpu")
RIDGES = tuple(TeacherSpec(model=td.LinearConfig(), context=steps) for steps in (23, 47, 71))
PER_CHANNEL = TeacherSpec(model=td.LinearConfig(individual=True))
CLOCK = Covariates(calendar=("time-of-day",))
NET = TeacherSpec(model=td.MLPConfig(width=5, depth=1), training=STEPS, covariates=CLOCK)


def task_of(frame: pd.DataFrame | None = None, **options: Any) -> Task:
    panel = td.Panel.from_frame(toy_frame() if frame is None else frame)
    return Task(panel, **{"context": 47, "horizon": 11, "split": SPLIT, **options})


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of()


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that an epoch of each next candidate seems to take; a candidate too many fails."""
    times: list[float] = []
    monkeypatch.setattr(MODULE, "seconds_per_epoch", lambda spec, task: times.pop(0))
    return times


def test_members_within_reach_are_weighed_and_teach_as_one(task: Task) -> None:
    teacher = auto_teacher(task, candidates=(*RIDGES, PER_CHANNEL, NET), minutes=None, reach=0.2)
    errors = {number: known(candidate.error) for number, candidate in enumerate(teacher.candidates)}
    limit = 1.2 * min(errors.values())
    assert errors[4] > limit  # a net of five steps
    members = [number for number, candidate in enumerate(teacher.candidates) if candidate.weight]
    assert members
    assert all(errors[number] <= limit for number in members)
    assert sum(known(candidate.weight) for candidate in teacher.candidates) == pytest.approx(1)
    assert td.evaluate(teacher, task)["mse"] <= min(errors.values()) + 1e-6
    assert teacher.weights == tuple(known(teacher.candidates[number].weight) for number in members)
    for number in members:
        assert (
            f"{teacher.candidates[number].weight:.2f} {teacher.candidates[number].title} (validation" in teacher.remark
        )
    assert "trained without getting a weight: " in teacher.remark.lower()
    assert "mlp, context" not in repr(teacher)
    student = td.distill(TrustedTeacher(teacher, task), td.LinearConfig(), task, losses=[td.OutputLoss()])
    assert student.lineage[-1].spec["teacher_candidates"] == teacher.record
    assert teacher.record[4].startswith("0.000 mlp, time-of-day, 5 epochs: ")


def test_the_budget_gives_fewer_epochs_or_skips_and_the_first_is_trained_in_any_case(
    task: Task, seconds: list[float]
) -> None:
    seconds += [24e3, 600.0, 300.0, 432e3]
    nets = (NET, NET.with_seed(1), NET.with_seed(2), NET.with_seed(3))
    lines: list[str] = []
    teacher = auto_teacher(task, candidates=nets, minutes=60.0, say=lines.append)
    assert not seconds
    first, second, third, fourth = teacher.candidates
    assert [c.status for c in teacher.candidates] == ["trained", "trained", "trained", "skipped"]
    epochs = [instance_of(TeacherSpec, c.spec).training.epochs for c in (first, second, third)]
    assert epochs == [1, 3, 5]  # not even one fits, but somebody has to teach; three at least; all that there are
    assert second.reason == "3 of 5 epochs, as the budget allows"
    assert any("is skipped, 3 epochs would take 1296000 s" in line for line in lines)
    assert "not trained: mlp, time-of-day (3 epochs would take 1296000 s" in teacher.remark.lower()
    assert fourth.error is None
    assert teacher.record[3] == "skipped: mlp, time-of-day"


def test_closed_forms_are_judged_by_those_before_them(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "operations", lambda spec, task: 1e-9 if spec.context == 23 else 1e9)
    teacher = auto_teacher(task, candidates=RIDGES, minutes=1.0)
    assert [c.status for c in teacher.candidates] == ["trained", "skipped", "skipped"]
    assert "it would take" in known(teacher.candidates[1].reason)


def test_the_same_run_again_asks_no_clock(task: Task, seconds: list[float], tmp_path: Path) -> None:
    seconds += [100.0, 7200.0]
    candidates = (*RIDGES, NET, NET.with_seed(5))
    teacher = auto_teacher(task, candidates=candidates, minutes=10.0, folder=tmp_path)
    n_lines = len((tmp_path / "log.jsonl").read_text().splitlines())
    again = auto_teacher(task, candidates=candidates, minutes=10.0, folder=tmp_path)
    assert (again.digest, again.record, again.remark) == (teacher.digest, teacher.record, teacher.remark)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()[n_lines:]]
    assert [event["stage"] for event in events if event.get("kept")] == [f"teacher-{n}" for n in (1, 2, 3, 4)]
    # As a recipe it says the same anywhere.
    spec = AutoTeacherSpec(candidates=candidates, minutes=10.0).replayed(TrustedTeacher(teacher, task))
    assert instance_of(AutoTeacherSpec, spec).minutes is None
    replayed = auto_teacher(task, candidates=instance_of(AutoTeacherSpec, spec).candidates, minutes=None)
    assert replayed.digest == teacher.digest
    # Another question is decided anew; what was trained alike is kept.
    seconds += [100.0, 100.0]
    other = auto_teacher(task, candidates=candidates, minutes=20.0, folder=tmp_path)
    assert other.candidates[4].status == "trained"
    # A note that is damaged or of other members is not believed.
    note = tmp_path / "stages" / "teacher.json"
    assert '"key"' in note.read_text()
    note.write_text('{"key": "x"')
    seconds += [100.0, 7200.0]
    assert auto_teacher(task, candidates=candidates, minutes=10.0, folder=tmp_path).digest == teacher.digest
    written = json.loads(note.read_text())
    written["candidates"][0] |= {"teacher": "0" * 16, "error": 0.001, "weight": 1.0}
    note.write_text(json.dumps(written))
    assert auto_teacher(task, candidates=candidates, minutes=10.0, folder=tmp_path).digest == teacher.digest


def test_a_run_that_was_stopped_goes_on_with_the_next_member(task: Task, seconds: list[float], tmp_path: Path) -> None:
    seconds += [150.0, 50.0]

    def stop(line: str) -> None:
        if line.startswith("candidate 2 of 3"):
            raise KeyboardInterrupt

    candidates = (PER_CHANNEL, NET, NET.with_seed(1))
    with pytest.raises(KeyboardInterrupt):
        auto_teacher(task, candidates=candidates, minutes=10.0, folder=tmp_path, say=stop)
    assert len(seconds) == 1
    lines: list[str] = []
    teacher = auto_teacher(task, candidates=candidates, minutes=10.0, folder=tmp_path, say=lines.append)
    assert "teacher-1 kept from an earlier run" in lines
    # What the clock said of the second is kept from before it was trained.
    assert instance_of(TeacherSpec, teacher.candidates[1].spec).training.epochs == 3
    assert not seconds


def test_candidates_that_fail_are_passed_over_unless_somebody_named_them_wrongly(task: Task, tmp_path: Path) -> None:
    wild = NET.replace(training=STEPS.replace(learning_rate=1e30, clip_norm=1e30))
    teacher = auto_teacher(task, candidates=(RIDGES[0], wild), minutes=None)
    assert teacher.candidates[1].status == "skipped"
    assert "could not be trained: Training diverged" in teacher.remark
    for _ in range(2):  # what was noted of a failure stops nobody from trying again
        with pytest.raises(DivergenceError):
            auto_teacher(task, candidates=(wild,), minutes=None, folder=tmp_path)
    with pytest.raises(UnsupportedError, match="takes no future"):
        auto_teacher(
            task, candidates=(TeacherSpec(model=td.models.AveragedLinearConfig(), covariates=CLOCK),), minutes=None
        )
    with pytest.raises(ConfigError, match=r"(?s)`minutes`.*`reach`|`reach`.*`minutes`"):
        auto_teacher(task, minutes=0.0, reach=-1.0)


def test_the_test_part_has_no_say() -> None:
    noisy = toy_frame()
    noisy.loc[400:, ["load", "wind", "price"]] += 50.0
    candidates = (*RIDGES, PER_CHANNEL, TeacherSpec(model=td.models.CycleNetConfig(), training=STEPS, covariates=CLOCK))
    first, second = (auto_teacher(task_of(data), candidates=candidates, minutes=None) for data in (None, noisy))
    assert first.digest == second.digest
    assert first.record == second.record


def kinds(task: Task) -> list[str]:
    return [MODULE.title_of(spec) for spec in default_candidates(task)]


def test_default_candidates_are_those_that_suit_the_task(task: Task) -> None:
    assert kinds(task) == [
        "linear, context 47", "linear per channel, context 47", "averaged-linear, context 47",
        "multi-resolution per channel, context 47", "linear, context 47, time-of-day",
        "cyclenet, context 47, time-of-day", "dlinear, context 47", "mlp, context 47, time-of-day",
        "inverted-transformer, context 47, time-of-day", "patchtst, context 47", "lstm, context 47",
    ]  # fmt: skip
    long = kinds(task_of(toy_frame(n_rows=3000), context=96))
    assert "linear, context 192" in long
    assert "averaged-linear, context 384" in long
    assert "sparse-tsf, context 192" in long
    assert "mlp, context 96, time-of-day, time-of-week" in long
    unstamped = kinds(toy_task())
    assert not [title for title in unstamped if "time-of" in title or "cyclenet" in title or "mlp" in title]
    one = kinds(task_of(toy_frame()[["ds", "load"]]))
    assert not [title for title in one if title.startswith("linear per channel")]
    plans = task_of(covariates=Covariates(calendar=("time-of-day",), past=("price",)))
    assert "mlp, context 47, time-of-day, price" in kinds(plans)
    assert "linear, context 47" in kinds(plans)
    specs = default_candidates(task, seed=7)
    assert [spec.training.seed for spec in specs] == [*range(7, 7 + len(specs))]
    for spec in default_candidates(plans):  # each of them can be made
        spec.model.build(spec.own_task(plans).signature)


RECIPE = """
quantization = "none"

[data]
path = "fresh.csv"

[task]
context = 29
horizon = 7

[student]
model = { kind = "linear" }
losses = [{ kind = "output" }]

[teacher]
kind = "auto"
minutes = 0.5
[[teacher.candidates]]
model = { kind = "linear" }
[[teacher.candidates]]
model = { kind = "linear" }
context = 48
[[teacher.candidates]]
model = { kind = "cyclenet" }
covariates = { calendar = ["time-of-day"] }
scaler = "none"
training = { max_steps = 5, batch_size = 64, precision = "float32" }
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    retraining.write_csv(tmp_path / "fresh.csv")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return read_recipe(tmp_path / "recipe.toml")


@pytest.mark.slow
def test_a_recipe_makes_its_teacher(recipe: Recipe, tmp_path: Path) -> None:
    result = td.run(recipe, tmp_path / "out", progress=False)
    teacher = instance_of(AutoTeacher, result.teacher)
    row = result.report.row("teacher")
    assert (row.remark, row.runtime, row.kind) == (teacher.remark, "foreign", "AutoTeacher")
    assert f"teacher: {teacher.remark[:30]}" in " ".join(str(result.report).split())
    assert result.student.lineage[-1].spec["teacher"] == teacher.digest
    assert len(list((tmp_path / "out" / "cache").glob("*.npy"))) == 1
    task = recipe.task.build(recipe.data.load())
    assert shared_teacher(recipe, task, tmp_path / "out").digest == teacher.digest
    replay = result.replay
    assert Recipe.from_toml(replay.to_toml()) == replay
    assert instance_of(AutoTeacherSpec, replay.teacher).minutes is None
    again = make_teacher(replay, task, Workspace(tmp_path / "elsewhere"), False)
    assert again.digest == teacher.digest


def test_a_spec_is_plain_data(recipe: Recipe) -> None:
    assert Recipe.from_toml(recipe.to_toml()) == recipe == Recipe.from_json(recipe.to_json())
    spec = instance_of(AutoTeacherSpec, recipe.teacher)
    third = instance_of(TeacherSpec, known(spec.candidates)[2])
    assert (third.scaler, third.covariates) == (None, CLOCK)
    assert Recipe.from_toml(recipe.replace(teacher=spec.replace(minutes=None)).to_toml()).teacher.digest != spec.digest
    seeded = spec.with_seed(5)
    seeds = [instance_of(TeacherSpec, one).training.seed for one in known(seeded.candidates)]
    assert seeds == [5, 6, 7]
    assert AutoTeacherSpec().with_seed(5) == AutoTeacherSpec(seed=5)
    saved = AutoTeacherSpec(candidates=({"kind": "saved", "path": "a"},))
    assert saved.moved(lambda path: f"/b/{path}").paths == {"candidates.0.path": "/b/a"}
    for wrong, words in (
        ({"candidates": ({"kind": "auto"},)}, "ensembles themselves"),
        ({"candidates": ({"trust": 1.0},)}, "on the teacher, not on its candidates"),
        ({"candidates": ()}, "at least 1"),
        ({"minutes": -1}, "greater than 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            AutoTeacherSpec(**wrong)
    with pytest.raises(ConfigError, match="ensembles themselves"):
        td.Recipe.from_toml(RECIPE.split("[teacher]")[0] + '[teacher]\nkind = "ensemble"\nmembers = [{kind = "auto"}]')


def test_a_trained_or_saved_teacher_of_a_recipe_may_see_more(recipe: Recipe, tmp_path: Path) -> None:
    task = recipe.task.build(recipe.data.load())
    spec = TeacherSpec(model=td.LinearConfig(), context=48)
    teacher = make_teacher(recipe.replace(teacher=spec), task, Workspace(tmp_path / "out"), False)
    inside = instance_of(td.Forecaster, instance_of(PrivilegedTeacher, teacher).teacher)
    assert inside.context == 48
    td.save(inside, tmp_path / "saved")
    saved = recipe.replace(teacher={"kind": "saved", "path": str(tmp_path / "saved")})
    again = make_teacher(saved, task, Workspace(tmp_path / "out"), False)
    assert again.digest == teacher.digest
    # Of other rows it is rescaled as well.
    early = recipe.replace(task=recipe.task.replace(split=td.Split.fractions(0.5, 0.2, 0.3)))
    other = make_teacher(saved, early.task.build(recipe.data.load()), Workspace(tmp_path / "out"), False)
    instance_of(RescaledTeacher, instance_of(PrivilegedTeacher, other).teacher)
    shorter = make_teacher(recipe.replace(teacher=spec.replace(context=13)), task, Workspace(tmp_path / "out"), False)
    assert instance_of(td.Forecaster, shorter).context == 13
    together = {"kind": "ensemble", "members": [spec, TeacherSpec(model=td.LinearConfig(), scaler="item")]}
    ensemble = make_teacher(recipe.replace(teacher=together), task, Workspace(tmp_path / "out"), False)
    assert "in a scaling of its own" in instance_of(TeacherEnsemble, ensemble).remark


def test_a_search_names_what_its_teacher_sees() -> None:
    panel = td.datasets.load("nyc-weather")
    task = Task(panel, context=24, horizon=3)
    own_task = Task(panel, context=48, horizon=3, covariates=CLOCK)
    config, training = td.MLPConfig(width=4, depth=1), td.Training(max_steps=1, precision="float32", device="cpu")
    teacher = td.train(config, own_task, training)
    spec = instance_of(TeacherSpec, recipe_of(teacher, task).teacher)
    assert (spec.context, spec.covariates, spec.own_task(task).fingerprint) == (48, CLOCK, own_task.fingerprint)
    wrong = recipe_of(teacher, task).replace(teacher=spec.replace(context=None))
    with pytest.raises(ConfigError, match=r"`recipe\.teacher\.context` must be the teacher's \(48\)"):
        td.search.objective(td.search.Space(), teacher, task, recipe=wrong)
