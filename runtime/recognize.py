"""Reads pictures from a bare checkout; installed, the same program is the command `robustscanner`."""

import sys

from robustscanner.recognize import main

if __name__ == "__main__":
    sys.exit(main())
