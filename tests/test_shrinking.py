"""Students cut out of teachers: what is picked, what it is worth untrained, and what no cut can reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.test_contracts import CONFIGS, name
from tests.test_pruning_groups import shaken
from tests.typed import instance_of
from tsdistill.data import Task
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError, OrderError, UnsupportedError
from tsdistill.evaluation import evaluate
from tsdistill.exporting import export
from tsdistill.models import (
    DLinearConfig,
    Forecaster,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    SparseTSFConfig,
    TCNConfig,
)
from tsdistill.pruning import shrink
from tsdistill.pruning.shrinking import _spread
from tsdistill.testing import toy_batch, toy_signature, toy_task
from tsdistill.training import Training, train

TST = PatchTSTConfig(depth=3, width=10, heads=(2, 1, 3), head_width=5, feedforward=(7, 11, 13), patch=7, stride=3)
QUICK = Training(epochs=5, batch_size=37, learning_rate=5e-3, precision="float32")


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_every_model_shrinks_or_says_why_not(config: ModelConfig) -> None:
    teacher = shaken(config)
    if not teacher.width_groups():
        with pytest.raises(UnsupportedError, match="no units, blocks or steps"):
            shrink(teacher, config)
        return
    same = shrink(teacher, teacher.config)
    assert same.digest == teacher.digest
    sizes: dict[str, Any] = {}
    for group in teacher.width_groups():
        field, place = group.field
        n_kept = max(group.minimum, group.size // 2)
        if group.kind == "context":
            sizes["context"] = teacher.context - (group.size - n_kept) * group.steps
        elif group.kind != "layers":
            value = sizes.get(field, getattr(config, field))
            sizes[field] = n_kept if place is None else (*value[:place], n_kept, *value[place + 1 :])
    student = shrink(teacher, **sizes)
    assert student.n_parameters < teacher.n_parameters
    assert {option: getattr(student.config, option) for option in sizes if option != "context"} == {
        option: size for option, size in sizes.items() if option != "context"
    }
    assert student.context == sizes["context"]
    whole = config.replace(**{option: size for option, size in sizes.items() if option != "context"})
    assert shrink(teacher, whole, context=sizes["context"]).digest == student.digest
    batch = toy_batch(signature=teacher.signature)
    with torch.no_grad():
        assert student(batch.context, batch.future, batch.past).isfinite().all()
    assert [step.verb for step in student.lineage] == ["shrink"]
    assert student.lineage[0].spec["teacher"] == teacher.digest


def test_blocks_are_picked_from_the_first_to_the_last() -> None:
    assert _spread("depth", 6, 12).tolist() == [0, 2, 4, 7, 9, 11]  # DistilBERT's own
    assert _spread("widths", 3, 5, pinned=(1,)).tolist() == [0, 1, 4]
    teacher = shaken(TST)
    student = shrink(teacher, depth=2)
    assert student.config == TST.replace(depth=2, heads=(2, 3), feedforward=(7, 13))
    assert student.lineage[0].metrics["layers"] == [0, 2]
    before, after = teacher.state_dict(), student.state_dict()
    for old, new in ((0, 0), (2, 1)):
        for part in ("attention.query.weight", "expand.bias", "feedforward_norm.weight"):
            assert torch.equal(after[f"blocks.{new}.{part}"], before[f"blocks.{old}.{part}"])


def test_units_of_small_weights_go() -> None:
    config = MLPConfig(width=5, depth=1, hidden=7)
    teacher = shaken(config)
    weights = teacher.state_dict()
    for tensor, axis in (("expand.weight", 0), ("expand.bias", 0), ("contract.weight", 1)):
        weights[f"blocks.0.{tensor}"].index_fill_(axis, torch.tensor([1, 4]), 1e-3)
    student = shrink(teacher, hidden=5)
    kept = weights["blocks.0.expand.weight"][[0, 2, 3, 5, 6]]
    assert torch.equal(student.state_dict()["blocks.0.expand.weight"], kept)
    assert student.lineage[0].metrics["kept"]["block1.hidden"] == "5 of 7"


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (PatchTSTConfig(depth=3, width=16, heads=4, patch=7), {"depth": 2, "width": 8, "heads": 2}),
        (LSTMConfig(widths=(16, 16), patch=11), {"widths": (8, 8), "embedding": 8}),
        (MLPConfig(depth=3, width=16), {"depth": 2, "width": 8, "hidden": 16}),
    ],
    ids=lambda value: value.kind if isinstance(value, ModelConfig) else "",
)
def test_a_shrunk_student_forecasts_better_than_random_weights(
    config: ModelConfig, sizes: dict[str, Any], task: Task
) -> None:
    student = shrink(train(config, task, QUICK), **sizes)
    error = evaluate(student, task, part="validation")["mse"]
    random = [student.config.build(task.signature, seed) for seed in range(3)]
    assert error < 0.8 * min(evaluate(model, task, part="validation")["mse"] for model in random)


def test_the_control_of_a_shrunk_student_starts_from_random_weights(task: Task) -> None:
    teacher = train(MLPConfig(width=7, depth=2), task, QUICK)
    before = teacher.digest
    start = shrink(teacher, depth=1, width=5)
    student = distill(teacher, start, task, training=QUICK.replace(epochs=1, seed=3))
    assert student.control is not None
    assert student.control.digest == train(start.config, task, QUICK.replace(epochs=1, seed=3)).digest
    assert [step.verb for step in student.lineage] == ["shrink", "distill"]
    assert [step.verb for step in student.control.lineage] == ["train"]
    assert teacher.digest == before
    student.control = None
    with pytest.raises(OrderError, match="control=False"):
        distill(teacher, student, task, training=QUICK)


def test_a_student_of_a_shorter_context_is_distilled_with_a_control_as_short(task: Task) -> None:
    start = shrink(train(DLinearConfig(kernel=7), task, QUICK), context=23)
    student = distill(LinearConfig().build(task.signature), start, task, training=QUICK.replace(epochs=1))
    assert student.control is not None
    assert (student.context, student.control.context) == (23, 23)


def test_what_is_no_size_is_the_students_own() -> None:
    student = shrink(shaken(TST), TST.replace(width=5, dropout=0.3))
    assert instance_of(PatchTSTConfig, student.config).dropout == 0.3
    tcn = shaken(TCNConfig(width=7, depth=3, hidden=5, patch=5))
    student = shrink(tcn, TCNConfig(width=5, depth=2, hidden=3, patch=5))
    assert instance_of(TCNConfig, student.config).dilations == (1, 4)


def wrong_dilations() -> Forecaster:
    config = TCNConfig(width=7, depth=2, hidden=5, patch=5, dilations=(1, 3))
    return shrink(shaken(TCNConfig(width=7, depth=3, hidden=5, patch=5)), config)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda: shrink(shaken(TST), TST.replace(width=11, patch=11)), ["2 problems", "teacher's 10", "`patch`"]),
        (lambda: shrink(shaken(TST), TST.replace(head_width=3)), ["`head_width` must be the teacher's 5"]),
        (lambda: shrink(shaken(TST), depth=4), ["`depth`", "1 to 3 blocks", "depth=4"]),
        (lambda: shrink(shaken(TST), depth="two"), ["`depth`", "depth='two'"]),
        (lambda: shrink(shaken(TST), feedforward=(7, 12, 13)), ["`feedforward[1]`", "teacher's 11"]),
        (lambda: shrink(shaken(TST), widht=5), ["`widht`", "Did you mean `width`"]),
        (lambda: shrink(shaken(TST), context=40), ["`context`", "47 less a multiple of 3, and at least 8"]),
        (lambda: shrink(shaken(TST), context=23.0), ["`context`", "context=23.0"]),  # type: ignore[arg-type]
        (lambda: shrink(shaken(TST), TST, width=5), ["`config` must stand alone, without width"]),
        (lambda: shrink(shaken(TST), MLPConfig()), ["`config` must be a PatchTSTConfig", "MLPConfig"]),
        (lambda: shrink(shaken(LSTMConfig(widths=(5, 3), patch=11)), widths=(5,)), ["`widths[0]`", "teacher's 3"]),
        (lambda: shrink(shaken(SparseTSFConfig(period=7, hidden=5)), hidden=0), ["`hidden`", "from 1 to"]),
        (lambda: shrink(shaken(SparseTSFConfig(period=7)), hidden=3), ["`hidden` must be the teacher's 0"]),
        (wrong_dilations, ["`dilations`", "(1, 4)"]),
    ],
)  # fmt: skip
def test_what_no_cut_reaches_is_named(asked: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        asked()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_is_no_forecaster_or_no_longer_trainable_is_refused(task: Task) -> None:
    with pytest.raises(UnsupportedError, match="got a Identity"):
        shrink(torch.nn.Identity())  # type: ignore[arg-type]
    with pytest.raises(OrderError, match="shrink"):
        shrink(export(LinearConfig().build(toy_signature())))  # type: ignore[arg-type]
