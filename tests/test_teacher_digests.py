"""Teachers from elsewhere that compute otherwise have other digests; equal ones have one, in every process."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

import tsdistill as td
from tsdistill.errors import ArtifactError, ConfigError
from tsdistill.teachers import CachedTeacher
from tsdistill.testing import CONTEXT, HORIZON, toy_task


class Mode(enum.Enum):
    SOFT = "soft"
    HARD = "hard"


@dataclasses.dataclass
class Settings:
    gain: float = 1.0


class Net(nn.Module):
    """A linear map, and whatever else is kept as plain attributes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Linear(CONTEXT, HORIZON)
        for name, value in attributes.items():
            setattr(self, name, value)

    def mapped(self, series: Tensor) -> Tensor:
        forecast: Tensor = self.map(series.transpose(1, 2)).transpose(1, 2)
        return forecast

    def forward(self, series: Tensor) -> Tensor:
        return self.mapped(series)


def scaled(gain: float) -> Callable[[Tensor], Tensor]:
    def scale(tensor: Tensor) -> Tensor:
        return gain * tensor

    return scale


def stretched(tensor: Tensor, gain: float = 1.0) -> Tensor:
    return gain * tensor


def shrunk(tensor: Tensor, gain: float = 0.5) -> Tensor:
    return gain * tensor


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    nn.init.zeros_(layer.bias)
    return layer


ATTRIBUTES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "activation": (lambda: torch.tanh, lambda: torch.relu),
    "functional": (lambda: F.relu, lambda: F.gelu),
    "method": (lambda: Tensor.tanh, lambda: Tensor.relu),
    "ufunc": (lambda: np.tanh, lambda: np.sin),
    "partial": (lambda: functools.partial(F.gelu, approximate="tanh"), lambda: functools.partial(F.gelu)),
    "lambda": (lambda: lambda x: x + 1, lambda: lambda x: x + 2),
    "closure": (lambda: scaled(1.0), lambda: scaled(2.0)),
    "default": (lambda: stretched, lambda: shrunk),
    "list": (lambda: [1, [2]], lambda: [1, [3]]),
    "dict": (lambda: {"gain": {"inner": 1}}, lambda: {"gain": {"inner": 2}}),
    "set": (lambda: {"a", "b", "c"}, lambda: {"a", "b", "d"}),
    "namespace": (lambda: types.SimpleNamespace(gain=1), lambda: types.SimpleNamespace(gain=2)),
    "dataclass": (Settings, lambda: Settings(2.0)),
    "enum": (lambda: Mode.SOFT, lambda: Mode.HARD),
    "private": (lambda: types.SimpleNamespace(_gain=1), lambda: types.SimpleNamespace(_gain=2)),
    "tensor": (lambda: torch.tensor(2.0), lambda: torch.tensor(3.0)),
    "array": (lambda: np.ones(3), lambda: np.zeros(3)),
    "objects": (lambda: np.array([1, "a"], dtype=object), lambda: np.array([1, "b"], dtype=object)),
    "modules": (lambda: [linear(1.0)], lambda: [linear(2.0)]),
    "type": (lambda: 1, lambda: 1.0),
    "sign": (lambda: 0.0, lambda: -0.0),
    "bytes": (lambda: b"a", lambda: "a"),
    "layer": (nn.ReLU, nn.Tanh),
    "generator": (lambda: np.random.default_rng(1), lambda: np.random.default_rng(2)),
    "operator": (lambda: torch.ops.aten.relu.default, lambda: torch.ops.aten.tanh.default),
}


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


def digest(task: td.Task, module: nn.Module, **options: Any) -> str:
    teacher = td.wrap(module, task, **options)
    assert teacher.doubts == ()
    return teacher.digest


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_any_kind_count(task: td.Task, name: str) -> None:
    first, other = ATTRIBUTES[name]
    digests = [digest(task, Net(kept=make())) for make in (first, other, first)]
    assert digests[0] == digests[2] != digests[1]


def written(source: str, **names: Any) -> nn.Module:
    """A module whose class is made from source, as an edited file would make it."""
    names |= {"Net": Net, "torch": torch, "__name__": "users"}
    exec(source, names)  # noqa: S102 - the test's own text
    made: nn.Module = names["Edited"]()
    return made


