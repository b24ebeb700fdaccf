"""Reads a large set of pictures with Ray, and goes on where it was broken off.

Ray's tasks, not actors or `ray.data`: a task that dies with its worker or machine is put onto any other that is free,
where an actor would wait for a place of its own; and parts keep their numbers. The session stays open in the worker's
process between tasks. Workers return rows, and only the driver writes: a shard read twice still gives one part.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustscanner.errors import EngineError, ImageError, MissingPackageError, RobustScannerError
from robustscanner.program import exit_status, heeding_sigterm, unbroken, whole_number

if TYPE_CHECKING:
    from robustscanner.job import Job, Output, Row
    from robustscanner.recognizer import Recognizer
    from robustscanner.source import Place, Source

EXAMPLES = """\
examples:
  %(prog)s crops/ -o readings/                         a folder, with those in it; all cores of this machine
  %(prog)s crops.parquet -o readings/ --workers 2      columns key and image (bytes of a picture file)
  %(prog)s s3://bucket/tars/ -o readings/ --ray auto   WebDataset tars, on a cluster that runs here

The same command again goes on where it was broken off.
exit status: 0 all pictures were read, 1 an error, or some could not be read, 2 wrong usage,
  130 after Ctrl-C, 143 after SIGTERM
"""

_WAIT_S = 1.0  # until a signal is heeded
_RETRIES = 3  # of a shard whose worker died: a picture that kills its worker must not do so for ever


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Runs the job, or what is left of it; returns the exit status."""
    options = _parse(arguments, prog)
    bad: list[int] = []
    status = exit_status(
        lambda: bad.append(_run(options)), interrupted="interrupted; the same command goes on where this ended"
    )
    return status or int(sum(bad) > 0)


def _parse(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(__doc__ or "").partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="folder of pictures, .parquet, .tar, or LMDB; path or URL")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="Parquet parts: key, text, score, error"
    )
    parser.add_argument("-f", "--force", action="store_true", help="throw away what another job left in DIR")
    parser.add_argument(
        "--engine", type=Path, metavar="PATH", help="NAME.engine or NAME.onnx (default: the shipped model)"
    )
    parser.add_argument("--batch", type=whole_number, default=16, metavar="N", help="pictures of a run (default: 16)")
    parser.add_argument(
        "--shard", type=whole_number, default=1000, metavar="N", help="pictures of a part (default: %(default)s)"
    )
    parquet = parser.add_argument_group("of Parquet files")
    parquet.add_argument("--key-column", default="key", metavar="NAME", help="default: %(default)s")
    parquet.add_argument("--image-column", default="image", metavar="NAME", help="default: %(default)s")
    ray = parser.add_argument_group("Ray")
    ray.add_argument(
        "--ray", default="local", metavar="ADDRESS", help="of a cluster, or auto (default: start one here)"
    )
    ray.add_argument(
        "--workers", type=whole_number, metavar="N", help="sessions side by side, a core each (default: all cores)"
    )
    options = parser.parse_args(arguments)
    options.engine = options.engine and options.engine.resolve()  # workers run elsewhere
    return options


def _run(options: argparse.Namespace) -> int:
    """How many pictures could not be read."""
    from robustscanner.job import Job, Output
    from robustscanner.source import open_source

    _check_packages()
    if options.output.resolve().is_relative_to(Path(options.source).resolve()):
        raise RobustScannerError(f"{options.output}: lies in the source itself; choose another folder")
    source = open_source(options.source, key_column=options.key_column, image_column=options.image_column)
    places = source.places()
    job = Job.of(source, places, engine=options.engine, shard=options.shard)
    output = Output(options.output)
    output.begin(job, force=options.force)
    missing = output.missing(job)
    if len(missing) < job.parts:
        print(f"{job.parts - len(missing)} of {job.parts} parts are there already", file=sys.stderr)
    if missing:
        _read_parts(job, places, missing, output, options)
    if bad := output.bad(job):
        print(f"{bad} of {job.count} pictures could not be read", file=sys.stderr)
    return bad


