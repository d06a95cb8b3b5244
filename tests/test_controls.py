"""A control stands beside its student: no copy carries it along, and nothing that happens to the student changes it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

import tsdistill as td
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster, LSTMConfig, MLPConfig
from tsdistill.models.base import versions
from tsdistill.spec import LineageStep
from tsdistill.testing import toy_batch, toy_signature, toy_task

QUICK = td.Training(max_steps=3, batch_size=13)


def student_with_control(config: MLPConfig | LSTMConfig, seed: int = 0) -> tuple[Forecaster, Forecaster]:
    signature = toy_task().signature
    student, control = config.build(signature, seed), config.build(signature, seed + 1)
    student.control = control
    return student, control


def test_a_copy_is_a_model_by_itself() -> None:
    student, control = student_with_control(LSTMConfig(widths=(5, 3)))
    student.with_step(LineageStep(verb="train", versions=versions()))
    student.register_buffer("seen", torch.ones(3))
    calls: list[str] = []
    student.register_forward_hook(lambda *_: calls.append("hook"))
    digest = student.digest
    copied = copy.deepcopy(student.eval())

    assert copied.control is None
    assert student.control is control
    assert type(copied) is type(student)
    assert (copied.digest, copied.lineage, copied.training) == (digest, student.lineage, False)
    assert copied.config == student.config
    batch = toy_batch(signature=student.signature)
    assert torch.equal(copied(batch.context), student(batch.context))
    assert calls == ["hook", "hook"]

    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers()):
            tensor.add_(1.0)
    assert student.digest == digest
    copied.control = student
    assert student.control is control


def test_weights_that_are_shared_stay_shared_in_a_copy() -> None:
    model = MLPConfig(width=5, depth=2).build(toy_signature())
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    same = next((a, b) for a in layers for b in layers if a is not b and a.weight.shape == b.weight.shape)
    same[1].weight = same[0].weight
    copied = copy.deepcopy(model)
    assert copied.n_parameters == model.n_parameters
    assert len({id(weight) for weight in copied.parameters()} & {id(weight) for weight in model.parameters()}) == 0


def test_a_model_and_its_control_in_one_list_are_copied_apart() -> None:
    student, control = student_with_control(MLPConfig(width=5, depth=1))
    copied, beside = copy.deepcopy([student, control])
    assert copied.control is None
    assert (copied.digest, beside.digest) == (student.digest, control.digest)


VERBS: dict[str, Callable[[Forecaster], object]] = {
    "distil": lambda student: td.distill(student, student, toy_task(), training=QUICK),
    "prune": lambda student: td.prune(student, toy_task(), td.Pruning(ratio=0.25, recovery=QUICK)),
    "zero weights": lambda student: td.prune(
        student, toy_task(), td.Pruning(method="unstructured", ratio=0.25, recovery=None)
    ),
    "export": lambda student: td.export(student, toy_task()),
    "quantize": lambda student: td.quantize(
        student, toy_task(), td.Quantization(method="dynamic", require_gain=False, max_error_increase=99.0)
    ),
    "compare": lambda student: td.compare({"student": student}, toy_task(), latency=False, progress=False),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_leaves_a_control_as_it_was(verb: str) -> None:
    student, control = student_with_control(MLPConfig(width=11, depth=1))
    before = (student.digest, control.digest, control.lineage)
    result = VERBS[verb](student)
    assert student.control is control
    assert (student.digest, control.digest, control.lineage) == before
    if isinstance(result, Forecaster | Deployed):
        assert result.control is not None
        assert result.control is not control
        assert result.control.control is None
