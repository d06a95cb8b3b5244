"""Connections that only read: what a query may do is settled when a database is opened, not by looking at its text."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pandas as pd
import sqlalchemy as sa

from tsdistill.errors import DataError

CONNECT_SECONDS = 10
"""A database that does not answer within this time counts as down."""

LONGEST_CELL = 2**26
"""Bytes of one cell that a query of SQLite may make."""

INSTRUCTIONS = 100_000
"""Of SQLite's machine, between two looks at the time: some milliseconds."""

READING = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE))
"""What SQLite's authorizer lets a query do."""

ACTING = frozenset(("load_extension", "fts3_tokenizer", "writefile", "edit", "readfile"))
"""Functions of SQLite, or of its shell, that do more than compute."""

ASKED = frozenset(("data_version", "page_size"))
"""Settings that SQLite's full-text indexes ask for when they are read; they may be asked for, not set."""

PREPARED = ("_node", "_rowid", "_parent")
"""Ends of tables whose writing SQLite's R-trees prepare, and do not do, when they are read; `query_only` forbids it."""

MEMORY = ":memory:"
BEGINNINGS = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with|values|table|from)\b", re.IGNORECASE | re.DOTALL
)
"""How a query begins that reads, in databases where nothing better than its text can be looked at."""

MYSQL = ("mysql", "mariadb")


def read(address: sa.URL, query: str, parameters: Mapping[str, Any], time_limit: float | None = None) -> pd.DataFrame:
    """What a query gives, from a connection that only reads and is rolled back at the end.

    Args:
        address: Where the database is.
        query: What to ask.
        parameters: Values of the names in the query.
        time_limit: Seconds after which SQLite, PostgreSQL or MySQL stop it; None waits for ever.

    Raises:
        DataError: the query is of a form that cannot be read safely here, or took too long.
        Exception: whatever the driver raises, with its own text.
    """
    kind = address.get_backend_name()
    begun = time.monotonic()
    with _opened(address).connect() as connection:
        # psycopg sends a query that has a cursor of its own as a single command; `DECLARE ... CURSOR FOR` takes
        # nothing but a SELECT, so neither `COPY ... TO PROGRAM`, `DO`, `CALL` nor `SET TRANSACTION` can stand there.
        if kind == "postgresql":
            connection = connection.execution_options(postgresql_readonly=True, stream_results=True)
        if not (kind == "sqlite" or (kind == "postgresql" and address.get_driver_name() == "psycopg")):
            refuse_by_text(query)
        try:
            if kind == "sqlite":
                _restrict(connection.connection.driver_connection, time_limit)
            elif kind == "postgresql":
                # Undone by the rollback, so that no other user of a pooled connection is left with it.
                plain = connection.execution_options(stream_results=False)
                plain.exec_driver_sql("SET default_transaction_read_only = on").close()
                # A transaction that has read once cannot be made to write.
                plain.exec_driver_sql("SELECT 1").close()
                if time_limit is not None:
                    plain.exec_driver_sql(_shorter(round(1000 * time_limit))).close()
                connection = connection.execution_options(stream_results=True)
            elif kind in MYSQL:
                connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY").close()
                if time_limit is not None and kind == "mysql":
                    limit = f"SET SESSION max_execution_time = {round(1000 * time_limit)}"
                    connection.exec_driver_sql(limit).close()
                connection.rollback()
            return pd.read_sql(sa.text(query), connection, params=dict(parameters))
        except Exception:
            if time_limit is None or time.monotonic() - begun < 0.9 * time_limit:
                raise
        finally:
            with contextlib.suppress(sa.exc.SQLAlchemyError):  # a lost connection has nothing left to roll back
                connection.rollback()
    raise DataError(
        f"the query must end within time_limit={time_limit:g} seconds, and did not. Ask for fewer rows, or raise "
        "`time_limit`."
    )


def _shorter(milliseconds: int) -> str:
    """Sets PostgreSQL's limit for a statement, unless a shorter one holds already."""
    return (
        f"SELECT set_config('statement_timeout', '{milliseconds}', false) FROM pg_settings "
        f"WHERE name = 'statement_timeout' AND (setting = '0' OR setting::bigint > {milliseconds})"
    )


def _opened(address: sa.URL) -> sa.Engine:
    """An engine; that of a SQLite file opens it for reading only."""
    common: dict[str, Any] = {"poolclass": sa.NullPool, "hide_parameters": True}
    if address.get_backend_name() != "sqlite":
        connect = {"connect_timeout": CONNECT_SECONDS} if _takes_timeout(address) else {}
        return sa.create_engine(address, connect_args=connect, **common)
    _check_file(address)
    if address.get_driver_name() == "pysqlite":
        return sa.create_engine("sqlite://", creator=_sqlite(address), **common)
    return sa.create_engine(address, **common)  # another driver, such as an encrypting one


