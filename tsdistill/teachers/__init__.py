"""What can teach, and a cache of teacher outputs that every epoch, student and trial reuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsdistill.deprecation import moved_names
from tsdistill.teachers.base import Teacher, check_teacher, same_scaling, shown_by, teacher_info, teacher_record
from tsdistill.teachers.cache import CachedTeacher
from tsdistill.teachers.ensemble import TeacherEnsemble
from tsdistill.teachers.foundation import FoundationTeacher, from_foundation
from tsdistill.teachers.hooks import Tap
from tsdistill.teachers.huggingface import from_huggingface
from tsdistill.teachers.keeping import CacheEntry, Cleaning, cached, clean
from tsdistill.teachers.privileged import PrivilegedTeacher, adapt, same_inputs, task_with
from tsdistill.teachers.refitted import RefittedTeacher, from_function, from_statsmodels
from tsdistill.teachers.regressor import RegressorTeacher, from_sklearn
from tsdistill.teachers.rescaled import RescaledTeacher
from tsdistill.teachers.table import ForecastTable, read_forecasts
from tsdistill.teachers.trust import TrustedTeacher
from tsdistill.teachers.wrapped import WrappedTeacher, wrap
from tsdistill.teachers.writing import check_table, forecast_frame, write_forecasts

__all__ = [
    "CacheEntry",
    "CachedTeacher",
    "Cleaning",
    "ForecastTable",
    "FoundationTeacher",
    "PrivilegedTeacher",
    "RefittedTeacher",
    "RegressorTeacher",
    "RescaledTeacher",
    "Tap",
    "Teacher",
    "TeacherEnsemble",
    "TrustedTeacher",
    "WrappedTeacher",
    "adapt",
    "cached",
    "check_table",
    "check_teacher",
    "clean",
    "forecast_frame",
    "from_foundation",
    "from_function",
    "from_huggingface",
    "from_sklearn",
    "from_statsmodels",
    "read_forecasts",
    "same_inputs",
    "same_scaling",
    "shown_by",
    "task_with",
    "teacher_info",
    "teacher_record",
    "wrap",
    "write_forecasts",
]

MOVED = {
    "told_of": "tsdistill.teachers.teacher_info",
}
"""Names of version 0.1, each with its place now; they go with version 0.3."""

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = moved_names(__name__, MOVED)
