"""Where the items of a panel are cut into parts, and which interpolated values are held before those borders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from tsdistill.data.repair import Hold, holds
from tsdistill.data.split import PARTS, Borders, Split, spans
from tsdistill.errors import DataError

if TYPE_CHECKING:
    from tsdistill.data.panel import Panel


class Cuts(NamedTuple):
    """Borders of all items, how many items have no windows in a part, by note name, and what is wrong."""

    borders: list[Borders]
    n_skipped: dict[str, int]
    problems: list[str]


def cut_items(
    panel: Panel,
    split: Split,
    context: int,
    horizon: int,
    scaler: Literal["standard", "item"] | None,
    short: Literal["refuse", "skip"],
) -> Cuts:
    """Cut every item of a panel; items that are too short for a window of a part are a problem, or are counted."""
    length = context + horizon
    borders = []
    problems = []
    n_windowed = dict.fromkeys(PARTS, 0)
    for item in panel.items:
        try:
            cut = split.borders(len(item.values), item.ds)
        except DataError as error:
            if short != "skip" or split.by_dates:
                problems.append(f"item {item.unique_id!r}: {error}")
                continue
            cut = Borders(0, 0, 0)
        for part, begin, end in spans(cut, context):
            n_rows = max(end - max(begin, 0), 0)
            n_windowed[part] += n_rows >= length
            if short == "refuse" and (begin < 0 or n_rows < length):
                problems.append(
                    f"item {item.unique_id!r} has {n_rows} rows for the {part} part (context included), fewer than "
                    f"context + horizon = {length}. Use a shorter context or horizon, more data, or another split; "
                    'short="skip" leaves such parts out.'
                )
        if scaler == "item" and cut.test > 0 and cut.train < 2:
            problems.append(
                f"item {item.unique_id!r} has {cut.train} rows to train on, and a scaler of its own needs 2. Use "
                'scaler="standard", another split, or leave the item out.'
            )
        borders.append(cut)
    if short == "skip":
        problems += [
            f"no item has the context + horizon = {length} rows that a window of the {part} part needs. Use a "
            "shorter context or horizon, more data, or another split."
            for part in PARTS
            if not n_windowed[part]
        ]
    n_items = len(panel.items)
    n_skipped = {f"n_items_without_{part}": n_items - n for part, n in n_windowed.items() if 0 < n < n_items}
    return Cuts(borders, n_skipped, problems)


def held_values(panel: Panel, borders: list[Borders]) -> tuple[list[list[Hold]], list[str]]:
    """What is held in each item, so that interpolation tells no part about the next one; and what is wrong."""
    held = []
    problems = []
    for item, cut in zip(panel.items, borders, strict=True):
        item_holds: list[Hold] = []
        if item.marks is not None and panel.notes.get("fill") == "interpolate":
            for border in (cut.train, cut.validation):
                border_holds, unfillable = holds(item.values, item.marks, border)
                item_holds += border_holds
                problems += [
                    f"channel {panel.channels[channel]!r} of item {item.unique_id!r} has no observed value "
                    f"before row {border}, where a part of the split ends. Leave the channel out, or split later."
                    for channel in unfillable
                ]
        held.append(item_holds)
    return held, problems
