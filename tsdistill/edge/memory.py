"""Which buffers may share memory: each lies where no other lies that is alive at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tsdistill.edge.cells import Buffer


class Statement(NamedTuple):
    """Lines of C, with what they read and write; `@name@` stands for a buffer.

    `replaces`: buffers read number by number in the order of the one that is written, so that it may take their place.
    """

    lines: tuple[str, ...]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    replaces: tuple[Buffer, ...] = ()


class MemoryLayout(NamedTuple):
    """Where each buffer starts, in words, and how many words there are."""

    offsets: dict[str, int]
    n_words: int


def plan(statements: Sequence[Statement], fixed: Sequence[Buffer]) -> MemoryLayout:
    """Lay the buffers out: largest first, each at the lowest place that is free while it lives."""
    lives: dict[Buffer, list[int]] = {}
    for now, statement in enumerate(statements):
        for buffer in (*statement.reads, *statement.writes):
            if buffer not in fixed:
                lives.setdefault(buffer, [now, now])[1] = now
    heirs = _heirs(statements, lives)
    groups: dict[Buffer, list[Buffer]] = {}
    for buffer in lives:
        first = buffer
        while first in heirs:
            first = heirs[first]
        groups.setdefault(first, []).append(buffer)
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[str, int] = {}
    for first in sorted(groups, key=lambda buffer: -buffer.n_words):
        members = groups[first]
        born, dies = lives[members[0]][0], lives[members[-1]][1]
        start, size = 0, first.n_words
        for low, high, begin, end in sorted(placed):
            if begin <= dies and born <= end and low < start + size and start < high:
                start = high
        placed.append((start, start + size, born, dies))
        offsets |= {member.name: start for member in members}
    return MemoryLayout(offsets, max((high for _, high, _, _ in placed), default=0))


def _heirs(statements: Sequence[Statement], lives: dict[Buffer, list[int]]) -> dict[Buffer, Buffer]:
    """Which buffer takes the memory of which: its last reader writes it, number for number."""
    heirs: dict[Buffer, Buffer] = {}
    taken: set[Buffer] = set()
    for now, statement in enumerate(statements):
        for heir in statement.writes:
            for old in statement.replaces:
                free = old in lives and old not in taken and lives[old][1] == now
                if free and heir in lives and heir not in heirs and old.n_words == heir.n_words:
                    heirs[heir] = old
                    taken.add(old)
    return heirs
