"""Stamps and identifiers that stand in many rows are read once, and as if each were read by itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsdistill.tables import dates
from tsdistill.tables.columns import items_of
from tsdistill.tables.roles import Place

STAMPS = pd.date_range("2024-01-01", periods=40, freq="D")
FORMS = {
    "iso": [f"{stamp:%Y-%m-%d}" for stamp in STAMPS],
    "german": [f" {stamp:%d.%m.%Y} " for stamp in STAMPS],
    "compact": [f"{stamp:%Y%m%d}" for stamp in STAMPS],
    "zoned": [f"{stamp:%Y-%m-%dT%H:%M}+01:00" for stamp in STAMPS],
    "quarters": [f"{1990 + number // 4}Q{number % 4 + 1}" for number in range(40)],
    "ambiguous": [f"0{number % 3 + 1}/0{number // 3 + 1}/2024" for number in range(9)],
    "broken": [*(f"{stamp:%Y-%m-%d}" for stamp in STAMPS[:-1]), "never"],
    "short years": ["Jan-01", "Jan-02"],
}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("dtype", ["str", "object", "category"])
def test_texts_that_repeat_read_as_each_by_itself(kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = FORMS[kind] * 60
    cells[7] = None  # type: ignore[call-overload]
    column = pd.Series(cells, dtype=dtype)
    outcomes = []
    for few in (1000, 10**9):
        monkeypatch.setattr(dates, "FEW", few)
        problems: list[str] = []
        outcomes.append((dates.read(column, "ds", dates.DateForm(), problems), problems))
    (stamps, order), problems = outcomes[0]
    (expected, wanted), others = outcomes[1]
    assert stamps is not None
    assert expected is not None
    pd.testing.assert_index_equal(stamps, expected)
    assert (order, problems) == (wanted, others)
    assert bool(stamps.isna()[7])


@pytest.mark.parametrize("dtype", ["str", "string", "object", "category"])
def test_identifiers_in_runs_are_told_apart_as_in_any_order(dtype: str) -> None:
    texts: list[str | None] = np.repeat(["b", "a", "c", "b"], [3, 1, 5, 2]).tolist()
    texts[5] = None
    cells = pd.Series(texts, dtype=dtype)
    problems: list[str] = []
    names, code = items_of(Place(cells, "id"), problems, len(cells))
    assert (names, code.tolist()) == (("b", "a", "c", "?"), [0, 0, 0, 1, 2, 3, 2, 2, 2, 0, 0])
    assert len(problems) == 1
