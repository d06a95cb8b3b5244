"""Specs take their own types only, bound the work that they ask for, and refuse hostile files in one short sentence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsdistill as td
from tsdistill.data.signature import Signature
from tsdistill.errors import ConfigError, shown
from tsdistill.models import MODELS, TCNConfig
from tsdistill.recipe import Recipe, Source, TaskSpec, default_recipe, read_recipe
from tsdistill.retrain import Job
from tsdistill.search import Space
from tsdistill.spec import Range, Spec, assigned
from tsdistill.testing import toy_signature

SECONDS = 10
"""Far more than a refusal takes, and far less than what is refused would."""

WHOLE = "must be a valid integer"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TaskSpec(context=True), "`context` must be a valid integer, got context=True. Write a number."),
        (lambda: TaskSpec(context="24"), "got context='24'. Write the number without quotes."),
        (lambda: TaskSpec(context=24.5), WHOLE),
        (lambda: TaskSpec.from_toml("context = true"), WHOLE),
        (lambda: TaskSpec.from_json('{"context": "24"}'), WHOLE),
        (lambda: assigned(default_recipe(), ['task.context="24"']), "In task.context: `context` must be a valid int"),
        (lambda: assigned(default_recipe(), ["task.context=true"]), WHOLE),
        (lambda: default_recipe().replace_at({"student.training.learning_rate": "1e-3"}), "valid number"),
        (lambda: td.Training(learning_rate=True), "valid number"),
        (lambda: td.LSTMConfig(mixing=1), "`mixing` must be a valid boolean, got mixing=1. Write true or false."),
        (lambda: td.LSTMConfig(shortcut="yes"), "valid boolean"),
        (lambda: td.LSTMConfig(widths=[64, True]), "`widths[1]` must be a valid integer"),
        (lambda: td.PatchTSTConfig(heads=True), "`heads` must be one whole number"),
        (lambda: td.PatchTSTConfig(width="64"), "`width` must be a valid integer"),
        (lambda: Source(path="x.csv", id=5), "`id` must be a valid string, got id=5. Put it in quotes."),
        (lambda: Range("5", 10), "`low` must be"),
        (lambda: Space(vary={"student.model.width": {"low": True, "high": 9}}), "`low`"),
    ],
)
def test_a_field_takes_its_own_type_only(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)


def test_what_means_the_same_is_still_taken() -> None:
    assert td.Training(learning_rate=1).learning_rate == 1.0
    assert td.Training(epochs=np.int64(3), learning_rate=np.float32(0.5), batch_size=16.0).batch_size == 16
    assert td.LSTMConfig(widths=np.array([7, 5]), mixing=np.bool_(False)).widths == (7, 5)
    assert td.PatchTSTConfig(patch=16.0).stride == td.PatchTSTConfig(patch=16).stride
    assert td.MLPConfig(width=8.0, depth=2.0) == td.MLPConfig(width=8, depth=2)
    assert (Range(5.0, 10.0).is_whole, Range(np.int32(5), 10).is_whole) == (False, True)
    cut = td.Split.from_toml('kind = "dates"\nvalidation_start = 2024-01-01\ntest_start = 2024-02-01T00:00:00')
    assert (cut.validation_start, cut.test_start) == ("2024-01-01", "2024-02-01T00:00:00")


@pytest.mark.parametrize("text", ["True", "TRUE", "true"])
def test_a_shell_writes_switches_and_numbers_as_people_do(text: str) -> None:
    recipe = assigned(default_recipe(), [f"student.model.mixing={text}", "student.training.learning_rate=.002"])
    assert (recipe.student.model.mixing, recipe.student.training.learning_rate) == (True, 0.002)  # type: ignore[attr-defined]
    assert assigned(recipe, ["name=007", "student.training.epochs=1e2"]).name == "007"


def test_a_set_has_the_same_order_in_every_process() -> None:
    assert Source(path="x.csv", target={"c", "a", "b"}).target == ("a", "b", "c")
    with pytest.raises(ConfigError, match="which has an order"):
        Source(path="x.csv", target={"c", 1})


def in_time(make: Callable[[], Any]) -> str:
    began = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        make()
    assert time.perf_counter() - began < SECONDS
    assert len(str(caught.value)) < 5000
    return str(caught.value)


def deep(n_levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(n_levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MODELS.read({"kind": "lstm", "depth": 10**6}), "`depth` must be at most 256"),
        (lambda: td.LSTMConfig(widths=[64] * 10**6), "`widths` must have at most 256 items"),
        (lambda: MODELS.read({"kind": "lstm", "width": 10**9}), "`width` must be at most 65,536"),
        (lambda: td.LSTMConfig(widths=(60_000,) * 200), "A model must have at most 1,000,000,000 weights"),
        (lambda: td.PatchTSTConfig(depth=10**6), "`depth` must be less than or equal to 256"),
        (lambda: td.PatchTSTConfig(width=10**9), "`width` must be less than or equal to 65536"),
        (lambda: td.PatchTSTConfig(width=65_536), "weights"),
        (lambda: td.PatchTSTConfig(depth=256, width=65_536), "weights"),
        (lambda: td.MLPConfig(hidden=10**9), "`hidden[0]` must be less than"),
        (lambda: td.LinearConfig().build(toy_signature().replace(context=10**6, horizon=10**6)), "weights"),
        (lambda: Signature(**{**toy_signature().to_dict(), "context": 10**9}), "`context` must be less than"),
        (lambda: assigned(default_recipe(), ["student.model.depth=1000000"]), "student.model.depth"),
        (lambda: assigned(default_recipe(), ["teacher.model.width=1000000000"]), "In teacher.model.width: `width`"),
        (lambda: assigned(default_recipe(), [f"teacher.model.width={'9' * 5000}"]), "`width` must be a valid"),
        (lambda: assigned(default_recipe(), [f"student.losses={'[' * 10**5}"]), "`losses`"),
        (lambda: assigned(default_recipe(), [f"student.losses={{{'a.' * 10**5}b=1}}"]), "`losses`"),
        (lambda: assigned(default_recipe(), [f"{'a.' * 10**5}b=1"]), "An address must be"),
        (lambda: Space(vary={"student.model.width": (16, 10**9)}).check(default_recipe()), "student.model.width"),
        (lambda: Space(vary={f"a{place}": (1,) for place in range(10**5)}), "`vary` must have at most 1000 items"),
        (lambda: td.Training(seed=2**70), "`seed` must be a number below 2**63"),
        (lambda: default_recipe().replace_at({"student.training.seed": 2**70}), "below 2**63"),
        (lambda: Recipe.from_dict({"data": {"dataset": "x"}, "student": {"training": {"seed": 2**70}}}),
         "In student.training.seed: `seed` must be a number below 2**63"),
        (lambda: td.Training.from_toml(f"epochs = {'9' * 5000}"), "more digits than can be read"),
        (lambda: td.Training.from_json(f'{{"epochs": {"9" * 5000}}}'), "more digits than can be read"),
        (lambda: td.Training.from_toml(f"epochs = 0x{'f' * 50_000}"), "an int too long to show"),
        (lambda: td.Training.from_json("[" * 10**5), "nested 64 deep at most"),
        (lambda: td.Training.from_json('{"a":' * 10**5 + "1" + "}" * 10**5), "nested 64 deep at most"),
        (lambda: td.Training.from_toml(f"a = {'[' * 10**5}"), "nested 64 deep at most"),
        (lambda: td.Training.from_toml(f"{'.'.join('a' * 10**5)} = 1"), "more than 16 parts"),
        (lambda: td.Training.from_toml('["a,"' + '."a,"' * 10**5 + "]"), "more than 16 parts"),
        (lambda: td.Training.from_json('{"epochs": 3, "epochs": 4}'), "`epochs` must stand once in Training"),
        (lambda: td.Training.from_json('{"self": 1}'), "`self` is not a field of Training"),
        (lambda: td.Quantization.from_json('{"cls": 1}'), "`cls` is not a field"),
        (lambda: td.Training(epochs=deep(10**5)), "`epochs` must be nested 64 deep at most"),
        (lambda: td.Training(epochs=[7] * 10**6), "..."),
    ],
)  # fmt: skip
def test_work_without_end_is_refused_before_it_begins(make: Callable[[], Any], words: str) -> None:
    assert words in in_time(make)


def test_long_and_endless_values_are_shown_by_their_beginning() -> None:
    assert shown("a" * 10**6).endswith(" ...")
    assert len(shown("a" * 10**6)) < 500
    assert (shown(deep(10**5)), shown(16**5000)) == ("a dict too long to show", "an int too long to show")


@pytest.mark.parametrize("read", [read_recipe, Recipe.from_file, Job.from_file, Space.from_file])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "huge", "sparse", "bytes"])
def test_what_is_no_small_file_is_refused(read: Callable[[Path], Any], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "huge":
        path.write_text("# " + "x" * (1 << 21))
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 35)
    else:
        path.write_bytes(b"\xff\xfe\x00")
    assert "Cannot read" in in_time(lambda: read(path))


def user_specs() -> list[type[Spec]]:
    """Specs that people and files write."""
    families = (MODELS, td.losses.LOSSES, td.quantization.QUANTIZATIONS)
    # Tests may have registered some of their own.
    members = [cls for family in families for cls in family if cls.__module__.startswith("tsdistill.")]
    held = [*members, td.Training, td.Pruning, TaskSpec, Job, Space]
    return [*held, Signature]


@pytest.mark.parametrize("cls", user_specs(), ids=lambda cls: cls.__name__)
def test_every_whole_number_of_a_spec_has_a_largest_value(cls: type[Spec]) -> None:
    unbounded = []
    for name, field in cls.model_fields.items():
        if "int" not in str(field.annotation):
            continue
        for value in (2**62, (2**62,), ((2**62, 2**62),)):
            try:
                made = cls(**{**({"kind": cls.model_fields["kind"].default} if "kind" in cls.model_fields else {}),
                              name: value})  # fmt: skip
            except ConfigError:
                continue
            if name not in ("max_parameters", "max_bytes", "seed"):  # they ask for no work
                unbounded.append((name, getattr(made, name)))
    assert unbounded == []


def test_taps_beyond_the_first_token_cost_nothing() -> None:
    model = TCNConfig(width=5, depth=40, kernel=2, patch=7).build(toy_signature())
    assert model.train()(td.testing.toy_task().train.batch(slice(3)).context).shape[0] == 3  # type: ignore[arg-type]
