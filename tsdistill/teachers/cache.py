"""A teacher's outputs for all windows, computed once and kept under the digests of teacher and windows."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Windows
from tsdistill.errors import ArtifactError, optional_path
from tsdistill.files import AtomicWriter, lock
from tsdistill.models.activations import Activations
from tsdistill.progress import open_bar
from tsdistill.teachers.base import Teacher, at, doubts_of, forecast_of, shown_by
from tsdistill.teachers.checking import check_kept, is_checked, mark_checked
from tsdistill.teachers.keeping import entry_key
from tsdistill.teachers.mapped import mapped

CHUNK = 64
"""Windows that the teacher is asked about at once while a cache is filled."""

MAX_BYTES = 8 * 2**30
"""How much a cache may take for hidden states and attention by default."""

TIME_SECOND = ("forecast", "distribution")
"""Parts that are (window, time, channel, ...): kept channel by channel, as models compute and losses compare them."""


@dataclass(frozen=True)
class CachedTeacher:
    """A teacher that is asked once: what training objectives learn from.

    Forecasts, and what else the losses look at, are kept in half precision (a rounding of about 0.0005 standard
    deviations, far below any teacher's error). With a folder they are memory-mapped from files named after the digests
    of teacher and windows, which other epochs, students, trials and processes then share; a second process waits for
    the first instead of computing them again. What was there before is compared with the teacher on a few windows, once
    in a process. A teacher whose digest is not sure of it (`doubts`) is kept in memory, with a warning, until its owner
    gives it a `name`.

    Args:
        teacher: The teacher.
        folder: Where to keep its outputs; None keeps them in memory.
        max_bytes: What hidden states, attention and distributions may take together. Those that would take more are
            asked of the teacher batch by batch instead, which is slow and stands in the student's lineage.
        progress: Show a bar while the teacher is asked; None shows one in a terminal only.
        device: Where tsdistill's own forecasters compute their outputs; None leaves them where they are.
    """

    teacher: Teacher
    folder: str | Path | None = None
    max_bytes: int = MAX_BYTES
    progress: bool | None = None
    device: torch.device | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", optional_path("folder", self.folder))

    @property
    def digest(self) -> str:
        """The teacher's."""
        return self.teacher.digest

    def show(self, batch: Batch, *, attention: bool = False) -> Activations:
        """Everything the teacher shows of a batch, computed now."""
        return shown_by(self.teacher, batch, attention=attention)

    def outputs(self, windows: Windows, reads: Iterable[str] = ()) -> CachedOutputs:
        """The forecasts of all windows and the parts named in `reads` (see `Activations.parts`), computed or read.

        Raises:
            ArtifactError: the folder cannot be written, or the disk is full; nothing half-written stays. Or what is
                kept there is not what the teacher gives.
        """
        wanted, live = ["forecast", *sorted(reads)], frozenset[str]()
        if reads:
            example = self.show(windows.batch(torch.arange(1)), attention=_with_attention(reads)).parts()
            size = sum(2 * example[name].numel() * len(windows) for name in reads)
            live = frozenset(reads) if size > self.max_bytes else live
        kept = self._kept(windows, [name for name in wanted if name not in live])
        return CachedOutputs(at(self.teacher, self.device) if live else self.teacher, kept, live)

    def _kept(self, windows: Windows, names: list[str]) -> dict[str, Tensor]:
        if self.folder is None or self._is_doubtful():
            arrays: dict[str, _Memory] = {}

            def make(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Memory:
                arrays[name] = _Memory(shape, dtype)
                return arrays[name]

            self._ask(windows, names, make)
            return {name: torch.from_numpy(memory.array) for name, memory in arrays.items()}
        folder, key = Path(self.folder), entry_key(self.digest, windows.fingerprint)
        paths = {name: folder / f"{key}.{name}.npy" for name in names}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with lock(folder / f"{key}.lock"):
                missing = {name: path for name, path in paths.items() if not path.exists()}
                self._fill(missing, windows)
                for path in paths.values():
                    os.utime(path)  # when it was last of use, for whoever cleans up
                # Opened under the lock, so that nobody removes it in between; once open, it stays readable. Mapped
                # copy-on-write: torch wants writable memory, and nothing is ever written to it.
                kept = {name: torch.from_numpy(mapped(path, len(windows))) for name, path in paths.items()}
        except ArtifactError:
            raise
        except OSError as error:
            free = shutil.disk_usage(folder).free if folder.exists() else 0
            raise ArtifactError(
                f"Cannot keep teacher forecasts in {folder}: {error.strerror or error} ({free / 1e6:.0f} MB free). "
                "Free some space or name another folder."
            ) from None
        self._check({name: path for name, path in paths.items() if name not in missing}, kept, windows)
        for path in paths.values():
            mark_checked(str(path.resolve()), self.teacher)
        return kept

    def _is_doubtful(self) -> bool:
        """Whether the digest is not sure of the teacher, which is then said."""
        doubts = doubts_of(self.teacher)
        if doubts:
            warnings.warn(
                f"The teacher's forecasts are kept in memory and not in {self.folder}, as nothing tells whether it is "
                f"the same one next time: {'; '.join(doubts[:3])}{'; ...' if len(doubts) > 3 else ''}. Where you know "
                'that, give it a name: td.wrap(..., name="my teacher, version 1").',
                UserWarning,
                stacklevel=2,
            )
        return bool(doubts)

    def _check(self, paths: dict[str, Path], kept: dict[str, Tensor], windows: Windows) -> None:
        """Compare what was there before with the teacher."""
        names = [name for name, path in paths.items() if not is_checked(str(path.resolve()), self.teacher)]
        if names and len(windows):
            teacher = at(self.teacher, self.device)
            place = str(next(iter(paths.values())).parent)
            check_kept(kept, self.teacher, windows, lambda batch: _outputs(teacher, batch, names), place)

    def _ask(self, windows: Windows, names: list[str], opened: Opener) -> None:
        """Compute the parts of every window in order; those too large for float16 in float32."""
        teacher, wide = at(self.teacher, self.device), set[str]()
        while True:
            try:
                return _ask_once(teacher, windows, names, wide, opened, self.progress)
            except _TooLargeError as error:
                wide.add(str(error))

    def _fill(self, paths: dict[str, Path], windows: Windows) -> None:
        """Write the files that are not there yet, all of them or none."""
        if not paths:
            return
        writers: dict[str, _NpyWriter] = {}

        def make(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _NpyWriter:
            if name in writers:
                writers.pop(name).discard()
            writers[name] = _NpyWriter(paths[name], shape, dtype)
            return writers[name]

        try:
            self._ask(windows, list(paths), make)
            for writer in writers.values():
                writer.commit()
        finally:
            for writer in writers.values():
                writer.discard()  # does nothing to those that are in place


class CachedOutputs:
    """A teacher's outputs for every window, looked up batch by batch.

    Args:
        teacher: Asked again for the parts in `live`.
        kept: Parts by name, (window, ...).
        live: Names of parts that are not kept.
    """

    def __init__(self, teacher: Teacher, kept: Mapping[str, Tensor], live: frozenset[str]) -> None:
        self._teacher, self._kept, self._live = teacher, kept, live

    @property
    def live(self) -> frozenset[str]:
        """Parts that are not kept but asked of the teacher with every batch."""
        return self._live

    @property
    def size_bytes(self) -> int:
        """What is kept takes so much, in memory or in files."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._kept.values())

    def of(self, batch: Batch) -> Activations:
        """The teacher's outputs for a batch, float32, on the batch's device."""
        parts = {}
        for name, tensor in self._kept.items():
            part = tensor.index_select(0, batch.index).to(batch.target.device, torch.float32)
            parts[name] = part.transpose(1, 2) if name in TIME_SECOND else part
        if self.live:
            now = shown_by(self._teacher, batch, attention=_with_attention(self.live)).parts()
            parts |= {name: now[name].float() for name in self.live}
        return Activations.of_parts(parts)


def _with_attention(names: Iterable[str]) -> bool:
    return any(name.startswith(("attention", "values")) for name in names)


class _Sink(Protocol):
    """Where a part is put, window after window."""

    def write(self, values: np.ndarray) -> None: ...


class _Memory:
    """An array that fills up."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.array, self._row = np.empty(shape, dtype), 0

    def write(self, values: np.ndarray) -> None:
        self.array[self._row : self._row + len(values)] = values
        self._row += len(values)


class _NpyWriter(AtomicWriter):
    """An .npy file that fills up, beside the one it will become: no reader ever sees half of it.

    Written, not memory-mapped: a full disk is then an error, where touching a page that has no room is a crash.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(path)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)

    def write(self, values: np.ndarray) -> None:
        self.file.write(values.data)


class _TooLargeError(Exception):
    """A part has values that half precision cannot hold."""


Opener = Callable[[str, tuple[int, ...], "np.dtype[Any]"], _Sink]


def _ask_once(
    teacher: Teacher, windows: Windows, names: list[str], wide: set[str], opened: Opener, progress: bool | None
) -> None:
    sinks: dict[str, _Sink] = {}
    size = 0
    with open_bar("asking the teacher", -(-len(windows) // CHUNK), progress) as bar:
        for batch in windows.batches(CHUNK):
            for name, part in _outputs(teacher, batch, names).items():
                values = part.numpy()
                if name not in wide:
                    if np.abs(values).max(initial=0) >= np.finfo(np.float16).max:
                        raise _TooLargeError(name)
                    values = values.astype(np.float16)
                if name not in sinks:
                    shape = (len(windows), *values.shape[1:])
                    sinks[name] = opened(name, shape, values.dtype)
                    size += values.itemsize * int(np.prod(shape))
                    bar.note(f"{size / 1e6:.0f} MB")
                sinks[name].write(np.ascontiguousarray(values))
            bar.advance()


def _outputs(teacher: Teacher, batch: Batch, names: list[str]) -> dict[str, Tensor]:
    """The named parts of a batch, float32 on the CPU, as they are kept."""
    if names == ["forecast"]:
        parts = {"forecast": forecast_of(teacher, batch)}
    else:
        parts = shown_by(teacher, batch, attention=_with_attention(names)).parts()
    parts = {name: parts[name].detach().float().cpu() for name in names}
    return {name: part.transpose(1, 2) if name in TIME_SECOND else part for name, part in parts.items()}
