"""The one training loop and its objectives."""

from __future__ import annotations

from tsdistill.training.loop import fit, train
from tsdistill.training.objectives import Objective, OutputSource, TeacherObjective, TeacherOutputs, TruthObjective
from tsdistill.training.spec import Training

__all__ = [
    "Objective",
    "OutputSource",
    "TeacherObjective",
    "TeacherOutputs",
    "Training",
    "TruthObjective",
    "fit",
    "train",
]
