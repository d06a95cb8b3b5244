"""A user's own architecture, loss and criterion, through everything that the package's own go through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tsdistill as td
from tests.typed import instance_of
from tsdistill.data.task import Batch, Signature
from tsdistill.losses import BoundLoss, Example, Loss
from tsdistill.models import Activations, Forecaster, ModelConfig, WidthGroup
from tsdistill.models.groups import Slice
from tsdistill.pruning import Criterion, Evidence
from tsdistill.search import Range, Space, leaders
from tsdistill.spec import Tuned, assigned
from tsdistill.testing import check_architecture, check_criterion, check_loss

QUICK = td.Training(max_steps=3, batch_size=32, precision="float32")


class Tiny(Forecaster):
    def __init__(self, config: ModelConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        units = instance_of(TinyConfig, config).units
        self.first, self.last = nn.Linear(signature.context, units), nn.Linear(units, signature.horizon)

    def activations(
        self, context: Tensor, future: Tensor | None = None, past: Tensor | None = None, *, attention: bool = False
    ) -> Activations:
        centre = (x := self.recent(context)).mean(dim=-1, keepdim=True)
        hidden = self.first(x - centre).relu()
        return Activations((self.last(hidden) + centre).transpose(1, 2), hidden=(hidden[:, :, None],))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        units, producing = self.first.out_features, (Slice("first.weight", 0), Slice("first.bias", 0))
        return (WidthGroup("units", units, ("units", None), producing, (Slice("last.weight", 1),)),)


@td.models.register
class TinyConfig(ModelConfig):
    kind: Literal["tiny"] = "tiny"
    units: Annotated[int, Tuned(4, 8)] = 8
    forecaster: ClassVar[type[Forecaster]] = Tiny


@td.losses.register
class LastStepLoss(Loss):
    kind: Literal["last-step"] = "last-step"
    power: Annotated[int, Tuned(2, 4)] = 2

    @property
    def formula(self) -> str:
        return f"mean|last(student) - last(teacher)|^{self.power}"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        return _LastStep(self.power)


class _LastStep(BoundLoss):
    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return (student.forecast[:, -1] - teacher.forecast[:, -1].detach()).abs().pow(self.power).mean()


@td.pruning.register
class LastUnits(Criterion):
    kind: Literal["last-units"] = "last-units"
    looks_at_data: ClassVar[bool] = False
    step: Annotated[float, Tuned(Range(0.5, 2.0))] = 1.0

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        return self.step * torch.arange(group.size, 0, -1, dtype=torch.float64)


def test_each_keeps_the_contract_of_its_family() -> None:
    check_architecture(TinyConfig)
    check_loss(LastStepLoss)
    check_criterion(LastUnits)


@pytest.mark.slow
def test_they_go_the_whole_way(tmp_path: Path) -> None:
    recipe = td.Recipe.from_toml(
        'pruning.criterion = "last-units"\nquantization = { method = "dynamic", require_gain = false }\n'
        'data.dataset = "nyc-weather"\ntask = { context = 29, horizon = 7 }\nteacher.model = "tiny"\n'
        'student = { model = { kind = "tiny", units = 5 }, losses = ["output", "last-step"] }\n'
    )
    recipe = assigned(recipe, ["student.model.units=6", "student.losses.last-step.power=4", "pruning.criterion.step=2"])
    recipe = recipe.replace_at({f"{part}.training": QUICK for part in ("teacher", "student")})
    wide = {"quantization.max_error_increase": 9.0, "quantization.max_worst_error_increase": 99.0}
    recipe = recipe.replace_at({"pruning.recovery": None, **wide})
    result = td.run(recipe, tmp_path / "out", progress=False)
    assert (result.student.config, result.deployed.precision) == (TinyConfig(units=6), "int8")
    assert result.pruned is not None
    assert torch.equal(result.pruned.state_dict()["first.weight"], result.student.state_dict()["first.weight"][:3])
    context = np.zeros((1, 29, 18), np.float32)
    assert np.allclose(td.load(result.artifact).predict(context), result.deployed.predict(context))
    command = "import sys, tsdistill as td; print(type(td.load(sys.argv[1])).__name__)"
    stage, root = str(tmp_path / "out" / "stages" / "student"), Path(__file__).parents[1]
    for code, words in ((command, "'tiny'"), (f"import tests.test_own_members; {command}", "Tiny")):
        fresh = subprocess.run(
            [sys.executable, "-c", code, stage], capture_output=True, text=True, cwd=root, check=False
        )
        assert words in fresh.stdout + fresh.stderr, fresh.stderr
    vary = {
        "student.model.units": (3, 4),
        "student.losses.last-step.power": (2, 4),
        "pruning.criterion.step": Range(1, 2),
    }
    search = td.search.run(recipe, tmp_path / "out", n_trials=2, space=Space(vary=vary), progress=False)
    assert all(set(vary) == set(row["params"]) for row in leaders(search.study))
