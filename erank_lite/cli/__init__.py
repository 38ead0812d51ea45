"""The command line: one module per command."""

from __future__ import annotations

import logging
import os
import sys


def main() -> None:
    """Run the command line; the entry point of `erank-lite`. See `EXIT_CODES` in `cli/app.py`."""
    from erank_lite.cli.app import app
    from erank_lite.errors import ErankLiteError

    logging.basicConfig(format="erank-lite: %(message)s", level=logging.WARNING)
    try:
        app(prog_name="erank-lite")
    except ErankLiteError as error:
        sys.exit(f"erank-lite: {error}")
    except BrokenPipeError:
        # Nothing more can be written: keep Python from trying again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
