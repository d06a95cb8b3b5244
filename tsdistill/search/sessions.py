"""Locks of a session with a server, which end with its connection, on whatever machine it began.

A connection may break while its worker trains. A thread notices, connects again and takes the worker's locks back. Who
finds such a lock free therefore looks a second time, `regained_after` seconds later.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from tsdistill.search.databases import advisory_key, database_patience, lock_name
from tsdistill.search.patience import Patience

Result = TypeVar("Result")

TURN = "turn"
"""The lock of the worker that claims a trial. Lost with its connection, it is not taken back."""

LOOK_SECONDS = 1.0
"""How often a thread tries to connect again, at least."""

PING_SECONDS = 20.0
"""After so long without a word a connection is tried, which also keeps it from being cut for its silence."""


class SessionLocks(ABC):
    """What the locks of all servers have in common; a subclass says how to connect and what to ask."""

    regained_after = 5.0

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._guard = threading.RLock()
        self._held: set[str] = set()
        self._missing: set[str] = set()
        self._is_open = False
        self._closed = threading.Event()
        try:
            self._patience(self._ping)
        except BaseException:
            self._disconnect()
            raise
        threading.Thread(target=self._keep, daemon=True, name="tsdistill-locks").start()

    @abstractmethod
    def _connect(self) -> None:
        """Begin a session, in which nothing is held."""

    @abstractmethod
    def _disconnect(self) -> None:
        """End the session, whatever state it is in; raises nothing."""

    @abstractmethod
    def _ask(self, action: str, name: str) -> bool:
        """Do "take", "give" or "ping" in the session."""

    @abstractmethod
    def _ask_free(self, names: Sequence[str]) -> set[str]:
        """Which of these locks nobody holds, in one question."""

    @abstractmethod
    def _watch(self, seconds: float) -> bool:
        """Wait, and say at once when the connection may have been cut."""

    def take(self, name: str) -> bool:
        """Hold the lock if nobody does."""
        return self._patience(lambda: self._take(name))

    def _take(self, name: str) -> bool:
        with self._guard:
            taken = self._once(self._ask, "take", name)
            if taken:
                self._held.add(name)
            return taken

    def give(self, name: str) -> None:
        """Let go of the lock; without a connection it is gone already."""
        self._held.discard(name)
        with contextlib.suppress(Exception), self._guard:
            if self._is_open:
                self._once(self._ask, "give", name)

    def free_among(self, names: Sequence[str]) -> set[str]:
        """Those of these locks that nobody holds."""
        return self._patience(lambda: self._once(self._ask_free, names)) if names else set()

    def holds(self, name: str) -> bool:
        """Whether the lock is held, and has been since it was taken."""
        self._patience(self._ping)
        return name in self._held

    def close(self) -> None:
        """End the session and all its locks."""
        self._closed.set()
        with self._guard:
            self._is_open = False
            self._held.clear()
            self._disconnect()

    def _ping(self) -> bool:
        return self._once(self._ask, "ping", "")

    def _once(self, question: Callable[..., Result], *words: Any) -> Result:
        with self._guard:
            if not self._is_open:
                self._reopen()
            try:
                return question(*words)
            except BaseException:  # also an interruption, after which a reply could be another question's
                self._is_open = False
                raise

    def _reopen(self) -> None:
        self._disconnect()
        self._connect()
        self._held.discard(TURN)
        # The server may not have noticed the end of the former session, which then holds them for us.
        self._missing = {name for name in self._held if not self._ask("take", name)}
        self._is_open = True

    def _keep(self) -> None:
        """What the thread does."""
        asked = time.monotonic()
        while not self._closed.is_set():
            doubtful = self._watch(LOOK_SECONDS)
            if not (doubtful or self._missing or not self._is_open or time.monotonic() - asked > PING_SECONDS):
                continue
            asked = time.monotonic()
            try:
                with self._guard:
                    if self._closed.is_set():
                        return
                    try:
                        self._ping()
                    except Exception:  # it was cut: at once a new one, before anybody looks twice
                        self._ping()
                    self._missing -= {name for name in self._missing if self._once(self._ask, "take", name)}
            except Exception:  # the worker's own thread gives up at last, with an error
                self._closed.wait(LOOK_SECONDS)


HELD = sa.text(
    "SELECT classid::bigint, objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
    "WHERE datname = current_database() AND locktype = 'advisory' AND objsubid = 1 AND granted"
)
"""The advisory locks of a PostgreSQL database, each as the two halves of its key."""


class DatabaseLocks(SessionLocks):
    """Advisory locks of a session with PostgreSQL, named locks of one with MySQL."""

    def __init__(self, engine: sa.Engine, study: str) -> None:
        self._engine = engine
        self._study = study
        self._connection: sa.Connection | None = None
        super().__init__(database_patience(engine.url))

    def _connect(self) -> None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()  # it never goes back to a pool, where its locks would live on
        self._connection = connection
        if self._engine.dialect.name == "postgresql":
            for setting, value in (("idle", 30), ("interval", 10), ("count", 3)):
                connection.execute(sa.text(f"SET tcp_keepalives_{setting} = {value}"))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _ask(self, action: str, name: str) -> bool:
        assert self._connection is not None
        functions = sa.func
        if action == "ping":
            question: sa.Executable = sa.text("SELECT 1")
        elif self._engine.dialect.name == "postgresql":
            key = advisory_key(self._study, name)
            take, give = functions.pg_try_advisory_lock(key), functions.pg_advisory_unlock(key)
            question = sa.select(take if action == "take" else give)
        else:
            word = lock_name(self._study, name)
            question = sa.select(functions.get_lock(word, 0) if action == "take" else functions.release_lock(word))
        return bool(self._connection.execute(question).scalar())

    def _ask_free(self, names: Sequence[str]) -> set[str]:
        assert self._connection is not None
        if self._engine.dialect.name == "postgresql":
            held = {(high << 32) + low for high, low in self._connection.execute(HELD)}
            return {name for name in names if advisory_key(self._study, name) % 2**64 not in held}
        questions = [sa.func.is_free_lock(lock_name(self._study, name)) for name in names]
        answers = self._connection.execute(sa.select(*questions)).one()
        return {name for name, answer in zip(names, answers, strict=True) if answer}

    def _watch(self, seconds: float) -> bool:
        connection = self._connection
        try:
            driver: Any = connection.connection.driver_connection  # type: ignore[union-attr]
            channel = driver if hasattr(driver, "fileno") else driver._sock
            readable = bool(select.select([channel.fileno()], (), (), seconds)[0])
        except Exception:  # closed in between, or a driver that does not show its socket
            return not self._closed.wait(seconds)
        if readable and self._guard.acquire(timeout=seconds):  # a reply to the worker is not for us
            try:
                return bool(select.select([channel.fileno()], (), (), 0)[0])
            except Exception:
                return True
            finally:
                self._guard.release()
        return False
