"""Hugging Face forecasters teach from a local folder; pickles, foreign code and other questions are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tsdistill as td
from tsdistill.errors import ArtifactError, ShapeError, TsdistillError, UnsupportedError
from tsdistill.models import Forecaster, MLPConfig
from tsdistill.teachers import CachedTeacher, check_teacher, from_huggingface
from tsdistill.testing import toy_task
from tsdistill.training import Training

transformers = pytest.importorskip("transformers", reason="the extra `huggingface` is not installed")

SIZES: dict[str, Any] = {"num_input_channels": 3, "context_length": 43, "prediction_length": 11, "patch_length": 7,
                         "patch_stride": 5, "d_model": 6}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


def saved(folder: Path, **options: Any) -> Any:
    sizes = {**SIZES, "num_attention_heads": 2, "ffn_dim": 13, "num_hidden_layers": 2, **options}
    torch.manual_seed(4)
    model = transformers.PatchTSTForPrediction(transformers.PatchTSTConfig(**sizes)).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "patchtst"
    saved(folder)
    return folder


@pytest.mark.parametrize("options", [{}, {"channel_attention": True}, {"use_cls_token": True}, {"scaling": None}],
                         ids=["plain", "channel-attention", "class-token", "unscaled"])  # fmt: skip
def test_a_patchtst_teaches_and_shows_its_layers(task: td.Task, tmp_path: Path, options: dict[str, Any]) -> None:
    model = saved(tmp_path / "model", **options)
    teacher = from_huggingface(tmp_path / "model", task)
    batch = task.train.batch(torch.tensor([5, 0, 17, 3, 90]))
    with torch.no_grad():
        outputs = model(past_values=batch.context[:, -43:], output_hidden_states=True)
    torch.testing.assert_close(teacher.forecast(batch), outputs.prediction_outputs, rtol=1e-4, atol=1e-5)
    inside = teacher.activations(batch.context, attention=True)
    n_tokens = 8 + ("use_cls_token" in options)
    assert [tuple(state.shape) for state in inside.hidden] == [(5, 3, n_tokens, 6)] * 2
    # The library's list begins with what goes into the first layer.
    torch.testing.assert_close(inside.hidden[0], outputs.hidden_states[1], rtol=1e-4, atol=1e-5)
    assert inside.attention is not None
    for weights in inside.attention:
        assert tuple(weights.shape) == (5, 3, 2, n_tokens, n_tokens)
        torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3, 2, n_tokens))


def test_a_mixer_teaches_without_attention(task: td.Task, tmp_path: Path) -> None:
    torch.manual_seed(4)
    config = transformers.PatchTSMixerConfig(**SIZES, num_layers=2)
    transformers.PatchTSMixerForPrediction(config).save_pretrained(tmp_path / "mixer")
    teacher = from_huggingface(tmp_path / "mixer", task)
    inside = teacher.activations(task.train.batch(torch.arange(5)).context, attention=True)
    assert [tuple(state.shape) for state in inside.hidden] == [(5, 3, 8, 6)] * 2
    assert not inside.attention


def test_a_student_learns_from_it(task: td.Task, folder: Path, tmp_path: Path) -> None:
    teacher = from_huggingface(folder, task)
    quick = Training(epochs=1, max_steps=3, batch_size=37, precision="float32")
    student = td.distill(
        teacher, MLPConfig(width=5, depth=1, hidden=7), task, training=quick, cache=tmp_path, control=False
    )
    assert isinstance(student, Forecaster)
    assert student.lineage[-1].spec["teacher"] == teacher.digest
    assert [path for path in tmp_path.iterdir() if teacher.digest in path.name]
    parts = CachedTeacher(teacher).outputs(task.train, {"hidden.1", "attention.0"})
    assert tuple(parts.of(task.train.batch(torch.arange(7))).hidden[1].shape) == (7, 3, 8, 6)


def test_the_digest_is_of_the_weights_and_not_of_the_place(task: td.Task, folder: Path, tmp_path: Path) -> None:
    saved(tmp_path / "elsewhere")
    model = saved(tmp_path / "changed")
    with torch.no_grad():
        model.head.projection.bias += 1e-6
    model.save_pretrained(tmp_path / "changed")
    digests = [from_huggingface(path, task).digest for path in (folder, tmp_path / "elsewhere", tmp_path / "changed")]
    assert digests[0] == digests[1] != digests[2]


def with_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")


def cut(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), ArtifactError, ["no config.json", "nothing is downloaded"]),
        (lambda folder: (folder / "config.json").write_text("{"), ArtifactError, ["Cannot read"]),
        (pickled, ArtifactError, ["only pytorch_model.bin", "execute anything", "save_pretrained"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ArtifactError, ["no weights"]),
        (cut, ArtifactError, ["Cannot load PatchTSTForPrediction"]),
        (with_config(num_hidden_layers=3), ArtifactError, ["model.encoder.layers.2", "is missing", ", ..."]),
        (with_config(num_hidden_layers=1), ArtifactError, ["model.encoder.layers.1", "is unknown"]),
        (with_config(ffn_dim=17), ArtifactError, ["has another shape"]),
        (with_config(architectures=["TimesFmModelForPrediction"]), UnsupportedError,
         ["td.wrap", "td.teachers.read_forecasts"]),
        (with_config(auto_map={"AutoModel": "evil.Model"}), UnsupportedError, ["auto_map", "never run"]),
        (with_config(loss="nll"), UnsupportedError, ["distribution", "td.teachers.read_forecasts"]),
        (with_config(context_length=53, prediction_length=7, num_input_channels=2, prediction_channel_indices=[0]),
         ShapeError, ["4 problems", "context of 47", "horizon of 11", "3 channels", "every channel"]),
    ],
    ids=["config", "json", "pickle", "empty", "cut", "missing", "unknown", "shape", "kind", "code", "nll", "question"],
)  # fmt: skip
def test_what_cannot_teach_is_refused(
    task: td.Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    kind: type[TsdistillError],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(kind) as error:
        from_huggingface(tmp_path / "model", task)
    assert [word for word in words if word not in str(error.value)] == []
    assert not (tmp_path / "executed").exists()


def test_it_is_held_against_the_task_it_is_to_teach(task: td.Task, folder: Path) -> None:
    teacher = from_huggingface(folder, task)
    check_teacher(teacher, task)
    with pytest.raises(ShapeError, match="the task's 7 steps"):
        check_teacher(teacher, td.Task(task.panel, context=47, horizon=7, split=task.split))


def test_without_transformers_it_says_what_to_install(
    task: td.Task, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsdistill.teachers.huggingface.importlib.util.find_spec", lambda _: None)
    with pytest.raises(UnsupportedError, match=r"tsdistill\[huggingface\]"):
        from_huggingface(folder, task)
