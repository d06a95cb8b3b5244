"""What a search varies: addresses and ranges, conditional on the drawn kind, and the spelling of version 0.1."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

import tsdistill as td
from tests.typed import instance_of, known
from tsdistill.data import Covariates
from tsdistill.errors import ConfigError
from tsdistill.losses import LOSSES, OutputLoss, TemporalLoss
from tsdistill.models import MODELS, LinearConfig, LSTMConfig, MLPConfig, QuantileHead, TCNConfig
from tsdistill.pruning import Pruning
from tsdistill.recipe import Recipe, TaskSpec, default_recipe
from tsdistill.search import LSTMSpace, MLPSpace, PatchTSTSpace, Range, Space, create_study
from tsdistill.spec import default_ranges

KIND = "student.model.kind"
MIXED = Space(
    vary={
        KIND: ("lstm", "tcn", "linear"),
        "student.model.width": Range(8, 128, log=True),
        "student.model.lstm.patch": (12, 24),
        "student.losses.feature.weight": (0, 0.1),
    }
)


def base(**parts: Any) -> Recipe:
    """The default recipe with another student's model or losses, or other parts."""
    recipe = default_recipe()
    student = {name: parts.pop(name) for name in ("model", "losses") if name in parts}
    return recipe.replace(student=recipe.student.replace(**student), **parts)


def drawn(space: Space, recipe: Recipe, **params: Any) -> optuna.Trial:
    """A trial of a study, some of its values given."""
    study = create_study("toy", seed=len(params))
    study.enqueue_trial(params)
    return study.ask()


