"""The checks of `check_data`, each a generator of sentences and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tsdistill.data.panel import Item
from tsdistill.errors import nearest
from tsdistill.quality.drift import Findings, drift, numbers
from tsdistill.quality.gate import Check, Fresh, span
from tsdistill.quality.profile import (
    LAG,
    PROBABILITIES,
    HistoryBlock,
    SeriesProfile,
    digest,
    newest_item,
    stamps_of,
)
from tsdistill.quality.windows import phases, runs, statistics, window_lengths

CLOCKS_APART = pd.Timedelta(days=1)
"""What stamps without a zone, and clocks, may be ahead."""

SHORTEST_RUN = 8
SEASON = 3
NARROWEST = (2.0, 1.0, 1.0, 0.2)
"""By statistic: how far usual windows are taken to lie apart at least."""


def columns(fresh: Fresh) -> Findings:
    """The same columns."""
    have, want = fresh.panel.channels, fresh.profile.channels
    gone, new = [name for name in want if name not in have], [name for name in have if name not in want]
    if not gone and not new:
        return
    changes = [f"{', '.join(map(repr, names))} {word}" for names, word in ((gone, "gone"), (new, "new")) if names]
    same = [f"By its values, {old!r} is called {name!r} now." for old in gone if (name := _renamed(fresh, old, new))]
    hint = " ".join(same) or (nearest(gone[0], new) if gone and new else "")
    yield f"The columns have changed: {'; '.join(changes)}. {hint}".rstrip(), {"series": (gone or new)[0]}


def _renamed(fresh: Fresh, old: str, new: list[str]) -> str | None:
    """The new column that holds what an old one held, by digests."""
    channel = fresh.profile.channels.index(old)
    for name in new:
        place = fresh.panel.channels.index(name)
        same = [_digest_in(item, block, place) == block.digests[channel] for item, block in _blocks(fresh)]
        if same and np.mean(same) > 0.5:
            return name
    return None


def timing(fresh: Fresh) -> Findings:
    """The same step width and zone."""
    panel, profile = fresh.panel, fresh.profile
    if panel.frequency != profile.frequency:
        yield f"The step width was {profile.frequency}, and is {panel.frequency} now.", {}
    ds = newest_item(panel).ds
    zone = None if ds is None or ds.tz is None else str(ds.tz)
    if zone != profile.zone:
        yield f"The stamps were in the zone {profile.zone}, and are in {zone} now.", {}


def freshness(fresh: Fresh) -> Findings:
    """The newest row is young enough."""
    ds = newest_item(fresh.panel).ds
    if fresh.gate.max_age is None or ds is None:
        return
    age, limit = fresh.now - _utc(ds[-1]), span(fresh.gate.max_age)
    if age > limit:
        hours = age / pd.Timedelta("1h")
        words = f"The newest row, of {ds[-1]}, is {age.floor('min')} old; at most {fresh.gate.max_age} is asked for."
        yield words, {"value": hours, "limit": limit / pd.Timedelta("1h")}


def future(fresh: Fresh) -> Findings:
    """No row is dated later than now."""
    latest = max(fresh.now, pd.Timestamp.now(tz="UTC")) + CLOCKS_APART
    late = [item.ds[-1] for item in fresh.panel.items if item.ds is not None and _utc(item.ds[-1]) > latest]
    if late:
        yield f"Rows are dated up to {max(late)}, which is still to come. Mend the stamps, or name an --as-of.", {}


def _utc(stamp: Any) -> pd.Timestamp:
    return pd.Timestamp(stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC"))


def _blocks(fresh: Fresh) -> Iterator[tuple[Item, HistoryBlock]]:
    """Every block of the profile that the item may still have."""
    items = {item.unique_id: item for item in fresh.panel.items}
    for name, blocks in zip(fresh.profile.items, fresh.profile.blocks, strict=False):
        item = items.get(name)
        if item is not None and item.ds is not None:
            stamps = stamps_of(item)
            yield from ((item, block) for block in blocks if stamps[0] <= block.begins and block.ends <= stamps[-1])


def _rows(item: Item, block: HistoryBlock) -> slice:
    first, end = np.searchsorted(stamps_of(item), [block.begins, block.ends + 1])
    return slice(int(first), int(end))


def _digest_in(item: Item, block: HistoryBlock, channel: int) -> str:
    rows = _rows(item, block)
    return digest(item.values[rows, channel], None if item.marks is None else item.marks[rows, channel])


def vanished(fresh: Fresh) -> Findings:
    """Rows of the profile are still there."""
    items = {item.unique_id: item for item in fresh.panel.items}
    gone = [name for name in fresh.profile.items if name not in items]
    if gone:
        share = len(gone) / len(fresh.profile.items)
        words = f"{len(gone)} of {len(fresh.profile.items)} items are gone: {', '.join(gone[:3])}."
        yield words, {"value": share, "limit": fresh.gate.max_vanished, "minor": share <= fresh.gate.max_vanished}
    ds = newest_item(fresh.panel).ds
    until = None if fresh.profile.until is None else _utc(pd.Timestamp(fresh.profile.until))
    if ds is not None and until is not None and not fresh.as_of and _utc(ds[-1]) < until:
        yield f"The data ends at {ds[-1]}, before the {fresh.profile.until} it once reached.", {}
    observed = sum(
        len(item) if item.marks is None else int((item.marks == 0).any(axis=1).sum()) for item in fresh.panel.items
    )
    before = sum(block.n_observed for blocks in fresh.profile.blocks for block in blocks)
    complete = len(fresh.profile.blocks) == len(fresh.profile.items)
    missing = sum(max(0, block.n_observed - _observed(item, block)) for item, block in _blocks(fresh))
    lost = max(missing, before - observed if complete else 0)
    if before and lost > 0 and not gone and not fresh.as_of:
        share = lost / before
        words = f"{lost:,} rows that were there are gone or filled ({100 * share:.3g} % of {before:,})."
        yield words, {"value": share, "limit": fresh.gate.max_vanished, "minor": share <= fresh.gate.max_vanished}


def _observed(item: Item, block: HistoryBlock) -> int:
    rows = _rows(item, block)
    return rows.stop - rows.start if item.marks is None else int((item.marks[rows] == 0).any(axis=1).sum())


def rewritten(fresh: Fresh) -> Findings:
    """The history says what it said."""
    blocks = list(_blocks(fresh))
    channels = fresh.profile.channels
    if not blocks or len(fresh.panel.channels) != len(channels):
        return
    now = np.array([[_digest_in(item, block, channel) for channel in range(len(channels))] for item, block in blocks])
    then = np.array([block.digests for _, block in blocks])
    shares = (now != then).mean(axis=0)
    changed = np.flatnonzero(shares > 0)
    if not len(changed):
        return
    worst = int(shares.argmax())
    held = [
        f"`{channels[place]}` holds what `{channels[other]}` held"
        for place in changed[:50]
        for other in np.flatnonzero((now[:, place][:, None] == then).mean(axis=0) > 0.5)
        if other != place
    ]
    names = ", ".join(f"`{channels[place]}`" for place in changed[:3]) + (", ..." if len(changed) > 3 else "")
    words = f"The history of {len(changed)} of {len(channels)} channels ({names}) was rewritten, in up to "
    words += f"{100 * shares[worst]:.3g} % of {len(blocks)} blocks"
    words += f": {'; '.join(held[:3])}." if held else f"{_factor(fresh, worst)}."
    limit = fresh.gate.max_rewritten
    yield words, {"series": channels[worst], "value": float(shares[worst]), "limit": limit,
                  "minor": shares[worst] <= limit}  # fmt: skip


def _factor(fresh: Fresh, channel: int) -> str:
    """What a channel's old rows were multiplied by, in words; nothing where that is no one number."""
    places = {name: number for number, name in enumerate(fresh.profile.items)}
    item = fresh.panel.items[0]
    place = places.get(item.unique_id, len(fresh.profile.series))
    if place >= len(fresh.profile.series) or not fresh.first[0]:
        return ""
    then = np.array(fresh.profile.series[place][channel].quantiles[4:-4])
    now = np.quantile(item.values[: fresh.first[0], channel], PROBABILITIES[4:-4])
    for sign, values in ((1, now), (-1, -now[::-1])):
        big = np.abs(then) > 1e-9 * np.abs(then).max(initial=0)
        if big.any() and (factor := float(np.median(values[big] / then[big]))) > 0:
            apart = np.abs(values - factor * then).max() / (np.abs(factor * then).max() or 1)
            if apart < 0.02 and abs(sign * factor - 1) > 0.05:
                return f", as if multiplied by {sign * factor:.4g}"
    return ""


