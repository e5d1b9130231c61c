"""``python -m tvb`` and the script ``tvb``: the command itself."""

from __future__ import annotations

import os
import sys

from tvb import _tvb


def main() -> int:
    """Runs the command on the process's arguments; answers its exit code."""
    quiet = _tvb.quiet_driver()
    if quiet is not None:
        os.environ[quiet[0]] = quiet[1]
    return _tvb.command(["tvb", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
