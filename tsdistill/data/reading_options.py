"""How a table is read, as data: one definition for Python, recipes, jobs, the shell and the artifacts that keep it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from tsdistill.data.repair import Fill
from tsdistill.spec import Spec


class Reading(Spec):
    """How the table was read that a panel was made of, without its place and its value columns.

    Recipes and jobs give these fields in `[data]`, Python as arguments of `read_csv` and the like, the shell as
    options. A saved model keeps them, so that newer files of the same form are read without naming any of them again.

    Args:
        time: Column of time stamps; None (in files "none") when rows have none.
        id: Column of item identifiers of a long table.
        frequency: Step width as a pandas offset alias; by default the commonest step.
        fill: "interpolate", "forward" or "zero" to fill gaps and missing values, which are refused otherwise.
        time_zone: Zone of stamps that carry none, or to show the others in.
        day_first: Whether 01/02/2024 is the first of February; None refuses dates that can be read both ways.
        time_format: How time stamps are written, such as "%d.%m.%Y %H:%M"; or "s", "ms", "us" or "ns" for numbers that
            count from 1970.
        separator: What stands between the cells of a CSV file.
        decimal: What stands before the decimals of a CSV file.
        encoding: How the text of a CSV file is written.

    Example:
        >>> Reading(time="date", day_first=True).to_dict()
        {'time': 'date', 'day_first': True}
    """

    late: ClassVar[frozenset[str]] = frozenset({"day_first", "time_format", "separator", "decimal", "encoding"})

    time: str | None = "ds"
    id: str | None = None
    frequency: str | None = None
    fill: Fill | None = None
    time_zone: str | None = None
    day_first: bool | None = None
    time_format: str | None = Field(default=None, min_length=1)
    separator: str = Field(default=",", min_length=1)
    decimal: str = Field(default=".", min_length=1, max_length=1)
    encoding: str = Field(default="utf-8", min_length=1)

    @field_validator("time", mode="before")
    @classmethod
    def _no_stamps(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("separator", mode="before")
    @classmethod
    def _tab(cls, value: Any) -> Any:
        return "\t" if value == r"\t" else value  # as a shell and a literal string of TOML write it

    @property
    def reading(self) -> Reading:
        """These fields alone, of a spec that has others too."""
        return Reading(**{name: getattr(self, name) for name in Reading.model_fields})

    @property
    def of_frames(self) -> dict[str, Any]:
        """What `Panel.from_frame` takes."""
        return {
            name: value for name, value in self.of_files.items() if name not in ("separator", "decimal", "encoding")
        }

    @property
    def of_files(self) -> dict[str, Any]:
        """What `read_csv` takes."""
        return {name: getattr(self, name) for name in Reading.model_fields}


class ReadingRecord(Reading):
    """How a panel was read, and which columns were left out of it; panels, models and artifacts keep it.

    Args:
        left_out: Columns that were no series (row numbers, labels of items) or not among `target`; a frame that is
            forecast may have them, too. `day_first` is what the dates showed.

    Example:
        >>> ReadingRecord(time="date", left_out=("Unnamed: 0",)).reading == Reading(time="date")
        True
    """

    late: ClassVar[frozenset[str]] = Reading.late | {"left_out"}

    left_out: tuple[str, ...] = ()