def filled(fresh: Fresh) -> Findings:
    """Share of new cells that were filled."""
    for number, item, channel, series in fresh.profiled():
        if item.marks is None or fresh.first[number] >= len(item):
            continue
        marks = item.marks[fresh.first[number] :, channel]
        share, limit = float((marks > 0).mean()), max(fresh.gate.max_filled, min(2 * series.share_filled, 0.9))
        if share > limit:
            words = f"{fresh.named(item, channel)}: {100 * share:.3g} % of {len(marks):,} new values were filled"
            yield f"{words} (usually {100 * series.share_filled:.3g} %).", numbers(fresh, channel, share, limit)


def longest_allowed(series: SeriesProfile, fresh: Fresh, zeros: bool) -> float:
    """Rows that a run may last."""
    season = window_lengths(fresh.panel.periods)[0]
    usual = series.longest_zeros if zeros else series.longest_run
    return max(fresh.gate.max_stuck * usual, season - 1, SHORTEST_RUN)


def stuck_rows(values: np.ndarray, series: SeriesProfile, fresh: Fresh) -> np.ndarray:
    """Rows of runs that last too long, (row,)."""
    lengths, zero = runs(values), values == 0
    return np.where(
        zero, lengths > longest_allowed(series, fresh, True), lengths > longest_allowed(series, fresh, False)
    )


