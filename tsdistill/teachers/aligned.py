"""Where the windows of a task lie in another task over the same series: by item, and by what is forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsdistill.data.panel import Item
from tsdistill.data.task import Task, Windows
from tsdistill.errors import DataError, listed
from tsdistill.teachers.places import Places, on_time_line

SAME = 1e-6
"""Relative difference of values that are the same: files round otherwise."""


@dataclass(frozen=True)
class Alignment:
    """The rows of a task's panel, found again in the panel of a teacher's own task.

    Args:
        task: Whose windows are looked for.
        own_task: Where.
        items: Position in the own panel of each item of the task's, -1 for one that is not there, (item,).
        shifts: Row within the own item less the row within the task's item, (item,).
    """

    task: Task
    own_task: Task
    items: np.ndarray
    shifts: np.ndarray

    @classmethod
    def of(cls, task: Task, own_task: Task) -> Alignment:
        """Align two tasks.

        Raises:
            DataError: an item has other stamps or other values in the two panels, or the own task trains or validates
                on rows that belong to a later part of the task; or no item is in both. All problems come in one error.
        """
        places = {item.unique_id: place for place, item in enumerate(own_task.panel.items)}
        n_items = len(task.panel.items)
        items, shifts, problems = np.full(n_items, -1), np.zeros(n_items, dtype=np.int64), []
        for number, item in enumerate(task.panel.items):
            place = places.get(item.unique_id)
            if place is None:
                continue
            items[number] = place
            own_item = own_task.panel.items[place]
            if own_item is not item:
                shift, problem = _shift(item, own_item)
                shifts[number] = shift
                problem = problem or _other_values(task, own_task, number, place, shift)
                if problem:
                    problems.append(f"item {item.unique_id!r}: {problem}")
                    continue
            cut, own_cut = task.borders[number], own_task.borders[place]
            for part, end, own_end in (
                ("train", cut.train, own_cut.train),
                ("validation", cut.validation, own_cut.validation),
            ):
                if own_end - shifts[number] > end:
                    problems.append(
                        f"item {item.unique_id!r}: the {part} part of `own_task` must end no later than that of the "
                        f"task, got {own_end - shifts[number] - end} rows more. Give both the same split."
                    )
        if not (items >= 0).any():
            problems.append("`own_task` must have items of the task, got none. Make it of the same series.")
        if problems:
            raise DataError(listed(problems, "`own_task`"))
        return cls(task, own_task, items, shifts)

    def starts(self, windows: Windows) -> np.ndarray:
        """First row in the own panel of each window of the task, (window,); -1 where the own task has no such window.

        A window and its own one forecast the same steps; what they see before them differs.
        """
        offsets, own_offsets = Places(self.task).offsets, Places(self.own_task).offsets
        rows = windows.starts.numpy().astype(np.int64)
        number = np.searchsorted(offsets, rows, side="right") - 1
        # The row within the own item at which the target begins.
        origins = rows - offsets[number] + self.task.context + self.shifts[number]
        first = origins - self.own_task.context
        lengths = np.array([len(item) for item in self.own_task.panel.items])
        items = self.items[number]
        inside = (items >= 0) & (first >= 0) & (origins + self.own_task.horizon <= lengths[items])
        return np.where(inside, own_offsets[items] + first, -1)


def _shift(item: Item, own_item: Item) -> tuple[int, str | None]:
    """Row of a stamp in the own item less that in the task's; and why there is none."""
    if item.ds is None or own_item.ds is None:
        if item.ds is None and own_item.ds is None and len(item) == len(own_item):
            return 0, None
        rows = "has stamps in one of the two panels only" if (item.ds is None) != (own_item.ds is None) else None
        rows = rows or f"has no stamps, and {len(own_item):,} rows in `own_task` where the task has {len(item):,}"
        return 0, f"it {rows}, so that nothing says which rows belong together. Give both panels stamps."
    if (item.ds.tz is None) != (own_item.ds.tz is None):
        return 0, "its stamps have a time zone in one of the two panels only. Read both with the same time_zone."
    stamps, own_stamps = on_time_line([item.ds]), on_time_line([own_item.ds])
    shift = int(np.searchsorted(own_stamps, stamps[0])) - int(np.searchsorted(stamps, own_stamps[0]))
    begin, end = max(0, -shift), min(len(stamps), len(own_stamps) - shift)
    if begin >= end or not np.array_equal(stamps[begin:end], own_stamps[begin + shift : end + shift]):
        return 0, "its stamps are others in the two panels. Make both of the same series with the same frequency."
    return shift, None


def _other_values(task: Task, own_task: Task, number: int, place: int, shift: int) -> str | None:
    """Which channels have other values in the own panel; None where all are the same."""
    values, own_values = task.values(number), own_task.values(place)
    begin, end = max(0, -shift), min(len(values), len(own_values) - shift)
    columns = [own_task.channels.index(name) for name in task.channels]
    same = np.isclose(values[begin:end], own_values[begin + shift : end + shift][:, columns], rtol=SAME, atol=0)
    if same.all():
        return None
    names = [name for name, alike in zip(task.channels, same.all(axis=0), strict=True) if not alike]
    return f"the values of {', '.join(map(repr, names))} are others in the two panels. Make both of the same values."
