"""`tsdistill search-server`: one process that keeps a storage for hundreds of workers."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage, _CachedStorage

from tsdistill.data.databases import shown
from tsdistill.errors import ConfigError, OrderError, check_type, must
from tsdistill.search.databases import hushed, open_database, parsed
from tsdistill.search.journals import JOURNAL
from tsdistill.search.locks import sqlite_locks
from tsdistill.search.proxy import ALIVE, PORT, check_port, is_proxy, need_grpc
from tsdistill.search.storage import address

if TYPE_CHECKING:
    import grpc

MAX_WORKERS = 4096
"""Threads of the server, of which each worker's locks need one; a thread begins when it is needed."""

N_CONNECTIONS = 8
"""Connections to the database that are kept open."""

STOP_SECONDS = 5.0
"""How long calls that have begun may take when the server stops."""


def serve(
    storage: str,
    *,
    host: str = "localhost",
    port: int = PORT,
    until: threading.Event | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Serve a storage to workers on other machines, who give `grpc://HOST:PORT`, until it is asked to stop.

    Workers need one open port of one machine, and the database sees a few connections instead of two for each worker.
    Everybody who reaches the port may read and change the studies: open it inside your own network only. SIGTERM and
    Ctrl-C stop it; workers wait for it to come back, and go on.

    Args:
        storage: "sqlite:///FILE", which nobody else may use meanwhile, or an address of PostgreSQL or MySQL, or
            "env:NAME". No journal, whose lines one process does not tell apart by worker.
        host: Name or address of this machine to listen on; "0.0.0.0" for all of its addresses.
        port: Number of the port; 0 takes any that is free.
        until: In place of signals: set it, and the server stops.
        say: Called with a line for people.

    Raises:
        ConfigError: The address cannot be served, or the port is in use or not for this user.
        ArtifactError: The storage cannot be reached.
        OrderError: Another process uses the SQLite file.
        UnsupportedError: grpcio or the database's driver is not installed.

    Example:
        >>> serve("sqlite:///studies.db", host="0.0.0.0", port=13000)               # doctest: +SKIP
    """
    check_type("storage", storage, str, 'Give an address such as "sqlite:///studies.db"')
    check_type("host", host, str, 'Give a name or an address, such as "0.0.0.0"')
    check_port(port)
    resolved = address(storage)
    if resolved is None or is_proxy(resolved) or resolved.startswith(JOURNAL):
        kind = "journal:FILE" if resolved and resolved.startswith(JOURNAL) else "grpc://HOST:PORT"
        raise ConfigError(
            f"`storage` must be a database for a search server, got {kind}. Give sqlite:///FILE, or an address of "
            "PostgreSQL or MySQL."
        )
    url = parsed(resolved)
    need_grpc()
    stopped = until or threading.Event()
    with contextlib.ExitStack() as stack:
        stack.enter_context(hushed())
        if url.get_backend_name() == "sqlite":
            locks = sqlite_locks(Path(str(url.database)).absolute(), "server")
            stack.callback(locks.close)
            if not locks.take("only"):
                raise OrderError(f"Another process uses {url.database}, and SQLite serves one only. Wait for it.")
        kept = open_database(url, N_CONNECTIONS)
        if until is None:
            stack.enter_context(_set_by_signals(stopped))
        server, actual, end_sessions = _started(kept, host, port)
        name = f"[{host}]" if ":" in host else host
        (say or (lambda line: None))(
            f"Serving {shown(url)} on {host}, port {actual}. Workers give --storage grpc://{name}:{actual}"
        )
        try:
            while not stopped.wait(1.0):
                pass
        finally:
            done = server.stop(STOP_SECONDS)
            end_sessions()  # which would last for ever
            done.wait(2 * STOP_SECONDS)


class _Served(_CachedStorage):
    """Optuna's cache, which after a restart is asked for trials that it has never seen."""

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        try:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        except KeyError:
            for study in self.get_all_studies():
                self.get_all_trials(study._study_id, deepcopy=False)
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)


def _started(kept: RDBStorage, host: str, port: int) -> tuple[grpc.Server, int, Callable[[], None]]:
    """A server that listens, its port, and what ends the workers' sessions."""
    import grpc
    from optuna.storages._grpc.auto_generated.api_pb2_grpc import add_StorageServiceServicer_to_server
    from optuna.storages._grpc.servicer import OptunaStorageProxyService

    from tsdistill.search.proxy_locks import LockServer

    _check_free(host, port)
    locks = LockServer()
    options = (*ALIVE, ("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 10_000))
    server = grpc.server(ThreadPoolExecutor(MAX_WORKERS), options=options)
    # Optuna's own service, with options that its run_grpc_proxy_server does not take, and the locks beside it.
    add_StorageServiceServicer_to_server(OptunaStorageProxyService(_Served(kept)), server)
    server.add_generic_rpc_handlers((locks.handler(),))
    name = f"[{host}]" if ":" in host else host
    try:
        actual = server.add_insecure_port(f"{name}:{port}")
    except RuntimeError:
        raise _in_use(host, port, "it was taken just now") from None
    server.start()
    return server, actual, locks.close


def _check_free(host: str, port: int) -> None:
    """ConfigError with the system's reason unless one can listen there; grpc tells it in lines of its own."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(
            must("host", "be a name or an address of this machine", host, f"{error.strerror}. Such as 0.0.0.0")
        ) from None
    failures = []
    for family, kind, protocol, _, place in places:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except OSError as error:
            failures.append(error)
    # A name may stand for two addresses, of which a machine without IPv6 has one.
    if len(failures) == len(places) or any("in use" in str(error) for error in failures):
        raise _in_use(host, port, str(failures[0].strerror))


def _in_use(host: str, port: int, reason: str) -> ConfigError:
    return ConfigError(
        must("port", f"be free on {host} and allowed to you ({reason})", port, "Give another --port, or 0 for any")
    )


@contextlib.contextmanager
def _set_by_signals(event: threading.Event) -> Iterator[None]:
    """While this lasts, SIGTERM and Ctrl-C set the event instead of breaking into a call."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_: event.set()) for name in names]
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
