"""Students that compete: each made to the end, the smallest within one standard error of the best deployed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FixedTrial

import tsdistill as td
from tests.recipes import QUICK, float_recipe
from tsdistill.errors import ConfigError
from tsdistill.evaluation import evaluate
from tsdistill.models import MLPConfig, SparseTSFConfig
from tsdistill.recipe import (
    Budget,
    InMemory,
    Recipe,
    Run,
    StudentCandidate,
    StudentSpec,
    choosing,
    default_recipe,
    make_models,
    run,
)
from tsdistill.report.candidates import choice_of
from tsdistill.search import Space
from tsdistill.testing import toy_task

LINEAR = StudentCandidate(model=td.LinearConfig())
TOO_LONG = StudentCandidate(model=td.PatchTSTConfig(patch=500))


def candidate_recipe(folder: Path, budget: Budget | None = None) -> Recipe:
    """An MLP of four steps, a ridge that is far better, one with nothing to prune, and one that cannot be made."""
    recipe = float_recipe(folder)
    sparse = StudentCandidate(model=SparseTSFConfig(period=7), training=QUICK)
    return recipe.replace(student=recipe.student.replace(candidates=(LINEAR, sparse, TOO_LONG), budget=budget))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("candidates")
    return run(candidate_recipe(folder), folder / "out")


def test_the_best_is_deployed_and_the_report_says_why(finished: Run) -> None:
    rows = {row.name: row for row in finished.report.candidates}
    assert list(rows) == ["mlp", "linear", "sparse-tsf", "patchtst"]
    assert [name for name, row in rows.items() if row.chosen] == ["linear"]
    assert finished.student.config == finished.deployed.config == td.LinearConfig()
    assert finished.pruned is None
    own = evaluate(finished.deployed, finished.task, "validation")["mse"]
    assert rows["linear"].validation_mse == pytest.approx(own)
    assert rows["linear"].size_bytes == finished.deployed.size_bytes
    assert rows["mlp"].validation_mse is not None
    assert rows["mlp"].validation_mse > own
    assert "more than one standard error" in rows["mlp"].reason
    assert "`patch` must be at most context = 47" in rows["patchtst"].reason
    text = finished.report.to_text()
    assert "Of 4 candidates, linear is deployed" in text.replace("\n", " ")
    assert text.count("sparse-tsf") >= 2


def test_the_page_shows_every_candidate(finished: Run) -> None:
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Candidates</h2>" in page
    assert all(row.reason.split("`")[0] in page for row in finished.report.candidates)


def test_what_is_deployed_says_what_it_was_chosen_among_and_a_row_does_not_weigh_the_record(finished: Run) -> None:
    last = td.load(finished.artifact).lineage[-1]
    assert (last.verb, last.metrics) == ("choose", {"chosen": "linear"})
    assert last.spec["candidates"] == ["mlp", "linear", "sparse-tsf", "patchtst"]
    assert choice_of(finished.student) is not None
    student, deployed = finished.report.row("student"), finished.report.row("deployed")
    assert student.size_bytes is not None
    assert deployed.size_bytes is not None
    assert student.size_bytes <= deployed.size_bytes


def test_a_finished_run_makes_no_candidate_again(finished: Run) -> None:
    lines: list[str] = []
    again = run(finished.recipe, finished.folder, say=lines.append)
    assert again.report == finished.report
    assert [line for line in lines if line.endswith("...")] == ["patchtst-student ..."]


def test_a_budget_rules_out_what_is_larger_and_one_that_nothing_meets_says_by_how_much(finished: Run) -> None:
    size = {row.name: row.size_bytes for row in finished.report.candidates}
    assert size["linear"] is not None
    recipe = finished.recipe
    made = {
        name: make_models(one, finished.task, finished.teacher, InMemory())
        for name, one in choosing.contenders(recipe, finished.task).items()
        if name in ("mlp", "linear")
    }

    def chosen(**budget: Any) -> dict[str, Any]:
        _, models = choosing.choose(made, {}, finished.task, Budget(**budget), InMemory())
        record = choice_of(models["student"])
        assert record is not None
        return record

    record = chosen(max_size_bytes=size["linear"] + 100)
    assert record["chosen"] == "linear"
    assert "over the budget" in record["candidates"][0]["reason"]
    with pytest.raises(ConfigError, match=r"`student.budget` must be one that a candidate meets.*linear: .* over"):
        chosen(max_size_bytes=10)
    with pytest.raises(ConfigError, match=r"ms over the budget"):
        chosen(max_latency_ms=1e-9)


def test_of_equally_good_ones_the_smallest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy_task()
    model = td.export(td.train(td.LinearConfig(), task))
    noise = np.random.default_rng(0).normal(size=len(task.validation))
    # By mean loss: best, a little above it, far above it; the middle one is within a standard error of the best.
    losses = {"large": 1.0 + 0 * noise, "small": 1.0 + noise - noise.mean() + 0.001, "tiny": 2.0 + 0 * noise}
    sizes = {"large": 3, "small": 2, "tiny": 1}

    class Sized:
        def __init__(self, name: str) -> None:
            self.name, self.size_bytes = name, sizes[name]

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    real = td.evaluation.score(model, task, "validation")

    @dataclasses.dataclass
    class Scores:
        window_losses: np.ndarray
        times: np.ndarray

    monkeypatch.setattr(choosing, "score", lambda one, *_: Scores(losses[one.name], real.times))
    choice = choosing._choice({name: Sized(name) for name in losses}, task, None, {})  # type: ignore[misc]
    assert (choice["chosen"], choice["best"]) == ("small", "large")
    reasons = {row["name"]: row["reason"] for row in choice["candidates"]}
    assert "1.5 times as large as small" in reasons["large"]
    assert "100.0 % above" in reasons["tiny"]


def test_recipes_with_candidates_survive_toml_and_old_ones_stay_as_they_were(tmp_path: Path) -> None:
    recipe = candidate_recipe(tmp_path, Budget(max_size_bytes=50_000, max_latency_ms=2.5))
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert not {"candidates", "budget"} & StudentSpec(model=td.LSTMConfig()).to_dict().keys()
    seeded = recipe.with_seed(7).student
    assert [candidate.training and candidate.training.seed for candidate in seeded.candidates] == [None, 7, None]


def test_a_student_that_nobody_named_competes_with_ridges_and_an_mlp() -> None:
    student = Recipe.from_dict({"data": {"dataset": "nyc-weather"}}).student
    assert [candidate.model.kind for candidate in student.candidates] == [
        "linear",
        "linear",
        "averaged-linear",
        "multi-resolution",
        "mlp",
    ]
    assert student.replace(training=QUICK).candidates == student.candidates
    assert default_recipe().student.candidates == student.candidates
    assert StudentSpec.from_dict(student.to_dict()) == student
    named: tuple[dict[str, Any], ...] = ({"model": "lstm"}, {"keep": "better"}, {"candidates": []})
    assert [StudentSpec.from_dict(values).candidates for values in named] == [(), (), ()]


def test_a_search_varies_the_student_and_leaves_candidates_out(tmp_path: Path) -> None:
    recipe = candidate_recipe(tmp_path)
    proposed = Space(vary={"student.model.width": (3, 4)}).propose(FixedTrial({"student.model.width": 4}), recipe)
    assert (proposed.student.candidates, proposed.student.model) == ((), MLPConfig(width=4, depth=1))


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ({"model": "lstm", "budget": {"max_size_bytes": 9}}, "`budget` must be left out without candidates"),
        ({"candidates": [{"model": "linear", "losses": ["temporal"]}]}, "closed form"),
        (
            {"candidates": [{"model": "lstm", "losses": [{"kind": "output", "alpha": "validation"}]}]},
            "trained by steps",
        ),
        ({"candidates": [{"model": "seasonal-naive", "losses": ["output"]}]}, "learns nothing"),
        ({"candidates": [{"modle": "linear"}]}, "modle"),
        ({"candidates": [{"model": "linear"}], "budget": {"max_size_bytes": 0}}, "max_size_bytes"),
    ],
)
def test_what_cannot_compete_is_refused_before_anything_is_trained(student: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Recipe.from_dict({"data": {"dataset": "nyc-weather"}, "student": student})


def test_candidates_of_which_none_can_be_made_are_one_error(tmp_path: Path) -> None:
    recipe = float_recipe(tmp_path)
    task = recipe.task.build(recipe.data.load())
    recipe = recipe.replace(student=recipe.student.replace(model=TOO_LONG.model, candidates=(TOO_LONG,)))
    teacher = td.train(td.LinearConfig(), task)
    with pytest.raises(ConfigError, match=r"must hold one that can be made for this task. patchtst-patch-1: `patch`"):
        make_models(recipe, task, teacher, InMemory())
