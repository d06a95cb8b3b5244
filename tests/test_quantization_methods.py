"""Methods of quantization are types: each has its own fields, says what it can do, and users add theirs."""

from __future__ import annotations

import copy
import functools
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import onnx
import pytest

from tests.deployables import exported, forecaster, task
from tsdistill import runtime
from tsdistill.artifacts import save
from tsdistill.errors import ConfigError, UnsupportedError
from tsdistill.exporting import Deployed, export
from tsdistill.models import Forecaster, TCNConfig
from tsdistill.quantization import (
    QAT,
    QUANTIZATIONS,
    Auto,
    Dynamic,
    Quantization,
    Static,
    WeightOnly,
    candidate_table,
    choice,
    quantize,
    register,
)
from tsdistill.quantization.float_graph import FloatGraph
from tsdistill.quantization.judging import table
from tsdistill.quantization.layers import float_layers
from tsdistill.quantization.weight_only import weight_only_graph
from tsdistill.recipe import Recipe, default_recipe, read_recipe
from tsdistill.training import Training

EXAMPLES = QUANTIZATIONS.examples()
OLDER = Path(__file__).parent / "older"
"""What version 0.1 wrote."""


def name(spec: Quantization) -> str:
    """What a test's name says of a spec: its method and what is not at its default."""
    return "-".join(
        [spec.method, *(f"{field}={value}" for field, value in spec.minimal().items() if field != "training")]
    )


def deployed(kind: str, spec: Quantization) -> Deployed:
    """A form, whatever it costs or gains; the float graph is made once."""

    def known(model: Forecaster, task: Any) -> Deployed:
        return exported(kind) if model is forecaster(kind) else export(model, task)

    with mock.patch.object(choice, "export", known):
        spec = spec.replace(require_gain=False, max_error_increase=9.0)
        return quantize(forecaster(kind), task(), spec, progress=False)


@pytest.mark.parametrize("spec", EXAMPLES, ids=name)
def test_specs_survive_files_copies_and_the_front_door(spec: Quantization) -> None:
    door = Quantization(**spec.to_dict())
    assert type(door) is type(spec)
    assert door == spec == Quantization.from_json(spec.to_json()) == Quantization.from_toml(spec.to_toml())
    assert type(spec).from_dict(spec.to_dict()) == spec
    assert copy.deepcopy(spec) == spec == pickle.loads(pickle.dumps(spec))  # noqa: S301 - our own bytes
    recipe = default_recipe().replace(quantization=spec)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize("spec", EXAMPLES, ids=name)
def test_every_method_makes_a_form_that_is_served(spec: Quantization, tmp_path: Path) -> None:
    small = deployed("mlp", spec)
    step = small.lineage[-1]
    rows = {row["name"]: row for row in step.metrics["candidates"]}
    row = rows[step.metrics["chosen"]]
    assert (spec.chooses or spec.needs_teacher) or list(rows) == ["fp32", spec.method]
    assert row["method"] in QUANTIZATIONS
    assert row["weight_bits"] in (4, 7, 8)
    assert step.seed == spec.seed
    assert float_layers(onnx.load_from_string(small.onnx)) == ()
    # Trained weights lie on the grid already: stored in fewer bits, they forecast the same.
    assert 0 <= small.parity["max_difference"] < 3
    assert small.parity["max_difference"] > 0 or spec.needs_teacher
    runtime.load(save(small, tmp_path / "small"))
    assert runtime.verify(tmp_path / "small")["max_difference"] == 0


@pytest.mark.parametrize(
    "member", [member for member in QUANTIZATIONS if not member.chooses], ids=lambda member: member.__name__
)
def test_what_a_method_cannot_round_it_says_with_what_can(member: type[Quantization]) -> None:
    for operator, inability in member.ability.reasons.items():
        assert operator not in member.ability.operators
        assert operator in QUANTIZATIONS[inability.instead].ability.operators


