"""Time zones and daylight saving: stamps read on a place's clock, and clock changes explained, never guessed."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from dataclasses import replace

import numpy as np
import pandas as pd

from tsdistill.errors import must
from tsdistill.tables.frequency import HOUR, mode
from tsdistill.tables.rows import SHOWN, TRAINED, Advice, Rows, several, shown_stamps


def zone_of(time_zone: str | dt.tzinfo | None, problems: list[str]) -> dt.tzinfo | None:
    """The zone with a name; an unknown name is a problem."""
    if time_zone is None or isinstance(time_zone, dt.tzinfo):
        return time_zone
    try:
        return zoneinfo.ZoneInfo(time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        problems.append(must("time_zone", "be an IANA name", time_zone, "Write Europe/Berlin, UTC or the like"))
        return None


def zone_text(zone: str | dt.tzinfo) -> str | None:
    """The name that `zone_of` makes the same zone of; None for one without such a name."""
    name = str(zone)
    return name if zone_of(name, []) is not None else None


def localise(rows: Rows, zone: dt.tzinfo, time: str, problems: list[str]) -> Rows:
    """Stamps in a zone: converted when they have one, read on that place's clock when they have none."""
    assert rows.ds is not None
    if rows.ds.tz is not None:
        return replace(rows, ds=rows.ds.tz_convert(zone))
    parts = []
    absent = []
    ambiguous = []
    for number in range(len(rows.names)):
        part = rows.ds[rows.of(number)]
        try:
            parts.append(part.tz_localize(zone, ambiguous="infer"))
        except ValueError:
            # Which stamps are wrong: first those that the clock skipped, then those it showed twice.
            known = np.zeros(len(part), dtype=bool)
            skipped = part.tz_localize(zone, ambiguous=known, nonexistent="NaT").isna()
            twice = part.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward").isna()
            absent += list(part[skipped])
            ambiguous += [] if skipped.any() else list(part[twice])
            parts.append(part.tz_localize(zone, ambiguous=known, nonexistent="shift_forward"))
    if absent:
        problems.append(
            f"`{time}` holds {several(len(absent), 'time')} that no clock in {zone} showed, as it was put forward for "
            f"daylight saving: {shown_stamps(absent)}. The stamps are in another zone: name that one in time_zone=."
        )
    if ambiguous:
        problems.append(
            f"`{time}` holds {several(len(ambiguous), 'time')} that clocks in {zone} showed twice, as they went back, "
            f"without both rounds in order: {shown_stamps(ambiguous)}. Which is meant is ambiguous: give stamps in "
            "UTC or with offsets."
        )
    stamps = np.concatenate([part.asi8 for part in parts]).view(f"M8[{rows.ds.unit}]")
    return replace(rows, ds=pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(zone))


def unfold(rows: Rows, time: str, filled: bool, advice: Advice = TRAINED) -> tuple[Rows, str | None, str | None]:
    """Explain clock changes in stamps without a zone, and undo them, so that later checks do not report them again."""
    ds = rows.ds
    assert ds is not None
    if ds.tz is not None or len(ds) < 2:
        return rows, None, None
    steps = np.diff(ds.asi8)
    inside = rows.inside
    hour = HOUR * {"us": 1_000_000, "ns": 1_000_000_000}[ds.unit]
    forward_steps = steps[inside & (steps > 0)]
    if not len(forward_steps) or hour % mode(forward_steps):
        return rows, None, None
    step = mode(forward_steps)
    # Looked at as dates only where a step is an hour longer or shorter: reading dates takes time.
    odd = inside & ((steps == step + hour) | (steps == step - hour))
    if not odd.any():
        return rows, None, None
    after = ds[1:]
    at_change = inside & np.asarray((after.hour <= 4) & (after.day_of_week == 6))
    put_forward = at_change & (steps == step + hour) & np.asarray(after.month.isin([3, 4, 9, 10]))
    put_back = at_change & (steps == step - hour) & np.asarray(after.month.isin([10, 11, 3, 4]))
    jumps = np.flatnonzero(put_forward | put_back)
    months = pd.DataFrame({"item": rows.code[1:][jumps], "month": after[jumps].strftime("%Y-%m")})
    if not len(jumps) or months.duplicated().any():
        return rows, None, None
    examples = [f"{ds[i]} -> {ds[i + 1]}" for i in jumps[:SHOWN]]
    shown = ", ".join(examples) + (", ..." if len(jumps) > SHOWN else "")
    if filled and not put_back.any():
        note = f"filled as gaps, though they may be local clocks put forward: {shown}"
        return rows, None, note
    shift = np.concatenate([[0], np.cumsum(hour * (put_back.astype(np.int64) - put_forward.astype(np.int64)))])
    starts = rows.bounds[:-1]
    shift = shift - np.repeat(shift[starts], np.diff(rows.bounds))
    problem = (
        f"`{time}` jumps by an hour in {several(len(jumps), 'spring or autumn night')} ({shown}): it looks like local "
        f"time with daylight saving, where an hour is missing in spring and one stands twice in autumn. {advice.zones}"
    )
    return replace(rows, ds=pd.DatetimeIndex((ds.asi8 + shift).view(f"M8[{ds.unit}]"))), problem, None