def _takes_timeout(address: sa.URL) -> bool:
    drivers = ("psycopg", "psycopg2", "pymysql", "mysqldb")
    return address.get_driver_name() in drivers and "connect_timeout" not in address.query


# ------------------------------------------------------------------------------------------------------------- SQLite
def _sqlite(address: sa.URL) -> Callable[[], sqlite3.Connection]:
    """Opens a SQLite file so that neither the address nor the query can write."""
    options = _driver_options(address)
    name = address.database or MEMORY
    if options.pop("uri", False):
        location = _read_only_uri(name, address.query)
    elif name == MEMORY:
        location = f"file:{MEMORY}"
    else:
        path = Path(os.path.abspath(name))
        location = f"{path.as_uri()}?mode=ro{_immutable(path)}"

    return lambda: sqlite3.connect(location, uri=True, **options)


def _driver_options(address: sa.URL) -> dict[str, Any]:
    """What the address says to Python's driver, typed as SQLAlchemy types it; the rest is for SQLite itself."""
    names = ("uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements")
    plain = address.set(query={name: value for name, value in address.query.items() if name in names})
    return dict(plain.get_dialect()().create_connect_args(plain)[1])


def _read_only_uri(name: str, query: Mapping[str, Any]) -> str:
    """The same URI in mode `ro`; what a user says of the mode counts only where it is `memory`."""
    path, _, inner = name.partition("#")[0].partition("?")
    given = parse_qsl(inner, keep_blank_values=True)
    for key, value in query.items():
        given += [(unquote(key), unquote(one)) for one in ([value] if isinstance(value, str) else value)]
    if any("\0" in unquote(part) for pair in [(path, ""), *given] for part in pair):
        raise DataError("The address of a SQLite database must not hold NUL characters. Remove %00 from it.")
    memory = any(key == "mode" and value == "memory" for key, value in given)
    driver_options = {"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}
    rest = [(key, value) for key, value in given if key not in driver_options | {"mode", "modeof"}]
    # SQLite refuses a later mode that allows more than an earlier one.
    return f"{path}?{urlencode([('mode', 'memory' if memory else 'ro'), *rest], quote_via=quote)}"


def _immutable(path: Path) -> str:
    """A write-ahead log needs a file beside it even to be read, which a medium that cannot be written does not get."""
    with contextlib.suppress(OSError, AttributeError):
        log = path.with_name(f"{path.name}-wal")
        if os.statvfs(path).f_flag & os.ST_RDONLY and not log.exists():
            return "&immutable=1"
    return ""


def _check_file(address: sa.URL) -> None:
    """DataError when there is no such file: SQLite would make an empty database of a misspelt name."""
    name = address.database or MEMORY
    if name == MEMORY or (name.startswith("file:") and "uri" in address.query):
        return
    path = Path(name)
    if not path.exists():
        raise DataError("there is no such file. Give the path of a database.")
    if not path.is_file():
        raise DataError("it is not a file. Give the path of a database.")


def _restrict(connection: Any, time_limit: float | None) -> None:
    """Nothing but reading from here on, for so many seconds; `query_only` comes first, as every PRAGMA is forbidden.

    SQLAlchemy asks for some itself when it connects, so this is done afterwards.
    """
    connection.execute("PRAGMA query_only = ON").close()
    if hasattr(connection, "setlimit"):
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_CELL)
    connection.set_authorizer(_authorize)
    if time_limit is not None:
        end = time.monotonic() + time_limit
        connection.set_progress_handler(lambda: time.monotonic() > end, INSTRUCTIONS)


def _authorize(action: int, subject: str | None, detail: str | None, *_: str | None) -> int:
    """Allow what reads: SQLite asks for every part of a statement, with what it is about."""
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (detail or "").lower() not in ACTING
    elif action == sqlite3.SQLITE_PRAGMA:
        allowed = subject in ASKED and detail is None
    elif action == sqlite3.SQLITE_UPDATE:
        allowed = subject == "sqlite_master"  # how a virtual table, such as json_each, is declared to itself
    elif action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_DELETE):
        allowed = (subject or "").endswith(PREPARED)
    else:
        allowed = action in READING
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


# -------------------------------------------------------------------------------------------------------------- others
def refuse_by_text(query: str) -> None:
    """DataError when a query is more than one command, or does not begin as reading does.

    For drivers that send several commands at once, where a `COMMIT` among them would end any transaction.
    """
    if ";" in query.strip().rstrip(";"):
        raise DataError(
            "a query must be one statement for this driver, got one with `;` in it. Leave it out; pass texts that hold "
            "one as `parameters`."
        )
    if not BEGINNINGS.match(query):
        raise DataError("a query must begin with SELECT or WITH. Give a statement that reads.")
