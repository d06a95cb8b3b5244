"""Addresses: what they read, what they put in place, how a shell writes them, and what is said of wrong ones."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.typed import instance_of
from tsdistill.cli import main
from tsdistill.errors import ConfigError
from tsdistill.losses import FeatureLoss, OutputLoss, TemporalLoss, WeightSchedule
from tsdistill.models import LinearConfig, LSTMConfig, MLPConfig, PatchTSTConfig, QuantileHead, TCNConfig
from tsdistill.pruning import Pruning, Taylor
from tsdistill.quantization import WeightOnly
from tsdistill.recipe import EnsembleTeacherSpec, Recipe, SavedTeacherSpec, Source, TeacherSpec, default_recipe
from tsdistill.retrain import Job
from tsdistill.spec import AbsentError, assigned, parse_assignment
from tsdistill.training import Training

RECIPE = default_recipe()


def changed(**values: Any) -> Recipe:
    return RECIPE.replace_at({address.replace("__", "."): value for address, value in values.items()})


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("task.context", 336),
        ("student.model.widths", (64, 64)),
        ("student.model.widths[1]", 64),
        ("student.model.width", 64),
        ("student.model.depth", 2),
        ("student.model.lstm.patch", 24),
        ("student.losses.temporal.weight", 0.1),
        ("student.losses[0].alpha", 0.5),
        ("student.losses.0.kind", "output"),
        ("pruning.criterion.kind", "magnitude"),
        ("teacher.training.learning_rate", 1e-3),
        ("quantization.method", "auto"),
    ],
)
def test_an_address_reads_a_field(address: str, value: Any) -> None:
    assert RECIPE.value_at(address) == value


@pytest.mark.parametrize("address", ["student.model.tcn.width", "student.losses.feature.weight"])
def test_what_is_not_there_now_may_be_there_with_another_kind(address: str) -> None:
    with pytest.raises(AbsentError):
        RECIPE.value_at(address)


def test_fields_are_put_in_place_and_derived_ones_follow() -> None:
    assert changed(student__model__width=32).student.model == LSTMConfig(widths=(32, 32))
    assert changed(student__model__depth=1).student.model == LSTMConfig(widths=(64,))
    odd = RECIPE.replace_at({"student.model": LSTMConfig(widths=(7, 5), embedding=3)})
    assert odd.replace_at({"student.model.patch": 12}).student.model == LSTMConfig(widths=(7, 5), embedding=3, patch=12)
    assert odd.replace_at({"student.model.widths[0]": 9}).student.model == LSTMConfig(widths=(9, 5), embedding=3)
    pruned = RECIPE.replace_at({"student.model": MLPConfig(width=8, depth=2, hidden=(5, 3))})
    assert pruned.replace_at({"student.model.width": 4}).student.model == MLPConfig(width=4, depth=2, hidden=(5, 3))
    plain = RECIPE.replace_at({"student.model": MLPConfig(width=8)})
    assert plain.replace_at({"student.model.width": 4}).student.model == MLPConfig(width=4)  # with its own hidden
    tst = RECIPE.replace_at({"student.model": PatchTSTConfig(patch=8)})
    for address, value, stride in (("student.model.patch", 12, 6), ("student.model.overlap", False, 8)):
        assert instance_of(PatchTSTConfig, tst.replace_at({address: value}).student.model).stride == stride


def test_another_kind_keeps_what_a_model_is_and_not_how_large_it_is() -> None:
    head = QuantileHead(levels=(0.2, 0.5))
    recipe = RECIPE.replace_at({"student.model": LSTMConfig(widths=(9,), head=head, shortcut=False, dropout=0.3)})
    model = recipe.replace_at({"student.model.kind": "tcn", "student.model.patch": 12}).student.model
    assert model == TCNConfig(patch=12, head=head, shortcut=False, dropout=0.3)
    with pytest.raises(ConfigError, match=r"In student\.model\.kind: .*quantile head.*'linear'"):
        recipe.replace_at({"student.model.kind": "linear", "student.losses": ("output",)})
    whole = RECIPE.replace_at({"student.model": "linear", "student.losses": ("output",), "pruning": None})
    assert (whole.student.model, whole.pruning) == (LinearConfig(), None)


def test_items_are_changed_added_and_left_out() -> None:
    assert changed(student__losses__temporal__weight=0.3).student.losses[1] == TemporalLoss(weight=0.3)
    assert changed(student__losses__temporal__weight=0).student.losses == (OutputLoss(),)
    assert changed(student__losses__temporal=None).student.losses == (OutputLoss(),)
    added = changed(student__losses__feature__weight=0.2, student__losses__feature__method="cka").student.losses
    assert added == (OutputLoss(), TemporalLoss(weight=0.1), FeatureLoss(weight=0.2, method="cka"))
    assert changed(student__losses__feature__weight=0).student.losses == RECIPE.student.losses
    scheduled = changed(student__losses__temporal__schedule__end=0.5).student.losses[1]
    assert scheduled.schedule == WeightSchedule(end=0.5)
    assert changed(pruning__ratio=0).pruning is None
    bare = RECIPE.replace(pruning=None)
    assert bare.replace_at({"pruning.criterion": "taylor"}).pruning == Pruning(criterion=Taylor())
    assert bare.replace_at({"pruning.recovery.epochs": 1}).pruning == Pruning(
        recovery=Training(epochs=1, learning_rate=5e-4)
    )
    assert bare.replace_at({"pruning.ratio": 0.0}).pruning is None
    bits = changed(quantization__method="weight-only", quantization__weight_bits=4).quantization
    assert isinstance(bits, WeightOnly)
    assert bits.max_latency_increase == 0.25


def test_members_of_an_ensemble_have_addresses() -> None:
    members = (TeacherSpec(), SavedTeacherSpec(path="a"))
    recipe = RECIPE.replace(teacher=EnsembleTeacherSpec(members=members))
    recipe = recipe.replace_at({"teacher.members[0].model.width": 8, "teacher.members.saved.path": "b"})
    first, second = instance_of(EnsembleTeacherSpec, recipe.teacher).members
    assert instance_of(TeacherSpec, first).model == PatchTSTConfig(width=8)
    assert instance_of(SavedTeacherSpec, second).path == "b"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"student.model.widht": 3}, ["`student.model.widht` is not an address", "Did you mean `student.model.width`"]),
        ({"studnet.model.width": 3}, ["Did you mean `student.model.width`"]),
        ({"student.losses.temproal.weight": 3}, ["Did you mean `temporal`"]),
        ({"student.losses[7].weight": 3}, ["`student.losses[7]` is not there", "2 items", "from 0"]),
        ({"student.model.tcn.width": 3}, ["for another architecture", "'lstm'", "Set student.model.kind as well"]),
        ({"task.context.x": 3}, ["has no fields of its own"]),
        ({"student.model.width": "wide"}, ["In student.model.width: `width` must be a whole number", "'wide'"]),
        (
            {"student.losses.temporal.weight": -1},
            ["In student.losses.temporal.weight: `weight` must be greater"],
        ),
        ({"student.model.kind": "lsmt"}, ["In student.model.kind", "Did you mean `lstm`"]),
        ({"quantization.weight_bits": 5}, ["In quantization.weight_bits"]),
        ({"": 3}, ["names joined by dots"]),
        ({"student..model": 3}, ["names joined by dots", "'student..model'"]),
        ({7: 3}, ["names joined by dots"]),
    ],
)
def test_a_wrong_address_or_value_gives_one_clear_error(values: dict[Any, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RECIPE.replace_at(values)
    assert [word for word in words if word not in str(caught.value)] == []


def test_two_losses_of_a_kind_are_told_apart_by_number() -> None:
    recipe = RECIPE.replace_at({"student.losses": (OutputLoss(), TemporalLoss(), TemporalLoss(order=2))})
    with pytest.raises(ConfigError, match=r"`student\.losses\.temporal` means 2 items.*student\.losses\[1\]"):
        recipe.replace_at({"student.losses.temporal.weight": 0.5})
    assert recipe.replace_at({"student.losses[2].weight": 0}).student.losses == (OutputLoss(), TemporalLoss())


@pytest.mark.parametrize(
    ("text", "address", "value"),
    [
        ("student.model.width=32", "student.model.width", 32),
        ("student.training.learning_rate = 1e-3", "student.training.learning_rate", 1e-3),
        ("pruning=none", "pruning", None),
        ("student.model.widths=[32, 16]", "student.model.widths", (32, 16)),
        ("student.model.bidirectional=true", "student.model.bidirectional", True),
        ("pruning.criterion=taylor", "pruning.criterion", Taylor()),
        ('name="a b"', "name", "a b"),
        ("name=2024", "name", "2024"),
        ("data.time=date", "data.time", "date"),
        ('student.model={ kind = "mlp", width = 8 }', "student.model", MLPConfig(width=8)),
    ],
)
def test_a_shell_s_text_is_read_as_its_field_wants_it(text: str, address: str, value: Any) -> None:
    assert assigned(RECIPE, [text]).value_at(address) == value


def test_settings_that_need_each_other_come_in_any_order() -> None:
    texts = ["teacher.kind=saved", "teacher.path=2024", "student.losses.temporal=none", "student.model.kind=linear"]
    recipe = assigned(RECIPE, texts)
    assert recipe.teacher == SavedTeacherSpec(path="2024")
    assert (recipe.student.model, recipe.student.losses) == (LinearConfig(), (OutputLoss(),))
    quantiles = RECIPE.replace_at({"student.model.head": "quantile", "student.losses": ("output",)})
    assert (
        assigned(quantiles, ["student.model.head=point", "student.model.kind=linear"]).student.model == LinearConfig()
    )
    assert assigned(RECIPE, ["task.horizon=3", "task.horizon=5"]).task.horizon == 5
    with pytest.raises(ConfigError, match=r"student\.model\.widht"):
        assigned(RECIPE, ["task.horizon=3", "student.model.widht=5"])


@pytest.mark.parametrize("text", ["student.model.width", "=3", "", " = 3"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be ADDRESS=VALUE"):
        parse_assignment(text)


def test_a_job_takes_its_own_fields_and_its_recipe_s() -> None:
    job = Job.model_validate({"store": "store", "data": Source(dataset="nyc-weather")})
    texts = ["student.model.width=32", "gate.margin=0.02", "keep_runs=2", "task.horizon=12", "recipe.pruning=none"]
    job = job.assigned(texts)
    assert job.recipe.student.model == LSTMConfig(widths=(32, 32))
    assert (job.gate.margin, job.keep_runs, job.recipe.task.horizon, job.recipe.pruning) == (0.02, 2, 12, None)
    with pytest.raises(ConfigError, match=r"Did you mean `student\.model\.width`"):
        job.assigned(["student.model.widht=3"])


@pytest.mark.parametrize("command", ["run", "search", "retrain"])
def test_the_shell_says_what_is_wrong_with_a_setting(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    arguments = ["tsdistill", command]
    if command == "retrain":
        (tmp_path / "job.toml").write_text('store = "store"\ndata = { dataset = "nyc-weather" }\n')
        arguments.append(str(tmp_path / "job.toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*arguments, "--set", "student.model.widht=32"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "Did you mean `student.model.width`?" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] in ([], ["job.toml"])


def test_a_module_that_registers_members_is_named_at_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_plugin.py").write_text("print('registered')\n")
    monkeypatch.setattr(sys, "argv", ["tsdistill", "--plugin", "my_plugin", "datasets", "--json"])
    main()
    out = capsys.readouterr().out
    assert out.startswith("registered\n")
    assert json.loads(out.partition("\n")[2])
    monkeypatch.setattr(sys, "argv", ["tsdistill", "--plugin", "no_such_module", "datasets"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "`--plugin` must be a module that can be imported, got 'no_such_module'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1 / 0\n", ["`--plugin`", "'my_broken_plugin'", "ZeroDivisionError", "Mend the module"]),
        ("import no_such_library\n", ["`--plugin`", "no_such_library", "install it"]),
        ("import tsdistill as td\ntd.models.register(3)\n", ["`architecture` must be a class"]),
    ],
)
def test_a_plugin_that_fails_is_told_as_such(
    content: str,
    words: list[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_broken_plugin", raising=False)
    (tmp_path / "my_broken_plugin.py").write_text(content)
    monkeypatch.setattr(sys, "argv", ["tsdistill", "--plugin", "my_broken_plugin", "datasets"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    errors = capsys.readouterr().err
    assert all(word in errors for word in words)
    assert "tsdistill itself" not in errors