def stuck(fresh: Fresh) -> Findings:
    """Runs of one value, and of zeros, that reach into the new rows."""
    for number, item, channel, series in fresh.profiled():
        first = fresh.first[number]
        values = item.values[:, channel]
        if first >= len(values):
            continue
        begin = max(0, first - 10 * int(longest_allowed(series, fresh, True) + longest_allowed(series, fresh, False)))
        part = values[begin:]
        given = np.ones(len(part), bool) if item.marks is None else item.marks[begin:, channel] == 0
        rows = stuck_rows(part, series, fresh) & given & (np.arange(begin, len(values)) >= first)
        if not rows.any():
            continue
        worst = int(np.argmax(np.where(rows, runs(part), 0)))
        zeros, length = part[worst] == 0, int(runs(part)[worst])
        usual = series.longest_zeros if zeros else series.longest_run
        words = f"{fresh.named(item, channel)} says {part[worst]:.6g} {length:,} times in a row"
        words += f"{'' if item.ds is None else f', until {item.ds[begin + np.flatnonzero(rows)[-1]]}'}"
        limit = longest_allowed(series, fresh, bool(zeros))
        yield f"{words}; before, at most {usual:,} times.", numbers(fresh, channel, length, limit)


def wild_rows(values: np.ndarray, series: SeriesProfile, gate: Any) -> np.ndarray:
    """Rows whose value, or whose step from the row before, lies far outside of what the profile knows, (row,)."""
    low, high = series.quantiles[0], series.quantiles[-1]
    span = max(high - low, series.scale)
    outside = (values > high + gate.max_spike * span) | (values < low - gate.max_spike * span)
    wide = np.abs(np.diff(values, prepend=values[:1])) > (1 + gate.max_spike) * max(series.largest_step, series.scale)
    return outside | wide


