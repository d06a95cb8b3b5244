"""Jobs as files and at the shell: what is refused, printed and never written."""

from __future__ import annotations

import errno
import json
import re
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import tsdistill as td
from tests import retraining
from tests.retraining import (
    FIRST,
    SECOND,
    RetrainRuns,
    job,
    same_job,
    served_digest,
    without_controls,
)
from tests.typed import instance_of
from tsdistill import cli
from tsdistill.data import Panel
from tsdistill.errors import ArtifactError, ConfigError, DataError
from tsdistill.recipe import Source
from tsdistill.retrain import Job, Store, Verdict, run_job

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "retrain.md"


@pytest.fixture(scope="module", autouse=True)
def _no_controls() -> Iterator[None]:
    with without_controls():
        yield


def written_job(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


DATA = '[data]\npath = "fresh.csv"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["`store` must be given", "`data` must be given"]),
        ('store = ""\n' + DATA, ["`store` must", "at least 1 character"]),
        ('store = "s"\njugde = 5\n' + DATA, ["`jugde` is not a field of Job. Did you mean `judge`?"]),
        (
            'store = "s"\njudge = 23\n' + DATA,
            ["`judge` must be at least the recipe's horizon of 24 steps, got judge=23"],
        ),
        ('store = "s"\nvalidation = 5\njudge = 5\n' + DATA, ["`judge` must be", "`validation` must be"]),
        ('store = "s"\nkeep_runs = 0\nseed = -1\n' + DATA, ["2 problems", "`keep_runs` must", "`seed` must"]),
        ('store = "s"\nrecipe = "none.toml"\n' + DATA, ["Cannot read", "none.toml"]),
        ('store = "s"\nrecipe = 5\n' + DATA, ["`recipe` must"]),
        ('store = "s"\n' + DATA + "[recipe]\nteacher = 5\n", ["In recipe.teacher: "]),
        ('store = "s"\n' + DATA + "[recipe]\nschema_version = 9\n", ["`recipe.schema_version` must be 1"]),
        ('store = "s"\ndata = "postgresql://me:s3cret@host/db"\n', ["`data` must be a table"]),
        ('store = "s"\n[data]\nurl = ["postgresql://me:s3cret@host/db"]\nquery = "q"\n', ["`url` must be text"]),
        ('store = "s"\n[data]\nurl = "postgresql://me:s3cret@host/db"\n', ["`url` and `query` must be given together"]),
        ('store = "s"\n[data]\npath = "a"\nurl = "x://me:s3cret@host/db"\nquery = "q"\n', ["exactly one of dataset"]),
        (
            'store = "s"\n' + DATA + "[gate]\nmin_improvement = 1.0\n",
            ["In gate.min_improvement: `min_improvement` must be less than 1"],
        ),
        (
            'store = "s"\n' + DATA + "[gate]\nmargin = 0.1\nmin_improvement = 0.1\n",
            ["`margin` must not be given together"],
        ),
    ],
)
def test_a_bad_job_is_refused_with_every_problem(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Job.from_file(written_job(tmp_path, text))
    for word in [*words, "job.toml"]:
        assert word in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_paths_of_a_job_are_relative_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "my.toml").write_text('[data]\ndataset = "nyc-weather"\n[task]\nhorizon = 11\n')
    text = 'store = "../s"\nrecipe = "../my.toml"\n' + DATA
    monkeypatch.chdir("/")
    read = Job.from_file(written_job(tmp_path / "deep", text))
    assert Path(read.store).resolve() == tmp_path / "s"
    assert read.data == read.recipe.data == Source(path=str(tmp_path / "deep" / "fresh.csv"))
    assert read.recipe.task.horizon == 11
    assert Job.from_toml(read.to_toml()) == read


