"""The largest numbers that fields may hold, stated once: what is beyond them is a slip or an attack, not a wish.

They bound the work that a spec can ask for before any of it is begun, so that a recipe, a `--set`, a space and a saved
model with a million layers are all refused by the same sentence.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MAX_DEPTH = 256
"""Layers or blocks of a model."""

MAX_WIDTH = 65_536
"""Entries of a hidden vector, units of a layer, heads, bins."""

MAX_INNER = 4 * MAX_WIDTH
"""The same of a pair of layers that expand a vector and contract it again."""

MAX_STEPS = 1_000_000
"""Steps of a context, a horizon, a patch, a period or a kernel."""

MAX_COUNT = 1_000_000_000
"""Windows, gradient steps, rows, trials, weights or bytes: numbers that say "at most so many" and make nothing."""

MAX_EPOCHS = 100_000
"""Passes over the training windows."""

MAX_ITEMS = 1_000
"""Entries of a list that a person writes: levels, penalties, losses, addresses."""

MAX_PARAMETERS = 1_000_000_000
"""Weights of a model: 4 GB in float32, and four times that while it is trained."""

MAX_NESTING = 64
"""Levels of tables and lists inside each other."""

LARGEST = 2**63
"""Whole numbers are below this, in either direction: what a file format, a tensor or a database can hold."""

LARGEST_SETTINGS = {
    "n_estimators": 10_000,
    "max_iter": 100_000,
    "max_bins": 255,
    "n_jobs": 256,
    "verbose": 100,
    "n_neighbors": 1_000_000,
}
"""Largest settings of regressors by name: trees, rounds, threads, lines of talk."""

Depth = Annotated[int, Field(ge=1, le=MAX_DEPTH)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
WidthOrZero = Annotated[int, Field(ge=0, le=MAX_WIDTH)]
Inner = Annotated[int, Field(ge=1, le=MAX_INNER)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
StepsOrZero = Annotated[int, Field(ge=0, le=MAX_STEPS)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
Seed = Annotated[int, Field(ge=0, lt=LARGEST)]
