"""Rounds, targets and who teaches the recovery: what is reached, what is said of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_pruning_groups import shaken
from tests.typed import instance_of
from tsdistill.data import Task
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError, UnsupportedError
from tsdistill.exporting import export
from tsdistill.models import Forecaster, LSTMConfig, MLPConfig, PatchTSTConfig
from tsdistill.pruning import Pruning, prune, targets
from tsdistill.pruning.evidence import error_of
from tsdistill.recipe import Recipe
from tsdistill.testing import toy_task
from tsdistill.training import Training, train

QUICK = Training(epochs=1, batch_size=37, learning_rate=5e-3, precision="float32")
NET = MLPConfig(width=7, depth=2, hidden=(16, 16), dropout=0.0)


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def student(task: Task) -> Forecaster:
    return train(NET, task, Training(epochs=5, learning_rate=1e-2, precision="float32"))


def test_a_spec_that_asks_for_nothing_new_is_written_as_before() -> None:
    assert list(Pruning().to_dict()) == ["ratio", "criterion", "recovery", "losses"]
    assert Pruning().digest == "3561dc2f4aa10a0c"
    text = 'pruning.ranking = "global"\npruning.max_bytes = 50000\n[data]\ndataset = "etth1"'
    recipe = Recipe.from_toml(text)
    assert recipe.pruning == Pruning(ranking="global", max_bytes=50000)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_a_target_finds_the_ratio_that_it_takes_the_place_of() -> None:
    spec = Pruning(max_bytes=50000)
    assert spec.ratio is None
    assert Pruning.from_json(spec.to_json()) == spec == Pruning().replace(ratio=None, max_bytes=50000)
    with pytest.raises(ConfigError, match=r"`ratio` must be None with max_bytes, which finds it, got ratio=0.5"):
        Pruning().replace(max_bytes=50000)


@pytest.mark.parametrize(
    ("schedule", "shares"), [("linear", [0.2, 0.4, 0.6]), ("cubic", [0.6 * 19 / 27, 0.6 * 26 / 27, 0.6])]
)
def test_shares_grow_over_the_rounds(schedule: str, shares: list[float]) -> None:
    spec = Pruning(n_rounds=3, schedule=schedule)
    assert [spec.share(done, 0.6) for done in (1, 2, 3)] == pytest.approx(shares)
    assert spec.share(0, 0.6) == 0


def test_rounds_end_where_one_cut_would(task: Task, student: Forecaster, tmp_path: Path) -> None:
    spec = Pruning(ratio=0.5, n_rounds=2, schedule="linear", recovery=QUICK, criterion="taylor")
    smaller = prune(student, task, spec, checkpoint=tmp_path / "prune.safetensors")
    assert smaller.config == NET.replace(hidden=(8, 8))
    rounds = smaller.lineage[-1].metrics["rounds"]
    assert [entry["kept"] for entry in rounds] == [{f"block{n}.hidden": size for n in (1, 2)} for size in (12, 8)]
    assert all(entry["validation_mse"] > 0 for entry in rounds)
    assert (tmp_path / "round1-prune.safetensors").exists()
    again = prune(student, task, spec, checkpoint=tmp_path / "prune.safetensors")
    assert again.digest == smaller.digest


def test_blocks_and_context_go_in_the_last_round(task: Task) -> None:
    model = shaken(PatchTSTConfig(depth=2, width=6, heads=2, feedforward=8, patch=11, stride=11))
    groups = ("units", "layers", "context")
    smaller = prune(model, task, Pruning(ratio=0.5, n_rounds=2, groups=groups, recovery=None, repair=True))
    assert smaller.config.to_dict() | {"depth": 1, "feedforward": [4]} == smaller.config.to_dict()
    assert smaller.context == 47 - 2 * 11
    assert list(smaller.lineage[-1].metrics["rounds"][0]["kept"]) == ["block1.feedforward", "block2.feedforward"]


def test_a_global_ranking_in_rounds_ends_at_its_share(task: Task, student: Forecaster) -> None:
    spec = Pruning(ratio=0.5, n_rounds=3, ranking="global", criterion="activation", recovery=None)
    assert sum(instance_of(MLPConfig, prune(student, task, spec).config).hidden) == 16


def test_the_unpruned_self_can_teach(task: Task, student: Forecaster) -> None:
    spec = Pruning(ratio=0.5, recovery=QUICK, recover_from="self")
    smaller = prune(student, task, spec)
    assert smaller.lineage[-1].spec["teacher"] == student.digest
    assert smaller.digest != prune(student, task, spec.replace(recover_from=None)).digest
    assert smaller.digest == prune(student, task, spec.replace(recover_from=None), teacher=student).digest
    with pytest.raises(ConfigError, match="`recover_from` must be None where a teacher is given"):
        prune(student, task, spec, teacher=student)


def test_a_control_ends_at_the_sizes_of_its_student(task: Task, student: Forecaster) -> None:
    pupil = distill(student, LSTMConfig(widths=(8, 7), patch=11), task, training=QUICK)
    spec = Pruning(n_rounds=2, ranking="global", criterion="taylor", recovery=QUICK, max_parameters=1200)
    smaller = prune(pupil, task, spec, teacher=student)
    assert smaller.n_parameters <= 1200 < pupil.n_parameters
    assert smaller.control is not None
    assert smaller.control.config == smaller.config
    assert "teacher" not in smaller.control.lineage[-1].spec


def test_no_more_is_cut_than_a_number_of_weights_asks_for(task: Task, student: Forecaster) -> None:
    smaller = prune(student, task, Pruning(max_parameters=1400, recovery=None))
    metrics = smaller.lineage[-1].metrics
    assert smaller.n_parameters == metrics["reached"]["max_parameters"] <= 1400
    step = prune(student, task, Pruning(ratio=metrics["ratio"] - 1 / 64, recovery=None))
    assert step.n_parameters > 1400
    assert prune(student, task, Pruning(max_parameters=10**6, recovery=None)).config == NET


def test_a_file_that_grows_with_its_lineage_is_cut_further(
    task: Task, student: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(targets.MEASURES, "max_bytes", lambda m: 4 * m.n_parameters + 1000 * len(m.lineage))
    smaller = prune(student, task, Pruning(max_bytes=7000, recovery=None))
    assert 4 * smaller.n_parameters + 2000 <= 7000
    assert smaller.lineage[-1].metrics["reached"]["max_bytes"] <= 7000
    with pytest.raises(UnsupportedError, match=r"keeps to max_bytes=5500 \(reached: 6\d\d\d\)"):
        prune(student, task, Pruning(max_bytes=5500, recovery=None))


@pytest.mark.slow
def test_bytes_are_those_of_the_exported_model(task: Task, student: Forecaster) -> None:
    small = export(prune(student, task, Pruning(ratio=0.5, recovery=None))).size_bytes
    smaller = prune(student, task, Pruning(max_bytes=small, recovery=None))
    assert export(smaller).size_bytes <= small
    assert smaller.lineage[-1].metrics["ratio"] == pytest.approx(0.5, abs=0.07)


def test_latency_is_measured_on_every_cut(task: Task, student: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that charges a microsecond per weight.
    monkeypatch.setitem(targets.MEASURES, "max_latency_ms", lambda model: model.n_parameters / 1000)
    smaller = prune(student, task, Pruning(max_latency_ms=1.4, max_parameters=1300, recovery=None))
    assert smaller.lineage[-1].metrics["reached"]["max_latency_ms"] <= 1.3


@pytest.mark.slow
def test_the_clock_gives_milliseconds(student: Forecaster) -> None:
    assert 0 < targets.latency_ms(student) < 1000


def test_as_small_as_the_error_allows(task: Task, student: Forecaster) -> None:
    spec = Pruning(max_error_increase=0.05, repair=True, recovery=QUICK)
    smaller = prune(student, task, spec)
    assert error_of(smaller, task.validation) <= 1.05 * error_of(student, task.validation)
    metrics = smaller.lineage[-1].metrics
    assert smaller.n_parameters < student.n_parameters
    assert metrics["ratio"] == max(
        attempt["ratio"] for attempt in metrics["tried"] if attempt["error_increase"] <= 0.05
    )
    assert len(metrics["tried"]) == 4


UNREACHED = [
    (Pruning(max_parameters=5, recovery=None), ["max_parameters=5", "closest: 1"]),
    (Pruning(max_latency_ms=1e-9, max_parameters=5, recovery=None), ["max_latency_ms=1e-09", "and", "closest"]),
    (
        Pruning(max_error_increase=0.0, groups=("width",), recovery=None),
        ["max_error_increase=0, got", "at the closest"],
    ),
]


@pytest.mark.parametrize(("spec", "words"), UNREACHED, ids=["parameters", "several", "error"])
def test_a_target_out_of_reach_says_how_close_it_comes(
    spec: Pruning, words: list[str], task: Task, student: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(targets.MEASURES, "max_latency_ms", lambda model: model.n_parameters / 1000)
    before = student.digest
    with pytest.raises(UnsupportedError) as error:
        prune(student, task, spec)
    for word in (*words, "left as it was"):
        assert word in str(error.value)
    assert student.digest == before


def test_a_ratio_that_would_empty_a_group_keeps_one_and_says_so(task: Task, student: Forecaster) -> None:
    smaller = prune(student, task, Pruning(ratio=0.99, recovery=None))
    assert smaller.config == NET.replace(hidden=(1, 1))
    note = "block1.hidden keeps its minimum of 1 of 16, where a ratio of 0.99 leaves 0"
    assert smaller.lineage[-1].metrics["notes"][0] == note
    assert "notes" not in prune(student, task, Pruning(ratio=0.5, recovery=None)).lineage[-1].metrics


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ratio": 1.0, "n_rounds": 0, "criterion": "l3"}, ["3 problems", "ratio", "n_rounds", "criterion"]),
        (
            {"max_error_increase": 0.1, "max_bytes": 9, "recovery": None, "recover_from": "self"},
            ["2 problems", "stand alone, without max_bytes", "`recover_from` must be None with recovery=None"],
        ),
        (
            {"method": "unstructured", "repair": True, "max_bytes": 9, "groups": ("width",), "criterion": "taylor"},
            ["4 problems", "`repair` must be left out", "`max_bytes` must be", "`groups`", "'magnitude'"],
        ),
        (
            {"ratio": 0.5, "max_bytes": 9, "max_parameters": 3},
            ["`ratio` must be None with max_parameters and max_bytes"],
        ),
        ({"ratio": None}, ["`ratio` must be a number without a target", "or one of max_parameters"]),
        ({"max_latency_ms": 0.0, "max_parametres": 3}, ["2 problems", "`max_parameters`", "greater than 0"]),
    ],
    ids=["ranges", "targets", "unstructured", "both", "neither", "names"],
)
def test_all_problems_of_a_spec_come_at_once(wrong: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Pruning(**wrong)
    for word in words:
        assert word in str(error.value)
