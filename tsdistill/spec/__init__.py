"""Specs: frozen data that is checked when it is made, families of them, and an address for every field."""

from __future__ import annotations

from tsdistill.spec.addresses import AbsentError, assigned, parse_assignment, value_at
from tsdistill.spec.base import NONE, SCHEMA_VERSION, LineageStep, Member, Spec, digest_of
from tsdistill.spec.family import Family, user_modules
from tsdistill.spec.ranges import Among, Range, Shorthand, Tuned, default_ranges
from tsdistill.spec.targets import Target, target

__all__ = [
    "NONE",
    "SCHEMA_VERSION",
    "AbsentError",
    "Among",
    "Family",
    "LineageStep",
    "Member",
    "Range",
    "Shorthand",
    "Spec",
    "Target",
    "Tuned",
    "assigned",
    "default_ranges",
    "digest_of",
    "parse_assignment",
    "target",
    "user_modules",
    "value_at",
]
