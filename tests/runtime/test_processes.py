"""A recognizer in forked and spawned processes, in threads, pickled and copied; what a process leaves behind."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from fake_model import ROOT, picture_of

from robustscanner import Reading, Recognizer, SessionOptions

TIMEOUT_S = 60  # for a machine that is busy; nothing here needs a second
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# What a child does after a fork; then it ends as any process does, destructors included.
FORKING = """
import os, sys
from robustscanner import Recognizer, SessionOptions
engine, picture, how = sys.argv[1:]
recognizer = Recognizer(engine, options=SessionOptions(threads=2))
recognizer.read(picture)
child = os.fork()
if child == 0:
    if how == "read":
        print(recognizer.read(picture).text)
    elif how == "close":
        recognizer.close()
    elif how == "new":
        with Recognizer(engine, options=SessionOptions(threads=2)) as other:
            print(other.read(picture).text)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(recognizer.read(picture).text)
"""


@needs_fork
@pytest.mark.parametrize("how", ["read", "close", "new", "exit"])
def test_forked_child_ends(how: str) -> None:
    engine = ROOT / "tests" / "tiny" / "tiny.onnx"  # its convolutions use the threads
    command = [sys.executable, "-c", FORKING, str(engine), str(ROOT / "calib_data" / "demo" / "01.jpg"), how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(set(result.stdout.split())) == 1  # parent and child read the same


def answer(recognizer: Recognizer, end: Connection) -> None:
    """Of the other process."""
    end.send(recognizer.read(picture_of("dog")))
    recognizer.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # this process has threads, as servers have
def test_multiprocessing(engine: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"needs {method}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "runtime"), str(ROOT / "tests" / "runtime")]))
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    with Recognizer(engine, options=SessionOptions(threads=2)) as recognizer:
        process = context.Process(target=answer, args=(recognizer, there))
        process.start()
        assert here.poll(TIMEOUT_S)
        assert here.recv() == Reading("dog", 0.5)
        process.join(TIMEOUT_S)
        assert process.exitcode == 0
        assert recognizer.read(picture_of("cat")).text == "cat"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])
def test_copies_open_the_engine_again(
    engine: Path, again: Callable[[Recognizer], Recognizer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(engine.parent)
    options = SessionOptions(threads=1, spinning=False)
    with Recognizer(engine.name, batch_size=3, options=options) as recognizer:
        monkeypatch.chdir(tmp_path)  # where the relative path leads nowhere
        with again(recognizer) as other:
            recognizer.close()
            assert other.read(picture_of("dog")) == Reading("dog", 0.5)
            assert (other._batch_size, other._options) == (3, options)


def test_threads_share_one(engine: Path) -> None:
    words = [f"{a}{b}c" for a in "abcdef" for b in "abcdef"]
    with Recognizer(engine) as recognizer, ThreadPoolExecutor(8) as threads:
        readings = threads.map(lambda word: recognizer.read(picture_of(word)).text, words)
        assert list(readings) == words


def test_nothing_is_sent_or_left_behind(engine: Path, tmp_path: Path) -> None:
    """A home that was empty is empty after a reading, unless the user asked for telemetry."""
    code = "import sys, os; from robustscanner import Recognizer; print(os.environ['ORT_DISABLE_TELEMETRY']);"
    code += "Recognizer(sys.argv[1]).read(sys.argv[2])"
    command = [sys.executable, "-c", code, str(engine), str(ROOT / "calib_data" / "demo" / "01.jpg")]
    unset = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "runtime")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert result.stdout.split() == ["1"]
    assert list(tmp_path.iterdir()) == []
    environment["ORT_DISABLE_TELEMETRY"] = "0"
    environment["CI"] = "1"  # it is not switched on in a test after all
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert result.stdout.split() == ["0"]
