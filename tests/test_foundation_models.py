"""Each foundation model is built from a tiny random config, saved, loaded and made to teach; where its library is."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tsdistill as td
from tests.foundation import LEVELS, REAL, recipe_with, task_of
from tsdistill.errors import ArtifactError, ConfigError, ShapeError
from tsdistill.teachers import FoundationTeacher, check_teacher, from_foundation, shown_by
from tsdistill.testing import toy_task

QUICK = td.Training(max_steps=5, batch_size=29)


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def folder(request: pytest.FixtureRequest, folders: Path) -> Path:
    """The model that the test is about, made once."""
    name = request.node.callspec.params["name"]
    if not (folders / name).exists():
        REAL[name](folders / name)
    return folders / name


every = pytest.mark.parametrize("name", REAL)
chronos = pytest.mark.parametrize("name", ["Chronos-2", "Chronos-Bolt"])
univariate = pytest.mark.parametrize("name", [name for name in REAL if "mixes" not in name])


def direct(folder: Path, name: str, series: torch.Tensor, horizon: int) -> torch.Tensor:
    """Point forecasts (series, horizon) as the library's own documentation asks for them."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if name.startswith("Chronos"):
            from chronos import BaseChronosPipeline

            pipeline = BaseChronosPipeline.from_pretrained(str(folder))
            inputs = series[:, None] if name == "Chronos-2" else series
            _, mean = pipeline.predict_quantiles(inputs, prediction_length=horizon, quantile_levels=[0.5])
            return torch.stack([answer.reshape(-1) for answer in mean])
        from tsfm_public.models import tinytimemixer

        kind = json.loads((folder / "config.json").read_text())["architectures"][0]
        model = getattr(tinytimemixer, kind).from_pretrained(str(folder), num_input_channels=1).eval()
        token = torch.full((len(series),), 7) if "frequency" in name else None  # hourly, as the toy panel is
        return model(past_values=series[..., None], freq_token=token).prediction_outputs[:, :horizon, 0]


@univariate
def test_it_forecasts_what_the_library_itself_does(name: str, folder: Path, task: td.Task) -> None:
    teacher = from_foundation(folder, task)
    batch = task.train.batch(torch.arange(11))
    forecast = teacher.forecast(batch)
    series = batch.context.transpose(1, 2).reshape(33, 47)[:, -32:]
    expected = direct(folder, name, series, 11).reshape(11, 3, 11).transpose(1, 2)
    torch.testing.assert_close(forecast, expected, rtol=1e-4, atol=1e-5)


@every
def test_it_teaches_a_small_student(name: str, folder: Path, task: td.Task, tmp_path: Path) -> None:
    teacher = from_foundation(folder, task)
    check_teacher(teacher, task)
    state = torch.random.get_rng_state()
    shown = shown_by(teacher, task.train.batch(torch.arange(5)))
    assert torch.equal(state, torch.random.get_rng_state())
    assert shown.forecast.shape == (5, 11, 3)
    if name.startswith("Chronos") or "quantiles" in name:
        assert shown.distribution is not None
        assert (shown.levels, shown.distribution.shape) == (tuple(LEVELS), (5, 11, 3, 9))
        torch.testing.assert_close(shown.forecast, shown.distribution[..., 4])
        config = td.MLPConfig(width=5, depth=1, head=td.QuantileHead(levels=(0.15, 0.5, 0.9)))
        losses: list[Any] = [td.losses.QuantileLoss(), td.OutputLoss()]
        student = td.distill(teacher, config, task, losses=losses, training=QUICK, cache=tmp_path, control=False)
    else:
        assert (shown.levels, shown.distribution) == ((), None)
        student = td.distill(teacher, td.LinearConfig(), task, cache=tmp_path, control=False)
    assert student.lineage[-1].spec["teacher_kind"] == "FoundationTeacher"
    assert [path for path in tmp_path.iterdir() if teacher.digest in path.name and path.suffix == ".npy"]
    # What is kept is read again under the digest of another loading, and compared with it.
    td.distill(from_foundation(folder, task), td.LinearConfig(), task, cache=tmp_path, control=False)


@every
def test_a_window_is_forecast_alike_whatever_stands_beside_it(name: str, folder: Path, task: td.Task) -> None:
    teacher = from_foundation(folder, task)
    together, alone = (teacher.forecast(task.train.batch(index)) for index in (torch.arange(101), torch.tensor([97])))
    torch.testing.assert_close(together[97:98], alone, rtol=1e-4, atol=1e-5)