def test_a_space_survives_its_written_forms() -> None:
    assert Space.from_toml(MIXED.to_toml()) == MIXED == Space.from_json(MIXED.to_json())
    nested = 'vary.student.model.kind = "mlp"\n[vary.student.model.width]\nlow = 8\nhigh = 64\nlog = true\n'
    expected = {KIND: ("mlp",), "student.model.width": Range(8, 64, log=True)}
    assert Space.from_toml(nested).vary == expected
    assert Space.from_toml(Space().to_toml()) == Space()


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ({"student.model.width": ()}, ["In vary", "a value, several"]),
        ({"student.model.width": (8, 8)}, ["each once", "(8, 8)"]),
        ({"student.model.width": [[8]]}, ["a value, several"]),
        ({"student.model.width": {"low": 3, "high": 1}}, ["`low` must be at most high = 1", "Swap"]),
        ({"student.model.width": {"low": 0, "high": 1, "log": True}}, ["above 0 with log"]),
    ],
)
def test_what_nothing_can_be_drawn_from_is_refused(vary: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Space(vary=vary)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("vary", "recipe", "words"),
    [
        ({"student.model.widht": 8}, base(), ["student.model.widht", "Did you mean `student.model.width`?"]),
        ({"student.losses.temproal.weight": 1}, base(), ["student.losses.temproal", "Did you mean `temporal`?"]),
        ({"stduent.model.width": 8}, base(), ["`stduent.model.width` must be of the student, pruning"]),
        ({"task.context": 48}, base(), ["shared by all trials", "--set"]),
        ({"teacher.training.learning_rate": 1e-3}, base(), ["shared by all trials"]),
        ({KIND: ("lstm", "lsmt")}, base(), ["In student.model.kind", "'lsmt'", "Did you mean `lstm`?"]),
        ({KIND: "mlp", "student.model.tcn.width": 8}, base(), ["a student that can be drawn", KIND]),
        ({"student.losses.output.alpha": (0.5, 1.5)}, base(), ["student.losses.output.alpha: `alpha`", "alpha=1.5"]),
        ({"student.training.learning_rate": 0}, base(), ["student.training.learning_rate", "greater than 0"]),
        ({"pruning.ratio": (0.5, 1.0)}, base(), ["In pruning.ratio", "less than 1"]),
        ({"student.model.width": Range(0.5, 3)}, base(), ["a range of whole numbers, got 0.5 to 3"]),
        ({"student.model.width": True}, base(), ["In student.model.width", "True"]),
        ({"student.model.patch": (24, 400)}, base(), ["`patch` must be at most context = 336", "400"]),
        ({KIND: "linear"}, base(model=LSTMConfig(head=QuantileHead())), ["a quantile head", "'lstm'"]),
        ({"pruning.ratio": 0.5}, base(pruning=Pruning(max_bytes=9)), ["must stay out where the recipe prunes"]),
        (
            {KIND: ("mlp", "lstm"), "quantization.method": ("static", "auto")},
            base(),
            ["'lstm' student", "use 'dynamic'"],
        ),
        (
            {"student.losses.temporal.weight": 0.1},
            base(task=TaskSpec(context=64, horizon=1)),
            ["be 0 with a horizon of 1", "needs 2 steps"],
        ),
    ],
)
def test_a_space_that_does_not_fit_its_recipe_is_refused(
    vary: dict[str, Any], recipe: Recipe, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        Space(vary=vary).check(recipe)
    assert [word for word in words if word not in str(caught.value)] == []


def test_all_problems_come_in_one_error() -> None:
    space = Space(vary={"student.model.widht": 8, "task.context": 48, "pruning.ratio": 2})
    with pytest.raises(ConfigError, match="3 problems in the space over this recipe"):
        space.check(default_recipe())


@pytest.mark.parametrize("kind", MODELS.kinds)
def test_the_default_space_draws_every_architecture(kind: str) -> None:
    """Over a recipe whose task it suits: the cycle of a CycleNet is read off a clock, the others take no covariates."""
    recipe = default_recipe()
    if needs := MODELS.read(kind).needs:
        recipe = recipe.replace(task=recipe.task.replace(covariates=needs))
    space = Space()
    space.check(recipe)
    trial = drawn(space, recipe, **{KIND: kind})
    proposed = space.propose(trial, recipe)
    assert proposed.student.model.kind == kind
    sizes = {name.rpartition(".")[2] for name in trial.params if name.startswith(f"student.model.{kind}.")}
    several = {
        name for name, among in default_ranges(MODELS[kind]).items() if isinstance(among, Range) or len(among) > 1
    }
    assert sizes == several
    assert Recipe.from_toml(proposed.to_toml()) == proposed
    assert Space().propose(FixedTrial(trial.params), recipe) == proposed


def test_the_default_space_leaves_out_what_the_task_does_not_allow() -> None:
    recipe = default_recipe()
    kinds = Space().ranges(recipe)[KIND]
    assert set(MODELS.kinds) - set(kinds) == {"cyclenet"}
    short = recipe.replace(task=TaskSpec(context=20, horizon=4))
    ranges = Space().ranges(short)
    assert ranges["student.model.lstm.patch"] == (12,)
    assert ranges["student.model.seasonal-naive.period"] == (1,)
    Space().check(short)
    clock = recipe.replace(task=recipe.task.replace(covariates=Covariates(calendar=("time-of-day",))))
    assert set(Space().ranges(clock)[KIND]) == {"inverted-transformer", "linear", "mlp", "tsmixer", "cyclenet"}


@pytest.mark.parametrize("kind", LOSSES.kinds)
def test_every_loss_can_be_searched(kind: str) -> None:
    ranges = default_ranges(LOSSES[kind])
    assert ranges
    for name, among in ranges.items():
        value = among.high if isinstance(among, Range) else among[-1]
        address = f"student.losses.{kind}.{name}"
        proposed = Space(vary={address: value}).propose(FixedTrial({}), default_recipe())
        held = {loss.kind: loss for loss in proposed.student.losses}
        assert getattr(held[kind], name) == value


@pytest.mark.parametrize(
    "setting",
    [
        {"head": QuantileHead(levels=(0.2, 0.5, 0.8))},
        {"mixing": True},
        {"bidirectional": True},
        {"shortcut": False},
        {"channel_embedding": False},
        {"dropout": 0.25},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_search_keeps_what_the_recipe_says_of_its_student(setting: dict[str, Any]) -> None:
    """The fault of version 0.1: a fresh model was built and three of its fields were copied."""
    (name, value), recipe = next(iter(setting.items())), base(model=LSTMConfig(**setting))
    space = Space()
    for kind in Space().ranges(recipe)[KIND]:
        model = space.propose(drawn(space, recipe, **{KIND: kind}), recipe).student.model
        assert getattr(model, name, value) == value, kind
        if name == "head":
            assert "head" in type(model).model_fields


@pytest.mark.parametrize("kind", MODELS.kinds)
def test_a_search_takes_the_recipe_s_own_student_whatever_it_is(kind: str) -> None:
    """The other fault of version 0.1: TCN, TSMixer and inverted students were said to have nothing to train."""
    model = MODELS.read(kind)
    losses = (OutputLoss(),) if model.forecaster.closed_form else (OutputLoss(), TemporalLoss())
    recipe = base(model=model, losses=losses)
    if model.needs is not None:
        recipe = recipe.replace(task=recipe.task.replace(covariates=model.needs))
    space = Space(vary={"student.losses.output.alpha": Range(0, 1), "pruning.ratio": (0.25, 0.5)})
    space.check(recipe)
    proposed = space.propose(create_study("toy").ask(), recipe)
    assert proposed.student.model == model
    if not model.learns:
        assert proposed.student.losses == losses


def test_a_field_that_the_drawn_kind_does_not_have_is_not_drawn() -> None:
    recipe = default_recipe()
    MIXED.check(recipe)
    params = {kind: drawn(MIXED, recipe, **{KIND: kind}) for kind in ("lstm", "tcn", "linear")}
    proposed = {kind: MIXED.propose(trial, recipe) for kind, trial in params.items()}
    names = {kind: set(trial.params) - {KIND} for kind, trial in params.items()}
    assert names["lstm"] == {"student.model.width", "student.model.lstm.patch", "student.losses.feature.weight"}
    assert names["tcn"] == {"student.model.width", "student.losses.feature.weight"}
    assert names["linear"] == set()
    assert proposed["linear"].student.losses == (OutputLoss(),)
    assert proposed["linear"].pruning is None
    model = instance_of(TCNConfig, proposed["tcn"].student.model)
    assert model.hidden == (2 * model.width,) * 3


def test_whole_numbers_and_fractions_are_drawn_as_the_field_asks() -> None:
    space = Space(vary={"student.model.width": Range(8, 64), "student.losses.output.alpha": Range(0, 1)})
    trial = create_study("toy", seed=3).ask()
    proposed = space.propose(trial, base(model=MLPConfig()))
    assert isinstance(instance_of(MLPConfig, proposed.student.model).width, int)
    alpha = trial.params["student.losses.output.alpha"]
    assert isinstance(alpha, float)
    assert 0 < alpha < 1


def test_a_proposal_changes_what_is_drawn_and_nothing_else() -> None:
    recipe = default_recipe()
    values = {"student.model.width": 3, "student.losses.temporal.weight": 0.3, "pruning.ratio": 0.5}
    space = Space(vary={address: (value, 9 * value) if value != 0.5 else 0.5 for address, value in values.items()})
    chosen = {address: value for address, value in values.items() if value != 0.5}
    proposed = space.propose(FixedTrial(chosen), recipe)
    expected = recipe.replace_at(values)
    expected = expected.replace(student=expected.student.replace(candidates=()))
    assert expected.quantization is not None
    assert proposed == expected.replace(quantization=expected.quantization.replace(require_gain=False))
    assert (proposed.data, proposed.task, proposed.teacher) == (recipe.data, recipe.task, recipe.teacher)


@pytest.mark.parametrize(
    ("losses", "vary", "expected"),
    [
        ((TemporalLoss(),), {"output.alpha": 0.5}, (TemporalLoss(), OutputLoss(alpha=0.5))),
        ((OutputLoss(), TemporalLoss(order=2)), {"temporal.weight": 0.0}, (OutputLoss(),)),
        ((OutputLoss(),), {"temporal.weight": 0.2}, (OutputLoss(), TemporalLoss(weight=0.2))),
        ((OutputLoss(),), {"temporal.weight": 0.0}, (OutputLoss(),)),
        ((TemporalLoss(order=2),), {"temporal.weight": 0.2}, (TemporalLoss(order=2, weight=0.2),)),
    ],
)
def test_losses_are_reweighted_added_and_left_out(losses: Any, vary: dict[str, float], expected: Any) -> None:
    space = Space(vary={f"student.losses.{address}": value for address, value in vary.items()})
    assert space.propose(FixedTrial({}), base(losses=losses)).student.losses == expected


def test_a_ratio_of_nothing_leaves_pruning_out_and_another_brings_it_in() -> None:
    space = Space(vary={"pruning.ratio": (0.0, 0.25)})
    assert space.propose(FixedTrial({"pruning.ratio": 0.0}), default_recipe()).pruning is None
    brought = space.propose(FixedTrial({"pruning.ratio": 0.25}), base(pruning=None)).pruning
    assert brought == Pruning(ratio=0.25)


def test_a_space_of_version_0_1_still_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="Spaces name addresses now"):
        space = Space(  # type: ignore[call-arg]
            students=(LSTMSpace(width=Range(8, 64, log=True)), MLPSpace(depth=1), PatchTSTSpace(patch=12)),
            alpha=0.5,
            temporal=None,
            ratio=(0.0, 0.5),
            methods=("dynamic", "weight-only"),
        )
    assert space.vary is not None
    assert space.vary[KIND] == ("lstm", "mlp", "patchtst")
    assert space.vary["student.model.lstm.width"] == Range(8, 64, log=True)
    assert space.vary["quantization.method"] == ("dynamic", "weight-only")
    assert "student.losses.temporal.weight" not in space.vary
    recipe = default_recipe()
    chosen = {
        KIND: "patchtst",
        "student.model.patchtst.width": 16,
        "student.model.patchtst.depth": 1,
        "pruning.ratio": 0.0,
        "student.training.learning_rate": 0.001,
        "quantization.method": "weight-only",
    }
    model: Any = space.propose(FixedTrial(chosen), recipe).student.model
    assert (model.patch, model.stride, model.width) == (12, 12, 16)
    written = "alpha = 0.5\n[[students]]\nkind = 'mlp'\nwidth = [8, 16]\n"
    with pytest.warns(DeprecationWarning, match=r"0\.3"):
        assert known(Space.from_toml(written).vary)[KIND] == ("mlp",)


@pytest.mark.filterwarnings("ignore:Spaces name addresses now:DeprecationWarning")
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"students": ()}, ["students", "one at least"]),
        ({"students": (MLPSpace(), MLPSpace())}, ["at most once", "['mlp', 'mlp']"]),
        ({"students": [{"kind": "lsmt"}]}, ["students", "lsmt", "lstm"]),
        ({"alpah": 0.5, "alpha": 0.5}, ["`alpah`"]),
    ],
)
def test_a_wrong_space_of_version_0_1_is_refused(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Space(**values)
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_digest_of_a_space_is_that_of_what_it_draws() -> None:
    recipe = default_recipe()
    spelled = Space(vary=Space().ranges(recipe))
    assert spelled.digest_over(recipe) == Space().digest_over(recipe)
    assert Space(vary={KIND: ("mlp",)}).digest_over(recipe) != Space(vary={KIND: ("lstm",)}).digest_over(recipe)
    assert td.search.Space is Space
    assert LinearConfig().forecaster.closed_form
