"""Dynamic batching: pictures of several requests are read in one run, none waiting longer than it was promised."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from robustscanner.constraint import Constraint
from robustscanner.errors import ConstraintError, EngineError, ImageError
from robustscanner.letters import Letter
from robustscanner.picture import Picture
from robustscanner.recognizer import Reading, Recognizer
from robustscanner.serving.settings import BatchOptions

logger = logging.getLogger(__name__)

Result = Reading | ImageError


@dataclass(frozen=True)
class Spelled(Reading):
    """A reading with its letters, where they were asked for."""

    letters: tuple[Letter, ...]


class Observer(Protocol):
    """Is told what happens; see `metrics.Metrics`."""

    def ran(self, waits_s: Sequence[float], seconds: float) -> None:
        """A batch was read: how long each picture of it had waited, and how long the run took."""


class QueueFull(Exception):
    """More pictures wait than may; `retry_after_s` says when it is worth asking again."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many pictures are waiting; ask again later")
        self.retry_after_s = retry_after_s


class Closed(Exception):
    """No picture is accepted any more."""


@dataclass
class _Job:
    picture: Picture
    constraint: Constraint | None
    letters: bool
    future: "Future[Result]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Reads pictures in threads of its own, each with a recogniser; `close` answers what was accepted, then ends.

    Args:
        open_recognizer: makes a recogniser; called once for each worker, and again after a failure or `reload`.
        options: how requests become batches.
        observer: is told what happens.

    Raises:
        EngineError: the engine cannot be used here.
    """

    def __init__(self, open_recognizer: Callable[[], Recognizer], options: BatchOptions, observer: Observer) -> None:
        self._open, self._options, self._observer = open_recognizer, options, observer
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._generation = 0  # of the engine
        self._seconds_each = 0.01  # of a picture: a running mean, for `Retry-After`
        recognizers = [open_recognizer() for _ in range(options.workers)]
        self.spec = recognizers[0].spec
        self._threads = [threading.Thread(target=self._work, args=(r,), daemon=True) for r in recognizers]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        return len(self._jobs)

    def submit(
        self, pictures: Sequence[Picture], constraint: Constraint | None = None, *, letters: bool = False
    ) -> "list[Future[Result]]":
        """Queues all pictures or none; each future gives a reading, or what is wrong with the picture.

        With `letters`, readings are `Spelled`; futures raise `ConstraintError` where the engine does not know letters.

        Raises:
            QueueFull: there is no room for all of them now.
            Closed: the server is stopping.
        """
        jobs = [_Job(picture, constraint, letters) for picture in pictures]
        with self._changed:
            if self._closed:
                raise Closed("the server is stopping")
            if len(self._jobs) + len(jobs) > self._options.max_queue:
                raise QueueFull(len(self._jobs) * self._seconds_each / self._options.workers)
            self._jobs.extend(jobs)
            self._changed.notify_all()
        return [job.future for job in jobs]

    def reload(self, open_recognizer: Callable[[], Recognizer]) -> None:
        """Another engine from the next batch on, if it can be opened; what is being read is finished with the old one.

        Raises:
            EngineError: the new engine cannot be used, or has other characters; the old one goes on.
        """
        with open_recognizer() as trial:
            spec = trial.spec
        with self._changed:
            self._open, self.spec = open_recognizer, spec
            self._generation += 1

    def close(self, timeout_s: float | None = None) -> None:
        """Answers all that was accepted, and ends the workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def _work(self, recognizer: Recognizer) -> None:
        generation = 0
        while batch := self._take():
            if generation != self._generation:
                recognizer, generation = self._renew(recognizer), self._generation
            try:
                self._read(recognizer, batch)
            except ConstraintError as error:
                for job in batch:
                    _settle(job, error)
            except Exception as error:  # whatever it is, the next request must find a worker
                logger.exception("a batch of %d pictures failed; the engine is opened again", len(batch))
                for job in batch:
                    _settle(job, EngineError(f"reading failed: {type(error).__name__}"))
                recognizer = self._renew(recognizer)
        recognizer.close()

    def _renew(self, recognizer: Recognizer) -> Recognizer:
        try:
            fresh = self._open()
        except EngineError:
            logger.exception("the engine cannot be opened again; the old one goes on")
            return recognizer
        recognizer.close()
        return fresh

    def _take(self) -> list[_Job]:
        """The next batch, of one constraint; an empty one when everything is done."""
        options = self._options
        with self._changed:
            while not self._jobs:
                if self._closed:
                    return []
                self._changed.wait()
            until = self._jobs[0].since + options.max_wait_s
            while 0 < len(self._jobs) < options.max_batch and not self._closed:
                if (left := until - time.monotonic()) <= 0 or not self._changed.wait(left):
                    break
            return self._pop() if self._jobs else self._take()

    def _pop(self) -> list[_Job]:
        constraint = self._jobs[0].constraint
        taken: list[_Job] = []
        others: list[_Job] = []
        while self._jobs and len(taken) < self._options.max_batch:
            job = self._jobs.popleft()
            if job.future.cancelled():
                continue
            (taken if job.constraint == constraint else others).append(job)
        self._jobs.extendleft(reversed(others))
        return taken or self._take()

    def _read(self, recognizer: Recognizer, batch: list[_Job]) -> None:
        started = time.monotonic()
        waits = [started - job.since for job in batch]
        pictures = [job.picture for job in batch]
        readings = recognizer.read_each(pictures, constraint=batch[0].constraint)
        for job, (_, result) in zip(batch, readings, strict=True):
            _settle(job, _spell(recognizer, job, result))
        seconds = time.monotonic() - started
        self._seconds_each += 0.1 * (seconds / len(batch) - self._seconds_each)
        self._observer.ran(waits, seconds)


def _spell(recognizer: Recognizer, job: _Job, result: Result) -> Result | ConstraintError:
    if not job.letters or isinstance(result, ImageError):
        return result
    try:
        return Spelled(result.text, result.score, recognizer.letters(job.picture, result.text))
    except ConstraintError as error:  # of this job only
        return error


def _settle(job: _Job, result: Result | ConstraintError | EngineError) -> None:
    if job.future.done() or not job.future.set_running_or_notify_cancel():
        return  # whoever asked has gone
    if isinstance(result, ConstraintError | EngineError):
        job.future.set_exception(result)
    else:
        job.future.set_result(result)
