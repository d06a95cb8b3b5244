"""One word one meaning, files that can be read at one sitting, and the field's words instead of our own."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tsdistill"
LONGEST = 400
"""Lines of a file."""

DIALECT = (
    r"kitchen",
    r"cook(s|ed|ing)?",
    r"mentors?",
    r"nightly",
    r"loud",
    r"burden",
    r"crew",
    r"deafen",
    r"last deed",
    r"made up for",
    r"take[-_]it",
    r"of ours",
)
"""Words that a reader would have to learn."""

NAMELESS = {"found", "told", "said", "how", "each", "ours", "theirs"}
"""What says nothing of a value: a name says what it is (`score`, `spec`, `path`, `options`, `expected`)."""

MOVED = ROOT / "docs" / "moved-0.1-to-0.2.md"
"""The page that lists names of version 0.1, whatever they were."""

ALIAS = re.compile(r' +"\w+": "tsdistill\.[\w.]+",$')
"""A line that says where a name of version 0.1 has moved to."""


def python_files() -> list[Path]:
    return [path for folder in ("tsdistill", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST} == {}


def test_code_and_documents_use_the_words_of_the_field() -> None:
    pattern = re.compile(rf"(?<![\w-])({'|'.join(DIALECT)})(?![\w-])", re.IGNORECASE)
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    spoken = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in [*python_files(), *documents]
        if path not in (Path(__file__), MOVED)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := pattern.search(line) or pattern.search(line.replace("_", " "))) and not ALIAS.match(line)
    ]
    assert spoken == []


def name_given(node: ast.AST) -> str | None:
    """The name that a node of a program gives to something: a value, an argument, a function, a class."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return name
        case ast.alias(asname=str(name)):
            return name
    return None


def test_a_value_is_named_by_what_it_is() -> None:
    folders = ("tsdistill", "tests", "experiments", "packages", "examples", "datasets")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name}"
        for path in [*paths, ROOT / "conftest.py"]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (name := name_given(node)) in NAMELESS
    ] == []


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "self.found = 1",
        "[each for each in x]",
        "for each, other in x: pass",
        "def f(*, how): pass",
        "def f(**how): pass",
        "lambda said: 1",
        "def told(): pass",
        "class told: pass",
        "with x as ours: pass",
        "import x as theirs",
        "(found := 1)",
        "match x:\n  case [1, *said]: pass",
        "try: pass\nexcept E as told: pass",
    ],
)
def test_every_way_to_give_a_name_is_seen(source: str) -> None:
    assert {name_given(node) for node in ast.walk(ast.parse(source))} & NAMELESS


def test_one_place_says_what_is_significant() -> None:
    places = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if re.search(
            r"^(SIGNIFICANT|SIGNIFICANCE|LEVEL|ALPHA)\w* = 0\.05$", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    assert places == ["evaluation/significance.py"]
