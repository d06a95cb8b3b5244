"""Kept outputs of a teacher are compared with the teacher itself, on a few windows and once a run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Windows
from tsdistill.errors import ArtifactError
from tsdistill.teachers.base import Teacher

N_CHECKED = 5
"""Windows that are asked again."""

SAME = 0.01
"""Part of its spread by which a part may differ (root mean square): machines and half precision round otherwise."""

_checked: dict[str, Callable[[], object]] = {}
"""The teacher that each file was last written or compared with."""


def mark_checked(path: str, teacher: Teacher) -> None:
    """Remember that a file holds what this very teacher gives."""
    try:
        _checked[path] = weakref.ref(teacher)
    except TypeError:  # an object that cannot be referred to is compared each time
        _checked.pop(path, None)


def is_checked(path: str, teacher: Teacher) -> bool:
    """Whether a file was written by this very object, or compared with it, in this process."""
    return path in _checked and _checked[path]() is teacher


def check_kept(
    kept: Mapping[str, Tensor],
    teacher: Teacher,
    windows: Windows,
    ask: Callable[[Batch], Mapping[str, Tensor]],
    place: str,
) -> None:
    """Refuse kept parts that are not what the teacher gives.

    Args:
        kept: Parts by name, (window, ...).
        teacher: Whose outputs they should be.
        windows: The windows they belong to.
        ask: The same parts of a batch, computed now.
        place: Where they are kept, for the message.

    Raises:
        ArtifactError: they differ, or have another shape.
    """
    index = torch.linspace(0, len(windows) - 1, min(N_CHECKED, len(windows))).long()
    live = ask(windows.batch(index))
    for name, part in live.items():
        stored = kept[name][index].float()
        if stored.shape != part.shape:
            difference = f"have shape {tuple(stored.shape[1:])} for a window, and not {tuple(part.shape[1:])}"
        else:
            same = torch.isnan(stored) & torch.isnan(part)
            gap = float(torch.where(same, 0.0, stored - part).square().mean().sqrt())
            live_part = part[~torch.isnan(part)]
            size = float(live_part.square().mean().sqrt())
            allowed = SAME * float(live_part.std(correction=0)) + 1e-3 * size + 1e-6
            if gap <= allowed or not live_part.numel():
                continue
            difference = f"differ by {gap:.2g} (root mean square; {allowed:.2g} would be rounding)"
        kind = type(getattr(teacher, "module", getattr(teacher, "regressor", teacher))).__name__
        raise ArtifactError(
            f"The teacher outputs in {place} are not those of this teacher ({kind}, digest {teacher.digest}): its "
            f"`{name}` of {len(index)} windows {difference}. Another teacher wrote them, or this one computes "
            "otherwise now, in a way that its digest cannot see. Give each version of a teacher a name of its own, "
            'td.wrap(..., name="version 2"), use another cache folder, or remove what is kept: `tsdistill cache clean`.'
        )