@pytest.mark.parametrize(
    ("as_of", "changes", "words"),
    [
        ("soon", {}, ["`stamp` must be a time, got stamp='soon'"]),
        ("1999-01-01", {}, ["must not lie before all data"]),
        (
            "2024-01-03",
            {},
            ["must have at least 148 rows", "(36 to train on, 59 to select by, 53 to judge by), got 49"],
        ),
        (None, {"data": Source(path="nowhere.csv")}, ["Cannot read nowhere.csv"]),
        (None, {"data": Source(path="{csv}", time="when")}, ["must name a column of the frame, got time='when'"]),
    ],
)
def test_data_that_cannot_be_used_ends_in_a_verdict_and_an_error(
    after: RetrainRuns, tmp_path: Path, as_of: str | None, changes: dict[str, Any], words: list[str]
) -> None:
    if "data" in changes:
        path = str(changes["data"].path).format(csv=after.folder / "fresh.csv")
        changes = {"data": changes["data"].replace(path=path)}
    with pytest.raises(DataError) as caught:
        run_job(same_job(after, tmp_path, **changes), as_of=as_of)
    verdict = Verdict.from_file(tmp_path / "store" / "last-verdict.json")
    assert (verdict.decision, verdict.error, verdict.reason) == ("failed", "DataError", str(caught.value))
    assert Store(tmp_path / "store").history() == (verdict,)
    for word in words:
        assert word in str(caught.value)


