"""Locks by name that end with the process, the connection or the storage object that holds them."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import optuna
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage

from tsdistill.errors import ArtifactError, UnsupportedError
from tsdistill.files import Busy, Lock, lock
from tsdistill.search.sessions import TURN, DatabaseLocks
from tsdistill.search.storage import engine_of, journal_of


class Locks(Protocol):
    """Locks by name that end with the worker that holds them."""

    regained_after: float
    """Seconds in which a living worker gets back what it lost with a broken connection."""

    def take(self, name: str) -> bool:
        """Hold the lock if nobody does; never waits."""

    def give(self, name: str) -> None:
        """Let go of a lock that is held."""

    def free_among(self, names: Sequence[str]) -> set[str]:
        """Those of other workers' locks that nobody holds."""

    def holds(self, name: str) -> bool:
        """Whether this worker has held the lock without a break since it took it."""

    def close(self) -> None:
        """Let go of everything."""


class FolderLocks:
    """Locked files in a folder beside the storage; the kernel frees them when their process ends."""

    regained_after = 0.0

    def __init__(self, folder: Path, scope: str) -> None:
        self._folder = folder
        self._scope = scope
        self._held: dict[str, Lock] = {}
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ArtifactError(
                f"Cannot make the folder {folder}: {error.strerror}. Keep the study elsewhere."
            ) from None

    def take(self, name: str) -> bool:
        """Hold the lock if nobody does."""
        try:
            self._held[name] = lock(self._path(name), timeout=0)
        except Busy:
            return False
        return True

    def give(self, name: str) -> None:
        """Let go of the lock."""
        # The name of a worker is used once, so that its file can go; others may be waiting at "turn" and "only".
        if name not in (TURN, "only"):
            self._path(name).unlink(missing_ok=True)
        self._held.pop(name).release()

    def free_among(self, names: Sequence[str]) -> set[str]:
        """Those of these locks that nobody holds."""
        free = {name for name in names if self.take(name)}
        for name in free:
            self.give(name)
        return free

    def holds(self, name: str) -> bool:
        """Whether the lock is held; it cannot be lost."""
        return name in self._held

    def close(self) -> None:
        """Let go of everything."""
        for name in list(self._held):
            self.give(name)

    def _path(self, name: str) -> Path:
        return self._folder / ("only.lock" if name == "only" else f"{self._scope}-{name}.lock")


class ThreadLocks:
    """For studies in memory, which only threads can share."""

    regained_after = 0.0
    _taken: ClassVar[weakref.WeakKeyDictionary[BaseStorage, set[str]]] = weakref.WeakKeyDictionary()
    _guard = threading.Lock()

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._held: set[str] = set()

    def take(self, name: str) -> bool:
        """Hold the lock if nobody does."""
        with self._guard:
            taken = self._taken.setdefault(self._storage, set())
            if name in taken:
                return False
            taken.add(name)
        self._held.add(name)
        return True

    def give(self, name: str) -> None:
        """Let go of the lock."""
        self._held.discard(name)
        with self._guard:
            self._taken[self._storage].discard(name)

    def free_among(self, names: Sequence[str]) -> set[str]:
        """Those of these locks that nobody holds."""
        with self._guard:
            return set(names) - self._taken.get(self._storage, set())

    def holds(self, name: str) -> bool:
        """Whether the lock is held; it cannot be lost."""
        return name in self._held

    def close(self) -> None:
        """Let go of everything."""
        for name in list(self._held):
            self.give(name)


def sqlite_locks(database: Path, scope: str) -> FolderLocks:
    """Locks of those who use a SQLite file."""
    return FolderLocks(database.with_name(f"{database.name}.workers"), scope)


def locks_of(study: optuna.Study) -> Locks:
    """The locks that go with a study's storage."""
    storage = study._storage
    name = study.study_name
    engine = engine_of(storage)
    journal = journal_of(storage)
    scope = hashlib.sha256(name.encode()).hexdigest()[:8]
    if journal is not None:
        return FolderLocks(journal.with_name(f"{journal.name}.workers"), scope)
    if engine is not None and engine.dialect.name == "sqlite" and engine.url.database:
        return sqlite_locks(Path(engine.url.database), scope)
    if engine is not None and engine.dialect.name in ("postgresql", "mysql"):
        return DatabaseLocks(engine, name)
    if isinstance(storage, GrpcStorageProxy):
        from tsdistill.search.proxy_locks import ProxyLocks  # grpc is there, or this storage could not be

        return ProxyLocks(storage, name)
    if isinstance(storage, InMemoryStorage):
        return ThreadLocks(storage)
    raise UnsupportedError(
        f"Trials in a {type(storage).__name__} cannot be shared out by tsdistill. Keep the study in a journal file, "
        "SQLite, PostgreSQL, MySQL or behind tsdistill search-server, or call "
        "study.optimize(td.search.objective(...)) yourself."
    )
