"""Studies in SQLite, PostgreSQL and MySQL: addresses, connections that may break, and errors without a password."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage

# One way to censor a driver's messages, for the data sources and for the storages.
from tsdistill.data.databases import censored, shown
from tsdistill.data.reading import CONNECT_SECONDS
from tsdistill.errors import ArtifactError, ConfigError, TsdistillError, UnsupportedError
from tsdistill.search.patience import Patience, patient

FORMS = (
    '"journal:FILE" (several processes on one machine), "sqlite:///FILE" (one process), '
    '"postgresql+psycopg://USER:PASSWORD@HOST/BASE" or "mysql+pymysql://..." (many machines), "grpc://HOST:PORT" '
    '(hundreds of workers, see tsdistill search-server) or "env:NAME" (a variable that holds one of these)'
)

EXTRAS = {"postgresql": "postgres", "mysql": "mysql"}
"""What brings the driver of a kind of server."""

SILENT_SECONDS = 60
"""After so long without a sign of the other side a connection is given up."""

REPEATED = (
    *sorted(BaseStorage.__abstractmethods__),
    *("_create_new_trial", "_get_best_trial_id", "_get_trials", "_set_trial_param"),  # which Optuna's cache calls
)
"""Methods of a storage that may be called again: what they write, they write over."""


@patient(REPEATED)
class PatientDatabase(RDBStorage):
    """Optuna's storage on a server, whose calls outlive a broken connection or a restart of the server."""

    patience: Patience

    @classmethod
    def opened(cls, url: sa.URL, options: dict[str, Any]) -> PatientDatabase:
        """The storage, patient from now on: an address that never worked is not tried twice."""
        storage = cls(url.render_as_string(hide_password=False), engine_kwargs=options)
        storage.patience = database_patience(url)
        weakref.finalize(storage, storage.engine.dispose)  # connections that are kept open end with the storage
        return storage


def database_patience(url: sa.URL) -> Patience:
    """Waits for a database."""
    return Patience(is_outage, functools.partial(unreachable, url=url))


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the server, or the connection to it, is gone."""
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    if isinstance(cause, sa.exc.DBAPIError) and cause.connection_invalidated:
        return True
    outages = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.PendingRollbackError, sa.exc.TimeoutError)
    return isinstance(cause, outages)


def open_database(url: sa.URL, n_connections: int = 1) -> RDBStorage:
    """A database as a storage; its tables are made if they are not there."""
    kind = url.get_backend_name()
    options: dict[str, Any] = {"hide_parameters": True}
    if kind == "sqlite":
        options |= {"poolclass": sa.NullPool} if n_connections == 1 else {"pool_size": n_connections}
    else:
        # A connection may be cut while a trial runs for hours, so that each is tried before it is used.
        options |= {"pool_size": n_connections, "pool_pre_ping": True, "pool_recycle": 1800}
    failure: BaseException
    try:
        options["connect_args"] = _connecting(url)
        with hushed():
            if kind == "sqlite" and n_connections > 1:  # whose threads find the file locked now and then
                return PatientDatabase.opened(url, options)
            if kind == "sqlite":
                return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
            with _alone(url, options):
                return PatientDatabase.opened(url, options)
    except Exception as error:
        failure = error
    raise unreachable(failure, url) from None


def _connecting(url: sa.URL) -> dict[str, Any]:
    """Arguments of the driver: how long to wait, and how both sides notice that the other one's machine is gone."""
    driver = url.get_driver_name()
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        return {"timeout": CONNECT_SECONDS}
    if driver in ("psycopg", "psycopg2"):
        alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        arguments = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 1000 * SILENT_SECONDS, **alive}
    elif driver in ("pymysql", "mysqldb"):
        arguments = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENT_SECONDS,
            "write_timeout": SILENT_SECONDS,
        }
    return {name: value for name, value in arguments.items() if name not in url.query}


@contextlib.contextmanager
def _alone(url: sa.URL, options: dict[str, Any]) -> Iterator[None]:
    """Two workers that make the tables of an empty database at once would trip over each other."""
    engine = sa.create_engine(url, connect_args=options["connect_args"], hide_parameters=True, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if url.get_backend_name() == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(advisory_key("tables"))))
        else:
            connection.execute(sa.select(sa.func.get_lock(lock_name("tables"), SILENT_SECONDS // 2)))
        yield


def advisory_key(*words: str) -> int:
    """A 64-bit name for a PostgreSQL advisory lock."""
    return int.from_bytes(_digest(words)[:8], signed=True)


def lock_name(*words: str) -> str:
    """A name for a lock of MySQL, which takes 64 characters."""
    return f"tsdistill-{_digest(words).hex()[:32]}"


def _digest(words: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\n".join(("tsdistill", *words)).encode()).digest()


def parsed(storage: str) -> sa.URL:
    """The address of a database that serves, never with its password in an error."""
    url: sa.URL | None = None
    with contextlib.suppress(sa.exc.ArgumentError, ValueError):
        url = sa.make_url(storage)
    if url is None:
        raise ConfigError(f"`storage` must be an address; this one cannot be read. Give {FORMS}.")
    kind = url.get_backend_name()
    if kind not in ("sqlite", *EXTRAS):
        raise ConfigError(f"`storage` must be of a known kind, got {url.drivername!r}. Give {FORMS}.")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(
            "`storage` must name a file, got SQLite in memory. Give sqlite:///FILE, or None to keep nothing."
        )
    return url


def unreachable(error: BaseException, url: sa.URL) -> TsdistillError:
    """One clear error without the address's password."""
    if isinstance(error, ImportError | sa.exc.NoSuchModuleError):
        extra = EXTRAS.get(url.get_backend_name())
        remedy = f" (pip install 'tsdistill[{extra}]')" if extra else ""
        return UnsupportedError(f"The driver for {shown(url)} is not installed. Install it{remedy}.")
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    message = censored(str(getattr(cause, "orig", None) or cause), url)
    return ArtifactError(
        f"Cannot reach the storage {shown(url)}: {message}. Check the address, and that the server is up."
    )


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Without Optuna's line on standard error for every study that is made or taken up."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
