"""Who can teach, and what a teacher said: computed once, and reused by every epoch, student and trial."""

from __future__ import annotations

from tsdistill.teachers.base import Teacher, check_teacher, shown_by
from tsdistill.teachers.cache import CachedTeacher
from tsdistill.teachers.hooks import Tap
from tsdistill.teachers.wrapped import WrappedTeacher, wrap

__all__ = ["CachedTeacher", "Tap", "Teacher", "WrappedTeacher", "check_teacher", "shown_by", "wrap"]
