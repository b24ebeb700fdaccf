"""A job over a large set of pictures: what reads what, cut into numbered parts; a part that is there is done."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from robustscanner.engine import MANIFEST_NAME, default_engine, file_sha256, read_manifest
from robustscanner.errors import EngineError, shown
from robustscanner.output import OutputError, replacing
from robustscanner.source import Place, Source

JOB_NAME = "_job.json"  # readers of Parquet folders pass over names that begin so


class Row(NamedTuple):
    """What became of one picture."""

    key: str
    text: str | None
    score: float | None  # 0…1
    error: str | None  # instead of text and score


@dataclass(frozen=True)
class Job:
    """What must be the same for work to go on; `_job.json` of the folder."""

    source: Source
    engine_sha256: str
    count: int  # pictures
    places_sha256: str  # of all keys and places, in order
    shard: int  # pictures of a part

    @classmethod
    def of(cls, source: Source, places: Sequence[Place], *, engine: Path | None, shard: int) -> "Job":
        """The job over these pictures.

        Raises:
            EngineError: there is no such engine, or it is damaged.
        """
        digest = hashlib.sha256()
        for place in places:
            digest.update(json.dumps(place).encode())
        return cls(source, engine_sha256(engine), len(places), digest.hexdigest(), shard)

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.count // self.shard)

    def rows(self, part: int) -> slice:
        """The pictures of a part."""
        return slice(part * self.shard, (part + 1) * self.shard)

    def to_json(self) -> str:
        """The text of `_job.json`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Output:
    """The folder of a job: `part-000000.parquet` and so on, and `_job.json`."""

    folder: Path

    def begin(self, job: Job, *, force: bool) -> None:
        """Makes the folder, or checks that it is of this job.

        Args:
            job: what shall be read.
            force: throws away what another job left there.

        Raises:
            OutputError: it holds something else, or cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there = any(not path.name.startswith(".") for path in self.folder.iterdir())
        except OSError as error:
            raise OutputError(f"{self.folder}: {error.strerror or error}; choose another folder") from None
        if there:
            differs = self._differs(job)
            if differs and not force:
                cure = "choose another folder, or begin again with --force"
                raise OutputError(f"{self.folder}: holds another job: {differs}; {cure}")
            if not differs:
                return
            self._clear()
        with replacing(self.folder / JOB_NAME, force=True) as temporary:
            temporary.write_text(job.to_json(), encoding="utf-8")

    def missing(self, job: Job) -> list[int]:
        """Numbers of the parts that are still to be read."""
        return [part for part in range(job.parts) if not self.part(part).exists()]

    def write(self, part: int, rows: Sequence[Row]) -> None:
        """Writes a part, complete or not at all; one that is there already has the same content.

        Raises:
            OutputError: it cannot be written.
        """
        import pyarrow as pa  # type: ignore[import-not-found,import-untyped,unused-ignore]
        import pyarrow.parquet as pq  # type: ignore[import-not-found,import-untyped,unused-ignore]

        types = (pa.string(), pa.string(), pa.float32(), pa.string())
        columns = zip(Row._fields, types, zip(*rows, strict=True), strict=True)
        table = pa.table({name: pa.array(values, kind) for name, kind, values in columns})
        with replacing(self.part(part), force=True) as temporary:
            pq.write_table(table, temporary)

    def bad(self, job: Job) -> int:
        """How many pictures of all parts could not be read."""
        import pyarrow.parquet as pq

        columns = (pq.read_table(self.part(part), columns=["error"])[0] for part in range(job.parts))
        return sum(len(column) - column.null_count for column in columns)

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06d}.parquet"

    def _differs(self, job: Job) -> str:
        try:
            there = json.loads((self.folder / JOB_NAME).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return f"it has no {JOB_NAME}"
        except (OSError, ValueError) as error:
            return f"{JOB_NAME} cannot be read ({error})"
        wanted = json.loads(job.to_json())
        if not isinstance(there, dict):
            return f"{JOB_NAME} is no JSON object"
        return ", ".join(
            _difference(name, there.get(name), wanted[name]) for name in wanted if there.get(name) != wanted[name]
        )

    def _clear(self) -> None:
        """The manifest goes last, so that a folder half cleared still says whose it is."""
        names = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        strange = [name for name in names if name != JOB_NAME and not re.fullmatch(r"part-\d+\.parquet", name)]
        if strange:
            raise OutputError(f"{self.folder}: holds {strange[0]}, which is of no job; choose another folder")
        for name in reversed(names):
            (self.folder / name).unlink()


def engine_sha256(engine: Path | None) -> str:
    """What tells an engine from others: of its `engine.json`, which has the hashes of its files, or of its ONNX file.

    Raises:
        EngineError: there is no such engine, or it is damaged.
    """
    path = default_engine() if engine is None else engine
    if path.is_dir():
        read_manifest(path)
        path = path / MANIFEST_NAME
    if not path.is_file():
        raise EngineError(f"{path}: no such engine; check the path, also on the other machines")
    return file_sha256(path)


def _difference(name: str, there: Any, wanted: Any) -> str:
    known = {"engine_sha256": "another engine", "places_sha256": "other pictures"}
    return known.get(name) or f"{name} is {shown(there)}, not {shown(wanted)}"
