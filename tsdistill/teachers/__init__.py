"""Who can teach, and what a teacher said: computed once, and reused by every epoch, student and trial."""

from __future__ import annotations

from tsdistill.teachers.base import Teacher, check_teacher, shown_by
from tsdistill.teachers.cache import CachedTeacher
from tsdistill.teachers.keeping import CacheEntry, Cleaning, cached, clean

__all__ = ["CacheEntry", "CachedTeacher", "Cleaning", "Teacher", "cached", "check_teacher", "clean", "shown_by"]
