"""Studies behind `tsdistill search-server`: Optuna's gRPC proxy, reached by many workers through one port."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy

from tsdistill.data.reading import CONNECT_SECONDS
from tsdistill.errors import ArtifactError, ConfigError, TsdistillError, UnsupportedError, must
from tsdistill.search.patience import Patience, patient

if TYPE_CHECKING:
    import grpc

PROXY = "grpc://"

PORT = 13000
"""The port of Optuna's proxy where none is named."""

ADDRESS = re.compile(r"grpc://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})/?")

ALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
"""Options of both sides: a machine that is gone is noticed within 40 seconds."""

CHANNEL = (
    *ALIVE,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000 * CONNECT_SECONDS),  # how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # the server is near; a cluster's http_proxy leads out of it
)

OUTAGES = ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED")
"""Status codes of a server, or of a way to it, that is gone."""


def is_proxy(storage: object) -> bool:
    """Whether an address names a proxy."""
    return isinstance(storage, str) and storage.startswith(PROXY)


def host_and_port(address: str) -> tuple[str, int]:
    """Where a proxy listens."""
    match = ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        # Whoever puts a password into such an address does not want to read it in a log.
        shown = repr(address) if "@" not in address else "one with a user"
        raise ConfigError(
            f"`storage` must be {PROXY}HOST:PORT for a search server, got {shown}. Such as {PROXY}node-1:{PORT}."
        )
    return match["host"], int(match["port"])


def need_grpc() -> None:
    """UnsupportedError unless the packages of the proxy are installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions of protobuf, which Optuna answers for
            importlib.import_module("optuna.storages._grpc.servicer")
    except (ImportError, RuntimeError, TypeError) as error:
        raise UnsupportedError(
            f"A search server needs grpcio and protobuf ({error}): pip install 'tsdistill[proxy]'."
        ) from None


def open_proxy(address: str) -> BaseStorage:
    """The storage behind a search server, which must answer now; later on it may be away for a while."""
    host, port = host_and_port(address)
    need_grpc()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = PatientProxy(host=host, port=port)
    try:
        storage.wait_server_ready(timeout=CONNECT_SECONDS)
    except ConnectionError:
        storage.close()
        raise ArtifactError(
            f"Cannot reach the search server {PROXY}{host}:{port}: no answer for {CONNECT_SECONDS} s. Check the "
            "address, and that tsdistill search-server runs there."
        ) from None
    return storage


def open_channel(host: str, port: int) -> grpc.Channel:
    """A connection that notices when the other side is gone, and comes back soon."""
    import grpc

    return grpc.insecure_channel(f"{host}:{port}", options=CHANNEL)


@patient(sorted(BaseStorage.__abstractmethods__))
class PatientProxy(GrpcStorageProxy):
    """Optuna's storage behind a proxy, whose calls outlive a broken connection or a restart of the server."""

    patience: Patience

    def _setup(self) -> None:
        super()._setup()
        self._channel.close()
        from optuna.storages._grpc.auto_generated.api_pb2_grpc import StorageServiceStub

        self._channel = open_channel(self._host, self._port)
        self._stub = StorageServiceStub(self._channel)
        self._cache.grpc_client = self._stub
        self.patience = proxy_patience(self)


def proxy_patience(storage: GrpcStorageProxy) -> Patience:
    """Waits for a search server."""
    place = f"{PROXY}{storage._host}:{storage._port}"

    def explained(error: BaseException) -> TsdistillError:
        return failure_of(error, place)

    return Patience(is_proxy_outage, explained)


def is_rpc_error(error: BaseException) -> bool:
    """Whether a call of a server failed; grpc is not loaded for the question."""
    grpc = sys.modules.get("grpc")
    return grpc is not None and isinstance(error, grpc.RpcError)


def is_proxy_outage(error: BaseException) -> bool:
    """Whether an error says that the server, or the connection to it, is gone."""
    return is_rpc_error(error) and _code(error) in OUTAGES


def failure_of(error: BaseException, place: str) -> TsdistillError:
    """One clear error."""
    if _code(error) == "UNIMPLEMENTED":
        return UnsupportedError(
            f"The server at {place} keeps studies, but cannot share out trials. Serve the storage with "
            "tsdistill search-server."
        )
    details = str(getattr(error, "details", lambda: "")() or type(error).__name__).strip().splitlines()[0].rstrip(". ")
    details = details.removeprefix("Exception calling application: ")
    if _code(error) in OUTAGES:
        return ArtifactError(
            f"Cannot reach the search server {place}: {details}. Check that tsdistill search-server runs there, and "
            "start the same command again to go on."
        )
    return ArtifactError(f"The search server {place} failed: {details}.")


def place_of(storage: Any) -> str | None:
    """The address of a proxy's storage."""
    return f"{PROXY}{storage._host}:{storage._port}" if isinstance(storage, GrpcStorageProxy) else None


def _code(error: BaseException) -> str:
    code = getattr(error, "code", lambda: None)()
    return getattr(code, "name", "")


def check_port(port: object) -> int:
    """The port, if it is one."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(must("port", "be a whole number from 0 (any that is free) to 65535", port, f"Such as {PORT}"))
    return port
