"""What programs make of errors and signals."""

import os
import signal
import threading
from pathlib import Path

import pytest

from robustscanner.errors import RobustScannerError
from robustscanner.output import replacing
from robustscanner.program import TERMINATED, exit_status, heeding_sigterm, unbroken


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> None:
        raise error

    assert exit_status(lambda: None) == 0
    assert exit_status(lambda: fail(RobustScannerError("a; b"))) == 1
    assert exit_status(lambda: fail(KeyboardInterrupt()), interrupted="interrupted; go on with --resume") == 130
    assert exit_status(sigterm, interrupted="interrupted; go on with --resume") == 143
    lines = ["error: a; b", "interrupted; go on with --resume", "terminated; go on with --resume"]
    assert capsys.readouterr().err.splitlines() == lines


def test_sigterm_leaves_nothing_half_written(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "whole.txt") as temporary:
            temporary.write_text("half of it")
            sigterm()

    before = signal.getsignal(signal.SIGTERM)
    assert exit_status(write) == TERMINATED
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_must_not_be_broken_off_ends_first() -> None:
    done = []

    def work() -> None:
        with unbroken():
            sigterm()
            done.append("all of it")
        done.append("more")

    assert exit_status(work) == TERMINATED
    assert done == ["all of it"]


def test_only_the_main_thread_hears_of_signals() -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(exit_status(lambda: None)))
    thread.start()
    thread.join()
    assert statuses == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_just_ends() -> None:
    with heeding_sigterm():
        child = os.fork()
        if child == 0:
            sigterm()
            os._exit(1)  # not reached
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == TERMINATED
