"""What programs make of errors and signals."""

import os
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("lines", [1, 100_000])  # some are written when the program ends only
def test_a_reader_that_has_had_enough_is_no_error(lines: int) -> None:
    code = f"""
import sys
from robustscanner.program import exit_status
sys.stdin.read()
sys.exit(exit_status(lambda: print("line\\n" * {lines})))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 1)


def test_another_pipe_that_breaks_is_an_error() -> None:
    def fail() -> None:
        raise BrokenPipeError("of a socket")

    with pytest.raises(BrokenPipeError, match="of a socket"):
        exit_status(fail)
