"""No trial pays for what does not change its rank: teachers nobody looks at, graphs of what is beaten, clocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import optuna
import pytest
from optuna.trial import create_trial

import tsdistill as td
from tests.recipes import float_recipe
from tsdistill.recipe import Recipe
from tsdistill.search import create_study
from tsdistill.search.watching import Watch


class Case(NamedTuple):
    recipe: Recipe
    task: td.Task


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    recipe = float_recipe(tmp_path_factory.mktemp("cheap"))
    return Case(recipe, recipe.task.build(recipe.data.load()))


class Silent:
    """A teacher that may be asked about an example and no more."""

    digest = "silent"
    n_windows = 0

    def forecast(self, batch: Any) -> Any:
        self.n_windows += len(batch.context)
        return batch.target * 0


@pytest.mark.parametrize("config", [td.LinearConfig(), td.MLPConfig(width=3, depth=1)], ids=["solved", "trained"])
def test_a_teacher_that_no_loss_looks_at_is_not_asked(case: Case, config: td.models.ModelConfig) -> None:
    training = case.recipe.student.training
    for alpha, is_asked in ((0.0, False), (0.5, True)):
        teacher = Silent()
        losses = [td.OutputLoss(alpha=alpha)]
        student = td.distill(teacher, config, case.task, losses=losses, training=training, control=False)
        assert (teacher.n_windows > 2) == is_asked
    plain = td.distill(Silent(), config, case.task, losses=[td.OutputLoss(alpha=0.0)], training=training)
    assert plain.control is not None
    errors = [td.evaluate(model, case.task)["mse"] for model in (plain, plain.control)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)
    assert student.n_parameters == plain.n_parameters


def _complete(study: optuna.Study, n: int, **attrs: Any) -> None:
    for _ in range(n):
        study.add_trial(create_trial(value=0.01, user_attrs={"kind": "mlp", "n_parameters": 1, **attrs}))


@pytest.mark.parametrize(
    ("attrs", "n", "pruner", "stops"),
    [
        ({}, 10, None, True),
        ({}, 9, None, False),  # too few to say
        ({}, 10, optuna.pruners.NopPruner(), False),  # nothing is to be stopped
        ({"kind": "linear"}, 10, None, False),  # another architecture may take more bytes for fewer weights
        ({"n_parameters": 10**6}, 10, None, False),
    ],
)
def test_a_trial_that_is_beaten_is_not_deployed(
    case: Case, attrs: dict[str, Any], n: int, pruner: Any, stops: bool
) -> None:
    study = create_study("beaten", pruner=pruner)
    _complete(study, n, **attrs)
    trial = study.ask()
    recipe = case.recipe.replace(pruning=None)
    model = td.train(td.MLPConfig(width=3, depth=1), case.task, td.Training(max_steps=1))
    watch = Watch(trial, recipe, case.task)
    if not stops:
        watch.on_stage("student", model)
        return
    with pytest.raises(optuna.TrialPruned, match=r"trained and not deployed: trial 0 has .* less error"):
        watch.on_stage("student", model)
    assert trial.user_attrs["n_parameters"] == model.n_parameters
    assert "trial 0" in trial.user_attrs["reason"]


def test_a_trial_is_not_stopped_for_one_that_breaks_the_budget(case: Case) -> None:
    study = create_study("beaten")
    for _ in range(10):
        attrs = {"kind": "mlp", "n_parameters": 1}
        study.add_trial(create_trial(value=0.01, user_attrs=attrs, constraints={"size_bytes": 1.0}))
    model = td.MLPConfig(width=3, depth=1).build(case.task.signature)
    Watch(study.ask(), case.recipe.replace(pruning=None), case.task).on_stage("student", model)


def test_forms_are_not_timed_where_nothing_goes_by_it(case: Case) -> None:
    model = td.MLPConfig(width=32).build(case.task.signature)
    spec = td.Quantization(require_gain=False, max_error_increase=9.0)
    rows = td.quantize(model, case.task, spec, timed=False).lineage[-1].metrics["candidates"]
    assert ["latency_ms" in row for row in rows] == [False, False]
    assert all(row["graph_bytes"] > 0 for row in rows)
