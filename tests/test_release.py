"""What a release promises about its parts: digests of the pinned files, a list of them, and a page on security."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tsdistill

ROOT = Path(tsdistill.__file__).resolve().parents[1]


def test_every_pinned_version_has_a_digest() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "packages" / "hashes.py"), "--check"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    digests = (ROOT / "constraints-hashes.txt").read_text()
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}$", digests, re.MULTILINE)) == len(pinned) - 1  # torch


def test_the_page_on_security_speaks_of_what_there_is() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    for name in ("constraints-hashes.txt", "Makefile", "CHANGELOG.md"):
        assert (ROOT / name).is_file()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", page):
        assert f"\n{target}:" in makefile, target
    for words in ("wholeness, not origin", "Queries only read", "Plug-ins are code", "Reporting"):
        assert words in page
