"""Fresh data against the profile of what the incumbent was trained on, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tsdistill import manifest as manifests
from tsdistill.data import Panel
from tsdistill.data.split import in_zone
from tsdistill.errors import ArtifactError, ConfigError, DataError
from tsdistill.files import write_atomic
from tsdistill.formats import parse_json, read_regular
from tsdistill.quality import DataProfile, DataReport, SuspectRows, check_data, profile_of, reordered, suspect_rows
from tsdistill.quality.profile import newest_item
from tsdistill.retrain.job import Cut, Job
from tsdistill.retrain.judging import Served
from tsdistill.retrain.store import MAX_BYTES, Store

ACCEPTED = "accepted-data.json"


class Inspected(NamedTuple):
    """Data that was looked at.

    Args:
        panel: The data, its channels in the incumbent's order.
        report: What the gate saw.
        suspects: Rows of each item that are no truth to judge by.
        notes: What was put right, and what could not be compared.
    """

    panel: Panel
    report: DataReport
    suspects: list[SuspectRows] | None
    notes: list[str]


class Reference(NamedTuple):
    """What fresh data is compared with, whether it is of the same data, and a remark on it."""

    profile: DataProfile
    is_own: bool
    notes: list[str]


def inspect(
    panel: Panel, job: Job, cut: Cut, served: Served, accepted: tuple[str | None, DataProfile] | None, as_of: Any
) -> Inspected:
    """Check a job's data.

    Args:
        panel: The data.
        job: Its gate for data.
        cut: Where the judging windows begin.
        served: The incumbent.
        accepted: What was served when data was last accepted by hand without a promotion, and its profile.
        as_of: The time that was asked for.
    """
    reference = _reference(panel, cut, served, accepted)
    notes = list(reference.notes)
    channels = reference.profile.channels
    if set(panel.channels) == set(channels) and panel.channels != channels and job.data_gate.columns != "off":
        panel = reordered(panel, channels)
        notes.append("The columns came in another order and were put into that of the incumbent.")
    now = None
    if as_of is not None and (ds := newest_item(panel).ds) is not None:
        now = in_zone(pd.Timestamp(as_of), ds)
    report = check_data(
        panel, reference.profile, job.data_gate, now=now, as_of=as_of is not None, is_first=reference.is_own
    )
    notes += [str(finding) for finding in report.findings if finding.rule == "warn"][:5]
    comparable = panel.channels == channels
    suspects = suspect_rows(panel, reference.profile, job.data_gate) if comparable else None
    return Inspected(panel, report, suspects, notes)


def _reference(panel: Panel, cut: Cut, served: Served, accepted: tuple[str | None, DataProfile] | None) -> Reference:
    if accepted is not None and accepted[0] == served.folder:
        return Reference(accepted[1], False, [])
    if served.model is None:
        return Reference(profile_of(panel.until(cut.seen_until)), True, [])
    kept = served.details.get("profile")
    if kept is not None:
        try:
            return Reference(DataProfile.from_dict(kept), False, [])
        except (ConfigError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"The profile of the data in {served.folder} cannot be used: {error} Roll back, or retrain into "
                "another store."
            ) from None
    until = served.details.get("judged_until") or served.details.get("seen_until")
    note = "The incumbent keeps no profile of its data"
    try:
        profile = profile_of(panel.until(until)) if until is not None else None
    except DataError:
        profile = None
    if profile is not None:
        return Reference(profile, False, [f"{note}; it was made from the rows until {until} as they are now."])
    own = profile_of(panel.until(cut.seen_until))
    return Reference(own, True, [f"{note}, and the rows it saw are gone: the data was compared with itself."])


def profile_at(path: str | Path) -> DataProfile:
    """The profile in a JSON file, a promoted model's folder, or of what a store serves.

    Raises:
        ArtifactError: there is none.
        ConfigError: it is no profile, or one of a newer version.
    """
    place = Path(path)
    if place.is_file():
        return DataProfile.from_file(place)
    folder = place / "current" if (place / "store.json").is_file() else place
    details = manifests.read(folder)[0].metrics.get("retrain")
    kept = details.get("profile") if isinstance(details, dict) else None
    if not isinstance(kept, dict):
        raise ArtifactError(
            f"{folder} keeps no profile of its data: only models that a retraining job has promoted do. Write one with "
            "tsdistill check-data FILE --save-profile PROFILE."
        )
    return DataProfile.from_dict(kept)


def accept_profile(store: Store, profile: DataProfile) -> None:
    """Keep what data was accepted by hand while the served model stayed: the next job compares with it."""
    content = {"current": store.served(), "profile": json.loads(profile.to_json())}
    write_atomic(store.folder / ACCEPTED, json.dumps(content))


def accepted_profile(store: Store) -> tuple[str | None, DataProfile] | None:
    """What was served when data was last accepted so, and the data's profile."""
    path = store.folder / ACCEPTED
    if not path.exists():
        return None
    try:
        content = parse_json(read_regular(path, MAX_BYTES))
        return content["current"], DataProfile.from_dict(content["profile"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path} cannot be read: {error} Remove it.") from None
