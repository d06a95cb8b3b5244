"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tsdistill.cli.streams import show

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text for people.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]

PublicKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Only what was signed by the owner of this public key (Ed25519, in PEM)."),
]

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="ADDRESS=VALUE",
        help="Change a field of the recipe by its address, such as student.model.width=32 or pruning=none; may be "
        "repeated.",
    ),
]


def say(quiet: bool) -> Any:
    """Lines about stages on standard error, in a terminal only: a scheduled job keeps log.jsonl instead."""
    if quiet or not sys.stderr.isatty():
        return None
    return lambda line: show(line, err=True)
