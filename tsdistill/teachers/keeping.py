"""The entries of a folder of teacher outputs, and removing those that are not needed any more."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tsdistill.errors import ArtifactError, ConfigError, must
from tsdistill.files import PARTIAL, TOKEN, Busy, lock
from tsdistill.spec import digest_of

STALE = timedelta(days=1)
"""Age of a half-written file from which on nobody can be writing it any more."""

_KEY = r"(?P<key>(?P<teacher>[0-9a-f]{16})-(?P<windows>[0-9a-f]{16}))"
_PART = r"(?P<part>[a-z]+(?:\.\d+)?)"
# Exactly the names that `CachedTeacher` gives, and those of its unfinished files, version 0.1's eight letters included:
# whatever else lies there is not the cache's.
_OWN = {
    "parts": re.compile(rf"{_KEY}\.{_PART}\.npy"),
    "unfinished": re.compile(rf"{_KEY}\.{_PART}\.(?:npy\.{TOKEN}|[a-z0-9_]{{8}}){re.escape(PARTIAL)}"),
    "locks": re.compile(rf"{_KEY}\.lock"),
}


@dataclass(frozen=True)
class CacheEntry:
    """One teacher's outputs for the windows of one part of a task.

    Args:
        teacher: Digest of the teacher.
        windows: Digest of the windows.
        parts: What is kept: "forecast", "hidden.0" and so on, sorted.
        size_bytes: Of all its files.
        last_used: When it was last asked for, in UTC.
    """

    teacher: str
    windows: str
    parts: tuple[str, ...]
    size_bytes: int
    last_used: datetime

    @property
    def key(self) -> str:
        """How the names of its files begin."""
        return f"{self.teacher}-{self.windows}"

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain data."""
        return {
            "teacher": self.teacher,
            "windows": self.windows,
            "parts": list(self.parts),
            "size_bytes": self.size_bytes,
            "last_used": self.last_used.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class Cleaning:
    """What `clean` did.

    Args:
        removed: Entries that are gone.
        kept: Entries that are still there, those in use included.
        in_use: Entries that were to be removed and that another process holds.
        n_leftovers: Files of runs that were killed, removed as well: half-written parts and locks without an entry.
        freed_bytes: Of everything removed.
    """

    removed: tuple[CacheEntry, ...]
    kept: tuple[CacheEntry, ...]
    in_use: tuple[CacheEntry, ...]
    n_leftovers: int
    freed_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """What was done, as plain data; what is kept is better asked for anew."""
        named = {name: [entry.to_dict() for entry in getattr(self, name)] for name in ("removed", "in_use")}
        return {**named, "n_leftovers": self.n_leftovers, "freed_bytes": self.freed_bytes}


def entry_key(teacher: str, windows: str) -> str:
    """The beginning of the names of an entry's files, from the digests of teacher and windows.

    A user's own teacher may have any text as its digest; a file is named by sixteen hex digits.
    """
    plain = re.fullmatch("[0-9a-f]{16}", teacher) is not None
    return f"{teacher if plain else digest_of(teacher)}-{windows}"


def cached(folder: str | Path) -> list[CacheEntry]:
    """The entries of a folder of teacher outputs, last used first.

    Args:
        folder: The `cache` of `td.distill`; `tsdistill run --out DIR` keeps its own in `DIR/cache`.

    Raises:
        ArtifactError: the folder cannot be read.

    Example:
        >>> import tempfile
        >>> cached(tempfile.mkdtemp())
        []
    """
    entries = [files.entry for files in _files(Path(folder)).values() if files.entry is not None]
    return sorted(entries, key=lambda entry: (entry.last_used, entry.key), reverse=True)


def clean(folder: str | Path, *, max_bytes: int | None = None, unused_for: timedelta | None = None) -> Cleaning:
    """Remove teacher forecasts: all of them, or the longest unused until the rest is small enough or young enough.

    Only files that a cache itself has named are touched, no link is followed, and an entry goes while its lock is held:
    one that another process is filling or opening stays. A process that has opened an entry reads on undisturbed, and
    what is gone is computed again when it is next asked for. What killed runs left half-written goes as well.

    Args:
        folder: The `cache` of `td.distill`.
        max_bytes: What the rest may take; the entry unused for longest goes first.
        unused_for: Remove only what nobody has asked for in this time.

    Returns:
        What was removed, what is left, and what was to go and is in use.

    Raises:
        ConfigError: both limits were given, or one of them is negative.
        ArtifactError: the folder cannot be read, or a file cannot be removed.

    Example:
        >>> import tempfile
        >>> clean(tempfile.mkdtemp(), max_bytes=10**9).freed_bytes
        0
    """
    if max_bytes is not None and unused_for is not None:
        raise ConfigError("`max_bytes` and `unused_for` must not be given together. Clean twice, one after the other.")
    if max_bytes is not None and max_bytes < 0:
        raise ConfigError(must("max_bytes", "be 0 or more", max_bytes, "Leave it out to remove everything"))
    if unused_for is not None and unused_for < timedelta(0):
        raise ConfigError(must("unused_for", "be 0 or more", str(unused_for), "Leave it out to remove everything"))
    folder = Path(folder)
    now = datetime.now(UTC)
    listing = _files(folder)
    entries = {key: files.entry for key, files in listing.items()}
    selected = _selected([entry for entry in entries.values() if entry is not None], max_bytes, unused_for, now)
    removed: list[CacheEntry] = []
    in_use: list[CacheEntry] = []
    n_leftovers = freed = 0
    for key, entry in entries.items():
        to_remove = entry if entry in selected else None
        if to_remove is None and entry is not None and not listing[key].unfinished:
            continue
        gone = _removed(folder, key, to_remove, now)
        if gone is None:
            in_use += [to_remove] if to_remove is not None else []
            continue
        freed += gone.size_bytes
        n_leftovers += len(gone.unfinished) + (len(gone.locks) if entry is None else 0)
        removed += [to_remove] if to_remove is not None and gone.parts else []
    kept = tuple(entry for entry in entries.values() if entry is not None and entry not in removed)
    return Cleaning(tuple(removed), kept, tuple(in_use), n_leftovers, freed)


def _selected(
    entries: list[CacheEntry], max_bytes: int | None, unused_for: timedelta | None, now: datetime
) -> list[CacheEntry]:
    """The entries that a cleaning is to remove."""
    if unused_for is not None:
        return [entry for entry in entries if now - entry.last_used > unused_for]
    selected = []
    size = sum(entry.size_bytes for entry in entries)
    for entry in sorted(entries, key=lambda entry: (entry.last_used, entry.key)):
        if size <= (-1 if max_bytes is None else max_bytes):
            break
        selected.append(entry)
        size -= entry.size_bytes
    return selected


@dataclass
class _Files:
    """The files of one key, by what they are, each with its state when it was looked at."""

    key: str
    parts: dict[str, os.stat_result] = field(default_factory=dict)
    unfinished: dict[str, os.stat_result] = field(default_factory=dict)
    locks: dict[str, os.stat_result] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(state.st_size for kind in (self.parts, self.unfinished, self.locks) for state in kind.values())

    @property
    def entry(self) -> CacheEntry | None:
        """What the parts make up, if there are some."""
        if not self.parts:
            return None
        teacher, windows = self.key.split("-")
        parts = sorted(name.removeprefix(f"{self.key}.").removesuffix(".npy") for name in self.parts)
        size = sum(state.st_size for state in self.parts.values())
        return CacheEntry(teacher, windows, tuple(parts), size, max(map(_changed, self.parts.values())))


def _files(folder: Path) -> dict[str, _Files]:
    """The cache's own regular files in a folder by key; what else lies there is left out."""
    listing: dict[str, _Files] = {}
    with _disk(folder, "read"), os.scandir(folder) as scanned:
        for file in sorted(scanned, key=lambda file: file.name):
            for kind, pattern in _OWN.items():
                match = pattern.fullmatch(file.name)
                if match is None or not file.is_file(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed by another process since it was listed
                    state = file.stat(follow_symlinks=False)
                    getattr(listing.setdefault(match["key"], _Files(match["key"])), kind)[file.name] = state
    return listing


def _removed(folder: Path, key: str, entry: CacheEntry | None, now: datetime) -> _Files | None:
    """Remove an entry, if one is given, and what killed runs left of its key; None where its lock is held elsewhere."""
    path = folder / f"{key}.lock"
    if path.is_symlink():
        raise ArtifactError(f"Cannot clean {folder}: {path.name} is a link, which no cache makes. Remove it first.")
    with _disk(folder, "clean"):
        try:
            held = lock(path, timeout=0)
        except Busy:
            return None
        with held:
            # Looked at again under the lock: it may have been asked for, filled or removed in the meantime.
            current = _files(folder).get(key, _Files(key))
            stale = {name: state for name, state in current.unfinished.items() if now - _changed(state) > STALE}
            gone = _Files(key, unfinished=stale)
            if entry is not None and current.entry == entry:
                gone.parts = current.parts
            if len(gone.parts) + len(gone.unfinished) == len(current.parts) + len(current.unfinished):
                # The lock last: whoever waits for it sees its file gone, and begins anew.
                gone.locks = current.locks
            for name in (*gone.parts, *gone.unfinished, *gone.locks):
                (folder / name).unlink(missing_ok=True)
            return gone


def _changed(state: os.stat_result) -> datetime:
    return datetime.fromtimestamp(state.st_mtime, UTC)


@contextlib.contextmanager
def _disk(folder: Path, verb: str) -> Iterator[None]:
    """Turn an error of the disk into one clear error."""
    try:
        yield
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(
            f"Cannot {verb} the teacher forecasts in {folder}: {error.strerror or error}. Name the folder of a cache, "
            "one that you may write to."
        ) from None
