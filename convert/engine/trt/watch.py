"""Keeps an eye on long builds: shows how far they are, and lets Ctrl-C end them."""

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

Result = TypeVar("Result")

_LOOK_s = 0.1
_PATIENCE_s = 1  # for an interrupted build to end: milliseconds, but the parser never asks
_INTERRUPTED = 130  # exit status, as of a shell


@dataclass
class _Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0


class BuildWatch:
    """A progress bar on a terminal, nothing in a pipe, and the answer when a build asks whether to stop."""

    def __init__(self, label: str, *, asks: bool) -> None:
        """`asks`: the build calls `complete_step` now and then."""
        self._asks = asks
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}" if asks else "{desc}: {elapsed}"
        self._bar = tqdm(desc=label, total=1.0, leave=False, disable=None, bar_format=form)
        self._phases: list[_Phase] = []
        self._stopped = threading.Event()

    def run(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in a thread and waits for it.

        TensorRT's C++ code calls back into Python. In the main thread, such a call could raise KeyboardInterrupt, and
        an exception that reaches a `noexcept` function of TensorRT ends the process at once.
        """
        results: list[Result] = []
        errors: list[BaseException] = []
        ended = threading.Event()  # an interrupted Thread.join would take the thread for dead (Python up to 3.12)

        def guarded() -> None:
            try:
                results.append(work())
            except BaseException as error:
                # What TensorRT made goes now, in order; in a traceback it would outlive TensorRT, and crash at exit.
                traceback.clear_frames(error.__traceback__)
                errors.append(error)
            ended.set()

        try:
            threading.Thread(target=guarded, name="build", daemon=True).start()
            while not ended.wait(_LOOK_s):
                self._bar.refresh()
        except BaseException:
            self._abandon(ended)
            raise
        finally:
            self._bar.close()
        if errors:
            raise errors[0]
        return results[0]

    def start_phase(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of the build begins; `parent` is the one it belongs to."""
        self._phases.append(_Phase(name, parent, steps))
        self._show()

    def complete_step(self, name: str, step: int) -> bool:
        """A step of a phase is done; False asks the build to stop."""
        for phase in self._phases:
            if phase.name == name:
                phase.done = step + 1
        self._show()
        return not self._stopped.is_set()

    def finish_phase(self, name: str) -> None:
        """A phase is over."""
        self._phases = [phase for phase in self._phases if phase.name != name]
        self._show()

    def monitor(self, module: Any) -> Any:
        """TensorRT's view of this watch; its base class is there only in newer versions."""
        watch = self

        class Monitor(module.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                module.IProgressMonitor.__init__(self)  # pybind11 wants its own constructor called, not super()'s

            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                watch.start_phase(name, parent, steps)

            def step_complete(self, name: str, step: int) -> bool:
                return watch.complete_step(name, step)

            def phase_finish(self, name: str) -> None:
                watch.finish_phase(name)

        return Monitor()

    @property
    def fraction(self) -> float:
        """How much is done, 0…1, as far as the steps of nested phases tell."""
        share, fraction = 1.0, 0.0
        for phase in self._phases:
            share /= max(phase.steps, 1)
            fraction += share * min(phase.done, phase.steps)
        return min(fraction, 1.0)

    def _show(self) -> None:
        self._bar.n = max(self._bar.n, self.fraction)  # phases inside phases are not always announced in order
        self._bar.set_postfix_str(self._phases[-1].name if self._phases else "", refresh=False)

    def _abandon(self, ended: threading.Event) -> None:
        self._stopped.set()
        atexit.register(_leave, ended)
        ended.wait(_PATIENCE_s if self._asks else 0)


def _leave(ended: threading.Event) -> None:
    """Ends the process at once if a build still runs: before TensorRT 10 none can be stopped, and this one would crash
    when Python takes down what it calls back to.
    """
    if not ended.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)
