"""Where studies are kept: a journal file, SQLite or PostgreSQL, opened with clear errors that hold no password."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

# One way to censor a driver's messages, for the data sources and for the storages.
from tsdistill.data.databases import censored, shown
from tsdistill.data.reading import CONNECT_SECONDS
from tsdistill.errors import ArtifactError, ConfigError, TsdistillError, UnsupportedError, must
from tsdistill.files import Lock, lock
from tsdistill.spec import digest_of

JOURNAL = "journal:"
FIRST_BYTES = b'{"op_code":'
"""How every line of a journal begins."""

LEFT_BEHIND_SECONDS = 2.0
"""A link that nothing has touched for so long was left behind by a process that was killed."""

FORMS = (
    '"journal:FILE" (several processes on one machine), "sqlite:///FILE" (one process), '
    '"postgresql+psycopg://USER:PASSWORD@HOST/BASE" (many machines) or "env:NAME" (a variable that holds one of these)'
)


class JournalLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal, behind one that the kernel lets go of when its holder is killed.

    Optuna's own is a link, which a killed process leaves behind: the others would wait for its grace period, or for
    ever where a relative path made the link point nowhere. Whoever has the kernel's lock knows that no living
    tsdistill process holds the link. Both are taken, so that plain Optuna may write to the same journal.
    """

    def __init__(self, path: Path) -> None:
        journal = os.path.abspath(path)
        self._kernel_lock = Path(f"{journal}.held")
        self._held: Lock
        self._link = Path(f"{journal}.lock")
        super().__init__(journal, grace_period=None)

    def acquire(self) -> bool:
        """Wait for both locks."""
        self._held = lock(self._kernel_lock)
        try:
            self._clear_away()
            return super().acquire()
        except BaseException:
            self._held.release()
            raise

    def release(self) -> None:
        """Let go of both."""
        try:
            super().release()
        finally:
            self._held.release()

    def _clear_away(self) -> None:
        """Remove a link that stays: plain Optuna holds one for milliseconds."""
        seen: tuple[int, int] | None = None
        since = time.monotonic()
        while True:
            try:
                status = self._link.lstat()
            except FileNotFoundError:
                return
            if (status.st_ino, status.st_mtime_ns) != seen:
                seen = (status.st_ino, status.st_mtime_ns)
                since = time.monotonic()
            elif time.monotonic() - since > LEFT_BEHIND_SECONDS:
                self._link.unlink(missing_ok=True)
                return
            time.sleep(0.01)


class SeededTPE(TPESampler):
    """Optuna's multivariate TPE, whose draws for a trial depend on the seed, the trial's number and the trials before.

    Plain TPE starts its random numbers anew in every process: two workers would begin with the same trials, and so
    would a study that is continued. Here every trial has a stream of its own, whoever runs it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self._seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Start this trial's random numbers."""
        for stream, state in enumerate((self._rng, self._random_sampler._rng)):
            state.rng.seed(int(digest_of([self._seed, trial.number, stream]), 16) % 2**32)
        super().before_trial(study, trial)


