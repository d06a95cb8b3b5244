"""Where a training run stood: one safetensors file, replaced atomically at the end of every epoch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from tsdistill.errors import ArtifactError
from tsdistill.files import write_atomic
from tsdistill.formats import parse_json, read_regular, safetensors_note
from tsdistill.training.ranks import Ranks


@dataclass
class Progress:
    """Everything about a run that is not a tensor.

    Args:
        key: Digest of model, data, objective and training spec: a checkpoint of another run is refused.
        precision: What the run computes in; a resumed run does not choose again.
        measured: How "fastest" was measured; empty where a rule chose.
        epoch: Epochs done.
        step: Gradient steps done.
        best_epoch: Epoch of the best validation error, from 1.
        best: That error.
        history: One record per epoch.
    """

    key: str
    precision: str
    measured: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best: float = float("inf")
    history: list[dict[str, Any]] = field(default_factory=list)


def write(path: Path, progress: Progress, groups: dict[str, dict[str, Tensor]]) -> None:
    """Write groups of tensors and the progress beside `path`, then rename."""
    put(path, asdict(progress), groups)


def put(path: Path, note: dict[str, Any], groups: dict[str, dict[str, Tensor]]) -> None:
    """Write groups of tensors and a note, plain data, beside `path`, then rename."""
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    content = save(tensors, metadata={"progress": json.dumps(note)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise ArtifactError(
            f"Cannot write the checkpoint {path}: {error.strerror or error}. Make room or name another folder; the one "
            "before it is kept."
        ) from None


def read(path: Path, key: str, ranks: Ranks) -> tuple[Progress, dict[str, dict[str, Tensor]]] | None:
    """The last written state, or None when there is none yet; the first rank reads it and hands it to the others."""
    content = ranks.hand_out(ranks.lead(lambda: _content(path)))
    if content is None:
        return None
    progress = _progress(path, content)
    _check_key(path, progress.key, key)
    return progress, _groups(path, content)


def take(path: Path, key: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]] | None:
    """What `put` has written, or None when there is nothing yet; the note's `key` says whose it is."""
    content = _content(path)
    if content is None:
        return None
    note = _note(path, content)
    _check_key(path, note.get("key"), key)
    return note, _groups(path, content)


def _check_key(path: Path, written: object, key: str) -> None:
    if written != key:
        raise ArtifactError(
            f"The checkpoint {path} belongs to another run (its key is {written}, this run's is {key}): model, "
            "data, loss or training spec differ. Delete it or name another file."
        )


def _groups(path: Path, content: bytes) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        for full, tensor in load(content).items():
            group, name = full.split("/", 1)
            groups.setdefault(group, {})[name] = tensor
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from None
    return groups


def read_progress(path: Path) -> Progress:
    """How far a run had come when it last wrote, whatever run it was."""
    content = _content(path)
    if content is None:
        raise ArtifactError(f"There is no checkpoint {path}. Name the file that the run was given.")
    return _progress(path, content)


def _content(path: Path) -> bytes | None:
    try:
        return read_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror or error) from None


def _progress(path: Path, content: bytes) -> Progress:
    try:
        return Progress(**_note(path, content))
    except TypeError as error:
        raise _unreadable(path, error) from None


def _note(path: Path, content: bytes) -> dict[str, Any]:
    """The note in the header of a safetensors file: eight bytes that hold its length, then JSON."""
    try:
        return parse_json(safetensors_note(content)["progress"], constants=True)
    except (KeyError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, reason: object) -> ArtifactError:
    return ArtifactError(f"The checkpoint {path} cannot be read ({reason}). Delete it to start over.")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors named `position.field`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, slot in state.items() for name, value in slot.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        index, name = full.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's state, cloned, so that later steps do not change it."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
