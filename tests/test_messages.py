"""Every message is made of whole sentences: none goes on after its full stop."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import tsdistill

SOURCES = sorted(Path(tsdistill.__file__).parent.rglob("*.py"))

ENDED = "\0"
"""Stands for what a call puts in that ends with a full stop of its own."""

SENTENCES = {"must", "nearest", "listed"}

GOES_ON = re.compile(rf"{ENDED} ?[a-z,;:.)]|(?<![./])\.\.(?![./])|[a-z]\. [a-z]\w+ (must|only|is|are|has|was)\b")


def written(node: ast.AST) -> str:
    """A message as far as the source says it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "x"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    if isinstance(node, ast.FormattedValue):
        return written(node.value) if isinstance(node.value, ast.Call) else "x"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return written(node.left) + written(node.right)
    return ENDED if isinstance(node, ast.Call) and getattr(node.func, "id", "") in SENTENCES else "x"


def broken(source: str) -> list[str]:
    """Messages that go on after their end, and remedies that begin with a small letter."""
    tree = ast.parse(source)
    remedies = [
        node.args[3]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "must" and len(node.args) == 4
    ]
    messages = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.BinOp)]
    small = [text for text in map(written, remedies) if re.match(r"[a-z]\w+ ", text)]
    return small + [text for text in map(written, messages) if GOES_ON.search(text)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_message_goes_on_after_its_full_stop(path: Path) -> None:
    assert broken(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "f\"{must('source', 'be one', 1, 'The student has one token')} only: leave it out.\"",
        "f\"{nearest('a', known)}, or leave it out.\"",
        "must('a', 'be one', 1, 'the smaller one is better')",
        "f'{name} is wrong.. Mend it.'",
        "f'The {name} must be small. it is large.'",
    ],
)
def test_the_search_finds_what_is_broken(source: str) -> None:
    assert broken(source)
