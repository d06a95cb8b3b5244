"""The one training loop and its objectives."""

from __future__ import annotations

from tsdistill.training.loop import fit, train
from tsdistill.training.objectives import Lessons, Mentor, Objective, TeacherObjective, TruthObjective
from tsdistill.training.spec import Training

__all__ = ["Lessons", "Mentor", "Objective", "TeacherObjective", "Training", "TruthObjective", "fit", "train"]
