"""Servers for tests of searches: a database whose connections are cut, and a search server of its own process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from tsdistill.search import serve

SECONDS = 120


def cut(url: str, *, for_good: bool = False) -> int:
    """End every connection to a database, as a restart or a firewall does, and let nobody in again if asked to."""
    name = sa.make_url(url).database
    engine = sa.create_engine(
        os.environ["TSDISTILL_TEST_POSTGRES"], isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        if for_good:
            connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        return len(connection.execute(sa.text(ended), {"name": name}).all())


@contextmanager
def served(storage: str, port: int = 0) -> Iterator[str]:
    """A search server in a thread; its address."""
    stop, ready = threading.Event(), threading.Event()
    lines: list[str] = []
    failures: list[BaseException] = []

    def listen(line: str) -> None:
        lines.append(line)
        ready.set()

    def work() -> None:
        try:
            serve(storage, host="127.0.0.1", port=port, until=stop, say=listen)
        except BaseException as error:
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(SECONDS)
    try:
        if failures:
            raise failures[0]
        yield lines[0].split()[-1]
    finally:
        stop.set()
        thread.join(SECONDS)


@contextmanager
def server_process(folder: Path, storage: str, port: int = 0, host: str = "127.0.0.1") -> Iterator[tuple[int, str]]:
    """`tsdistill search-server` as a process: its number and its address; killed in the end if it is still there."""
    command = [sys.executable, "-W", "error", "-u", "-m", "tsdistill.cli", "search-server"]
    process = subprocess.Popen(
        [*command, "--storage", storage, "--host", host, "--port", str(port)],
        cwd=folder,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"grpc://\S+", line)
        assert match is not None, line + process.stdout.read()
        yield process.pid, match[0]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=SECONDS)
            assert (process.returncode, rest) == (0, "")
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