FORWARD = """
GAIN = {gain}
def helper(x):
    return x {sign} 1
class Edited(Net):
    offset = {offset}
    def forward(self, series):
        def inner(x):
            return helper(x) * {inner} + GAIN
        return torch.{name}(inner(self.mapped(series))) + self.offset
"""


@pytest.mark.parametrize(
    "edit",
    [{"gain": 2}, {"sign": "-"}, {"offset": 5}, {"inner": 4}, {"name": "relu"}],
    ids=lambda edit: next(iter(edit)),
)
def test_an_edited_forward_counts_with_all_that_it_uses(task: td.Task, edit: dict[str, Any]) -> None:
    plain = {"gain": 1, "sign": "+", "offset": 0, "inner": 3, "name": "tanh"}
    sources = [FORWARD.format(**plain), FORWARD.format(**{**plain, **edit}), "\n\n# moved\n" + FORWARD.format(**plain)]
    digests = [digest(task, written(source)) for source in sources]
    assert digests[0] == digests[2] != digests[1]


class Times(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, weight: Tensor) -> Tensor:
        return self.gain * weight


def hooked(gain: float) -> nn.Module:
    net = Net()
    net.register_forward_hook(lambda _, __, output: gain * output)
    return net


def prehooked(gain: float) -> nn.Module:
    net = Net()
    net.map.register_forward_pre_hook(lambda _, given: (gain * given[0],))
    return net


def parametrized(gain: float) -> nn.Module:
    net = Net()
    parametrize.register_parametrization(net.map, "weight", Times(gain))
    return net


def scripted(gain: float) -> nn.Module:
    script: nn.Module = torch.jit.trace(Scaled(gain).eval(), torch.zeros(3, CONTEXT, 3))
    return script


class Scaled(Net):
    def forward(self, series: Tensor) -> Tensor:
        scaled_forecast: Tensor = self.gain * self.mapped(series)  # type: ignore[operator]
        return scaled_forecast

    def __init__(self, gain: float) -> None:
        super().__init__(gain=gain)


def exported(gain: float) -> nn.Module:
    shapes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(Scaled(gain), (torch.zeros(3, CONTEXT, 3),), dynamic_shapes=shapes).module()


@pytest.mark.parametrize("make", [hooked, prehooked, parametrized, exported], ids=lambda make: make.__name__)
def test_hooks_parametrizations_and_programs_count(task: td.Task, make: Callable[[float], nn.Module]) -> None:
    digests = [digest(task, make(gain)) for gain in (1.0, 2.0, 1.0)]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_counts(task: td.Task) -> None:
    digests = [digest(task, scripted(gain)) for gain in (1.0, 2.0, 1.0, 1.0 + 1e-7)]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_functions_among_the_arguments_count_with_closure_and_defaults(task: td.Task) -> None:
    class Given(Net):
        def forward(self, series: Tensor, extra: Any = 0) -> Tensor:
            return self.mapped(series) + extra

    def first(gain: float) -> Callable[[Any], Tensor]:
        return lambda known: gain * known.context[:, :HORIZON]

    def second(known: Any, gain: float = 2.0) -> Tensor:
        part: Tensor = gain * known.context[:, :HORIZON]
        return part

    given = [first(1.0), first(2.0), second, functools.partial(second, gain=3.0), functools.partial(second, gain=4.0)]
    digests = [digest(task, Given(), arguments={"extra": extra}) for extra in given]
    assert len(set(digests)) == len(given)
    assert digest(task, Given(), arguments={"extra": first(1.0)}) == digests[0]


class Remembering(Net):
    """Writes down what it saw, counts its calls and makes a mask when first asked."""

    mask: Tensor | None = None

    def forward(self, series: Tensor) -> Tensor:
        self.last = self.mapped(series)
        self.n_calls = getattr(self, "n_calls", 0) + 1
        self.history = [*getattr(self, "history", []), series]
        if self.mask is None:
            self.mask = torch.ones(3)
        return self.last * self.mask


def test_what_a_module_writes_down_while_it_runs_does_not_count(task: td.Task) -> None:
    teacher = td.wrap(Remembering(), task)
    before = teacher.digest
    teacher.forecast(task.train.batch(torch.arange(17)))
    assert before == teacher.digest == td.wrap(Remembering(), task).digest == td.wrap(teacher.module, task).digest
    assert td.wrap(Remembering(gain=2), task).digest != before