def test_data_without_stamps_is_refused(after: RetrainRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Panel.from_frame(retraining.frame()[["load", "wind"]], time=None)
    monkeypatch.setattr(Source, "load", lambda self: bare)
    with pytest.raises(DataError, match="needs data with time stamps"):
        run_job(same_job(after, tmp_path))


def test_what_a_disk_refuses_is_an_artifact_error(
    after: RetrainRuns, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tsdistill.files.os.replace", full)
    with pytest.raises(ArtifactError, match=r"No space left on device\. Make room"):
        run_job(same_job(after, copy), as_of=SECOND)
    assert served_digest(copy / "store") == after.second.scores["candidate"].model


def shell(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["tsdistill", *words])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    try:
        cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_a_job_prints_one_line(
    after: RetrainRuns, copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy / "job.json"
    path.write_text(same_job(after, copy).to_json())
    command = ("retrain", str(path), "--as-of", SECOND)
    assert shell(monkeypatch, *command) == 0
    out, err = capfd.readouterr()
    assert (len(out.splitlines()), err) == (1, "")
    assert out.startswith("kept (as of 2024-01-16T11:00:00+00:00): The candidate is the incumbent itself")
    assert shell(monkeypatch, *command, "--exit-code", "--json", "--quiet") == 3
    out, err = capfd.readouterr()
    assert (json.loads(out)["decision"], err) == ("kept", "")
    assert shell(monkeypatch, "rollback", str(copy / "store")) == 0
    assert capfd.readouterr().out.startswith("rolled-back: models/20240115T070000Z-")
    assert shell(monkeypatch, "rollback", str(copy)) == 5


def test_an_error_is_one_paragraph_and_an_exit_code(
    after: RetrainRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.json"
    path.write_text(same_job(after, tmp_path).to_json())
    assert shell(monkeypatch, "retrain", str(path), "--as-of", "never") == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: `stamp` must be a time")
    assert shell(monkeypatch, "retrain", str(tmp_path / "none.toml")) == 2


def everything_in(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return b"\n".join(str(path).encode() + path.read_bytes() for path in files)


PASSWORD = "tr0ub&dor/3"


DOWN = [
    "postgresql+psycopg://job:tr0ub%26dor%2F3@127.0.0.1:9/load",
    "postgresql+psycopg://127.0.0.1:9/load?user=job&password=tr0ub%26dor%2F3",
]


@pytest.mark.parametrize("url", DOWN)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_database_that_is_down_gives_one_clear_error_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str, by_variable: bool
) -> None:
    monkeypatch.setenv("LOAD_DATABASE", url)
    url = "env:LOAD_DATABASE" if by_variable else url
    path = tmp_path / "job.toml"
    path.write_text(f'store = "store"\n[data]\nurl = "{url}"\nquery = "SELECT * FROM hourly ORDER BY ds"\n')
    assert shell(monkeypatch, "retrain", str(path)) == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "Cannot read from postgresql+psycopg://127.0.0.1:9/load" in err
    output = everything_in(tmp_path / "store") + err.encode()
    for form in (PASSWORD, "tr0ub", "%2F3"):
        assert form.encode() not in output
    assert Store(tmp_path / "store").history()[0].error == "DataError"


@pytest.mark.postgres
@pytest.mark.parametrize("form", ["user:password", "?password="])
def test_a_job_from_a_database_leaves_its_password_nowhere(
    tmp_path: Path,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    form: str,
) -> None:
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    retraining.frame().to_sql("hourly", engine, index=False)
    address = sa.make_url(postgres_url)
    password = str(address.password)
    assert len(password) > 8
    if form == "?password=":
        query = {"user": str(address.username), "password": password}
        address = sa.URL.create(address.drivername, None, None, address.host, address.port, address.database, query)
    data = Source(url=address.render_as_string(hide_password=False), query="SELECT * FROM hourly ORDER BY ds")
    made = job(tmp_path, data=data)
    caplog.set_level(0)
    verdict = run_job(made, as_of=FIRST)
    assert verdict.decision == "promoted", verdict
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE hourly DROP COLUMN wind, ADD COLUMN wind text"))
    with pytest.raises(DataError) as caught:
        run_job(made, as_of=SECOND)
    written = made.to_toml()
    output = "".join([*capfd.readouterr(), caplog.text, str(caught.value), repr(made), written])
    assert password not in output
    assert password.encode() not in everything_in(tmp_path / "store")
    (tmp_path / "job.toml").write_text(written)
    if form == "user:password":
        # What was written cannot be run as it is, and says so.
        assert shell(monkeypatch, "retrain", str(tmp_path / "job.toml")) == 2
        assert "must hold its password, but it was struck out" in capfd.readouterr().err


def test_the_guides_job_files_and_commands_are_real(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    jobs = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    assert len(jobs) >= 2
    for block in jobs:
        assert Job.from_file(written_job(tmp_path, block)).store == str(tmp_path / tomllib.loads(block)["store"])
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer_commands().items()
    }
    commands = re.findall(r"tsdistill (retrain|rollback) ([^\n`|]*)", text)
    assert len(commands) >= 4
    for name, rest in commands:
        assert set(re.findall(r"--[a-z-]+", rest)) <= options[name]


def typer_commands() -> dict[str, Any]:
    import typer.main
    from typer.core import TyperGroup

    return dict(instance_of(TyperGroup, typer.main.get_command(cli.app)).commands)


def test_what_is_served_has_learnt_from_the_newest_rows_but_those_that_judge_it(tmp_path: Path) -> None:
    retraining.write_csv(tmp_path / "fresh.csv")
    with retraining.without_controls():
        verdict = run_job(retraining.job(tmp_path), as_of=retraining.FIRST)
    assert verdict.current is not None
    served = td.load(tmp_path / "store" / verdict.current)
    assert [step.verb for step in served.lineage] == ["distill", "refit", "export"]
    assert not verdict.notes


def test_a_job_may_leave_validation_rows_alone(tmp_path: Path) -> None:
    retraining.write_csv(tmp_path / "fresh.csv")
    with retraining.without_controls():
        verdict = run_job(retraining.job(tmp_path, refit=False), as_of=retraining.FIRST)
    assert verdict.current is not None
    assert "refit" not in [step.verb for step in td.load(tmp_path / "store" / verdict.current).lineage]


def test_a_teacher_without_forecasts_of_those_rows_leaves_a_note(tmp_path: Path) -> None:
    retraining.write_csv(tmp_path / "fresh.csv")
    job = retraining.job(tmp_path)
    members = {"kind": "ensemble", "members": [job.recipe.teacher, job.recipe.teacher], "weights": "best-per-window"}
    job = job.replace(recipe=job.recipe.replace_at({"teacher": members}))
    with retraining.without_controls():
        verdict = run_job(job, as_of=retraining.FIRST)
    assert verdict.decision == "promoted"
    assert "was not fitted again on the validation rows" in " ".join(verdict.notes)
