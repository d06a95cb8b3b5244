"""A storage that is away for a while costs a retry, one that is gone for good a clear error."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

import tsdistill as td
from tests.search_servers import cut, served
from tests.test_search import states
from tests.test_search_claims import draw, in_parallel, opened
from tsdistill.search import create_study, load_study, run_trials, serve
from tsdistill.search.claims import ABANDONED, LOST_TURN, Claims
from tsdistill.search.databases import open_database, parsed
from tsdistill.search.sessions import SessionLocks


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionLocks, "regained_after", 1.0)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    with served(f"sqlite:///{tmp_path / 's.db'}") as address:
        yield address


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.postgres), "proxy"])
def place(request: pytest.FixtureRequest) -> str:
    """The address of a storage on a server."""
    return str(request.getfixturevalue({"postgres": "postgres_url"}.get(request.param, "proxy")))


@pytest.mark.postgres
def test_connections_that_are_cut_in_mid_trial_cost_no_trial(postgres_url: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = draw(trial)
        if trial.number in (1, 3):
            assert cut(postgres_url) > 0
        trial.report(value, 1)
        trial.set_user_attr("note", "after the cut")
        return value

    study = opened(postgres_url)
    run_trials(study, objective, 5, progress=False)
    assert states(study) == ["COMPLETE"] * 5
    assert [trial.user_attrs["note"] for trial in study.trials] == ["after the cut"] * 5


@pytest.mark.postgres
def test_a_worker_that_is_cut_off_is_not_taken_for_dead(postgres_url: str) -> None:
    with Claims(opened(postgres_url)) as cut_off, Claims(opened(postgres_url)) as other:
        assert cut_off.next(2) is not None
        for _ in range(3):
            cut(postgres_url)
            for _ in range(3):
                other._reap()
                time.sleep(0.6)
        assert states(cut_off.study) == ["RUNNING"]


def test_the_trial_of_a_worker_that_died_is_retried(place: str) -> None:
    with Claims(opened(place)) as dies:
        assert dies.next(2) is not None
        dies._locks.close()
        study = opened(place)
        run_trials(study, draw, 2, progress=False)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[0].user_attrs["reason"] == ABANDONED


def test_a_turn_that_is_lost_with_the_connection_makes_no_trial_too_many(place: str) -> None:
    study = opened(place)
    with Claims(study) as claims:
        ask = claims._ask

        def slow() -> optuna.Trial:
            trial = ask()
            if trial.number == 0:
                claims._locks._disconnect()  # type: ignore[attr-defined]
                claims._locks._is_open = False  # type: ignore[attr-defined]
            return trial

        claims._ask = slow  # type: ignore[method-assign]
        trial = claims.next(1)
        assert trial is not None
        study.tell(trial, 0.5)
    assert states(study) == ["FAIL", "COMPLETE"]
    assert study.trials[0].user_attrs["reason"] == LOST_TURN


def test_workers_behind_a_server_lose_no_trial_and_double_none(proxy: str) -> None:
    assert in_parallel(3, lambda: opened(proxy), 13) == []
    study = opened(proxy)
    assert states(study) == ["COMPLETE"] * 13
    assert len({trial.params["x"] for trial in study.trials}) == 13
    assert load_study(storage=proxy).best_value == study.best_value


def test_the_death_of_a_server_in_mid_trial_is_survived(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 's.db'}"
    first = served(storage)
    address = first.__enter__()
    port = int(address.rsplit(":", 1)[1])
    again: list[Any] = []

    def restart() -> None:
        first.__exit__(None, None, None)
        time.sleep(0.3)
        again.append(served(storage, port))
        assert again[0].__enter__() == address

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 1:
            thread = threading.Thread(target=restart)
            thread.start()
            time.sleep(0.1)  # the next line finds nobody there
            value = draw(trial)
            thread.join()
            return value
        return draw(trial)

    study = opened(address)
    try:
        run_trials(study, objective, 3, progress=False)
        assert states(study) == ["COMPLETE"] * 3
    finally:
        again[0].__exit__(None, None, None)


def gone_for_good(place: str, patience: str, end: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """The error of a worker whose storage goes away in its second trial."""
    monkeypatch.setenv("TSDISTILL_STORAGE_PATIENCE", patience)
    study = opened(place)

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 1:
            end()
        return draw(trial)

    begun = time.monotonic()
    with pytest.raises(td.errors.ArtifactError) as caught:
        run_trials(study, objective, 3, progress=False)
    assert time.monotonic() - begun > float(patience) / 2
    return "".join(traceback.format_exception(caught.value)) + str(caught.value)


@pytest.mark.postgres
def test_a_database_that_is_gone_for_good_gives_one_clear_error(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = gone_for_good(postgres_url, "1", lambda: cut(postgres_url, for_good=True), monkeypatch)
    assert "Cannot reach the storage postgresql" in message
    password = sa.make_url(postgres_url).password
    assert password is not None
    assert password not in message


def test_a_server_that_is_gone_for_good_gives_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = served(f"sqlite:///{tmp_path / 's.db'}")
    address = server.__enter__()
    message = gone_for_good(address, "1", lambda: server.__exit__(None, None, None), monkeypatch)
    assert f"Cannot reach the search server {address}" in message


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_patience_is_a_number_of_seconds(proxy: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSDISTILL_STORAGE_PATIENCE", text)
    with pytest.raises(td.errors.ConfigError, match="TSDISTILL_STORAGE_PATIENCE"):
        opened(proxy)


@pytest.mark.parametrize(
    ("storage", "kind", "words"),
    [
        ("grpc://", td.errors.ConfigError, ["grpc://HOST:PORT", "node-1"]),
        ("grpc://node", td.errors.ConfigError, ["grpc://HOST:PORT"]),
        ("grpc://node:0", td.errors.ConfigError, ["grpc://HOST:PORT"]),
        ("grpc://node:99999", td.errors.ConfigError, ["grpc://HOST:PORT"]),
        ("grpc://me:geheim@node:13000", td.errors.ConfigError, ["with a user"]),
        ("grpc://127.0.0.1:1", td.errors.ArtifactError, ["grpc://127.0.0.1:1", "search-server"]),
    ],
)
def test_an_address_of_a_server_that_cannot_be_used(
    storage: str, kind: type[Exception], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tsdistill.search.proxy.CONNECT_SECONDS", 0.3)
    with pytest.raises(kind) as caught:
        create_study("toy", storage=storage)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"storage": "journal:s.log"}, ["database", "journal:FILE"]),
        ({"storage": "grpc://node:13000"}, ["database", "grpc"]),
        ({"storage": "sqlite://"}, ["memory"]),
        ({"storage": None}, ["storage"]),
        ({"port": 65536}, ["port", "65536"]),
        ({"port": True}, ["port", "True"]),
        ({"host": "no-such-host.invalid"}, ["host", "no-such-host"]),
        ({"host": "203.0.113.7"}, ["port", "203.0.113.7"]),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(td.errors.ConfigError) as caught:
        serve(**{"storage": f"sqlite:///{tmp_path / 's.db'}", "until": threading.Event(), **arguments})
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_port_in_use_and_a_file_in_use_are_one_clear_error(tmp_path: Path, proxy: str) -> None:
    port = int(proxy.rsplit(":", 1)[1])
    with pytest.raises(td.errors.ConfigError, match=rf"port.*in use.*got port={port}"):
        serve(f"sqlite:///{tmp_path / 'other.db'}", host="127.0.0.1", port=port, until=threading.Event())
    with pytest.raises(td.errors.OrderError, match=r"s\.db"):
        serve(f"sqlite:///{tmp_path / 's.db'}", port=0, until=threading.Event())
    with pytest.raises(td.errors.OrderError, match=r"s\.db"):
        run_trials(opened(f"sqlite:///{tmp_path / 's.db'}"), draw, 1, progress=False)


def test_a_proxy_of_plain_optuna_is_told_apart(tmp_path: Path) -> None:
    from optuna.storages._grpc.server import make_server

    server = make_server(open_database(parsed(f"sqlite:///{tmp_path / 's.db'}")), "127.0.0.1", 0)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        study = opened(f"grpc://127.0.0.1:{port}")
        assert study.trials == []
        with pytest.raises(td.errors.UnsupportedError, match="tsdistill search-server"):
            run_trials(study, draw, 1, progress=False)
    finally:
        server.stop(0).wait()


def test_without_grpcio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'grpc'")

    monkeypatch.setattr("tsdistill.search.proxy.importlib.import_module", missing)
    with pytest.raises(td.errors.UnsupportedError, match=r"tsdistill\[proxy\]"):
        create_study("toy", storage="grpc://node:13000")
