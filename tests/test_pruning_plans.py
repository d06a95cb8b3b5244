"""Plans and sensitivities: what they foretell is what pruning then does, and they touch nothing."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import plotly.graph_objects as go
import pytest

from tests.test_pruning_groups import shaken
from tsdistill.data import Task
from tsdistill.errors import ConfigError, OrderError, UnsupportedError
from tsdistill.exporting import export
from tsdistill.models import (
    InvertedTransformerConfig,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    TCNConfig,
)
from tsdistill.pruning import (
    Evidence,
    Pruning,
    PruningSensitivity,
    macs_of,
    plan_pruning,
    prune,
    pruning_sensitivity,
    rebuild,
)
from tsdistill.report import plot_sensitivity
from tsdistill.testing import toy_signature, toy_task

TST = PatchTSTConfig(depth=2, width=6, heads=2, head_width=5, feedforward=(7, 11), patch=11, stride=11)
EVERYTHING = ("units", "heads", "width", "layers", "context")


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def attention(n_tokens: int, width: int, inner: int, feedforward: int) -> int:
    """Multiplications of a transformer block over one row."""
    return n_tokens * (4 * width * inner + 2 * width * feedforward) + 2 * n_tokens * n_tokens * inner


MACS: list[tuple[ModelConfig, int]] = [
    (MLPConfig(width=5, depth=1, hidden=7), 3 * (47 * 5 + 2 * 5 * 7 + 5 * 11 + 47 * 11)),
    (
        LSTMConfig(widths=(7, 5), embedding=3, patch=11, shortcut=False),
        3 * 4 * (11 * 3 + 4 * 7 * (3 + 7) + 4 * 5 * (7 + 5)) + 3 * 5 * 11,
    ),
    (
        PatchTSTConfig(depth=1, width=6, heads=2, head_width=5, feedforward=7, patch=11, stride=11),
        3 * (4 * 11 * 6 + attention(4, 6, 10, 7) + 4 * 6 * 11),
    ),
    (
        InvertedTransformerConfig(depth=1, width=6, heads=2, head_width=5, feedforward=7, shortcut=False),
        3 * 47 * 6 + attention(3, 6, 10, 7) + 3 * 6 * 11,
    ),
    (
        TCNConfig(width=5, depth=1, hidden=7, kernel=3, patch=11, shortcut=False),
        3 * (4 * (11 * 5 + 5 * 7 + 3 * 7 + 7 * 5) + 5 * 11),
    ),
]


@pytest.mark.parametrize(("config", "expected"), MACS, ids=[config.kind for config, _ in MACS])
def test_multiplications_are_counted(config: ModelConfig, expected: int) -> None:
    assert macs_of(config.build(toy_signature())) == expected


@pytest.mark.parametrize("ranking", ["local", "global"])
def test_a_plan_foretells_what_pruning_does(ranking: str, task: Task) -> None:
    model = shaken(TST)
    before = model.digest
    spec = Pruning(ratio=0.4, ranking=ranking, groups=EVERYTHING, recovery=None)
    plan, smaller = plan_pruning(model, task, spec), prune(model, task, spec)
    assert model.digest == before
    assert rebuild(model, plan.kept).digest == smaller.digest
    assert plan.n_parameters == (model.n_parameters, smaller.n_parameters)
    assert plan.macs == (macs_of(model), macs_of(smaller))
    assert smaller.lineage[-1].metrics["kept"] == {row.group: f"{row.n_kept} of {row.n_units}" for row in plan.rows}
    for row in plan.rows:
        alone = rebuild(model, {row.group: plan.kept[row.group]})
        assert row.parameters_saved == model.n_parameters - alone.n_parameters == row.bytes_saved // 4
        assert row.macs_saved == macs_of(model) - macs_of(alone)


def test_a_plan_is_data_and_prints_as_a_table(task: Task) -> None:
    model = shaken(TST)
    plan = plan_pruning(model, task, Pruning(ratio=0.9))
    with pytest.raises(FrozenInstanceError):
        plan.ratio = 0.5  # type: ignore[misc]
    again = json.loads(json.dumps(plan.to_dict()))
    assert again["rows"][0] == {
        "group": "block1.heads",
        "kind": "heads",
        "n_units": 2,
        "n_kept": 1,
        "parameters_saved": 5 * 6 * 4 + 3 * 5,
        "macs_saved": plan.rows[0].macs_saved,
        "bytes_saved": 4 * (5 * 6 * 4 + 3 * 5),
    }
    assert again["kept"]["block1.heads"] == list(plan.kept["block1.heads"])
    lines = str(plan).splitlines()
    assert lines[0].split() == ["group", "units", "kept", "parameters", "MACs", "bytes"]
    assert lines[1].split()[:3] == ["block1.heads", "2", "1"]
    assert len({len(line) for line in lines[:6]}) == 1
    assert f"{model.n_parameters:,} -> {plan.n_parameters[1]:,} weights" in str(plan)
    assert any("block1.heads keeps its minimum" in line for line in lines)


def test_a_plan_finds_the_ratio_of_a_target(task: Task) -> None:
    model = shaken(MLPConfig(width=5, depth=2, hidden=31))
    plan = plan_pruning(model, task, Pruning(max_parameters=1200))
    assert plan.n_parameters[1] <= 1200
    assert prune(model, task, Pruning(ratio=plan.ratio, recovery=None)).n_parameters == plan.n_parameters[1]


def test_a_plan_for_an_error_is_refused(task: Task) -> None:
    with pytest.raises(UnsupportedError, match="cannot tell how far `max_error_increase`"):
        plan_pruning(shaken(TST), task, Pruning(max_error_increase=0.01))


def test_curves_are_errors_of_cut_models(task: Task) -> None:
    model = shaken(TST)
    before = model.digest
    spec = Pruning(groups=("block*.feedforward", "context"), criterion="taylor")
    sensitivity = pruning_sensitivity(model, task, spec, ratios=(0.0, 0.3, 0.9))
    assert model.digest == before
    assert list(sensitivity.errors) == ["block1.feedforward", "block2.feedforward", "context"]
    judge = Evidence(model, task)
    cut = prune(model, task, Pruning(ratio=0.3, groups=("block2.feedforward",), criterion="taylor", recovery=None))
    assert sensitivity.errors["block2.feedforward"][1] == pytest.approx(judge.error(cut))
    assert sensitivity.errors["context"][2] == pytest.approx(judge.error(rebuild(model, {"context": [3]})))
    assert all(curve[0] == pytest.approx(sensitivity.error) for curve in sensitivity.errors.values())
    assert sensitivity.to_frame().shape == (9, 3)
    assert json.loads(json.dumps(sensitivity.to_dict()))["ratios"] == [0.0, 0.3, 0.9]
    drawn = go.Figure(**sensitivity.figure())
    assert [trace.name for trace in drawn.data] == list(sensitivity.errors)
    assert list(drawn.data[0].y) == [sensitivity.error, *sensitivity.errors["block1.feedforward"]]
    assert str(sensitivity).splitlines()[0].split() == ["group", "0%", "30%", "90%"]


def test_a_page_of_curves_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    errors: dict[str, tuple[float, ...]] = {"<b>one</b>": (0.502, 0.5051, 0.504), "two": (0.503, 0.6, 40.0)}
    sensitivity = PruningSensitivity(0.5, (0.25, 0.5, 0.75), errors, "pinball")
    page = plot_sensitivity(sensitivity, tmp_path / "new" / "page.html", title="<i>mine</i>").read_text()
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert "default-src 'none'" in page
    body = page.split("<script", 1)[0]
    assert "<b>one" not in body
    assert "<i>mine" not in page
    assert "validation pinball of the whole model: 0.5000" in body.lower()
    cells = re.findall(r"<td>(.*?)</td>", body)
    assert cells[:4] == ["25%", "+0.4%", "+1.0%", "+0.8%"]  # 1.02 % is more than 1 %, and less later does not count
    assert cells[4:] == ["25%", "+0.6%", "+20.0%", "+7,900%"]
    figures = json.loads(found_in(r"const figures = (.*);", page))
    drawn = go.Figure(**figures["curves"])
    assert [list(trace.y) for trace in drawn.data] == [[0.5, *curve] for curve in errors.values()]
    assert 0.6 < drawn.layout.yaxis.range[1] < 1.1


def found_in(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match
    return match[1]


def test_repair_flattens_the_curves(task: Task) -> None:
    model = shaken(MLPConfig(width=5, depth=1, hidden=13))
    plain, mended = (
        pruning_sensitivity(model, task, Pruning(repair=repair), ratios=(0.5,)).errors["block1.hidden"][0]
        for repair in (False, True)
    )
    base = pruning_sensitivity(model, task, ratios=(0.0,)).error
    assert abs(mended - base) < abs(plain - base)


def test_looking_is_refused_where_pruning_is(task: Task) -> None:
    ridge = LinearConfig().build(task.signature)
    deployed = export(ridge)
    for look in (plan_pruning, pruning_sensitivity):
        with pytest.raises(UnsupportedError, match="no units, heads or widths"):
            look(ridge, task)
        with pytest.raises(OrderError, match=r"[Ss]wap"):
            look(deployed, task)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shares from 0 to below 1"):
        pruning_sensitivity(shaken(TST), task, ratios=(0.5, 1.0))
