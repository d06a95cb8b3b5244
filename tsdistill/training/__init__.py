"""The one training loop and its objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsdistill.deprecation import moved_names
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

MOVED = {
    "Lessons": "tsdistill.training.TeacherOutputs",
    "Mentor": "tsdistill.training.OutputSource",
}
"""Names of version 0.1, each with its place now; they go with version 0.3."""

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = moved_names(__name__, MOVED)
