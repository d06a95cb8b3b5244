"""Locks of workers behind a search server: each worker keeps one stream open, and its locks end with it."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from optuna.storages import GrpcStorageProxy

from tsdistill.search.proxy import open_channel, proxy_patience
from tsdistill.search.sessions import SessionLocks

SERVICE = "tsdistill.Locks"
METHOD = "Session"


class LockServer:
    """The server's part: who holds what, as long as his stream lasts."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holders: dict[str, object] = {}
        self._sessions: dict[object, grpc.ServicerContext] = {}

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server is to be given."""
        session = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: session})

    def close(self) -> None:
        """End all sessions."""
        with self._guard:
            contexts = list(self._sessions.values())
        for context in contexts:
            context.cancel()

    def _serve(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        session = object()
        with self._guard:
            self._sessions[session] = context
        # Called when the stream ends, whoever ended it, also while this function waits for a message.
        if not context.add_callback(lambda: self._end(session)):
            self._end(session)
            return
        for message in messages:
            action, *names = json.loads(message)
            yield json.dumps(self._answer(session, action, names)).encode()

    def _answer(self, session: object, action: str, names: list[str]) -> bool | list[bool]:
        with self._guard:
            if action == "free":
                return [name not in self._holders for name in names]
            name = names[0]
            holder = self._holders.get(name)
            if action == "take" and session in self._sessions:
                return self._holders.setdefault(name, session) is session
            if action == "give" and holder is session:
                del self._holders[name]
            return holder is None

    def _end(self, session: object) -> None:
        with self._guard:
            self._sessions.pop(session, None)
            for name in [name for name, holder in self._holders.items() if holder is session]:
                del self._holders[name]


class ProxyLocks(SessionLocks):
    """A worker's part."""

    def __init__(self, storage: GrpcStorageProxy, study: str) -> None:
        self._place = (storage._host, storage._port)
        self._study = study
        self._channel: grpc.Channel | None = None
        self._ended = threading.Event()
        super().__init__(proxy_patience(storage))

    def _connect(self) -> None:
        self._channel = open_channel(*self._place)
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ended = ended = threading.Event()
        messages, replies = self._messages, self._replies
        stream = self._channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter(messages.get, None))

        def read() -> None:
            try:
                for reply in stream:
                    replies.put(json.loads(reply))
            except Exception as error:
                replies.put(error)
            else:
                replies.put(ConnectionError("the stream has ended"))
            ended.set()

        threading.Thread(target=read, daemon=True, name="tsdistill-lock-replies").start()

    def _disconnect(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(Exception):
                self._messages.put(None)
                channel.close()

    def _ask(self, action: str, name: str) -> bool:
        return bool(self._exchange(action, name))

    def _ask_free(self, names: Sequence[str]) -> set[str]:
        return {name for name, free in zip(names, self._exchange("free", *names), strict=True) if free}

    def _exchange(self, action: str, *names: str) -> Any:
        self._messages.put(json.dumps([action, *(f"{self._study}\n{name}" for name in names)]).encode())
        reply = self._replies.get()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _watch(self, seconds: float) -> bool:
        # An end that is known already, while the server is away, must not be asked about without a pause.
        if self._ended.is_set():
            return not self._closed.wait(0.1)
        return self._ended.wait(seconds)
