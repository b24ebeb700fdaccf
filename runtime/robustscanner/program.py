"""What every program of the kit makes of an error: one line on stderr, and an exit status."""

import argparse
import math
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from robustscanner.errors import RobustScannerError

INTERRUPTED = 130  # as shells report Ctrl-C
TERMINATED = 143  # as shells report SIGTERM


class Terminated(BaseException):
    """SIGTERM came. No Exception, as KeyboardInterrupt is none: what is half written is removed on its way out."""


def exit_status(action: Callable[[], object], *, interrupted: str = "interrupted") -> int:
    """Runs a program's work: 0 when it ends, 1 after `error: …`, 130 or 143 when it was told to stop.

    Also 1, without a word, when the reader of its output has had enough, as in `… | head`.
    """
    try:
        with heeding_sigterm():
            action()
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads_stdout():
            raise
        discard_stdout()
        return 1
    except RobustScannerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    except Terminated:
        print(interrupted.replace("interrupted", "terminated", 1), file=sys.stderr)
        return TERMINATED
    return 0


def _nobody_reads_stdout() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are told unasked
    return bool(poll.poll(0))


def discard_stdout() -> None:
    """After a failure to write to it; otherwise the interpreter would flush what is left at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def whole_number(text: str) -> int:
    """A count on a command line, from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def add_sessions(parser: argparse.ArgumentParser | argparse._ArgumentGroup, name: str) -> None:
    """Options of what serves many clients: sessions, under this name, and threads; see `cpu.share_cores`."""
    help_ = "sessions side by side (default: one for each core here, at most 8; on a GPU 1)"
    parser.add_argument(name, type=whole_number, metavar="N", help=help_)
    help_ = "CPU threads of each (default: the cores are shared)"
    parser.add_argument("--threads", type=whole_number, metavar="N", help=help_)


def number_between(low: float, high: float, what: str) -> Callable[[str], float]:
    """Takes numbers of a command line within bounds; others are «not» what is wanted."""

    def take(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return number

    return take


@dataclass
class _Sigterm:
    held: bool = False  # what must not be broken off goes on
    came: bool = False  # meanwhile


_sigterm = _Sigterm()


@contextmanager
def heeding_sigterm() -> Iterator[None]:
    """Turns the first SIGTERM into `Terminated`; others are ignored, so that they cannot break off the tidying up."""
    owner = os.getpid()

    def raise_once(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker has nothing to tidy up
            os._exit(TERMINATED)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _sigterm.came = True
        if not _sigterm.held:
            raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, raise_once)
    except ValueError:  # not in the main thread, where alone Python hears of signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _sigterm.came = False


@contextmanager
def unbroken() -> Iterator[None]:
    """What is inside ends before a SIGTERM becomes `Terminated`."""
    _sigterm.held = True
    try:
        yield
    finally:
        _sigterm.held = False
    if _sigterm.came:
        raise Terminated
