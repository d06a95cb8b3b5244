"""Names from files never act on a terminal or forge a line of a log: they are shown as Python would write them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tsdistill as td
from tests.frames import hours
from tests.tampering import rewrite
from tsdistill.cli import main
from tsdistill.cli.streams import add, console, new_table
from tsdistill.errors import ConfigError, DataError, TsdistillError, listed, must, nearest, printable
from tsdistill.testing import toy_signature

ESCAPE = "\x1b[31mred\x1b]0;title\x07"
EVIL = f"load{ESCAPE}\nerror: forged\r\u202eback\x9b2J"
ACTING = ("\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2028", "\nerror: forged")
MARKUP = "[red]load[/red] [link=http://x] :smile:"


def acts(text: str) -> list[str]:
    return [sign for sign in ACTING if sign in text]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("load", "load"),
        ("Größe in °C, \u6e29\u5ea6, \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645, 😀",) * 2,
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[2J\x9b1m\x7f", r"\x1b[2J\x9b1m\x7f"),
        ("a\u202eb\u2066c\u200fd", r"a\u202eb\u2066c\u200fd"),
        ("a\u2028b\u2029c\x85d\x0b\x0c", r"a\u2028b\u2029c\x85d\x0b\x0c"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("\udcff.csv", r"\udcff.csv"),
        (Path("a\nb"), r"a\nb"),
        ("tag\U000e0041", r"tag\U000e0041"),
    ],
)
def test_what_acts_is_made_visible_and_what_is_read_stays(text: object, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


def test_every_error_can_be_printed() -> None:
    kinds: list[Any] = [ConfigError, *TsdistillError.__subclasses__()]
    for kind in kinds:
        for message in (
            f"Column `{EVIL}` is unknown. {nearest(EVIL, [EVIL + 'x'])}",
            must(EVIL, f"be {EVIL}", EVIL, EVIL),
            listed([f"`{EVIL}` is odd.", EVIL], EVIL),
            listed([EVIL], "the data"),
        ):
            assert acts(str(kind(message))) == [], kind
            assert acts(str(kind(f"{EVIL} was made elsewhere: {kind(message)}"))) == []
    problems = [f"`{name}` must be whole." for name in ("a\n  - forged", "b")]
    assert str(ConfigError(listed(problems, "the data"))).count("\n") == 2


def frames() -> dict[str, Any]:
    stamps = hours()
    numbers = np.arange(len(stamps), dtype=float)
    return {
        "text in a column": pd.DataFrame({"ds": stamps, EVIL: "x"}),
        "a gap in a column": pd.DataFrame({"ds": stamps, EVIL: np.where(numbers == 9, np.nan, numbers)}),
        "a gap of an item": pd.DataFrame({"unique_id": EVIL, "ds": stamps, "y": numbers}).drop(index=7),
        "unsorted": pd.DataFrame({"unique_id": EVIL, "ds": stamps[::-1], "y": numbers}),
        "twice": pd.DataFrame({"unique_id": EVIL, "ds": [stamps[0]] * len(stamps), "y": numbers}),
        "no such column": pd.DataFrame({EVIL: stamps, "y": numbers}),
    }


@pytest.mark.parametrize("case", frames())
def test_names_in_tables_are_shown_safely(case: str) -> None:
    with pytest.raises(DataError) as caught:
        td.Panel.from_frame(frames()[case])
    assert acts(str(caught.value)) == []


def test_headers_and_names_of_files_are_shown_safely(tmp_path: Path) -> None:
    for text in (f'ds,"{EVIL}"\n2024-01-01,x\n2024-01-02,y\n', f'"{EVIL}",y\n2024-01-01,1\n', f'"{EVIL}";b\n1;2\n'):
        with pytest.raises(DataError) as caught:
            td.read_csv(io.StringIO(text))
        assert acts(str(caught.value)) == []
    for read in (td.read_csv, td.read_parquet, td.load, td.verify if hasattr(td, "verify") else td.load):
        with pytest.raises(TsdistillError) as refused:
            read(tmp_path / EVIL.replace("/", ""))
        assert acts(str(refused.value)) == []


@pytest.mark.parametrize("name", [EVIL, MARKUP])
def test_unknown_fields_and_kinds_are_shown_safely(name: str) -> None:
    for make in (
        lambda: td.LSTMConfig(**{name: 1}),
        lambda: td.Recipe.from_dict({name: 1}) if hasattr(td, "Recipe") else td.LSTMConfig(**{name: 1}),
        lambda: td.recipe.Recipe.from_dict({"student": {"model": {"kind": name}}}),
        lambda: td.Pruning(ratio=0.5, criterion=name),
        lambda: td.datasets.load(name),
    ):
        with pytest.raises(TsdistillError) as caught:
            make()
        assert acts(str(caught.value)) == []


def test_what_a_driver_says_is_shown_safely(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        td.data.read_sql("sqlite://", f'SELECT * FROM "{EVIL}"')
    assert acts(str(caught.value)) == []


def artifact(folder: Path) -> Path:
    return td.save(td.export(td.models.SeasonalNaiveConfig(period=24).build(toy_signature())), folder)


class Shell:
    """The command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        self.monkeypatch.setattr(sys, "argv", ["tsdistill", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as left:
            code = left.code
        output = self.capsys.readouterr()
        return code, output.out, output.err


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


def test_the_shell_shows_names_safely(tmp_path: Path, shell: Shell) -> None:
    folder = artifact(tmp_path / "model")
    name = EVIL.replace("/", "")
    (folder / name).write_text("x")
    epoch = {"epoch": 1, "step": 1, "validation_mse": 1.0, f"loss_{EVIL}": 1.0, f"loss_{MARKUP}": EVIL}
    (tmp_path / f"{name}.history.jsonl").write_text(f"{json.dumps(epoch)}\n")
    done = {
        "verify": shell("verify", "model"),
        "verify --json": shell("verify", "model", "--json"),
        "history": shell("history", f"{name}.history.jsonl"),
        "missing": shell("verify", name),
        "predict": shell("predict", "model", name),
        "option": shell(f"--{name}"),
        "plugin": shell("--plugin", name, "datasets"),
        "set": shell("run", "--set", f"{name}=1"),
        "cache": shell("cache", name),
    }
    for case, result in done.items():
        assert acts(f"{result[1]}\n{result[2]}") == [], case
        assert result[1] + result[2] != "", case
    assert (done["verify"][0], done["history"][0]) == (0, 0)
    assert "[red]load" in done["history"][1].replace("\n", "").replace(" ", "")
    rewrite(folder, lambda manifest: manifest.update({EVIL: 1}))
    assert acts(shell("verify", "model")[2]) == []


def test_forecasts_keep_their_names_for_other_programs(tmp_path: Path, shell: Shell) -> None:
    frame = pd.DataFrame({"ds": hours(), ESCAPE: np.arange(53.0), MARKUP: np.arange(53.0)})
    task = td.Task(td.Panel.from_frame(frame), context=5, horizon=2)
    td.save(td.export(td.models.SeasonalNaiveConfig(period=5).build(task.signature)), tmp_path / "model")
    frame.to_csv(tmp_path / "data.csv", index=False)
    result = shell("predict", "model", "data.csv")
    assert result[0] == 0, result[2]
    assert list(pd.read_csv(io.StringIO(result[1])).columns[-2:]) == [ESCAPE, MARKUP]


def test_a_terminal_gets_forecasts_with_visible_names(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"ds": hours(), ESCAPE: np.arange(53.0)})
    task = td.Task(td.Panel.from_frame(frame), context=5, horizon=2)
    td.save(td.export(td.models.SeasonalNaiveConfig(period=5).build(task.signature)), tmp_path / "model")
    frame.to_csv(tmp_path / "data.csv", index=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, shown, _ = shell("predict", "model", "data.csv")
    assert (code, acts(shown)) == (0, [])
    assert r"\x1b[31mred" in shown


def test_markup_in_tables_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table("name", MARKUP)
    add(table, (MARKUP, EVIL))
    console(wide=True).print(table)
    shown = capsys.readouterr().out
    assert shown.count("[red]load[/red] [link=http://x] :smile:") == 2
    assert acts(shown) == []


def test_progress_shows_names_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tsdistill.progress import open_bar

    monkeypatch.setenv("COLUMNS", "200")
    with open_bar(f"{MARKUP} {EVIL}", 3, show=True) as bar:
        bar.note(f"[bold]{EVIL}")
        bar.advance()
    shown = capsys.readouterr().err
    assert acts(shown.replace("\x1b[?25l", "").replace("\x1b[?25h", "")) == []


def test_reports_plans_and_verdicts_show_names_safely() -> None:
    from tsdistill.pruning.planning import Plan, PlanRow
    from tsdistill.quantization.judging import table
    from tsdistill.retrain.gate import Verdict

    values: list[Any] = [EVIL if field == "group" else 1 for field in PlanRow.__dataclass_fields__]
    row = PlanRow(*values)
    plan = Plan(rows=(row,), kept={}, ratio=0.5, n_parameters=(2, 1), macs=(2, 1), notes=(EVIL,))
    rows: list[dict[str, Any]] = [
        {"name": EVIL, "refused": [EVIL]},
        {
            "name": "float32",
            "increase": 0.0,
            "worst_increase": 0.0,
            "worst": EVIL,
            "refused": [],
            "float_layers": [EVIL],
            "mse": 1.0,
            "graph_bytes": 1,
        },
    ]
    verdict = Verdict(time="2024-01-01T00:00:00", decision="failed", reason=EVIL, notes=(EVIL,))
    for text in (str(plan), table(rows, "float32"), str(verdict)):
        assert acts(text) == []
    panel = td.Panel.from_frame(pd.DataFrame({"ds": hours(), "y": np.sin(np.arange(53.0))}), name=EVIL)
    task = td.Task(panel, context=5, horizon=2)
    report = td.compare({EVIL: td.train(td.LinearConfig(), task), MARKUP: td.train(td.LinearConfig(), task)}, task)
    assert acts(str(report)) == []
    assert "[red]load" in str(report)
