"""The command line: one module per command."""

from __future__ import annotations

import io
import logging
import sys
from typing import NoReturn

from erank_lite.cli.terminal import printable


def main() -> None:
    """Run the command line; the entry point of `erank-lite`. See `EXIT_CODES` in `cli/app.py`."""
    import erank_lite.cli.benchmarks  # noqa: F401  (adds its commands to app)
    from erank_lite.cli.app import UsageError, app, silence_output
    from erank_lite.errors import ErankLiteError

    logging.basicConfig(format="erank-lite: %(message)s", level=logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names from foreign files may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="erank-lite", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except ErankLiteError as error:
        _stop(1, str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except UsageError as error:
        message = error.format_message()
        if message:
            _stop(2, f"{message} (erank-lite --help lists the options)")
        error.show()  # no command at all: the help
        sys.exit(2)
    except OSError as error:
        silence_output()
        _stop(1, f"the output cannot be written: {error.strerror}")
    sys.exit(code)


def _stop(code: int, message: str) -> NoReturn:
    # A name in the message may hold line breaks, or codes that steer the terminal.
    print(f"erank-lite: {printable(message)}", file=sys.stderr)
    sys.exit(code)
