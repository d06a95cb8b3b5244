"""What a foundation teacher is whatever library it comes from, and what is refused before any library is needed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tsdistill as td
from tests.foundation import LEVELS, posed, task_of
from tsdistill.errors import ArtifactError, ConfigError, ShapeError, TsdistillError, UnsupportedError
from tsdistill.report.foreign import unwrapped
from tsdistill.teachers import FoundationTeacher, from_foundation, from_huggingface, shown_by
from tsdistill.teachers.foundation_models import FOUNDATION, FoundationModel


class Persistent(FoundationModel):
    """The last value, and levels a quarter of a deviation apart; it counts what it is asked."""

    title = "Persistent"

    def __init__(self, levels: tuple[float, ...] = (0.1, 0.5, 0.8)) -> None:
        self.levels, self.context, self.at_once, self.mixes = levels, 19, 5, False
        self.asked: list[tuple[int, ...]] = []

    def ask(self, values: Tensor, horizon: int) -> Tensor:
        self.asked.append(tuple(values.shape))
        spread = torch.tensor([(level - 0.5) / 4 for level in self.levels] or [0.0])
        return values[:, :, -1:, None].expand(-1, -1, horizon, 1) + spread


@pytest.fixture(scope="module")
def task() -> td.Task:
    return task_of()


def teacher_of(task: td.Task, point: Any = "median", levels: tuple[float, ...] = (0.1, 0.5, 0.8)) -> FoundationTeacher:
    return FoundationTeacher(Persistent(levels), task.signature.replace(context=19), point, "0" * 16)


def test_it_shows_a_point_and_quantiles_on_the_scale_of_the_task(task: td.Task) -> None:
    batch = task.train.batch(torch.arange(200))
    teacher, mean = teacher_of(task), teacher_of(task, "mean")
    shown = shown_by(teacher, batch)
    last = batch.context[:, -1:].expand(-1, 11, -1)
    assert shown.distribution is not None
    torch.testing.assert_close(shown.forecast, last)
    torch.testing.assert_close(shown.distribution[..., 0], last - 0.1)
    assert shown.levels == (0.1, 0.5, 0.8)
    # Nearest to 0.1 are .3 of the distribution, to 0.5 .35 and to 0.8 .35.
    torch.testing.assert_close(mean.forecast(batch), last + 0.3 * -0.1 + 0.35 * 0.075)
    assert [shape[1:] for shape in teacher.model.asked] == [(3, 19)] * 3  # type: ignore[attr-defined]
    single = shown_by(teacher_of(task, levels=()), batch)
    assert (single.distribution, single.levels) == (None, ())
    torch.testing.assert_close(single.forecast, last)


def test_its_quantiles_teach_and_are_scored_beside_the_students(task: td.Task) -> None:
    teacher = teacher_of(task)
    config = td.MLPConfig(width=5, depth=1, head=td.QuantileHead(levels=(0.1, 0.5, 0.7)))
    losses: list[Any] = [td.losses.QuantileLoss(), td.OutputLoss()]
    student = td.distill(teacher, config, task, losses=losses, training=td.Training(max_steps=5), control=False)
    scores = td.evaluate(teacher, task, "test")
    batch = task.test.batch(torch.arange(len(task.test)))
    unit, centre = torch.as_tensor(task.scale), torch.as_tensor(task.mean)
    target, last = batch.target * unit + centre, batch.context[:, -1:] * unit + centre
    pinball = [
        2 * torch.maximum(level * (target - quantile), (level - 1) * (target - quantile)).sum()
        for level, quantile in ((0.1, last - 0.1 * unit), (0.5, last), (0.8, last + 0.075 * unit))
    ]
    assert scores["wql"] == pytest.approx(float(sum(pinball) / 3 / target.abs().sum()), rel=1e-4)
    assert scores["crossing_rate"] == 0
    _, remarks = unwrapped({"zero-shot": teacher, "student": student})
    assert remarks == {"zero-shot": "Persistent, zero-shot: nothing was fitted here, 5 steps at a time"}
    beyond = td.MLPConfig(width=5, depth=1, head=td.QuantileHead(levels=(0.1, 0.5, 0.9)))
    with pytest.raises(UnsupportedError, match=r"must lie within the teacher's, 0\.1 to 0\.8, got 0\.9"):
        td.distill(teacher, beyond, task, losses=losses, training=td.Training(max_steps=2), control=False)


def test_it_is_one_teacher_among_others(task: td.Task) -> None:
    ridge = td.train(td.LinearConfig(), task)
    ensemble = td.teachers.TeacherEnsemble([teacher_of(task), ridge], task, "validation")
    assert "Persistent" in repr(ensemble)
    td.distill(td.teachers.TrustedTeacher(teacher_of(task), task), td.LinearConfig(), task, control=False)


REFUSED: dict[str, tuple[str, dict[str, Any], type[TsdistillError], list[str]]] = {
    "the first Chronos": ("T5ForConditionalGeneration", {}, UnsupportedError, ["Chronos2Model", "at random", "table"]),
    "another library's": ("TimesFmModelForPrediction", {}, UnsupportedError, ["must hold one of", "into a table"]),
    "a PatchTST": ("PatchTSTForPrediction", {}, UnsupportedError, ["td.teachers.from_huggingface loads this one"]),
    "code of its own": ("Chronos2Model", {"auto_map": {"AutoModel": "x.Y"}}, UnsupportedError, ["never run"]),
    "no part of Chronos": ("Chronos2Model", {"chronos_config": None}, UnsupportedError, ["`chronos_config` must be"]),
    "a hostile width": ("Chronos2Model", {"d_ff": 10**9}, ArtifactError, ["`d_ff` must be at most 1000"]),
    "a hostile patch": (
        "ChronosBoltModelForForecasting",
        {"chronos_config": {"context_length": 32, "quantiles": LEVELS, "input_patch_size": 10**9}},
        ArtifactError,
        ["`input_patch_size` must be at most 1000"],
    ),
    "no point forecast": (
        "TinyTimeMixerForPrediction",
        {"loss": "pinball", "quantile": 0.9, "exogenous_channel_indices": [1], "prediction_channel_indices": [0]},
        UnsupportedError,
        ["`quantile` must be 0.5", "`exogenous_channel_indices` must be null", "`prediction_channel_indices` must be"],
    ),
}


@pytest.mark.parametrize(("architecture", "config", "kind", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_folder_that_cannot_teach_is_refused_before_a_library_is_needed(
    architecture: str, config: dict[str, Any], kind: type[TsdistillError], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        from_foundation(posed(tmp_path / "model", architecture, **config), task_of())
    assert [word for word in words if word not in str(caught.value)] == []


def test_weights_in_a_pickle_are_refused_and_not_run(tmp_path: Path) -> None:
    folder = posed(tmp_path / "model", "Chronos2Model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(ArtifactError, match=r"only pytorch_model\.bin, which could execute anything"):
        from_foundation(folder, task_of())


@pytest.mark.parametrize("architecture", FOUNDATION)
def test_without_the_library_it_says_what_to_install_and_what_else_to_do(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = posed(tmp_path / "model", architecture)
    real = importlib.util.find_spec
    absent = {"chronos", "tsfm_public"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else real(name, *rest))
    with pytest.raises(UnsupportedError) as caught:
        from_foundation(folder, task_of())
    extra, library = ("chronos", "chronos-forecasting") if "Chronos" in architecture else ("ttm", "granite-tsfm")
    words = [f"needs {library}", f"pip install 'tsdistill[{extra}]'", "`tsdistill forecasts`", "another environment"]
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_model_of_other_sizes_is_told_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FOUNDATION["TinyTimeMixerForPrediction"], "version", lambda: "1")
    sizes = {"context_length": 64, "mode": "mix_channel", "num_input_channels": 2, "prediction_filter_length": 3}
    folder = posed(tmp_path / "model", "TinyTimeMixerForPrediction", **sizes)
    with pytest.raises(ShapeError) as caught:
        from_foundation(folder, task_of())
    words = ["at most the task's context of 47", "teacher.context", "at least the task's horizon of 11",
             "be the task's 3 channels"]  # fmt: skip
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("levels", [[0.1, 0.9], [0.5, 0.1], "0.5", [0.5, 1.5], [["0.5"]]])
def test_levels_that_are_none_are_refused(levels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FOUNDATION["Chronos2Model"], "version", lambda: "1")
    folder = posed(tmp_path / "model", "Chronos2Model", chronos_config={"context_length": 32, "quantiles": levels})
    with pytest.raises(ArtifactError, match=r"`quantiles` must be rising levels in \(0, 1\), 0.5 among them"):
        from_foundation(folder, task_of())


def test_choices_that_are_none_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        from_foundation("x", task_of(), point="mode", channels="both", device="tpu")  # type: ignore[arg-type]
    assert [
        name for name in ("`point`", "`channels`", "`device`") if f"{name} must be one of" not in str(caught.value)
    ] == []
    with pytest.raises(ConfigError, match="`task` must be"):
        from_foundation("x", "task")  # type: ignore[arg-type]


def test_the_other_door_points_here(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra `huggingface` is not installed")
    folder = posed(tmp_path / "model", "ChronosBoltModelForForecasting")
    with pytest.raises(UnsupportedError, match=r"a foundation model: td\.teachers\.from_foundation loads it"):
        from_huggingface(folder, task_of())
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["ChronosBoltModelForForecasting"]
