"""Who runs the next trial: one worker claims at a time, dead workers are recognised, and the total is exact.

A worker holds a lock of its own for as long as it lives; the operating system, or the database server, gives it back at
the moment the worker dies, however it dies. Each trial carries its worker's name. So a running trial whose worker's
lock can be taken has been abandoned: nothing depends on clocks, heartbeats or process numbers.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tsdistill.errors import ArtifactError, OrderError, UnsupportedError
from tsdistill.files import Busy, Lock, lock
from tsdistill.search.storage import advisory_key, engine_of, journal_of, reached

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
"""Trials that count towards a total; failed ones are retried."""

ABANDONED = "its worker died"

INTERRUPTED = "interrupted"

TURN_SECONDS = 0.03
"""How often a worker asks for its turn."""

WAIT_SECONDS = 0.5
"""How often a worker with nothing to do looks whether a trial of another one failed or was abandoned."""


class Locks(Protocol):
    """Locks by name that end with the process that holds them."""

    def take(self, name: str) -> bool:
        """Hold the lock if nobody does; never waits."""

    def give(self, name: str) -> None:
        """Let go of a lock that is held."""

    def close(self) -> None:
        """Let go of everything."""


class Claims:
    """One worker's part in a study. Use it as a context manager, and ask `next` for one trial after another.

    Args:
        study: In memory, or in a journal file, SQLite or PostgreSQL.

    Raises:
        UnsupportedError: The study is kept in another kind of storage.
        OrderError: The study is in SQLite, and another process is using it.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.worker = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._storage: BaseStorage = study._storage

    def __enter__(self) -> Self:
        with reached(self._storage):
            self._locks = _locks(self.study)
            engine = engine_of(self._storage)
            if engine is not None and engine.dialect.name == "sqlite" and not self._locks.take("only"):
                self._locks.close()
                raise OrderError(
                    f"Another process searches in {engine.url.database}, and SQLite serves one only. Wait for it, or "
                    "keep the study in journal:FILE or PostgreSQL."
                )
            self._locks.take(self.worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # It may have come between the claim of a trial and its first step; a storage that is gone is not asked.
            if error is not None and not isinstance(error, ArtifactError):
                with suppress(Exception):  # the error that ended the search is the one to be heard
                    self._fail_own(INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else ABANDONED)
        finally:
            # A database that is gone has given the locks back by itself.
            with suppress(sa.exc.SQLAlchemyError):
                self._locks.close()

    def _fail_own(self, reason: str) -> None:
        """Mark the trials that this worker leaves behind as failed."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker") == self.worker:
                self._fail(trial, reason)

    def _fail(self, trial: FrozenTrial, reason: str) -> None:
        # It may have been finished after we looked: by its worker just before it died.
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
            self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def next(self, n_trials: int) -> optuna.Trial | None:
        """A trial to run, or None once the study has `n_trials` finished; waits while the last ones run elsewhere."""
        while True:
            with reached(self._storage), self.turn():
                self._reap()
                trials = self.study.get_trials(deepcopy=False)
                n_finished = sum(trial.state in COUNTED for trial in trials)
                n_running = sum(trial.state == TrialState.RUNNING and "worker" in trial.user_attrs for trial in trials)
                if n_finished >= n_trials:
                    return None
                if n_finished + n_running < n_trials:
                    return self._ask()
            time.sleep(WAIT_SECONDS)

    def _ask(self) -> optuna.Trial:
        """A trial that carries this worker's name from the start, so that it can be reaped at any later moment."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"worker": self.worker}))
        trial = self.study.ask()
        if trial.user_attrs.get("worker") != self.worker:  # one that a user, or a worker that is gone, had lined up
            trial.set_user_attr("worker", self.worker)
        return trial

    def _reap(self) -> None:
        """Mark the running trials of dead workers as failed. Trials of plain `study.optimize` loops are left alone."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            if worker is None:
                continue
            if worker != self.worker:
                if not self._locks.take(worker):
                    continue
                self._locks.give(worker)
            self._fail(trial, ABANDONED)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While this lasts, no other worker claims a trial."""
        while not self._locks.take("turn"):
            time.sleep(TURN_SECONDS)
        try:
            yield
        finally:
            self._locks.give("turn")


class _FileLocks:
    """Locked files in a folder beside the storage; the kernel frees them when their process ends."""

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
        try:
            self._held[name] = lock(self._path(name), timeout=0)
        except Busy:
            return False
        return True

    def give(self, name: str) -> None:
        # The name of a worker is used once, so that its file can go; others may be waiting at "turn" and "only".
        if name not in ("turn", "only"):
            self._path(name).unlink(missing_ok=True)
        self._held.pop(name).release()

    def close(self) -> None:
        for name in list(self._held):
            self.give(name)

    def _path(self, name: str) -> Path:
        return self._folder / ("only.lock" if name == "only" else f"{self._scope}-{name}.lock")


class _ServerLocks:
    """Advisory locks of a PostgreSQL session, which end with its connection, on whatever machine it began."""

    def __init__(self, engine: sa.Engine, study: str) -> None:
        self._study = study
        self._held: set[str] = set()
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for setting, value in (("idle", 30), ("interval", 10), ("count", 3)):
            self._connection.execute(sa.text(f"SET tcp_keepalives_{setting} = {value}"))

    def take(self, name: str) -> bool:
        key = advisory_key(self._study, name)
        taken = bool(self._connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar())
        if taken:
            self._held.add(name)
        return taken

    def give(self, name: str) -> None:
        self._held.discard(name)
        self._connection.execute(sa.select(sa.func.pg_advisory_unlock(advisory_key(self._study, name))))

    def close(self) -> None:
        try:
            # A study that somebody else opened may keep its connections in a pool, where they live on.
            for name in list(self._held):
                self.give(name)
        finally:
            self._connection.close()


class _ThreadLocks:
    """For studies in memory, which only threads can share."""

    _taken: ClassVar[weakref.WeakKeyDictionary[BaseStorage, set[str]]] = weakref.WeakKeyDictionary()
    _guard = threading.Lock()

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._held: set[str] = set()

    def take(self, name: str) -> bool:
        with self._guard:
            taken = self._taken.setdefault(self._storage, set())
            if name in taken:
                return False
            taken.add(name)
        self._held.add(name)
        return True

    def give(self, name: str) -> None:
        self._held.discard(name)
        with self._guard:
            self._taken[self._storage].discard(name)

    def close(self) -> None:
        for name in list(self._held):
            self.give(name)


def _locks(study: optuna.Study) -> Locks:
    storage = study._storage
    name = study.study_name
    engine = engine_of(storage)
    journal = journal_of(storage)
    scope = hashlib.sha256(name.encode()).hexdigest()[:8]
    if journal is not None:
        return _FileLocks(journal.with_name(f"{journal.name}.workers"), scope)
    if engine is not None and engine.dialect.name == "sqlite" and engine.url.database:
        database = Path(engine.url.database)
        return _FileLocks(database.with_name(f"{database.name}.workers"), scope)
    if engine is not None and engine.dialect.name == "postgresql":
        return _ServerLocks(engine, name)
    if isinstance(storage, InMemoryStorage):
        return _ThreadLocks(storage)
    raise UnsupportedError(
        f"Trials in a {type(storage).__name__} cannot be shared out by tsdistill. Keep the study in a journal file, "
        "SQLite or PostgreSQL, or call study.optimize(td.search.objective(...)) yourself."
    )
