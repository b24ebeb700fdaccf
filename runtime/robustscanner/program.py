"""What every program of the kit makes of an error: one line on stderr, and an exit status."""

import sys
from collections.abc import Callable

from robustscanner.errors import RobustScannerError

INTERRUPTED = 130  # as shells report Ctrl-C


def exit_status(action: Callable[[], object], *, interrupted: str = "interrupted") -> int:
    """Runs a program's work: 0 when it ends, 1 behind `error: …`, 130 behind what to know after Ctrl-C."""
    try:
        action()
    except RobustScannerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return 0
