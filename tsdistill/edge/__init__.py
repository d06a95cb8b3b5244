"""Forecasters as source code for devices without an operating system: one C file and its header."""

from __future__ import annotations

from tsdistill.edge.exporter import CSource, export_c

__all__ = ["CSource", "export_c"]
