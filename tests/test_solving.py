"""Closed forms in full: shares of a teacher chosen by validation, and panels solved part by part."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import tsdistill as td
from tests.typed import known
from tsdistill.data.panel import Item, Panel
from tsdistill.data.task import Batch, Windows
from tsdistill.errors import ArtifactError, ConfigError, DivergenceError, OrderError, ShapeError, UnsupportedError
from tsdistill.models.ridge import NormalEquations, Statistics, choose
from tsdistill.testing import toy_panel, toy_task

PENALTIES = (1e-4, 1e-2, 1.0)
ALPHAS = tuple(step / 10 for step in range(11))
BY_VALIDATION = td.OutputLoss(alpha="validation")
CONTEXT, HORIZON = 47, 11


class Wise:
    """A teacher that has learnt from what is validated on: it knows one channel, exaggerates one, plays one down."""

    digest = "wise"

    def __init__(self) -> None:
        statistics = Statistics.of(toy_task().validation)
        self.map, self.n_windows = choose(statistics, statistics, (1e-2,), (0.0,)).weight.float(), 0

    def forecast(self, batch: Batch) -> torch.Tensor:
        self.n_windows += len(batch.index)
        centre = batch.context.mean(1, keepdim=True)
        known = torch.einsum("bcd,ch->bhd", batch.context - centre, self.map)
        return centre + known * torch.tensor([1.0, 1.3, 0.4])


def rows(windows: Windows, forecast: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of every window and channel, laid out: (channel, window, step)."""
    batch = windows.batch(torch.arange(len(windows)))
    x, y = (part.permute(2, 0, 1).double() for part in (batch.context, forecast(batch) if forecast else batch.target))
    centre = x.mean(-1, keepdim=True)
    return (x - centre).numpy(), (y - centre).numpy()


def weight_of(model: td.Forecaster) -> torch.Tensor:
    """What a solved model multiplies with."""
    return model.get_parameter("map.weight")


def brute(task: td.Task, forecast: Any, channels: list[int]) -> tuple[np.ndarray, dict[tuple[float, float], float]]:
    """Weights of the best separate fit of scikit-learn, and the validation error of every one."""
    (x, y), (_, soft), (seen, truth) = rows(task.train), rows(task.train, forecast), rows(task.validation)
    x, y, soft, seen, truth = (part[channels].reshape(-1, part.shape[-1]) for part in (x, y, soft, seen, truth))
    errors, weights = {}, {}
    for alpha in ALPHAS:
        for penalty in PENALTIES:
            ridge = Ridge(alpha=penalty * np.trace(x.T @ x) / CONTEXT, fit_intercept=False)
            weights[alpha, penalty] = ridge.fit(x, (1 - alpha) * y + alpha * soft).coef_
            errors[alpha, penalty] = float(((seen @ weights[alpha, penalty].T - truth) ** 2).mean())
    return weights[min(errors, key=errors.__getitem__)], errors


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


def test_share_and_penalty_are_those_of_the_best_separate_fit(task: td.Task) -> None:
    teacher = Wise()
    student = td.distill(teacher, td.LinearConfig(penalties=PENALTIES), task, losses=[BY_VALIDATION])
    weight, errors = brute(task, teacher.forecast, [0, 1, 2])
    best = min(errors, key=errors.__getitem__)
    metrics = student.lineage[-1].metrics
    assert (metrics["alpha"], metrics["penalty"]) == best
    assert 0 < best[0] < 1
    tried = np.array(metrics["candidates"]["validation_mse"])
    assert (metrics["candidates"]["alpha"], metrics["candidates"]["penalty"]) == (list(ALPHAS), list(PENALTIES))
    assert tried.flatten() == pytest.approx(list(errors.values()), rel=1e-4)
    assert metrics["validation_mse"] == pytest.approx(errors[best], rel=1e-4)
    assert np.abs(student.state_dict()["map.weight"].numpy() - weight).max() < 1e-3


def test_every_channel_has_the_share_that_it_deserves(task: td.Task) -> None:
    teacher = Wise()
    config = td.LinearConfig(penalties=PENALTIES, individual=True)
    student = td.distill(teacher, config, task, losses=[BY_VALIDATION], control=False)
    metrics = student.lineage[-1].metrics
    tables = []
    for channel in range(3):
        weight, errors = brute(task, teacher.forecast, [channel])
        tables.append(list(errors.values()))
        assert (metrics["alpha"][channel], metrics["penalty"][channel]) == min(errors, key=errors.__getitem__)
        assert np.abs(student.state_dict()["map.weight"][channel].numpy() - weight).max() < 1e-3
    assert metrics["alpha"][0] > metrics["alpha"][2]
    assert np.array(metrics["candidates"]["validation_mse"]).flatten() == pytest.approx(np.mean(tables, 0), rel=1e-4)
    assert metrics["validation_mse"] == pytest.approx(np.mean(np.min(tables, 1)), rel=1e-4)


