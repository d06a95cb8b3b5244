"""What is scored is a `part`; the first version called it `split`, which still works and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tsdistill.evaluation import evaluate, score, window_losses
from tsdistill.models import SeasonalNaiveConfig
from tsdistill.report import Report, Row, compare
from tsdistill.testing import toy_task


@pytest.mark.parametrize("verb", [evaluate, score, window_losses, compare])
def test_a_part_may_be_named_as_in_the_first_version_for_a_while(verb: Callable[..., Any]) -> None:
    model = SeasonalNaiveConfig(period=24).build(toy_task().signature)
    first: Any = {"naive": model} if verb is compare else model
    more = {"latency": False, "progress": False} if verb is compare else {}
    with pytest.warns(DeprecationWarning, match=r"`split` of \w+\(\) is called `part` now.*part='train'"):
        before = verb(first, toy_task(), split="train", **more)
    now = verb(first, toy_task(), part="train", **more)
    if verb is evaluate:
        assert before == now
    with pytest.raises(TypeError, match="both `split` and `part`"):
        verb(first, toy_task(), split="train", part="test")


def test_a_report_of_the_first_version_is_read() -> None:
    report = Report(
        context=29, horizon=7, channels=("a",), part="test", n_windows={"test": 5}, reference="x", subject="x",
        rows=(Row(name="x", runtime="onnx fp32"),),
    )  # fmt: skip
    assert Report.from_json(report.to_json().replace('"part"', '"split"')) == report
