"""Families: members by kind, fields that hold any of them, a user's own, and what is said of those that do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest

import tsdistill
from tsdistill.errors import ConfigError
from tsdistill.losses import LOSSES, Loss, OutputLoss, TemporalLoss
from tsdistill.models import HEADS, MODELS, Forecaster, LSTMConfig, MLPConfig, ModelConfig, PointHead, QuantileHead
from tsdistill.models.mlp import MLP
from tsdistill.pruning import CRITERIA, Criterion, Magnitude, Pruning, Taylor
from tsdistill.recipe import TEACHERS, RecipeTeacher, TeacherSpec
from tsdistill.spec import Family, Member, Spec, user_modules
from tsdistill.testing import ContractError, check_architecture, check_criterion, check_loss

FAMILIES: dict[str, Family[Any]] = {
    "architecture": MODELS,
    "head": HEADS,
    "loss": LOSSES,
    "criterion": CRITERIA,
    "teacher": TEACHERS,
}
PACKAGE = Path(tsdistill.__file__).parent


class OwnConfig(MLPConfig):
    kind: Literal["own"] = "own"  # type: ignore[assignment]
    forecaster: ClassVar[type[Forecaster]] = MLP
    takes: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def examples(cls) -> tuple[OwnConfig, ...]:
        return (cls(width=5, depth=1),)


class Holder(Spec):
    criterion: Annotated[Criterion, CRITERIA] = Magnitude()
    losses: tuple[Annotated[Loss, LOSSES], ...] = ()


@pytest.fixture
def own() -> Iterator[type[OwnConfig]]:
    yield MODELS.register(OwnConfig)
    MODELS.unregister("own")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_member_comes_back_from_what_is_written(family: Family[Any]) -> None:
    assert len(family) == len(set(family.kinds)) == len(list(family))
    for example in family.examples():
        assert family.read(family.write(example)) == example
        assert family.read(example) is example
        assert family[family.kind_of(example)] is type(example)
        assert family.kind_of(example) in family
    assert {type(example) for example in family.examples()} == set(family)


def test_a_field_takes_a_member_a_table_or_a_kind() -> None:
    assert Holder(criterion="taylor").criterion == Holder(criterion={"kind": "taylor"}).criterion == Taylor()
    assert Holder(losses=("output", {"kind": "temporal", "order": 2})).losses == (OutputLoss(), TemporalLoss(order=2))
    assert Holder().to_dict() == {"criterion": "magnitude", "losses": []}  # a bare kind, as version 0.1 wrote it
    assert LSTMConfig(head="quantile").head == QuantileHead()
    assert LSTMConfig(head=QuantileHead()).to_dict()["head"]["kind"] == "quantile"
    assert TEACHERS.read({"model": {"kind": "mlp"}}) == TeacherSpec(model=MLPConfig())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("taylr", ["In criterion: `kind` must be that of a known criterion, got kind='taylr'", "`taylor`"]),
        ({"kind": "taylor", "stpe": 1}, ["In criterion.stpe: `stpe` is not a field of Taylor"]),
        ({"steps": 1}, ["`criterion` must say its `kind`", "magnitude"]),
        (7, ["`criterion` must be one of magnitude", "criterion=7"]),
        (OutputLoss(), ["`criterion` must be one of magnitude"]),
        ("my-own", ["'my-own'", "once its module has registered it"]),
    ],
)
def test_what_is_no_member_is_refused(value: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Holder(criterion=value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_all_problems_of_nested_specs_come_at_once_with_their_addresses() -> None:
    with pytest.raises(ConfigError) as caught:
        Holder(criterion="taylr", losses=("output", {"kind": "temporal", "weight": -1, "order": 3}))
    assert str(caught.value).splitlines()[0] == "3 problems in Holder:"
    for words in ("In criterion:", "In losses[1].weight: `weight` must be greater than 0", "In losses[1].order:"):
        assert words in str(caught.value)


def test_a_class_is_known_once_it_is_registered_and_forgotten_again(own: type[OwnConfig]) -> None:
    assert MODELS.read({"kind": "own", "width": 5}) == own(width=5)
    assert MODELS.register(own) is own  # the same class again: a module that is imported twice
    assert __name__ in user_modules()
    check_architecture(own)


def test_a_class_that_is_not_registered_is_refused_where_it_would_be_written() -> None:
    with pytest.raises(ConfigError, match=r"In model: .*registered class, got a OwnConfig.*`register`"):
        TeacherSpec(model=OwnConfig())
    with pytest.raises(ContractError, match="is not a registered architecture"):
        check_architecture(OwnConfig)


def bare(base: type[Member], **namespace: Any) -> Any:
    """A class of a family with a kind, and little else."""
    written = {"__annotations__": {"kind": str}, "kind": "bare", "__module__": __name__, **namespace}
    return type("Bare", (base,), written)


@pytest.mark.parametrize(
    ("family", "member", "words"),
    [
        (MODELS, bare(ModelConfig), ["Bare.forecaster", "inherits from Forecaster"]),
        (LOSSES, bare(Loss), ["2 problems", "must write bind", "must write formula"]),
        (CRITERIA, bare(Criterion), ["must write score(model, group, evidence)"]),
        (TEACHERS, bare(RecipeTeacher), ["must write build(builder)"]),
        (MODELS, bare(OwnConfig, kind="lstm"), ["Bare.kind", "got Bare.kind='lstm'", "LSTMConfig has it already"]),
        (MODELS, bare(OwnConfig, kind=""), ["have a word as its default"]),
        (MODELS, bare(OwnConfig, kind="a.b"), ["have a word as its default", "a.b"]),
        (MODELS, OutputLoss, ["a class that inherits from ModelConfig"]),
        (MODELS, OwnConfig(), ["Register the class, not an object"]),
        (MODELS, ModelConfig, ["a class that inherits from ModelConfig"]),
    ],
)
def test_what_breaks_the_contract_of_a_family_is_refused(family: Family[Any], member: Any, words: list[str]) -> None:
    kinds = family.kinds
    with pytest.raises(ConfigError) as caught:
        family.register(member)
    assert [word for word in words if word not in str(caught.value)] == []
    assert family.kinds == kinds


def test_a_kind_has_one_class(own: type[OwnConfig]) -> None:
    twin = type("Twin", (OwnConfig,), {"__module__": __name__})
    with pytest.raises(ConfigError, match=r"Twin\.kind.*'own'.*OwnConfig has it already"):
        MODELS.register(twin)
    with pytest.raises(ConfigError, match="Those of tsdistill stay"):
        MODELS.unregister("lstm")


def test_a_new_head_and_a_new_teacher_stand_in_specs() -> None:
    class Own(PointHead):
        kind: Literal["own-point"] = "own-point"  # type: ignore[assignment]

    HEADS.register(Own)
    try:
        assert MLPConfig.from_dict(MLPConfig(head="own-point").to_dict()).head == Own()
    finally:
        HEADS.unregister("own-point")


@pytest.mark.parametrize(("check", "member"), [(check_loss, TemporalLoss), (check_criterion, Taylor)])
def test_a_line_of_a_test_checks_a_class(check: Any, member: Any) -> None:
    check(member)


def test_a_criterion_with_settings_is_written_as_a_table() -> None:
    class Own(Magnitude):
        kind: Literal["own-norm"] = "own-norm"  # type: ignore[assignment]
        power: float = 2.0

    CRITERIA.register(Own)
    try:
        spec = Pruning(criterion=Own(power=3))
        assert spec.to_dict()["criterion"] == {"kind": "own-norm", "power": 3.0}
        assert Pruning.from_toml(spec.to_toml()) == spec
        assert Pruning(criterion="own-norm").to_dict()["criterion"] == {"kind": "own-norm", "power": 2.0}
    finally:
        CRITERIA.unregister("own-norm")


KIND_COMPARED = re.compile(
    r"\.(kind|method|criterion)\b\s*(==|!=|(not )?in\b)\s*[\"'(\[{]|[\"'] (==|!=) [\w.]+\.(kind|method|criterion)\b"
)
OWN_FILES = (
    "data/split.py",  # a split's own kinds
    "tables/columns.py",  # NumPy's kinds of numbers
    "inputs/arrays.py",
    "losses/",  # each loss reads its own settings
    "models/groups.py",  # kinds of units, given as properties
    "pruning/spec.py",
)
"""Files that compare a word of their own class, or of a library's; nobody else's."""


def test_no_kind_is_compared_with_a_word_outside_of_its_family() -> None:
    compared = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not str(path.relative_to(PACKAGE)).startswith(OWN_FILES)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if KIND_COMPARED.search(line) and "dtype" not in line
    ]
    assert compared == []


def test_no_list_of_kinds_stands_outside_of_a_door() -> None:
    """A Literal of several kinds would be another list to keep: fields name their family instead."""
    kinds = {kind for family in FAMILIES.values() for kind in family.kinds}
    listed = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for words in re.findall(r"Literal\[([^\]]*)\]", path.read_text(encoding="utf-8")):
            named = set(re.findall(r'"([^"]+)"', words)) & kinds
            if len(named) > 2:
                listed.append(f"{path.relative_to(PACKAGE)}: {sorted(named)}")
    assert listed == []
