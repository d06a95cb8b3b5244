"""Panels from databases, whose passwords appear in no message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

import pandas as pd

from tsdistill.data.panel import Panel
from tsdistill.data.repair import Fill
from tsdistill.data.split import Split
from tsdistill.errors import ConfigError, DataError, UnsupportedError, check_type, must

SHORT = 4
"""A secret of fewer letters cannot be masked in a message without revealing it."""

TIME_LIMIT = 600.0
"""Seconds that a query may take where nothing else is said."""

LONGEST = 2_000_000
"""Seconds that a limit may be: what databases count in milliseconds of 32 bits."""

HARMLESS = frozenset(
    (
        # SQLite and its driver
        *("cache", "cached_statements", "check_same_thread", "detect_types", "immutable", "isolation_level", "mode"),
        *("nolock", "psow", "timeout", "uri", "vfs"),
        # PostgreSQL, MySQL, SQL Server and their drivers
        *("application_name", "charset", "client_encoding", "collation", "connect_timeout", "dbname", "driver"),
        *("Encrypt", "gssencmode", "host", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle"),
        *("keepalives_interval", "port", "read_timeout", "ssl", "ssl_check_hostname", "sslcompression", "sslmode"),
        *(
            "sslnegotiation",
            "target_session_attrs",
            "tcp_user_timeout",
            "TrustServerCertificate",
            "use_unicode",
            "user",
        ),
        *("write_timeout", "autocommit", "channel_binding", "load_balance_hosts", "access_mode"),
    )
)
"""Options of addresses whose values are no secrets; the value of any other one is masked wherever it would be shown."""


def read_sql(
    url: Any,
    query: str,
    *,
    time: str | None = "ds",
    id: str | None = None,
    target: str | Sequence[str] | None = None,
    frequency: str | pd.DateOffset | None = None,
    fill: Fill | None = None,
    time_zone: str | None = None,
    day_first: bool | None = None,
    time_format: str | None = None,
    name: str | None = None,
    split: Split | None = None,
    parameters: Mapping[str, Any] | None = None,
    time_limit: float | None = TIME_LIMIT,
) -> Panel:
    """Read what a database query gives into a panel; passwords appear in no message.

    Use it in scheduled jobs. Let the query sort (`ORDER BY` item and time), since databases promise no order. The query
    can only read: a SQLite file is opened in mode `ro`, PostgreSQL in a read-only transaction, and whatever the
    database, the query is rolled back at the end. SECURITY.md says what that guarantees where.

    Args:
        url: A SQLAlchemy address, as text or `sqlalchemy.URL`, such as `postgresql+psycopg://user:password@host/base`.
        query: A SELECT statement; `:name` stands for a value of `parameters`.
        time: Column of time stamps; None when rows have none.
        id: Column of item identifiers of a long table.
        target: Value column or columns.
        frequency: Step width as a pandas offset or its alias; by default the commonest step.
        fill: "interpolate", "forward" or "zero" to fill gaps and NaN; refused otherwise.
        time_zone: Zone of stamps that carry none.
        day_first: Whether 01/02/2024 is the first of February; None refuses dates that can be read both ways.
        time_format: How stamps are written, such as "%d.%m.%Y", or "s", "ms", "us" or "ns" for numbers from 1970.
        name: What the data set is called in reports.
        split: Borders that belong to the data set.
        parameters: Values for the names in the query; never put them into its text.
        time_limit: Seconds that the query may take in SQLite, PostgreSQL and MySQL; None waits for ever.

    Raises:
        DataError: the database cannot be reached, refuses the query, or gives a table that cannot be used (see
            `Panel.from_frame`); or the query took longer than `time_limit`.
        ConfigError: `time_limit` is no number of seconds.
        UnsupportedError: the driver for this kind of database is not installed.

    Example:
        >>> import sqlite3
        >>> stamps = pd.date_range("2024-01-01", periods=3, freq="h").astype(str)
        >>> with sqlite3.connect("load.db") as base:
        ...     rows = pd.DataFrame({"ds": stamps, "load": [1.0, 2.0, 3.0]}).to_sql("hourly", base)
        >>> base.close()
        >>> read_sql("sqlite:///load.db", "SELECT ds, load FROM hourly ORDER BY ds").n_rows
        3
    """
    if time_limit is not None and (type(time_limit) not in (int, float) or not 0 < time_limit <= LONGEST):
        rule = f"be a number of seconds above 0 and at most {LONGEST:,}, or None"
        raise ConfigError(must("time_limit", rule, time_limit, "Leave it out for ten minutes"))
    df = _query(url, query, parameters, time_limit)
    return Panel.from_frame(
        df,
        time=time,
        id=id,
        target=target,
        frequency=frequency,
        fill=fill,
        time_zone=time_zone,
        day_first=day_first,
        time_format=time_format,
        name=name,
        split=split,
    )


def _query(url: Any, query: str, parameters: Mapping[str, Any] | None, time_limit: float | None) -> pd.DataFrame:
    """Run a query; errors are raised outside the except blocks, so that none carries the driver's own (and its URL)."""
    import sqlalchemy as sa

    from tsdistill.data.reading import read

    address: sa.URL | None = None
    try:
        address = sa.make_url(url)
    except Exception:
        address = None
    if address is None:
        raise DataError("`url` must be a SQLAlchemy address: driver://user:password@host:port/base. Check its form.")
    check_type("query", query, str, "Pass a SELECT statement as text")
    where = shown(address)
    refused: str | None = None
    failed: str | None = None
    driver: str | None = None
    try:
        return read(address, query, parameters or {}, time_limit)
    except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
        driver = censored(str(error), address)
    except DataError as error:
        refused = str(error)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, pd.errors.DatabaseError) and error.__cause__ else error
        failed = censored(str(getattr(cause, "orig", None) or cause), address)
    if refused is not None:
        raise DataError(f"Cannot read from {where}: {refused}")
    if driver is not None:
        extra = " (PostgreSQL: pip install 'tsdistill[postgres]')" if address.get_backend_name() == "postgresql" else ""
        raise UnsupportedError(f"The driver for {where} is not installed: {driver}. Install it{extra}.")
    raise DataError(
        f"Cannot read from {where}: {failed}. Check that the database is up, and that the query only reads."
    )


def shown(address: Any) -> str:
    """An address for messages: without user, password and options."""
    host = f"{address.host or ''}{f':{address.port}' if address.port else ''}"
    return f"{address.drivername}://{host}/{address.database or ''}"


def censored(message: str, address: Any) -> str:
    """First line of a driver's message with all secrets masked; none of it when a secret is too short.

    A secret is the password and the value of every option that is not known to be harmless.
    """
    line = (message.strip().splitlines() or [""])[0].rstrip(". ")
    password = str(address.password) if address.password is not None else ""
    options = {
        part
        for name, value in address.query.items()
        if not is_harmless(name)
        for part in ([value] if isinstance(value, str) else value)
    }
    secrets = {password, *options} - {""}
    forms = {form for secret in secrets for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))}
    forms |= {repr(form)[1:-1] for form in forms}
    if any(len(secret) < SHORT for secret in secrets) or "odbc_connect" in address.query:
        return "it gave an error that cannot be shown without showing the password"
    for form in sorted(forms, key=len, reverse=True):
        line = line.replace(form, "***")
    return line


def is_harmless(option: str) -> bool:
    """Whether the value of an address's option may be shown: only of those that are known to hold no secret."""
    return option in HARMLESS