def test_what_cannot_be_known_is_asked_for_by_name(task: td.Task, tmp_path: Path) -> None:
    teachers = [td.wrap(Net(kept=(place for place in range(3)), gain=gain), task) for gain in (1, 2)]
    assert teachers[0].doubts == ("`module.kept` is a builtins.generator",)
    assert teachers[0].digest != teachers[1].digest
    with pytest.warns(UserWarning, match=r"kept in memory and not in .*`module.kept` is a builtins.generator.*name"):
        CachedTeacher(teachers[0], tmp_path).outputs(task.train)
    assert list(tmp_path.iterdir()) == []
    members = td.teachers.TeacherEnsemble(teachers, task)
    with pytest.warns(UserWarning, match="kept in memory"):
        CachedTeacher(members, tmp_path).outputs(task.train)
    named = td.wrap(Net(kept=(place for place in range(3))), task, name="mine, version 1")
    assert named.doubts == ()
    CachedTeacher(named, tmp_path).outputs(task.train)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    other = td.wrap(Net(kept=(place for place in range(3))), task, name="mine, version 2")
    assert other.digest != named.digest
    for name in ("", 3):
        with pytest.raises(ConfigError, match="`name` must be a text"):
            td.wrap(Net(), task, name=name)  # type: ignore[arg-type]
    with open(os.devnull) as file:
        assert "TextIOWrapper" in td.wrap(Net(kept=file), task).doubts[0]


def test_a_cache_that_holds_other_forecasts_is_refused(task: td.Task, tmp_path: Path) -> None:
    class Claiming:
        """A teacher whose digest does not change with it."""

        digest = "claimed"

        def __init__(self, gain: float) -> None:
            self.gain, self.n_asked = gain, 0

        def forecast(self, batch: Any) -> Tensor:
            self.n_asked += len(batch.context)
            forecast: Tensor = self.gain * batch.context[:, -HORIZON:]
            return forecast

    first = Claiming(1.0)
    CachedTeacher(first, tmp_path).outputs(task.train)
    CachedTeacher(first, tmp_path).outputs(task.train)
    assert first.n_asked == len(task.train)
    again = Claiming(1.0 + 1e-5)
    for _ in range(3):
        CachedTeacher(again, tmp_path).outputs(task.train)
    assert again.n_asked == 5  # once a run
    with pytest.raises(ArtifactError, match=r"not those of this teacher \(Claiming.*name.*cache clean"):
        CachedTeacher(Claiming(1.1), tmp_path).outputs(task.train)
    with pytest.raises(ArtifactError, match="not those of this teacher"):
        td.distill(Claiming(2.0), td.LinearConfig(), task, cache=tmp_path, control=False)


def test_a_regressor_counts_by_what_it_has_learnt(task: td.Task) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    def fitted(gain: float) -> list[str]:
        trees = HistGradientBoostingRegressor(max_iter=int(gain))  # draws a seed of its own each time
        steps = make_pipeline(FunctionTransformer(scaled(gain)), Ridge(1.0))
        return [td.teachers.from_sklearn(regressor, task, n_windows=53).digest for regressor in (trees, steps)]

    assert fitted(2) == fitted(2)
    assert not set(fitted(2)) & set(fitted(3))


SCRIPT = """
import torch, tsdistill as td
from sklearn.ensemble import RandomForestRegressor
from tsdistill.testing import toy_task
from test_teacher_digests import ATTRIBUTES, FORWARD, Net, Settings, hooked, parametrized, exported, written
task = toy_task()
kept = {name: make() for name, (make, _) in ATTRIBUTES.items()}
plain = {"gain": 1, "sign": "+", "offset": 0, "inner": 3, "name": "tanh"}
modules = [Net(**{f"kept_{name}": value for name, value in kept.items()}), hooked(1.0), parametrized(1.0)]
print([td.wrap(module, task).digest for module in [*modules, written(FORWARD.format(**plain))]])
forest = RandomForestRegressor(2, max_depth=3, random_state=0)
print(td.teachers.from_sklearn(forest, task, n_windows=53).digest)
print(td.teachers.from_function(lambda series, n: series[-24:][:n], task).digest)
"""


@pytest.mark.slow  # two processes that import everything
def test_digests_are_the_same_in_every_process() -> None:
    def printed(seed: int) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert printed(1) == printed(2)
