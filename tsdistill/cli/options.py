"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

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


READING = (
    ("time", str, 'Column of time stamps; "none" when rows have none.'),
    ("id", str, "Column of item identifiers of a long table."),
    ("frequency", str, "Step width, such as h, 15min or D."),
    ("fill", Literal["interpolate", "forward", "zero"], "How to fill gaps and missing values."),
    ("time_zone", str, "Zone of stamps that carry none, such as Europe/Berlin."),
    ("day_first", bool, "01/02/2024 is the first of February, or the second of January."),
    ("time_format", str, 'How stamps are written, such as "%d.%m.%Y"; s, ms, us or ns for numbers from 1970.'),
    ("separator", str, "What stands between the cells of a CSV file."),
    ("decimal", str, "What stands before the decimals of a CSV file."),
    ("encoding", str, "How the text of a CSV file is written."),
)
"""Options of commands that read tables: the fields of `tsdistill.data.Reading`, as a test proves, which is not imported
here so that `--help` stays quick."""


def reads(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how a table is read; what was given comes as the dict `reading`."""

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        reading = {name: value for name, _, _ in READING if (value := values.pop(name)) is not None}
        command(**values, reading=reading)

    signature = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, typer.Option(*_flags(name), help=text)],
        )
        for name, kind, text in READING
    ]
    own = [parameter for name, parameter in signature.parameters.items() if name != "reading"]
    with_options.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    with_options.__annotations__ = {item.name: item.annotation for item in (*own, *options)}
    return with_options


def _flags(name: str) -> tuple[str, ...]:
    return ("--day-first/--month-first",) if name == "day_first" else (f"--{name.replace('_', '-')}",)


def say(quiet: bool) -> Any:
    """Lines about stages on standard error, in a terminal only: a scheduled job keeps log.jsonl instead."""
    if quiet or not sys.stderr.isatty():
        return None
    return lambda line: show(line, err=True)
