"""Panels, tasks and the catalogue of known data sets, loaded only when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsdistill.data import catalog as datasets
    from tsdistill.data.covariates import Covariates
    from tsdistill.data.databases import read_sql
    from tsdistill.data.panel import Item, Panel
    from tsdistill.data.reading_options import Reading
    from tsdistill.data.signature import Signature
    from tsdistill.data.sources import read_csv, read_file, read_parquet
    from tsdistill.data.split import Borders, Split
    from tsdistill.data.task import Task
    from tsdistill.data.windows import Batch, Windows

__all__ = [
    "Batch",
    "Borders",
    "Covariates",
    "Item",
    "Panel",
    "Reading",
    "Signature",
    "Split",
    "Task",
    "Windows",
    "datasets",
    "read_csv",
    "read_file",
    "read_parquet",
    "read_sql",
]

_HOMES = {
    "Batch": "windows",
    "Borders": "split",
    "Covariates": "covariates",
    "Item": "panel",
    "Panel": "panel",
    "Reading": "reading_options",
    "Signature": "signature",
    "Split": "split",
    "Task": "task",
    "Windows": "windows",
    "read_csv": "sources",
    "read_file": "sources",
    "read_parquet": "sources",
    "read_sql": "databases",
}


def __getattr__(name: str) -> Any:
    # Written out and not left to lazy_loader, because `datasets` is a module under another name.
    if name == "datasets":
        return importlib.import_module("tsdistill.data.catalog")
    if name in _HOMES:
        return getattr(importlib.import_module(f"tsdistill.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