@pytest.mark.parametrize("spec", [Dynamic(), Static(), WeightOnly(), WeightOnly(weight_bits=4)], ids=name)
def test_training_imitates_the_bits_and_layers_of_the_form(spec: Quantization) -> None:
    rounding = spec.replace(keep_float=("embed",)).rounding()
    assert rounding.weight_bits == spec.bits
    names = [name for name, _ in rounding.layers(forecaster("mlp"))]
    assert names
    assert "embed" not in names


@pytest.mark.parametrize("spec", [QAT(), Auto()], ids=name)
def test_what_makes_forms_of_other_methods_has_no_graph_of_its_own(spec: Quantization) -> None:
    source = FloatGraph(exported("mlp"), task())
    with pytest.raises(UnsupportedError, match=f"got method='{spec.method}'"):
        spec.graph(source)
    with pytest.raises(UnsupportedError, match=f"got method='{spec.method}'"):
        spec.rounding()
    assert spec.candidates(Auto()) == {}


def test_only_what_trains_takes_a_teacher_and_a_seed() -> None:
    for spec in EXAMPLES:
        reseeded = spec.with_seed(7)
        assert (reseeded.seed == 7) is spec.needs_teacher
        assert (reseeded == spec) is not spec.needs_teacher
        if not spec.needs_teacher:
            with pytest.raises(UnsupportedError, match="`method` must be one that trains"):
                spec.trained(forecaster("mlp"), task())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "of one other method": (
        {"method": "weight-only", "training": Training()},
        r"`training` must be left out with method='weight-only', got .*It is a field of method='qat'\.",
    ),
    "of several": (
        {"method": "dynamic", "block_size": 16},
        r"`block_size` must be left out with method='dynamic', got block_size=16\. "
        r"It is a field of method='weight-only', 'qat' and 'auto'\.",
    ),
    "at its default": ({"block_size": 32}, "`block_size` must be left out with method='dynamic'"),
    "with all other problems": (
        {"calibration": "mse", "weight_bits": 4, "max_eror_increase": 1},
        r"(?s)3 problems in Dynamic.*`calibration` must be left out.*`weight_bits` must be 7 or 8 when method='dynamic'"
        r".*Did you mean `max_error_increase`",
    ),
    "an unknown method": ({"method": "statik"}, "`method` must be .*got method='statik'. Did you mean `static`"),
    "no method": ({"method": None}, "`method` must be .*got method=None"),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_fields_of_other_methods_are_refused_with_whose_they_are(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Quantization(**values)


def test_another_method_keeps_what_both_have_but_for_the_bits() -> None:
    spec = Dynamic(weight_bits=8, per_channel=False, isolate=True, max_error_increase=0.1, keep_float=("last",))
    static = spec.replace(method="static", calibration="mse")
    assert static == Static(per_channel=False, max_error_increase=0.1, keep_float=("last",), calibration="mse")  # type: ignore[comparison-overlap]
    assert spec.replace(method="weight-only").bits == 8
    assert WeightOnly(weight_bits=4).replace(method="dynamic").bits == 7
    assert spec.replace(method="dynamic") == spec
    with pytest.raises(ConfigError, match="`calibration` must be left out with method='weight-only'"):
        spec.replace(method="weight-only", calibration="mse")


def test_an_address_changes_the_method_of_a_recipe() -> None:
    recipe = default_recipe().replace(quantization=Static(weight_bits=8, calibration="mse", batch_sizes=(1, 64)))
    changed = recipe.replace_at({"quantization.method": "weight-only", "quantization.weight_bits": 4})
    assert changed.quantization == WeightOnly(weight_bits=4, batch_sizes=(1, 64))
    with pytest.raises(ConfigError, match=r"`quantization.calibration` is not an address"):
        changed.replace_at({"quantization.calibration": "mse"})


def test_what_version_0_1_wrote_for_every_method_is_read() -> None:
    recipe = read_recipe(OLDER / "static-recipe.toml")
    assert recipe.quantization == Static(calibration="mse", batch_sizes=(1, 64))
    written = {"per_channel": True, "block_size": 32, "n_calibration": 128, "calibration": "min-max", "isolate": False}
    for spec in EXAMPLES:
        values = {**written, "keep_float": [], **spec.to_dict()}
        assert Quantization.from_dict(values) == spec == QUANTIZATIONS.read(values)
    with pytest.raises(ConfigError, match=r"`block_size` must be left out with method='static', got block_size=16"):
        Quantization.from_dict({**written, "method": "static", "block_size": 16})


def test_tables_of_version_0_1_show_the_batch_effect() -> None:
    common = {"mse": 0.5, "increase": 0.0, "worst_increase": 0.0, "worst": "step 1", "graph_bytes": 9}
    rows = [
        {"name": name, **common, "latency_ms": {"1": 1.0}, "refused": [], "batch_mates": effect}
        for name, effect in (("fp32", 0.0), ("dynamic", 0.125))
    ]
    shown = table(rows, "dynamic").splitlines()
    assert "batch effect" in shown[0]
    assert re.search(r"0\.12 .*selected", shown[2])


# A method of one's own.


class Coarse(Quantization):
    """Weights in 8 bits, named like a method of its own."""

    method: Literal["coarse"] = "coarse"
    strength: int = 3

    @property
    def precision(self) -> str:
        return "int8-weights"

    def graph(self, source: FloatGraph) -> bytes:
        return weight_only_graph(source.graph, weight_bits=8, keep_float=self.keep_float)


@pytest.fixture
def coarse() -> Iterator[type[Coarse]]:
    yield register(Coarse)
    QUANTIZATIONS.unregister("coarse")


def test_a_method_of_ones_own_is_deployed_tried_by_auto_and_named_by_recipes(coarse: type[Coarse]) -> None:
    spec = Quantization(method="coarse", strength=5)
    assert spec == coarse(strength=5)
    small = deployed("mlp", spec)
    assert small.precision == "int8-weights"
    assert "coarse" in candidate_table(small)
    assert list(Auto().variants())[-1] == "coarse"
    with mock.patch.object(choice, "export", return_value=exported("mlp")):
        rows = quantize(forecaster("mlp"), task(), Auto(max_error_increase=9.0)).lineage[-1].metrics["candidates"]
    assert "coarse" in [row["name"] for row in rows if "graph_bytes" in row]
    recipe = default_recipe().replace_at({"quantization.method": "coarse", "quantization.strength": 7})
    expected = coarse(strength=7, max_latency_increase=0.25, max_error_increase=0.005)
    assert Recipe.from_toml(recipe.to_toml()).quantization == expected
    with pytest.raises(ConfigError, match="It is a field of method='coarse'"):
        Static(strength=5)  # type: ignore[call-arg]


def test_a_method_without_a_graph_is_no_member() -> None:
    class Empty(Quantization):
        method: Literal["empty"] = "empty"

    with pytest.raises(ConfigError, match=r"`Empty` must write graph\(source\)"):
        register(Empty)
    assert "empty" not in QUANTIZATIONS


@functools.cache
def convolving() -> Forecaster:
    return TCNConfig(width=5, depth=1, patch=5).build(task().signature)


def test_one_form_stands_for_a_method_that_makes_others() -> None:
    assert Auto(weight_bits=8).deployed_form(convolving()) == Static(weight_bits=8)
    assert Auto(isolate=True).deployed_form(forecaster("mlp")) == Dynamic(isolate=True)
    names = tuple(name for name, _ in Static().rounding().layers(convolving()))
    assert QAT().deployed_form(convolving()) == Static()
    assert QAT(keep_float=names).deployed_form(convolving()) == Dynamic(keep_float=names)
    assert np.isclose(QAT(max_error_increase=0.1).deployed_form(forecaster("mlp")).worst_error_increase, 0.5)
