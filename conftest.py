"""What holds for every test and every documentation example: one thread, seeded, no network, no files left behind."""

from __future__ import annotations

import os

# Before NumPy or torch is loaded: they read these once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import atexit
import random
import shutil
import socket
import sys
import tempfile
from typing import Any

import pytest
from hypothesis import settings

# A cache of its own, which the workers of a run and the commands that tests start share, as do runs that name one.
if "TSDISTILL_TEST_CACHE" not in os.environ:
    os.environ["TSDISTILL_TEST_CACHE"] = tempfile.mkdtemp(prefix="tsdistill-cache-")
    atexit.register(shutil.rmtree, os.environ["TSDISTILL_TEST_CACHE"], ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = os.environ["TSDISTILL_TEST_CACHE"]

LOOPBACK = ("127.", "::1", "localhost")

settings.register_profile("seeded", derandomize=True, deadline=None, database=None)
settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same global random state, whatever ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _deprecations_are_new() -> None:
    """A name that warned in one test warns in the next one too."""
    if "tsdistill.deprecation" in sys.modules:
        sys.modules["tsdistill.deprecation"].forget_warnings()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine is an error."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            self.close()
            raise RuntimeError(f"A test must not use the network, but one connected to {address[0]}.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _examples_leave_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documentation examples may save files by a relative name: they run in an empty folder."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))