@pytest.mark.parametrize("individual", [False, True])
def test_a_control_comes_from_the_same_pass(task: td.Task, individual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config, teacher = td.LinearConfig(individual=individual), td.train(td.LinearConfig(penalties=(1e-1,)), task)
    plain = td.train(config, task)
    n_passes, summed = 0, Statistics.of

    def counted(*arguments: Any, **options: Any) -> Statistics:
        nonlocal n_passes
        n_passes += 1
        return summed(*arguments, **options)

    monkeypatch.setattr(Statistics, "of", counted)
    student = td.distill(teacher, config, task, losses=[td.OutputLoss(alpha=0.3)])
    assert n_passes == 2  # training and validation windows, once each
    assert student.control is not None
    assert student.control.digest == plain.digest
    assert student.control.lineage[-1].metrics == plain.lineage[-1].metrics
    assert "candidates" not in student.lineage[-1].metrics
    none = td.distill(teacher, config, task, losses=[td.OutputLoss(alpha=0)], control=False)
    assert none.digest == plain.digest


@pytest.mark.parametrize("individual", [False, True])
def test_channels_that_do_not_move_have_the_zero_solution(individual: bool) -> None:
    """Forecasting the window's mean, whatever a teacher says."""
    values = np.ones((307, 3))
    flat = td.Task(Panel((Item("flat", None, values),), channels=("a", "b", "c")), context=CONTEXT, horizon=HORIZON)
    config = td.LinearConfig(individual=individual)
    student = td.distill(Wise(), config, flat, losses=[BY_VALIDATION], control=False)
    assert not student.state_dict()["map.weight"].any()
    assert student.lineage[-1].metrics["validation_mse"] == 0


def test_a_share_chosen_is_the_share_given(task: td.Task) -> None:
    chosen = td.distill(Wise(), td.LinearConfig(), task, losses=[BY_VALIDATION], control=False)
    alpha = chosen.lineage[-1].metrics["alpha"]
    assert (
        chosen.lineage[-1].spec["losses"] == "MSE(student, alpha * teacher + (1 - alpha) * truth; alpha by validation)"
    )
    given = td.distill(Wise(), td.LinearConfig(), task, losses=[td.OutputLoss(alpha=alpha)], control=False)
    assert torch.allclose(weight_of(given), weight_of(chosen), atol=1e-6)


class Right:
    """A teacher that says what happened."""

    digest = "right"

    def forecast(self, batch: Batch) -> torch.Tensor:
        return batch.target


def test_a_teacher_that_adds_nothing_gets_no_share(task: td.Task) -> None:
    learnt = Statistics.of(task.train, Right().forecast)
    judged = Statistics.of(task.validation)
    assert torch.allclose(known(learnt.taught), learnt.cross, rtol=1e-9, atol=1e-9)
    chosen = choose(learnt, judged, PENALTIES, ALPHAS)
    assert chosen.alpha == 0
    assert torch.allclose(chosen.errors, chosen.errors[:1].expand_as(chosen.errors), rtol=1e-9)


def test_no_candidate_sees_a_test_row(task: td.Task) -> None:
    values = task.panel.items[0].values.copy()
    border = task.borders[0].validation
    values[border:] = np.random.default_rng(1).normal(size=values[border:].shape) * 1e3
    noisy = Panel((Item("toy", None, values),), channels=task.channels, frequency="h", name="toy")
    other = td.Task(noisy, context=CONTEXT, horizon=HORIZON, split=task.split)
    students = [
        td.distill(td.train(td.LinearConfig(), variant), td.LinearConfig(), variant, losses=[BY_VALIDATION])
        for variant in (task, other)
    ]
    assert students[0].digest == students[1].digest
    assert students[0].lineage[-1].metrics == students[1].lineage[-1].metrics
    solved = [td.solve(td.LinearConfig(), [variant], teacher=Wise()) for variant in (task, other)]
    assert solved[0].digest == solved[1].digest
    assert solved[0].lineage == solved[1].lineage


def test_a_student_trained_by_steps_needs_a_number(task: td.Task) -> None:
    spy = Wise()
    with pytest.raises(UnsupportedError, match=r"`alpha` must be a number for a 'mlp' model.*LinearConfig"):
        td.distill(spy, td.MLPConfig(width=5, depth=1), task, losses=[BY_VALIDATION])
    with pytest.raises(UnsupportedError, match="no closed-form optimum"):
        td.distill(spy, td.LinearConfig(), task, losses=[BY_VALIDATION, td.TemporalLoss()])
    assert spy.n_windows == 0
    with pytest.raises(ConfigError, match="trained by steps"):
        td.Recipe(data={"dataset": "nyc-weather"}, student={"losses": [BY_VALIDATION]})
    recipe = td.Recipe(data={"dataset": "nyc-weather"}, student={"model": td.LinearConfig(), "losses": [BY_VALIDATION]})
    assert td.Recipe.from_toml(recipe.to_toml()).student.losses == (BY_VALIDATION,)


def test_balance_says_nothing_to_what_is_solved(task: td.Task) -> None:
    students = [
        td.distill(Wise(), td.LinearConfig(), task, losses=[BY_VALIDATION], balance=balance, control=False)
        for balance in ("fixed", "start")
    ]
    assert students[0].digest == students[1].digest


def parts(**options: Any) -> Iterator[td.Task]:
    """Three parts of a panel, two items and then one and one, of different length."""
    values = [toy_panel(n_rows=n_rows, seed=seed).items[0].values for seed, n_rows in enumerate((307, 283, 311, 293))]
    items = [Item(f"item {number}", None, series) for number, series in enumerate(values)]
    for members in (items[:2], items[2:3], items[3:]):
        yield task_of(members, **options)


def whole(**options: Any) -> td.Task:
    return task_of([item for part in parts() for item in part.panel.items], **options)


def task_of(items: list[Item], **options: Any) -> td.Task:
    panel = Panel(tuple(items), channels=("load", "wind", "price"), frequency="h", name="parts")
    split = td.Split.fractions(0.5, 0.3, 0.2)
    return td.Task(panel, context=CONTEXT, horizon=HORIZON, split=split, **{"scaler": "item", **options})


@pytest.mark.parametrize("individual", [False, True])
def test_statistics_of_parts_add_up_to_those_of_the_whole(individual: bool) -> None:
    of = lambda task: Statistics.of(task.train, Right().forecast, individual=individual)  # noqa: E731
    added, wanted = sum(map(of, parts())), of(whole())
    assert isinstance(added, Statistics)
    assert added.n_rows == wanted.n_rows
    for name, tensor in wanted.tensors().items():
        torch.testing.assert_close(added.tensors()[name], tensor, rtol=1e-9, atol=1e-9)


def test_statistics_of_different_questions_do_not_add_up(task: td.Task) -> None:
    plain, individual = Statistics.of(task.train), Statistics.of(task.train, individual=True)
    for other in (individual, Statistics.of(task.train, Right().forecast)):
        with pytest.raises(ShapeError, match="same entries"):
            plain + other
    with pytest.raises(TypeError):
        plain + 1  # type: ignore[operator]


@pytest.mark.parametrize("individual", [False, True])
@pytest.mark.parametrize("scaler", ["item", None])
def test_parts_are_solved_as_if_they_were_one(scaler: Any, individual: bool) -> None:
    config, one = td.LinearConfig(individual=individual), whole(scaler=scaler)
    teacher = td.train(td.LinearConfig(penalties=(1.0,)), one)
    student = td.solve(config, parts(scaler=scaler), teacher=teacher)
    wanted = td.distill(teacher, config, one, losses=[BY_VALIDATION])
    solved, distilled = (model.lineage[-1] for model in (student, wanted))
    assert (solved.metrics["alpha"], solved.metrics["penalty"]) == (
        distilled.metrics["alpha"],
        distilled.metrics["penalty"],
    )
    assert solved.metrics["validation_mse"] == pytest.approx(distilled.metrics["validation_mse"], rel=1e-3)
    assert (solved.verb, solved.spec["teacher"], solved.metrics["n_parts"]) == ("solve", teacher.digest, 3)
    # What a teacher says is kept in half precision by `distill`, and not at all by `solve`.
    assert torch.allclose(weight_of(student), weight_of(wanted), atol=5e-3)
    assert student.control is not None
    alone = td.solve(config, parts(scaler=scaler))
    assert student.control.digest == alone.digest
    assert torch.allclose(weight_of(alone), weight_of(td.train(config, one)), atol=1e-5)
    comparison = solved.metrics["against_control"]
    assert comparison["relative"] < 1e-12
    assert comparison["control_validation_mse"] == alone.lineage[-1].metrics["validation_mse"]


def test_only_one_part_is_held_at_a_time() -> None:
    """Before the next part is made, nothing of the last one is left."""
    made: list[weakref.ref[td.Task]] = []

    def watched() -> Iterator[td.Task]:
        for seed in range(3):
            gc.collect()
            assert [reference for reference in made if reference() is not None] == []
            task = td.Task(toy_panel(seed=seed), context=CONTEXT, horizon=HORIZON, scaler="item")
            made.append(weakref.ref(task))
            box = [task]
            del task
            yield box.pop()

    td.solve(td.LinearConfig(), watched(), teacher=Wise())
    assert len(made) == 3


def test_a_stopped_run_goes_on_and_a_finished_one_is_solved_anew(tmp_path: Path) -> None:
    path, teacher = tmp_path / "sums.safetensors", Wise()
    undisturbed = td.solve(td.LinearConfig(), parts(), teacher=teacher)
    n_asked, teacher.n_windows = teacher.n_windows, 0

    def stopped() -> Iterator[td.Task]:
        for number, task in enumerate(parts()):
            if number == 2:
                raise KeyboardInterrupt
            yield task

    with pytest.raises(KeyboardInterrupt):
        td.solve(td.LinearConfig(), stopped(), teacher=teacher, checkpoint=path)
    assert 0 < teacher.n_windows < n_asked
    again = td.solve(td.LinearConfig(), parts(), teacher=teacher, checkpoint=path)
    assert teacher.n_windows == n_asked
    assert again.digest == undisturbed.digest
    assert again.lineage == undisturbed.lineage
    fixed = td.solve(td.LinearConfig(penalties=(1.0,)), parts(), teacher=teacher, alpha=0.5, checkpoint=path)
    assert teacher.n_windows == n_asked
    assert fixed.digest == td.solve(td.LinearConfig(penalties=(1.0,)), parts(), teacher=teacher, alpha=0.5).digest


def test_a_part_that_comes_twice_counts_once() -> None:
    twice = td.solve(td.LinearConfig(), [*parts(), *parts()])
    assert twice.digest == td.solve(td.LinearConfig(), parts()).digest


def test_a_checkpoint_of_other_sums_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sums.safetensors"
    td.solve(td.LinearConfig(), parts(), checkpoint=path)
    first, *_ = parts()
    with pytest.raises(ArtifactError, match="2 of 3 parts that are not among `tasks`"):
        td.solve(td.LinearConfig(), [first], checkpoint=path)
    changes: tuple[dict[str, Any], ...] = (
        {"config": td.LinearConfig(individual=True)},
        {"teacher": Wise()},
        {"tasks": parts(scaler=None)},
    )
    for change in changes:
        with pytest.raises(ArtifactError, match="belongs to another run"):
            td.solve(**{"config": td.LinearConfig(), "tasks": parts(), "checkpoint": path, **change})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        td.solve(td.LinearConfig(), parts(), checkpoint=path)


class Lost:
    """A teacher that says nothing of some windows."""

    digest = "lost"

    def forecast(self, batch: Batch) -> torch.Tensor:
        return torch.where(batch.index[:, None, None] == 7, torch.nan, batch.target)


class Short:
    """A teacher that says one step and would have it count for all."""

    digest = "short"

    def forecast(self, batch: Batch) -> torch.Tensor:
        return batch.target[:, :1]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"tasks": []}, ConfigError, ["at least one task"]),
        ({"tasks": ["etth1"]}, ConfigError, ["hold td.Task only", "'str'"]),
        ({"tasks": toy_task()}, ConfigError, ["[task]"]),
        ({"tasks": [toy_task(), toy_task(seed=1)]}, ShapeError, ["differs", "mean, scale", 'scaler="item"']),
        ({"tasks": [toy_task(), toy_task().with_context(43)]}, ShapeError, ["differs", "context", "the same"]),
        ({"config": td.MLPConfig()}, UnsupportedError, ["td.LinearConfig", "'MLPConfig'", "td.train"]),
        ({"alpha": 2}, ConfigError, ["`alpha`", "between 0 and 1"]),
        ({"teacher": Lost()}, DivergenceError, ["`teacher`", "finite"]),
        ({"teacher": Short()}, ShapeError, ["`teacher`", "11, 3)", "1, 3)", "horizon"]),
        ({"teacher": "a teacher"}, UnsupportedError, ["`teacher`", "forecast(batch)"]),
        (
            {"teacher": td.LinearConfig().build(toy_task().with_context(43).signature.replace(horizon=7))},
            ShapeError,
            ["`teacher` must forecast the task's 11 steps"],
        ),
    ],
    ids=lambda value: "",
)
def test_what_cannot_be_solved_is_refused(arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        td.solve(**{"config": td.LinearConfig(), "tasks": [toy_task()], **arguments})
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_teacher_that_does_not_know_is_refused_by_distill_too(task: td.Task) -> None:
    with pytest.raises(DivergenceError, match="finite"):
        td.distill(Lost(), td.LinearConfig(), task, control=False)


def test_equations_are_formed_once(task: td.Task) -> None:
    equations = NormalEquations(task.train, task.validation, Wise().forecast, ALPHAS)
    first = equations.statistics(individual=False)
    assert equations.untaught().statistics(individual=False) is first
    assert equations.untaught().alphas == (0.0,)


def test_an_exported_model_teaches_no_sums(task: td.Task) -> None:
    with pytest.raises(OrderError):
        td.solve(td.LinearConfig(), [task], teacher=td.export(td.train(td.LinearConfig(), task)))  # type: ignore[arg-type]
