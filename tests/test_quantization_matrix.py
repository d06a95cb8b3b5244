"""Every architecture in every form: deployed, saved, loaded and run, or refused with what to use instead."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import matrix
from tests.matrix import ARCHITECTURES, FORMS, REASONS
from tsdistill import runtime
from tsdistill.artifacts import save
from tsdistill.data.windows import raw_inputs
from tsdistill.errors import UnsupportedError
from tsdistill.exporting import export
from tsdistill.models import MODELS
from tsdistill.pruning import Pruning, prune

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "quantization.md"


def committed() -> dict[str, list[str]]:
    """Cells of the guide's table by architecture."""
    text = re.search(r"<!-- matrix -->\n(.*)<!-- /matrix -->", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None
    lines = [line for line in text[1].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["architecture", *FORMS, "pruned", "pruned + INT8"]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_table_has_every_architecture() -> None:
    assert set(committed()) == set(ARCHITECTURES)
    assert set(ARCHITECTURES) == {kind for kind in MODELS.kinds if MODELS[kind].__module__.startswith("tsdistill.")}
    for text in REASONS.values():
        assert text in GUIDE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_table_says_what_there_is(kind: str) -> None:
    assert matrix.row(kind)[1:] == committed()[kind]


WHOLE_AND_PRUNED = [
    *((kind, False) for kind in ARCHITECTURES),
    *((kind, True) for kind, cells in committed().items() if cells[-2] == "yes"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pruned"), WHOLE_AND_PRUNED)
def test_real_windows_are_forecast_as_torch_does_before_the_final_scaling(kind: str, pruned: bool) -> None:
    task = matrix.task_of(kind, standardized=True)
    model = whole = matrix.forecaster(kind, standardized=True)
    if pruned:
        model = prune(whole, task, Pruning(ratio=0.4, recovery=None), progress=False)
        assert model.n_parameters < whole.n_parameters
    parity = export(model, task).parity
    assert (parity["windows"], list(parity["difference"])) == ("validation", ["1", "5", "64"])
    assert task.signature.scale == (1.0,) * 3
    np.testing.assert_allclose(parity["unit"], 1, atol=0.1)
    assert parity["max_difference"] <= 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_cell_is_served(kind: str, pruned: bool, tmp_path: Path) -> None:
    seen: set[bytes] = set()
    for form in FORMS:
        try:
            model = matrix.deployed(kind, form, pruned)
        except UnsupportedError:  # that it is the right one, the table is held against above
            continue
        assert model.onnx not in seen  # above all what was trained for its form, from what was not
        seen.add(model.onnx)
        served = runtime.load(save(model, tmp_path / form))
        assert runtime.verify(tmp_path / form)["precision"] == model.precision
        task = matrix.task_of(kind)
        inputs = raw_inputs(task.validation, torch.arange(5), task.signature, model.signature)
        forecast = served.run(**inputs)
        alone = served.run(**{name: values[:1] for name, values in inputs.items()})
        assert forecast.shape == (5, model.horizon, 3)
        assert np.isfinite(forecast).all()
        gap = np.abs(forecast[:1] - alone) / np.asarray(model.signature.scale)
        assert gap.max() < (0.2 if model.mixes_windows else 1e-2 if form == "static" else 1e-4)
