"""`python -m tsdistill.cli` is `tsdistill`."""

from __future__ import annotations

from tsdistill.cli import main

if __name__ == "__main__":
    main()
