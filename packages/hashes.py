"""Writes constraints-hashes.txt: every version of constraints.txt with the SHA-256 of the file that pip takes here.

    python packages/hashes.py            # asks the package index, as `make hashes` does
    python packages/hashes.py --check    # only compares the two files, as `make check` does

For Python 3.11 on Linux x86-64, as the constraints are: on other machines other files fit, whose digests are not here.
torch is left out, since which of its builds fits depends on the machine.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
HASHES = ROOT / "constraints-hashes.txt"
LEFT_OUT = "torch"
HEAD = """\
# The files behind constraints.txt, for Python 3.11 on Linux x86-64; made by `make hashes`. To take these and no others:
#     pip install torch==VERSION (from the index whose build fits, by its own digest)
#     pip install --require-hashes --no-deps -r constraints-hashes.txt
#     pip install --no-deps tsdistill
"""
LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})*)")


def normal(name: str) -> str:
    """A name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(path: Path) -> dict[str, str]:
    """Version by name of every line that is no comment; lines of hashes must hold one."""
    pinned = {}
    for line in path.read_text().splitlines():
        match = LINE.fullmatch(line)
        if match is not None and (path == CONSTRAINTS or match[3]):
            pinned[normal(match[1])] = match[2]
        elif line and not line.startswith("#"):
            sys.exit(f"{path.name}: cannot read {line!r}.")
    pinned.pop(LEFT_OUT, None)
    return pinned


def check() -> None:
    """Exit with the differences, if there are any."""
    wanted, kept = versions(CONSTRAINTS).items(), versions(HASHES).items()
    if differing := sorted({name for name, _ in wanted ^ kept}):
        sys.exit(f"{HASHES.name} must hold the versions of {CONSTRAINTS.name}; run make hashes. {', '.join(differing)}")


def write() -> None:
    """Ask pip which file it would take for each version, without installing any."""
    pinned = [f"{name}=={version}" for name, version in versions(CONSTRAINTS).items()]
    asked = ("install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--report=-")
    report = subprocess.run([sys.executable, "-m", "pip", *asked, *pinned], check=True, capture_output=True, text=True)
    lines = []
    for item in json.loads(report.stdout)["install"]:
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{normal(item['metadata']['name'])}=={item['metadata']['version']} --hash=sha256:{digest}")
    HASHES.write_text(HEAD + "\n".join(sorted(lines)) + "\n")
    check()


if __name__ == "__main__":
    check() if "--check" in sys.argv[1:] else write()