def create_study(name: str, *, storage: str | BaseStorage | None = None, seed: int = 0) -> optuna.Study:
    """A study that minimises one number, made in its storage or taken up from there.

    It is a plain `optuna.Study` with a named sampler: multivariate TPE, in which trials that are still running
    elsewhere count as bad ones (constant liar), so that workers do not all try the same. Use a journal file on one
    machine, PostgreSQL across machines; SQLite serves one process only.

    Args:
        name: Name of the study in its storage.
        storage: "journal:FILE", "sqlite:///FILE", "postgresql+psycopg://user:password@host/base", "env:NAME" for a
            variable that holds one of these, an Optuna storage, or None to keep the study in memory.
        seed: What the sampler draws from.

    Returns:
        The study, with the trials it already has.

    Raises:
        ConfigError: The name is empty, the address is none of the above, or the study in the storage maximises.
        ArtifactError: The storage cannot be opened or reached. No message holds a password.
        UnsupportedError: The driver for this kind of database is not installed.

    Example:
        >>> study = create_study("toy", seed=1)
        >>> study.direction.name, len(study.trials)
        ('MINIMIZE', 0)
    """
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(must("name", "be a word or more", name, "Name the study"))
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(must("seed", "be a whole number from 0 to below 2^32", seed, "Give another one"))
    opened = storage if isinstance(storage, BaseStorage) else _open(address(storage))
    with _hushed(), reached(opened):
        study = optuna.create_study(
            study_name=name, storage=opened, sampler=SeededTPE(seed), direction="minimize", load_if_exists=True
        )
        directions = study.directions
    if directions != [StudyDirection.MINIMIZE]:
        raise ConfigError(f"The study {name!r} in this storage does not minimise one number. Give another name.")
    return study


def address(storage: str | None) -> str | None:
    """The address itself where `storage` names an environment variable."""
    if not isinstance(storage, str | None):
        raise ConfigError(
            f"`storage` must be an address or an Optuna storage, got a {type(storage).__name__}. {FORMS}."
        )
    if storage is None or not storage.startswith("env:"):
        return storage
    name = storage.removeprefix("env:")
    if not os.environ.get(name):
        raise ConfigError(f"`storage` names the environment variable {name}, which is not set. Set it to the address.")
    return os.environ[name]


def serves_one_process(storage: str | None) -> bool:
    """Whether a storage must not be shared by workers: memory and SQLite."""
    resolved = address(storage)
    return resolved is None or (not resolved.startswith(JOURNAL) and _parsed(resolved).get_backend_name() == "sqlite")


@contextlib.contextmanager
def reached(storage: BaseStorage) -> Iterator[None]:
    """Turn a storage's failures into one ArtifactError without its password."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sa.exc.SQLAlchemyError) as error:
        engine = engine_of(storage)
        raise _unreachable(error, None if engine is None else engine.url) from None
    except ValueError as error:
        if not isinstance(storage, JournalStorage) or isinstance(error, TsdistillError):
            raise
        raise ArtifactError(
            f"The journal {journal_of(storage)} is damaged ({error}). Restore it from a copy, or start another study."
        ) from None


def engine_of(storage: BaseStorage) -> sa.Engine | None:
    """The database behind a storage, if it is one."""
    backend = getattr(storage, "_backend", storage)  # Optuna wraps databases in a cache
    return backend.engine if isinstance(backend, RDBStorage) else None


def journal_of(storage: BaseStorage) -> Path | None:
    """The journal file behind a storage, if it is one."""
    backend = getattr(storage, "_backend", None)
    return Path(backend._file_path) if isinstance(backend, JournalFileBackend) else None


def advisory_key(*words: str) -> int:
    """A 64-bit name for a PostgreSQL advisory lock."""
    return int.from_bytes(hashlib.sha256("\n".join(("tsdistill", *words)).encode()).digest()[:8], signed=True)


def _open(storage: str | None) -> BaseStorage:
    if storage is None:
        return InMemoryStorage()
    if storage.startswith(JOURNAL):
        return _open_journal(Path(storage.removeprefix(JOURNAL)))
    return _open_database(_parsed(storage))


def _open_journal(path: Path) -> BaseStorage:
    if not path.name or path.is_dir():
        raise ConfigError(
            must("storage", "name a file after journal:", f"{JOURNAL}{path}", "Such as journal:study.log")
        )
    _refuse_irregular(path)
    try:
        backend = JournalFileBackend(str(path), lock_obj=JournalLock(path))
        _mend(path)
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(f"Cannot open the journal {path}: {error.strerror}. Name another file.") from None
    try:
        return JournalStorage(backend)
    except Exception as error:
        # Optuna checks nothing that it reads: a foreign file shows as any error at all.
        raise ArtifactError(
            f"{path} is not a journal that can be read ({type(error).__name__}: {error}). Name another file, or "
            "restore it."
        ) from None


LONGEST_LINE = 64 * 2**20
"""Bytes of one entry of a journal, at most."""


def _refuse_irregular(path: Path) -> None:
    """ArtifactError for a FIFO, a device or the like: opening one could wait for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ArtifactError(f"Cannot open {path}: {error.strerror}. Name another file.") from None
    if not stat.S_ISREG(mode):
        raise ArtifactError(f"{path} is not a regular file, so that no study can be in it. Name another file.")


