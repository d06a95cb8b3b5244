"""Telling a lack of memory from other errors: each library says it in words of its own."""

from __future__ import annotations

import errno
import re

TOO_LITTLE_MEMORY = 8
"""Exit code of a command that needed more memory than there is."""

_WORDS = re.compile(
    r"DefaultCPUAllocator|not enough memory|out of memory|can't allocate memory|cannot allocate memory|bad_alloc"
    r"|bad allocation|failed to allocate|unable to allocate|can't start new thread",
    re.IGNORECASE,
)


def lack_of_memory(error: BaseException) -> str | None:
    """A sentence for people when this error, or one behind it, says that memory ran out; else None."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        by_kind = isinstance(link, MemoryError) or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
        if by_kind or _WORDS.search(str(link)):
            reason = (str(link).strip().splitlines() or [""])[0].rstrip(".")[:200]
            return (
                f"There is too little memory for this{f' ({reason})' if reason else ''}. Take a smaller batch_size, "
                "model or context, or a machine with more memory. What is finished is kept: the same command goes on."
            )
        link = link.__cause__ or link.__context__
    return None
