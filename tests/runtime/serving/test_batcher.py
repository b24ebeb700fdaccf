"""Pictures become batches; whatever goes wrong, what was accepted is answered and the next one finds a worker."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait

import pytest

from robustscanner.constraint import Constraint
from robustscanner.errors import EngineError, ImageError
from robustscanner.recognizer import Reading
from robustscanner.serving.batcher import Batcher, Closed, QueueFull
from robustscanner.serving.settings import BatchOptions

PATIENT = BatchOptions(max_batch=4, max_wait_s=60, max_queue=8)


class FakeRecognizer:
    """Says each picture's own bytes, after it was let go on."""

    def __init__(self, name: str = "first") -> None:
        self.spec = name
        self.batches: list[list[bytes]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.closed = False

    def __enter__(self) -> "FakeRecognizer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True

    def read_each(self, pictures: Sequence[bytes], *, constraint: Constraint | None) -> Iterator[tuple[bytes, object]]:
        self.may_go_on.wait(30)
        self.batches.append(list(pictures))
        for picture in pictures:
            if picture == b"crash":
                raise RuntimeError("a fault of the engine")
            yield picture, ImageError("no picture") if picture == b"bad" else Reading(picture.decode(), 1.0)


class Runs:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def ran(self, waits_s: Sequence[float], seconds: float) -> None:
        assert min(waits_s) >= 0 <= seconds
        self.sizes.append(len(waits_s))


def batcher(recognizer: FakeRecognizer, options: BatchOptions = PATIENT) -> tuple[Batcher, Runs]:
    runs = Runs()
    return Batcher(lambda: recognizer, options, runs), runs  # type: ignore[arg-type,return-value]


def texts(futures: list) -> list[str]:
    return [future.result(30).text for future in futures]


def test_requests_share_a_run() -> None:
    """A full batch does not wait: here it would, for a minute."""
    served, runs = batcher(FakeRecognizer())
    futures = [*served.submit([b"a", b"b"]), *served.submit([b"c", b"d"])]
    assert texts(futures) == ["a", "b", "c", "d"]
    served.close()
    assert runs.sizes == [4]


def test_each_constraint_has_runs_of_its_own() -> None:
    recognizer = FakeRecognizer()
    recognizer.may_go_on.clear()
    served, _ = batcher(recognizer, BatchOptions(max_batch=3, max_wait_s=0))
    futures = served.submit([b"first"])
    while served.waiting:  # until it is being read, while others come
        pass
    for text, constraint in ((b"a", None), (b"1", Constraint("0-9")), (b"b", None), (b"2", Constraint("0-9"))):
        futures += served.submit([text], constraint)
    recognizer.may_go_on.set()
    assert texts(futures) == ["first", "a", "1", "b", "2"]
    served.close()
    assert recognizer.batches[-2:] == [[b"a", b"b"], [b"1", b"2"]]


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    recognizer = FakeRecognizer()
    recognizer.may_go_on.clear()
    served, _ = batcher(recognizer, BatchOptions(max_batch=1, max_wait_s=0, max_queue=3))
    futures = served.submit([b"x"])
    while served.waiting:  # until a worker has it
        pass
    futures += served.submit([b"a", b"b"])
    with pytest.raises(QueueFull) as caught:
        served.submit([b"c", b"d"])
    assert caught.value.retry_after_s > 0
    futures += served.submit([b"e"])  # all or nothing was taken
    recognizer.may_go_on.set()
    assert texts(futures) == ["x", "a", "b", "e"]
    served.close()


def test_closing_answers_what_was_accepted_and_takes_no_more() -> None:
    recognizer = FakeRecognizer()
    recognizer.may_go_on.clear()
    served, _ = batcher(recognizer, BatchOptions(max_batch=2, max_wait_s=0))
    futures = served.submit([b"a", b"b", b"c", b"d", b"e"])
    closing = threading.Thread(target=served.close)
    closing.start()
    recognizer.may_go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    assert texts(futures) == ["a", "b", "c", "d", "e"]
    assert recognizer.closed
    with pytest.raises(Closed):
        served.submit([b"f"])


def test_a_bad_picture_is_an_answer() -> None:
    served, _ = batcher(FakeRecognizer(), BatchOptions(max_wait_s=0))
    good, bad = served.submit([b"a", b"bad"])
    assert isinstance(bad.result(30), ImageError)
    assert good.result(30).text == "a"
    served.close()


def test_after_a_fault_the_next_one_is_read() -> None:
    served, _ = batcher(FakeRecognizer(), BatchOptions(max_wait_s=0))
    with pytest.raises(EngineError, match="RuntimeError"):
        served.submit([b"crash"])[0].result(30)
    assert texts(served.submit([b"a"])) == ["a"]
    served.close()


def test_nobody_waits_for_an_answer_that_nobody_wants() -> None:
    recognizer = FakeRecognizer()
    recognizer.may_go_on.clear()
    served, _ = batcher(recognizer, BatchOptions(max_batch=1, max_wait_s=0))
    first, gone, last = served.submit([b"a", b"gone", b"b"])
    gone.cancel()
    recognizer.may_go_on.set()
    wait([first, last], 30)
    served.close()
    assert [b"gone"] not in recognizer.batches


def test_another_engine_takes_over_between_batches() -> None:
    old, new = FakeRecognizer("old"), FakeRecognizer("new")
    served, _ = batcher(old, BatchOptions(max_wait_s=0))
    assert texts(served.submit([b"a"])) == ["a"]
    served.reload(lambda: new)  # type: ignore[arg-type,return-value]
    assert texts(served.submit([b"b"])) == ["b"]
    served.close()
    assert (old.batches, new.batches, old.closed) == ([[b"a"]], [[b"b"]], True)
    assert served.spec == "new"


def test_an_engine_that_cannot_be_opened_changes_nothing() -> None:
    old = FakeRecognizer("old")
    served, _ = batcher(old, BatchOptions(max_wait_s=0))

    def broken() -> FakeRecognizer:
        raise EngineError("no such engine")

    with pytest.raises(EngineError):
        served.reload(broken)  # type: ignore[arg-type]
    assert texts(served.submit([b"a"])) == ["a"]
    served.close()