@every
def test_the_digest_is_of_the_weights_and_not_of_the_place(
    name: str, folder: Path, task: td.Task, tmp_path: Path
) -> None:
    for place in ("same", "changed"):
        shutil.copytree(folder, tmp_path / place)
    path = tmp_path / "changed" / "model.safetensors"
    tensors = load_file(path)
    tensors[max(tensors)].view(-1)[0] += 1e-6
    save_file(tensors, path, metadata={"format": "pt"})
    digests = [from_foundation(place, task).digest for place in (folder, tmp_path / "same", tmp_path / "changed")]
    assert digests[0] == digests[1] != digests[2]
    assert from_foundation(folder, task_of(horizon=7)).digest != digests[0]


@every
def test_weights_that_are_not_there_are_not_drawn_at_random(
    name: str, folder: Path, task: td.Task, tmp_path: Path
) -> None:
    whole = load_file(folder / "model.safetensors")
    outputs = [key for key in whole if "output_patch" in key or "head" in key]
    assert outputs
    place = Path(shutil.copytree(folder, tmp_path / "lacking"))
    kept = {key: tensor for key, tensor in whole.items() if key != outputs[0]}
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="is missing"):
        from_foundation(place, task)


@chronos
def test_a_mean_of_quantiles_and_a_longer_horizon(name: str, folder: Path, task: td.Task) -> None:
    mean, median = (from_foundation(folder, task, point=point) for point in ("mean", "median"))
    batch = task.train.batch(torch.arange(3))
    quantiles = shown_by(mean, batch).distribution
    assert quantiles is not None
    shares = torch.tensor([0.15, *[0.1] * 7, 0.15])
    torch.testing.assert_close(mean.forecast(batch), (quantiles * shares).sum(-1))
    assert mean.digest != median.digest
    far = task_of(horizon=17)
    long = from_foundation(folder, far)
    assert long.forecast(far.train.batch(torch.arange(3))).shape == (3, 17, 3)
    assert f"({long.at_once} at a time)" in repr(long)
    assert long.remark.endswith(f"{long.at_once} steps at a time")


def test_chronos_2_sees_channels_together_where_it_is_asked_to(folders: Path, task: td.Task) -> None:
    if not (folders / "Chronos-2").exists():
        REAL["Chronos-2"](folders / "Chronos-2")
    apart, together = (from_foundation(folders / "Chronos-2", task, channels=way) for way in ("apart", "together"))
    assert apart.digest != together.digest
    batch = task.train.batch(torch.arange(5))
    moved = batch.context.clone()
    moved[..., 1] = moved[..., 1].flip(1)
    for teacher, alike in ((apart, True), (together, False)):
        first, second = (shown_by(teacher, batch).forecast, teacher.activations(moved).forecast)
        assert torch.allclose(first[..., 0], second[..., 0], atol=1e-5) is alike
        alone = teacher.forecast(task.train.batch(torch.tensor([3])))
        torch.testing.assert_close(first[3:4], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["TTM"])
def test_a_point_model_has_no_choice_of_points(name: str, folder: Path, task: td.Task) -> None:
    with pytest.raises(ConfigError, match="one number per step"):
        from_foundation(folder, task, point="mean")
    with pytest.raises(ConfigError, match="each channel by itself"):
        from_foundation(folder, task, channels="together")


@pytest.mark.parametrize("name", ["TTM"])
def test_a_longer_context_than_the_students(name: str, folder: Path) -> None:
    task = task_of(context=23)
    with pytest.raises(ShapeError, match=r"task\.with_context\(32\).*teacher\.context"):
        from_foundation(folder, task)
    own_task = task.with_context(32)
    teacher = td.teachers.PrivilegedTeacher(from_foundation(folder, own_task), task, own_task)
    student = td.distill(teacher, td.LinearConfig(), task, control=False)
    report = td.compare({"zero-shot": teacher, "student": student}, task, latency=False)
    assert report.row("zero-shot").remark == (
        "TinyTimeMixer, zero-shot: nothing was fitted here; asked with a context of 32 steps"
    )


@pytest.mark.parametrize("name", ["TTM"])
def test_a_recipe_and_its_table_elsewhere_make_the_same_student(name: str, folder: Path, tmp_path: Path) -> None:
    direct = recipe_with(tmp_path, f'kind = "foundation"\npath = "{folder}"\ncontext = 32')
    teacher = td.recipe.write_teacher(direct, tmp_path / "forecasts.csv", progress=False)
    assert "TinyTimeMixer" in repr(teacher)
    table = recipe_with(tmp_path, 'kind = "table"\npath = "forecasts.csv"')
    runs = [td.run(recipe, tmp_path / str(number), progress=False) for number, recipe in enumerate((direct, table))]
    errors = [[run.report.row(name).mse for name in ("teacher", "student")] for run in runs]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert isinstance(getattr(runs[0].teacher, "teacher", None), FoundationTeacher)
