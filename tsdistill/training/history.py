"""The history of a run as a file: one JSON line per epoch, beside the checkpoint, for whoever watches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tsdistill.errors import ArtifactError
from tsdistill.files import append_line, write_atomic
from tsdistill.formats import FormatError, is_count, parse_json, read_regular

MAX_BYTES = 256 * 2**20


def beside(checkpoint: Path) -> Path:
    """Where the history of a run with this checkpoint stands."""
    return checkpoint.with_name(f"{checkpoint.name}.history.jsonl")


def append(path: Path, record: dict[str, Any]) -> None:
    """Add an epoch in one write, so that a killed process leaves whole lines."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, json.dumps(record))
    except OSError as error:
        raise _unwritable(path, error) from None


def cut(path: Path, n_epochs: int) -> None:
    """Forget what goes beyond `n_epochs`: epochs that a resumed run does again, another run's, half a line."""
    try:
        content = read_regular(path)
        kept = b"".join(line for line in content.splitlines(keepends=True) if _epoch_of(line) <= n_epochs)
        if kept != content:
            write_atomic(path, kept)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unwritable(path, error) from None


def read(path: Path) -> list[dict[str, Any]]:
    """One record per epoch, oldest first; a line that is still being written is left out.

    Raises:
        ArtifactError: There is no such file, or it is no history.
    """
    try:
        lines = read_regular(path, MAX_BYTES).splitlines(keepends=True)
    except OSError as error:
        raise ArtifactError(f"Cannot read the history {path}: {error.strerror or error}.") from None
    whole = [line for line in lines if line.endswith(b"\n")]
    if any(_epoch_of(line) == float("inf") for line in whole):
        raise ArtifactError(f"{path} is no history of a training run: it must hold one JSON object per epoch.")
    return [parse_json(line, constants=True) for line in whole]


def _epoch_of(line: bytes) -> float:
    """The epoch of a line; infinity if it is no whole record."""
    try:
        number: Any = parse_json(line, constants=True).get("epoch") if line.endswith(b"\n") else None
    except FormatError:
        return float("inf")
    return number if is_count(number) else float("inf")


def _unwritable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"Cannot write the checkpoint's history {path}: {error.strerror or error}. Make room or name another folder; "
        "the checkpoint before it is kept."
    )
