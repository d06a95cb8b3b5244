"""Output that nobody reads to its end: exit code 141, no traceback, and never a success."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tsdistill as td
from tsdistill.testing import toy_signature

TSDISTILL = [sys.executable, "-m", "tsdistill.cli"]


def without_reader(arguments: list[str], stream: str) -> tuple[int, str]:
    """Exit code, and what the other stream holds, of a command whose `stream` is a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    try:
        done = subprocess.run([*TSDISTILL, *arguments], timeout=120, text=True, **streams)
    finally:
        os.close(writing)
    return done.returncode, done.stderr or done.stdout or ""


LONG = """
from tsdistill.cli import app, main, streams
from tsdistill.cli.options import Json

@app.command()
def long(as_json: Json = False) -> None:
    if as_json:
        streams.show("x" * 300_000)
        return
    table = streams.new_table("number")
    for number in range(2000):
        streams.add(table, (str(number) * 20,))
    streams.console(wide=True).print(table)

main()
"""
"""The command line with a command that prints more than a pipe holds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history whose lines are more than a pipe holds, and a deployed model."""
    folder = tmp_path_factory.mktemp("pipes")
    epochs = ({"epoch": number, "step": number, "validation_mse": 1.0} for number in range(1, 2001))
    (folder / "long.history.jsonl").write_text("".join(f"{json.dumps(epoch)}\n" for epoch in epochs))
    (folder / "long.py").write_text(LONG)
    td.save(td.export(td.models.SeasonalNaiveConfig(period=24).build(toy_signature())), folder / "model")
    return folder


@pytest.mark.parametrize(
    ("arguments", "stream"),
    [
        (["datasets"], "stdout"),
        (["datasets", "--json"], "stdout"),
        (["--help"], "stdout"),
        (["--version"], "stdout"),
        pytest.param(["history", "long.history.jsonl"], "stdout", marks=pytest.mark.slow),
        pytest.param(["history", "long.history.jsonl", "--json"], "stdout", marks=pytest.mark.slow),
        pytest.param(["cache", "."], "stdout", marks=pytest.mark.slow),
        (["verify", "model", "--json"], "stdout"),
        (["verify", "nothing"], "stderr"),
        (["--nonsense"], "stderr"),
    ],
)
def test_a_pipe_that_nobody_reads_ends_with_141(
    arguments: list[str], stream: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert without_reader(arguments, stream) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["long.py", "long"],
        ["long.py", "long", "--json"],
        pytest.param(["-m", "tsdistill.cli", "history", "long.history.jsonl"], marks=pytest.mark.slow),
        pytest.param(["-m", "tsdistill.cli", "history", "long.history.jsonl", "--json"], marks=pytest.mark.slow),
    ],
)
def test_output_that_is_cut_in_the_middle_is_no_success(arguments: list[str], unbuffered: str, folder: Path) -> None:
    command = f"{sys.executable} {' '.join(arguments)} | head -c 9; echo ${{PIPESTATUS[0]}}"
    variables = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120, env=variables
    )
    assert (done.stdout[9:].strip(), done.stderr) == ("141", "")


def test_output_that_is_read_to_its_end_is_a_success(folder: Path) -> None:
    command = f"{' '.join(TSDISTILL)} datasets | cat | tail -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "0"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(folder: Path) -> None:
    for arguments in (["datasets"], ["--version"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*TSDISTILL, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, cwd=folder
            )
        assert done.returncode == 5
        assert done.stderr.startswith("error: No space left on device")
        assert len(done.stderr.splitlines()) == 1