def _check_packages() -> None:
    try:
        import pyarrow  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
        import ray  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"this needs {error.name}; pip install 'robustscanner[batch]'") from None


def _read_parts(
    job: "Job", places: "list[Place]", missing: list[int], output: "Output", options: argparse.Namespace
) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    with _cluster(options) as workers:
        for number, (part, rows) in enumerate(_shards(job, places, missing, workers, options), 1):
            output.write(part, rows)
            for row in rows:
                if row.error:
                    print(f"{clear}error: {row.key}: {row.error}", file=sys.stderr)
            if clear:
                print(f"{clear}{number} of {len(missing)} parts", end="", file=sys.stderr, flush=True)
    print(clear, end="", file=sys.stderr, flush=True)


@contextmanager
def _cluster(options: argparse.Namespace) -> Iterator[int]:
    """Connects to Ray, and says how many workers there shall be."""
    import ray

    here = {"num_cpus": options.workers, "include_dashboard": False} if options.ray == "local" else {}
    try:
        ray.init(address=options.ray, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise RobustScannerError(f"--ray {options.ray}: {reason}; begin one with: ray start --head") from None
    try:
        with heeding_sigterm():  # again: Ray has its own way with it
            yield options.workers or int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


def _shards(
    job: "Job", places: "list[Place]", missing: list[int], workers: int, options: argparse.Namespace
) -> "Iterator[tuple[int, list[Row]]]":
    """Parts and their rows, as they get done."""
    import ray

    read = ray.remote(read_shard).options(max_retries=_RETRIES, scheduling_strategy="SPREAD")
    waiting = iter(missing)
    running: dict[Any, int] = {}
    while True:
        with unbroken():  # Ray would make a SystemError of what a signal raises inside
            for part in islice(waiting, workers - len(running)):
                shard = places[job.rows(part)]
                reference = read.remote(job.source, shard, options.engine, job.engine_sha256, options.batch)
                running[reference] = part
            done = ray.wait(list(running), timeout=_WAIT_S)[0] if running else []
        if not running:
            return
        for reference in done:
            part = running.pop(reference)
            yield part, _result(reference, part)


def _result(reference: Any, part: int) -> "list[Row]":
    import ray
    from ray.exceptions import RayError, RayTaskError  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        rows: list[Row] = ray.get(reference)
        return rows
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        reason = type(error).__name__
        raise RobustScannerError(
            f"part {part}: its worker died {_RETRIES + 1} times ({reason}); see Ray's logs"
        ) from None


def read_shard(
    source: "Source", places: "Sequence[Place]", engine: Path | None, engine_sha256: str, batch: int
) -> "list[Row]":
    """Reads some pictures of a set, in a worker.

    Args:
        source: the set.
        places: the pictures.
        engine: as for `Recognizer`.
        engine_sha256: what `job.engine_sha256` gives where the job began.
        batch: the most pictures of one run.

    Raises:
        EngineError: the engine cannot be used, or is another one here.
        SourceError: the set cannot be reached.
    """
    from robustscanner.job import Row

    recognizer = _recognizer(engine, engine_sha256, batch)
    pictures = source.read(places)
    rows = []
    while chunk := list(islice(pictures, batch)):
        good = [data for _, data in chunk if not isinstance(data, ImageError)]
        results = iter([result for _, result in recognizer.read_each(good)])
        for key, data in chunk:
            result = data if isinstance(data, ImageError) else next(results)
            if isinstance(result, ImageError):
                rows.append(Row(key, None, None, str(result)))
            else:
                rows.append(Row(key, result.text, result.score, None))
    return rows


@lru_cache(maxsize=1)
def _recognizer(engine: Path | None, engine_sha256: str, batch: int) -> "Recognizer":
    from robustscanner import job
    from robustscanner.recognizer import Recognizer
    from robustscanner.session import SessionOptions

    if job.engine_sha256(engine) != engine_sha256:
        raise EngineError(f"{engine or 'the shipped model'}: another one on this machine; copy the same to all")
    return Recognizer(engine, batch_size=batch, options=SessionOptions(threads=1, spinning=False))


if __name__ == "__main__":
    sys.exit(main())