def spikes(fresh: Fresh) -> Findings:
    """Values and steps far outside the range."""
    for number, item, channel, series in fresh.profiled():
        values = item.values[max(fresh.first[number] - 1, 0) :, channel]
        if len(values) < 2 or fresh.first[number] >= len(item):
            continue
        rows = np.flatnonzero(wild_rows(values, series, fresh.gate)[1:]) + 1
        if not len(rows):
            continue
        middle = series.quantiles[len(PROBABILITIES) // 2]
        worst = int(rows[np.abs(values[rows] - middle).argmax()])
        score = abs(values[worst] - middle) / series.scale
        when = "" if item.ds is None else f" at {item.ds[len(item) - len(values) + worst]}"
        words = f"{fresh.named(item, channel)} holds {values[worst]:.6g}{when}, {score:.3g} robust deviations from its "
        words += f"median; it lay between {series.quantiles[0]:.6g} and {series.quantiles[-1]:.6g}"
        words += f" and moved by at most {series.largest_step:.6g}"
        more = f" ({len(rows):,} such rows)" if len(rows) > 1 else ""
        yield f"{words}{more}.", numbers(fresh, channel, float(score), fresh.gate.max_spike)


WORDS = {
    0: "its level is {now:.4g} deviations, {before:.4g} two windows earlier",
    1: "the logarithm of its steps is {now:.4g}, {before:.4g} two windows earlier",
    2: "its roughness is {now:.4g}, {before:.4g} two windows earlier",
}


def jumps(fresh: Fresh) -> Findings:
    """Level, step width and roughness of whole windows."""
    flagged: list[int] = []
    for number, item, channel, series in fresh.profiled():
        hit = _jump(fresh, number, item, channel, series, (0, 1, 2))
        if hit is not None:
            flagged.append(channel)
            yield hit
    if len(flagged) > 1 and len(fresh.panel.items) == 1 and (pairs := _swapped(fresh, sorted(set(flagged)))):
        yield f"Channels look swapped: {'; '.join(pairs[:3])}.", {"minor": True}


def season(fresh: Fresh) -> Findings:
    """The seasonal profile, moved or gone."""
    for number, item, channel, series in fresh.profiled():
        if series.season and (hit := _jump(fresh, number, item, channel, series, (SEASON,))) is not None:
            yield hit


def _jump(
    fresh: Fresh, number: int, item: Item, channel: int, series: SeriesProfile, which: tuple[int, ...]
) -> tuple[str, dict[str, Any]] | None:
    """The first window of the new rows that is unlike all windows of the profile, and unlike those before it."""
    n_new = len(item) - fresh.first[number]
    if n_new <= 0:
        return None
    period = fresh.panel.periods[0] if fresh.panel.periods else 1
    usual_season = np.array(series.season) if series.season else None
    for usual in series.windows:
        n_rows = min(len(item), (-(-n_new // usual.length) + LAG) * usual.length)
        # A season is compared over whole weeks only: a single cloudy day has none.
        checked = [s for s in which if s != SEASON or usual.length > window_lengths(fresh.panel.periods)[0]]
        values = item.values[len(item) - n_rows :, channel]
        place = phases(item.ds, len(item), period)[len(item) - n_rows :]
        measured = statistics(values, usual.length, series.scale, place, usual_season)
        if len(measured) <= LAG:
            continue
        change = measured[LAG:] - measured[:-LAG]
        for s in checked:
            span = max(usual.high[s] - usual.low[s], NARROWEST[s])
            far = (measured[LAG:, s] > usual.high[s] + fresh.gate.tolerance * span) | (
                measured[LAG:, s] < usual.low[s] - fresh.gate.tolerance * span
            )
            sudden = np.abs(change[:, s]) > (1 + fresh.gate.tolerance) * max(usual.jump[s], NARROWEST[s])
            if s == SEASON:
                far &= measured[LAG:, s] < usual.low[s]  # a season that fits better is no fault
            if (hits := np.flatnonzero(far & sudden)).size:
                row = int(hits[0])
                now, before = float(measured[LAG + row, s]), float(measured[row, s])
                words = (
                    f"its season fits by {now:.3g}, at least {usual.low[s]:.3g} is usual"
                    if s == SEASON
                    else WORDS[s].format(now=now, before=before)
                )
                last = len(item) - 1 - (len(change) - 1 - row) * usual.length
                end = "" if item.ds is None else f" that end at {item.ds[last]}"
                sentence = f"{fresh.named(item, channel)}: in the {usual.length} rows{end}, {words}; usual is "
                sentence += f"{usual.low[s]:.4g} to {usual.high[s]:.4g}."
                return sentence, numbers(fresh, channel, now, usual.high[s] if now > usual.high[s] else usual.low[s])
    return None


def _swapped(fresh: Fresh, flagged: list[int]) -> list[str]:
    """Flagged channels whose new rows look like another one's old rows, by the best assignment."""
    from scipy.optimize import linear_sum_assignment

    item, first = fresh.panel.items[0], fresh.first[0]
    old, new = item.values[max(0, 2 * first - len(item)) : first, flagged], item.values[first:, flagged]
    if len(old) < 2 or len(new) < 2:
        return []
    probabilities = [0.1, 0.5, 0.9]
    then, now = np.quantile(old, probabilities, axis=0), np.quantile(new, probabilities, axis=0)
    width = np.maximum(then[2] - then[0], 1e-12)
    cost = (np.abs(now[:, :, None] - then[:, None, :]) / width).sum(axis=0)
    _, partners = linear_sum_assignment(cost)
    names = [fresh.panel.channels[place] for place in flagged]
    return [
        f"`{names[place]}` looks like `{names[other]}`"
        for place, other in enumerate(partners)
        if place != other and cost[place, other] < 0.5 * cost[place, place]
    ]


ALL: dict[str, Check] = {
    "columns": columns,
    "timing": timing,
    "freshness": freshness,
    "future": future,
    "vanished": vanished,
    "rewritten": rewritten,
    "filled": filled,
    "stuck": stuck,
    "spikes": spikes,
    "jumps": jumps,
    "season": season,
    "drift": drift,
}
