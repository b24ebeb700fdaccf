"""Serves words over HTTP from a bare checkout; installed, the same program is the command `robustscanner-serve`."""

import sys

from robustscanner.serve import main

if __name__ == "__main__":
    sys.exit(main())
