"""Reads a large set of pictures with Ray from a bare checkout; installed, it is the command `robustscanner-batch`."""

import sys

from robustscanner.batch import main

if __name__ == "__main__":
    sys.exit(main())
