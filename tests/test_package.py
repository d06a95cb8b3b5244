"""What is in the project's files and in what is shipped: sizes, forbidden calls, the wheel's contents."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tsdistill

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "tsdistill").rglob("*.py"))
MAX_LINES = 400
FOLDERS = ("tsdistill", "tests", "docs", "datasets", "experiments", "packages", "examples", ".ci")
TEXTS = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".j2", ".json", ".csv", ".cfg", ""}

# What could run a stranger's code while reading a file.
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "pd.read_pickle"}
FORBIDDEN_ARGUMENTS = {"allow_pickle"}
MACHINE_PATHS = re.compile(r"/(?:home|Users|root|work)/\w|[A-Z]:\\Users")
HOSTS = re.compile(r"files\.pythonhosted|pypi\.org/simple|--(?:extra-)?index-url|--find-links")


def project_texts() -> Iterator[Path]:
    """Every text file of the project, whether or not this is a git checkout."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXTS and path.name != ".git")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in TEXTS and "__pycache__" not in path.parts:
                yield path


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def called(tree: ast.AST) -> Iterator[str]:
    """Names of everything a file calls, as written."""
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


def passed(tree: ast.AST) -> Iterator[str]:
    """Names of keyword arguments that are given anything but False."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg and ast.unparse(node.value) != "False":
            yield node.arg


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level packages a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def forbidden_in(source: str) -> list[str]:
    tree = ast.parse(source)
    modules, calls = FORBIDDEN_MODULES & set(imported(tree)), FORBIDDEN_CALLS & set(called(tree))
    return sorted(modules | calls | (FORBIDDEN_ARGUMENTS & set(passed(tree))))


def test_files_are_short() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: n_lines for name, n_lines in lengths.items() if n_lines >= MAX_LINES} == {}


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [relative(path) for path in SOURCES if drawers & {*path.relative_to(ROOT).parts, path.stem}] == []


def test_nothing_executes_what_it_reads() -> None:
    calls = {relative(path): forbidden_in(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: what for name, what in calls.items() if what} == {}


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("eval('1')", ["eval"]),
        ("import torch\ntorch.load('x')", ["torch.load"]),
        ("np.load('x', allow_pickle=True)", ["allow_pickle"]),
        ("model.eval()\nnp.load('x', allow_pickle=False)", []),
    ],
)
def test_the_search_for_executing_calls_finds_them(source: str, calls: list[str]) -> None:
    assert forbidden_in(source) == calls


def test_no_file_names_a_path_of_one_machine_or_a_registry_host() -> None:
    here = [str(ROOT)] if len(ROOT.parts) > 2 else []
    files = []
    for path in project_texts():
        text = path.read_text(encoding="utf-8")
        if MACHINE_PATHS.search(text) or HOSTS.search(text) or any(name in text for name in here):
            files.append(relative(path))
    # This file holds the patterns themselves.
    assert [name for name in files if name != relative(Path(__file__).resolve())] == []


def test_the_pinned_versions_name_no_local_build() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    assert pins == sorted(pins, key=lambda pin: pin.lower().replace("_", "-"))


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["dev"], *extras["parquet"], *extras["postgres"], *extras["huggingface"]]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.split("==")[0]) for line in lines if not line.startswith("#")}
    names = {normal(re.split(r"[\[<>=~! ]", name)[0]) for name in asked}
    assert names - pinned == {"tsdistill"}


def normal(name: str) -> str:
    """A distribution's name in the one spelling that all its spellings mean."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"## [{tsdistill.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built with the installed backend (no network)."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob(f"tsdistill-{tsdistill.__version__}-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [p for p in (ROOT / "tsdistill").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {relative(path) for path in data} <= names
    assert {"tsdistill/py.typed", "tsdistill/cli/__main__.py"} <= names
    assert any(name.startswith("tsdistill/data/sample/") for name in names)
    assert any(name.startswith("tsdistill/report/") and name.endswith(".html.j2") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"tsdistill", f"tsdistill-{tsdistill.__version__}.dist-info"}


@pytest.mark.slow
def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    (sdist,) = built.glob(f"tsdistill-{tsdistill.__version__}.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "tests/conftest.py"}
    assert needed <= names
    assert [name for name in names if name.split("/")[0] in {"experiments", "demo", ".venv", ".git"}] == []
