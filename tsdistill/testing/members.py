"""One line for a class of your own: every check of its family, over every example that it offers."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch

from tsdistill.artifacts import load, save
from tsdistill.errors import UnsupportedError
from tsdistill.exporting import export
from tsdistill.models import MODELS, Forecaster, MLPConfig, ModelConfig
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning import CRITERIA, Criterion, Evidence, groups_of
from tsdistill.pruning.spec import Pruning
from tsdistill.testing.cutting import check_pruning
from tsdistill.testing.forecasters import check_forecaster
from tsdistill.testing.registered import check_member
from tsdistill.testing.rules import built, near, require, shaken
from tsdistill.testing.terms import STUDENT, TEACHER
from tsdistill.testing.toys import toy_batch, toy_task


def check_architecture(config: type[ModelConfig]) -> None:
    """Hold an architecture against everything that trains, prunes, exports, saves and searches models.

    Of every example: the forecaster's contract (`check_forecaster`), pruning by its width groups (`check_pruning`),
    forecasts of the exported graph equal to torch's, weights equal after saving and loading, and the ranges beside its
    fields are ones that the fields accept. The class has to be registered.

    Args:
        config: The class, not an object.

    Raises:
        ContractError: a rule is broken; the message says which.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> check_architecture(MLPConfig)
    """
    check_member(MODELS, config)
    for example in config.examples():
        check_forecaster(example)
        check_pruning(example)
        for model in built(example):
            _check_serving(shaken(model).eval())


def check_criterion(criterion: type[Criterion]) -> None:
    """Hold a criterion against what pruning takes it for, on an MLP, an LSTM and a transformer.

    Every group it can rank gets one finite float64 score per unit; the model is left as it was; the same model gets the
    same scores; and one that does not look at data gives them without any.

    Args:
        criterion: The class, not an object; registered.

    Raises:
        ContractError: a rule is broken; the message says which.

    Example:
        >>> from tsdistill.pruning import Magnitude
        >>> check_criterion(Magnitude)
    """
    check_member(CRITERIA, criterion)
    task = toy_task()
    for config in (MLPConfig(width=5, depth=2, hidden=(7, 11)), STUDENT, TEACHER):
        model = shaken(config.build(task.signature)).eval()
        groups = groups_of(model, Pruning())
        for example in criterion.examples():
            ranked = [_check_scores(example, model, group, Evidence(model, task, n_windows=11)) for group in groups]
            require(any(ranked), f"{example} ranks no group of a {config.kind!r} model")


def _check_serving(model: Forecaster) -> None:
    """What is exported forecasts the same, and what is saved comes back."""
    batch = toy_batch(signature=model.signature)
    inputs = {"context": batch.context, "future": batch.future, "past": batch.past}
    raw = {name: values.numpy() for name, values in inputs.items() if values is not None}
    wanted = torch.from_numpy(model.outputs(**raw)["forecast"])
    exported = torch.from_numpy(export(model).predictor.outputs(**raw)["forecast"])
    near(exported, wanted, "the exported graph forecasts otherwise than torch", 1e-4)
    with tempfile.TemporaryDirectory() as folder:
        again = load(save(model, Path(folder) / "model"))
    require(again.digest == model.digest, "the weights are others after saving and loading")


def _check_scores(criterion: Criterion, model: Forecaster, group: WidthGroup, evidence: Evidence) -> bool:
    before = copy.deepcopy(model.state_dict())
    try:
        scores = criterion.score(model, group, evidence)
    except UnsupportedError:
        return False  # it refuses groups that it cannot rank
    what = f"the scores of {criterion} for {group.name}"
    require(tuple(scores.shape) == (group.size,), f"{what} have shape {tuple(scores.shape)}, not ({group.size},)")
    require(scores.dtype == torch.float64, f"{what} are {scores.dtype}, not float64")
    require(bool(scores.isfinite().all()), f"{what} are not finite")
    require(torch.equal(criterion.score(model, group, evidence), scores), f"{what} are others the second time")
    unchanged = all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    require(unchanged, f"{criterion} changes the model that it ranks")
    if not criterion.looks_at_data:
        touched = {"gradients", "read", "train", "validation"} & set(vars(evidence))
        require(not touched, f"{criterion} declares that it does not look at data, and looks at {', '.join(touched)}")
    return True
