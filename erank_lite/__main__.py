"""The command `erank-lite`, which is `python -m erank_lite` too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; nothing is printed where it is interrupted while it still loads."""
    try:
        from erank_lite.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
