"""Anything that turns the bytes of picture files into words, so that engines and peers are measured alike."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from robustscanner.engine import MANIFEST_NAME, file_sha256, read_manifest, runs_on_gpu
from robustscanner.preprocess import decode_image
from robustscanner.recognizer import Recognizer
from robustscanner.session import SessionOptions

LARGEST_BATCH = 1024  # pictures; nobody measures more

Read = Callable[[Sequence[bytes]], list[str]]  # the bytes of picture files -> their words, as one batch


@dataclass(frozen=True)
class Reader:
    """One contestant."""

    name: str
    read: Read
    facts: dict[str, object]  # what it is, JSON-ready
    path: Path | None = None  # NAME.engine or NAME.onnx; None for peers
    close: Callable[[], None] = field(default=lambda: None, repr=False)
    most_words: int | None = None  # of a set that one has the patience for; None: all


def open_engine_reader(path: Path, options: SessionOptions) -> Reader:
    """One of our engines."""
    recognizer = Recognizer(path, batch_size=LARGEST_BATCH, options=options_for(path, options))

    def read(pictures: Sequence[bytes]) -> list[str]:
        return [reading.text for reading in recognizer.read_batch([decode_image(data) for data in pictures])]

    return Reader(path.name, read, engine_facts(path), path, recognizer.close)


@contextmanager
def opened(paths: Sequence[Path], options: SessionOptions, *, alone: bool = False) -> Iterator[list[Reader]]:
    """Engines, open at once.

    Threads of several that wait busily would take each other's cores, so they sleep unless the caller knows better.
    """
    options = options if alone else replace(options, spinning=False)
    readers: list[Reader] = []
    try:
        for path in paths:
            readers.append(open_engine_reader(path, options))
        yield readers
    finally:
        for reader in readers:
            reader.close()


def options_for(path: Path, options: SessionOptions) -> SessionOptions:
    """On a GPU an engine waits as it does in serving: spinning, which takes no core from other engines."""
    return replace(options, spinning=True) if runs_on_gpu(path) else options


def engine_facts(path: Path) -> dict[str, object]:
    """Model, precision and hash, from `engine.json` where there is one: a figure can be traced to what made it."""
    if path.is_file():
        return {"precision": "fp32", "backend": "onnxruntime", "sha256": file_sha256(path)}
    manifest = read_manifest(path)
    facts: dict[str, object] = {"model": manifest.model.name, "precision": manifest.precision}
    facts |= {"backend": manifest.backend, "versions": dict(manifest.versions), "device": dict(manifest.device)}
    return facts | {"sha256": file_sha256(path / MANIFEST_NAME)}  # which holds the hashes of the other files
