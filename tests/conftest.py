"""Fixtures for tests that need a server."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.retraining import RetrainRuns

VARIABLE = "TSDISTILL_TEST_POSTGRES"


@pytest.fixture(autouse=True)
def _few_calls_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks at how long a form takes to the last per cent."""
    if "tsdistill.quantization.judging" in sys.modules:
        monkeypatch.setattr(sys.modules["tsdistill.quantization.judging"], "N_RUNS", 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(VARIABLE):
        return
    skip = pytest.mark.skip(reason=f"no PostgreSQL server: {VARIABLE} is not set")
    for item in items:
        if item.get_closest_marker("postgres"):
            item.add_marker(skip)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """URL of an empty database of its own on the test server, dropped afterwards; mark its tests `postgres`."""
    import sqlalchemy

    server = sqlalchemy.make_url(os.environ[VARIABLE])
    name = f"tsdistill_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def after(tmp_path_factory: pytest.TempPathFactory) -> RetrainRuns:
    """A store after five jobs in a row, for all tests that only look at it."""
    from tests import retraining

    return retraining.run_jobs(tmp_path_factory.mktemp("retrain"))


@pytest.fixture
def copy(after: RetrainRuns, tmp_path: Path) -> Path:
    """The folder after those runs, to be changed."""
    shutil.copytree(after.folder / "store", tmp_path / "store", symlinks=True)
    return tmp_path
