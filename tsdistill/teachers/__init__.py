"""What can teach, and a cache of teacher outputs that every epoch, student and trial reuses."""

from __future__ import annotations

from tsdistill.teachers.base import Teacher, check_teacher, same_scaling, shown_by, teacher_info
from tsdistill.teachers.cache import CachedTeacher
from tsdistill.teachers.ensemble import TeacherEnsemble
from tsdistill.teachers.hooks import Tap
from tsdistill.teachers.huggingface import from_huggingface
from tsdistill.teachers.keeping import CacheEntry, Cleaning, cached, clean
from tsdistill.teachers.refitted import RefittedTeacher, from_function, from_statsmodels
from tsdistill.teachers.regressor import RegressorTeacher, from_sklearn
from tsdistill.teachers.rescaled import RescaledTeacher
from tsdistill.teachers.table import ForecastTable, read_forecasts
from tsdistill.teachers.trust import TrustedTeacher
from tsdistill.teachers.wrapped import WrappedTeacher, wrap
from tsdistill.teachers.writing import forecast_frame, write_forecasts

__all__ = [
    "CacheEntry",
    "CachedTeacher",
    "Cleaning",
    "ForecastTable",
    "RefittedTeacher",
    "RegressorTeacher",
    "RescaledTeacher",
    "Tap",
    "Teacher",
    "TeacherEnsemble",
    "TrustedTeacher",
    "WrappedTeacher",
    "cached",
    "check_teacher",
    "clean",
    "forecast_frame",
    "from_function",
    "from_huggingface",
    "from_sklearn",
    "from_statsmodels",
    "read_forecasts",
    "same_scaling",
    "shown_by",
    "teacher_info",
    "wrap",
    "write_forecasts",
]