def _mend(path: Path) -> None:
    """Cut off a last line that a full disk or a kill left half-written: the next one would be glued to it."""
    with path.open("rb") as file:
        start = file.read(len(FIRST_BYTES))
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        whole = file.read() in (b"", b"\n")
    if not start.startswith(FIRST_BYTES[: len(start)]):
        raise ArtifactError(f"{path} is not a journal of studies, and is left as it is. Name another file.")
    if whole:
        return
    lock = JournalLock(path)
    lock.acquire()
    try:
        with path.open("rb") as file:
            begin = max(file.seek(0, os.SEEK_END) - LONGEST_LINE, 0)
            file.seek(begin)
            end = file.read().rfind(b"\n")
        if begin and end < 0:
            raise ArtifactError(f"{path} ends with more than {LONGEST_LINE} bytes that are no line. Restore it.")
        os.truncate(path, begin + end + 1)
    finally:
        lock.release()


def _open_database(url: sa.URL) -> BaseStorage:
    server = url.get_backend_name() == "postgresql"
    if server:
        # The server notices within a minute when the machine of a worker is gone.
        alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        connect: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, **alive}
        connect = {name: value for name, value in connect.items() if name not in url.query}
    else:
        connect = {"timeout": CONNECT_SECONDS}
    # A trial takes minutes and a connection milliseconds: none is kept open, to be found broken later.
    options = {"connect_args": connect, "poolclass": sa.NullPool, "hide_parameters": True}
    failure: BaseException
    try:
        with _hushed(), _alone(url, options) if server else contextlib.nullcontext():
            return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
    except Exception as error:
        failure = error
    raise _unreachable(failure, url) from None


@contextlib.contextmanager
def _alone(url: sa.URL, options: dict[str, Any]) -> Iterator[None]:
    """Two workers that make the tables of an empty database at once would trip over each other."""
    with sa.create_engine(url, **options).connect() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(advisory_key("tables"))))
        yield


def _parsed(storage: str) -> sa.URL:
    """The address of a database that serves, never with its password in an error."""
    url: sa.URL | None = None
    with contextlib.suppress(sa.exc.ArgumentError, ValueError):
        url = sa.make_url(storage)
    if url is None:
        raise ConfigError(f"`storage` must be an address; this one cannot be read. Give {FORMS}.")
    kind = url.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise ConfigError(f"`storage` must be of a known kind, got {url.drivername!r}. Give {FORMS}.")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(
            "`storage` must name a file, got SQLite in memory. Give sqlite:///FILE, or None to keep nothing."
        )
    return url


def _unreachable(error: BaseException, url: sa.URL | None) -> TsdistillError:
    if url is None:
        return ArtifactError(f"The study's storage failed ({type(error).__name__}). Look at its own log.")
    if isinstance(error, ImportError | sa.exc.NoSuchModuleError):
        extra = " (pip install 'tsdistill[postgres]')" if url.get_backend_name() == "postgresql" else ""
        return UnsupportedError(f"The driver for {shown(url)} is not installed. Install it{extra}.")
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    message = censored(str(getattr(cause, "orig", None) or cause), url)
    return ArtifactError(
        f"Cannot reach the storage {shown(url)}: {message}. Check the address, and that the server is up."
    )


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without Optuna's line on standard error for every study that is made or taken up."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
