"""`python -m robustscanner`: the program that reads pictures, where its command is not on the PATH."""

import sys

from robustscanner.recognize import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m robustscanner"))
