"""Queries read and never write: in SQLite and in PostgreSQL, whatever the query and the address say."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

import tsdistill as td
from tests.frames import wide
from tsdistill.data import read_sql
from tsdistill.data.databases import censored, is_harmless
from tsdistill.data.reading import refuse_by_text
from tsdistill.errors import DataError
from tsdistill.recipe import Recipe
from tsdistill.retrain import Job

ROWS = 53
QUERY = "SELECT ds, load FROM hourly ORDER BY ds"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "load.db"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE hourly (ds TEXT, load REAL)")
        stamps = [f"2024-01-{1 + n // 24:02d} {n % 24:02d}:00" for n in range(ROWS)]
        base.executemany("INSERT INTO hourly VALUES (?, ?)", [(stamp, n) for n, stamp in enumerate(stamps)])
        base.execute("CREATE VIEW loads AS SELECT ds, load FROM hourly")
        base.execute("CREATE TABLE words (ds TEXT, load REAL, note TEXT)")
    base.close()
    return path


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


WRITES = [
    "DROP TABLE hourly",
    "DELETE FROM hourly",
    "DELETE FROM hourly RETURNING ds, load",
    "UPDATE hourly SET load = 0 RETURNING ds, load",
    "INSERT INTO hourly VALUES ('2025-01-01', 1) RETURNING ds, load",
    "REPLACE INTO hourly VALUES ('2025-01-01', 1)",
    "WITH n AS (SELECT 1) INSERT INTO hourly SELECT '2025-01-01', 1 FROM n RETURNING ds, load",
    "CREATE TABLE other AS SELECT * FROM hourly",
    "CREATE TEMP TABLE other (a)",
    "ALTER TABLE hourly ADD COLUMN more",
    "CREATE INDEX quick ON hourly (ds)",
    "CREATE TRIGGER t AFTER INSERT ON hourly BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE f USING fts5(a)",
    "REINDEX",
    "ANALYZE",
    "VACUUM",
    "VACUUM INTO 'stolen.db'",
    "ATTACH 'stolen.db' AS other",
    "ATTACH DATABASE 'file:stolen.db?mode=rwc' AS other",
    "DETACH main",
    "PRAGMA user_version = 7",
    "PRAGMA journal_mode = WAL",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "SELECT * FROM pragma_journal_mode",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "SAVEPOINT here",
    "SELECT 1; DROP TABLE hourly",
    "PRAGMA query_only = OFF; DROP TABLE hourly",
    "COMMIT; DROP TABLE hourly",
    "SELECT load_extension('evil')",
    "SELECT fts3_tokenizer('simple', x'00')",
    "SELECT writefile('stolen.db', 'x')",
]


@pytest.mark.parametrize("query", WRITES)
def test_a_query_that_is_no_reading_is_refused_by_sqlite(
    query: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = bytes_of(tmp_path)
    for address in (f"sqlite:///{file}", f"sqlite:///file:{file}?mode=rwc&uri=true"):
        with pytest.raises(DataError, match=r"Cannot (read from|reach) sqlite.*load\.db"):
            read_sql(address, query)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize(
    "options",
    ["mode=rwc&uri=true", "uri=true&mode=rw", "uri=1&mode=ro", "uri=true&cache=private", "uri=true&mode=ro&mode=rwc"],
)
def test_an_address_cannot_ask_for_more_than_reading(options: str, file: Path, tmp_path: Path) -> None:
    before = bytes_of(tmp_path)
    assert read_sql(f"sqlite:///file:{file}?{options}", QUERY).n_rows == ROWS
    assert bytes_of(tmp_path) == before
    for missing in (f"file:{tmp_path}/new.db?{options}", f"file:{tmp_path}/new.db%3Fmode=rwc?{options}"):
        with pytest.raises(DataError, match="unable to open"):
            read_sql(f"sqlite:///{missing}", QUERY)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize(
    "database",
    ["file:{}/new.db?mode=rwc", "file:{}/new.db?%6dode=rwc", "file:{}/new.db?mode%00=rwc", "file:{}/new.db%00?a=b"],
)
def test_options_inside_of_a_name_are_read_as_options(database: str, tmp_path: Path) -> None:
    for query in ({"uri": "true"}, {"uri": "true", "mode": "rwc"}, {"uri": "true", "%6dode": "rwc"}):
        with pytest.raises(DataError):
            read_sql(sa.URL.create("sqlite", database=database.format(tmp_path), query=query), "CREATE TABLE t (a)")
    assert list(tmp_path.iterdir()) == []


def test_names_with_signs_of_uris_are_names(file: Path, tmp_path: Path) -> None:
    for name in ("load?mode=rwc", "load#1 %41.db", "file:load.db"):
        file.rename(tmp_path / name)
        address = sa.URL.create("sqlite", database=str(tmp_path / name))
        assert read_sql(address, QUERY).n_rows == ROWS
        (tmp_path / name).rename(file)


READS = [
    QUERY,
    "SELECT * FROM loads ORDER BY ds",
    "SELECT ds, sum(load) OVER (ORDER BY ds) AS load FROM hourly ORDER BY ds",
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 52) "
    "SELECT datetime('2024-01-01', i || ' hours') AS ds, i AS load FROM n",
    "SELECT ds, load FROM hourly UNION SELECT ds, load FROM loads ORDER BY ds",
    "SELECT ds, load FROM (SELECT *, abs(load) FROM hourly WHERE ds REGEXP '2024') ORDER BY ds;",
    "SELECT datetime('2024-01-01', value || ' hours') AS ds, value AS load FROM json_each('[0,1,2]') "
    "UNION SELECT datetime('2024-01-01', load || ' hours'), load FROM hourly ORDER BY ds",
    "-- all\nSELECT ds, load FROM hourly ORDER BY ds -- done",
]


@pytest.mark.parametrize("query", READS)
def test_what_reads_is_read(query: str, file: Path) -> None:
    assert read_sql(f"sqlite:///{file}", query).n_rows == ROWS


def test_indexes_of_texts_and_of_space_are_read(file: Path) -> None:
    with sqlite3.connect(file) as base:
        base.execute("CREATE VIRTUAL TABLE notes USING fts5(ds, load)")
        base.execute("INSERT INTO notes SELECT ds, load FROM hourly")
        base.execute("CREATE VIRTUAL TABLE tree USING rtree(id, low, high)")
        base.execute("INSERT INTO tree VALUES (1, 2, 3), (2, 3, 4)")
        base.execute("CREATE TABLE a_node (ds TEXT)")
    base.close()
    assert read_sql(f"sqlite:///{file}", "SELECT id, low FROM tree", time=None).n_rows == 2
    for query in ("DELETE FROM tree", "INSERT INTO a_node VALUES (1)", "UPDATE sqlite_master SET sql = ''"):
        with pytest.raises(DataError):
            read_sql(f"sqlite:///{file}", query)
    assert read_sql(f"sqlite:///{file}", "SELECT ds, CAST(load AS REAL) AS load FROM notes").n_rows == ROWS


def test_a_write_ahead_log_is_read_and_left_alone(file: Path, tmp_path: Path) -> None:
    with sqlite3.connect(file) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO hourly VALUES ('2024-01-03 05:00', 99)")
        writer.commit()
        kept = {name: digest for name, digest in bytes_of(tmp_path).items() if not name.endswith("-shm")}
        assert "load.db-wal" in kept
        panel = read_sql(f"sqlite:///{file}", QUERY)
        assert (panel.n_rows, panel.items[0].values[-1, 0]) == (ROWS + 1, 99)
        after = bytes_of(tmp_path)
        assert {name: after[name] for name in kept} == kept
    writer.close()
    before = file.read_bytes()
    assert read_sql(f"sqlite:///{file}", QUERY).n_rows == ROWS + 1
    assert file.read_bytes() == before


def test_a_log_on_a_medium_that_cannot_be_written_is_no_hindrance(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(file) as base:
        base.execute("PRAGMA journal_mode = WAL")
    base.close()
    before = bytes_of(tmp_path)
    real = os.statvfs(file)
    flags = os.statvfs_result([*list(real)[:8], real.f_flag | os.ST_RDONLY, real.f_namemax, real.f_fsid])
    monkeypatch.setattr(os, "statvfs", lambda path: flags)
    assert read_sql(f"sqlite:///{file}", QUERY).n_rows == ROWS
    assert bytes_of(tmp_path) == before  # opened as immutable: no file appeared beside it


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_databases_in_memory_work(address: str) -> None:
    assert read_sql(address, READS[3]).n_rows == ROWS
    with pytest.raises(DataError):
        read_sql(address, "CREATE TABLE t (a)")


def test_a_shared_database_in_memory_is_read() -> None:
    name = "file:shared?mode=memory&cache=shared"
    keeper = sqlite3.connect(name, uri=True)
    keeper.execute("CREATE TABLE hourly (ds TEXT, load REAL)")
    keeper.executemany("INSERT INTO hourly VALUES (?, ?)", [("2024-01-01", 1), ("2024-01-02", 2)])
    keeper.commit()
    assert read_sql(f"sqlite:///{name}&uri=true", QUERY).n_rows == 2
    with pytest.raises(DataError):
        read_sql(f"sqlite:///{name}&uri=true", "DROP TABLE hourly")
    assert keeper.execute("SELECT count(*) FROM hourly").fetchone() == (2,)
    keeper.close()


def test_recipes_and_jobs_read_only_and_studies_still_write(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    source = {"url": f"sqlite:///file:{file}?mode=rwc&uri=true", "query": "DELETE FROM hourly RETURNING ds, load"}
    for load in (Recipe(data=source).data.load, Job.from_dict({"store": str(tmp_path / "store"), "data": source}).load):
        with pytest.raises(DataError, match="Cannot read from"):
            load()
    assert file.read_bytes() == before
    td.search.create_study("toy", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert (tmp_path / "study.db").stat().st_size > 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT 1; COMMIT", "one statement"),
        ("DROP TABLE hourly", "must begin with SELECT"),
        ("/* SELECT */ DELETE FROM hourly", "must begin with SELECT"),
        ("-- SELECT\n EXEC evil", "must begin with SELECT"),
        ("SELECTED", "must begin with SELECT"),
    ],
)
def test_other_drivers_get_one_statement_that_reads(query: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        refuse_by_text(query)
    for fine in (
        "SELECT 1;",
        " (SELECT 1) UNION (SELECT 2)",
        "-- a\nWITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1)",
    ):
        refuse_by_text(fine)


# --------------------------------------------------------------------------------------------------------- PostgreSQL
POSTGRES_WRITES = [
    "DROP TABLE hourly",
    "DELETE FROM hourly RETURNING ds, load",
    "INSERT INTO hourly VALUES (now(), 1) RETURNING ds, load",
    "WITH gone AS (DELETE FROM hourly RETURNING ds, load) SELECT ds, load FROM gone",
    "SELECT ds, load INTO other FROM hourly",
    "CREATE TABLE other (a int)",
    "TRUNCATE hourly",
    "SELECT ds, load FROM hourly FOR UPDATE",
    "SELECT nextval('counter')",
    "SELECT setval('counter', 99)",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT writes()",
    "CALL writing()",
    "DO $$ BEGIN DELETE FROM hourly; END $$",
    "COPY hourly TO PROGRAM 'touch /tmp/never'",
    "COPY (SELECT 1) TO '/tmp/never'",
    "SET TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "COMMIT",
    "SELECT 1; DROP TABLE hourly",
    "COMMIT; DROP TABLE hourly",
    "SELECT 1; COMMIT; SET default_transaction_read_only = off; DROP TABLE hourly",
    "SET TRANSACTION READ WRITE; DROP TABLE hourly",
    "EXPLAIN ANALYZE DELETE FROM hourly",
    "LOCK TABLE hourly",
    "NOTIFY channel",
    "VACUUM hourly",
]


@pytest.mark.postgres
def test_postgres_reads_and_never_writes(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for command in (
            "CREATE TABLE hourly (ds timestamptz, load numeric(9, 3))",
            "INSERT INTO hourly SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n "
            "FROM generate_series(0, 52) AS n",
            "CREATE SEQUENCE counter",
            "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'DELETE FROM hourly; SELECT 1'",
            "CREATE PROCEDURE writing() LANGUAGE sql AS 'DELETE FROM hourly'",
        ):
            connection.execute(sa.text(command))
    writing = f"{postgres_url}?options=-cdefault_transaction_read_only%3Doff"
    for query in POSTGRES_WRITES:
        for address in (postgres_url, writing):
            with pytest.raises(DataError, match=r"Cannot read from postgresql\+psycopg://127"):
                read_sql(address, query)
    with pytest.raises(DataError):  # done by older servers, and rolled back; refused by newer ones
        read_sql(postgres_url, "SELECT lo_create(4711)")
    with engine.connect() as connection:
        state = connection.execute(
            sa.text(
                "SELECT count(*), (SELECT last_value FROM counter), to_regclass('other') IS NULL, "
                "(SELECT count(*) FROM pg_largeobject_metadata) FROM hourly"
            )
        ).one()
    assert tuple(state) == (ROWS, 1, True, 0)
    setting = "SELECT now() AS ds, (current_setting('default_transaction_read_only') = 'on')::int AS y"
    assert read_sql(writing, f"{setting} UNION ALL SELECT now() + interval '1 hour', 1").items[0].values[0, 0] == 1
    late = "SELECT ds, load FROM hourly WHERE load < :most AND 'a;b' <> '' ORDER BY ds;"
    for address in (postgres_url, writing):
        assert read_sql(address, late, parameters={"most": 29}).n_rows == 29
        assert read_sql(address, "TABLE hourly").n_rows == ROWS


# ------------------------------------------------------------------------------------------------- options of addresses
def test_options_with_unknown_names_are_masked_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = "gh31mnis"
    url = f"postgresql+psycopg://u@h/db?sslmode=require&apikez={secret}&x={secret}2&application_name=load"
    address = sa.make_url(url)
    assert secret not in censored(f"bad option {secret} of {secret}2 in {url}", address)
    assert "require" in censored("require", address)
    assert "cannot be shown" in censored("no 'abc'", sa.make_url("postgresql+psycopg://h/db?x=abc"))
    assert is_harmless("sslmode")
    assert not is_harmless("apikez")
    recipe = Recipe(data={"url": url, "query": "SELECT 1"})
    for text in (recipe.to_toml(), str(recipe.to_dict()), recipe.to_json() if hasattr(recipe, "to_json") else ""):
        assert secret not in text
    assert "sslmode=require" in recipe.to_toml()
    assert "application_name=load" in recipe.to_toml()

    def talkative(address: sa.URL, **options: object) -> None:
        raise RuntimeError(f"cannot use {address.render_as_string(hide_password=False)} with {dict(address.query)!r}")

    monkeypatch.setattr(sa, "create_engine", talkative)
    with pytest.raises(DataError) as caught:
        read_sql(url, "SELECT 1")
    assert secret not in str(caught.value)
    with pytest.raises(td.errors.TsdistillError) as refused:
        Recipe(data={"url": [url], "query": "SELECT 1"})
    assert secret not in str(refused.value)


def test_the_panel_is_the_one_that_was_written(file: Path) -> None:
    frame = wide()
    engine = sa.create_engine(f"sqlite:///{file}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        frame.to_sql("wide", connection, index=False)
    panel = read_sql(f"sqlite:///{file}", "SELECT * FROM wide ORDER BY ds")
    assert panel.channels == td.Panel.from_frame(frame).channels
