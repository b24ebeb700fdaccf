"""Large sets of pictures: where they lie, how they are cut into parts, and what becomes of work that is broken off."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_model import ROOT

from robustscanner.batch import main, read_shard
from robustscanner.errors import EngineError, ImageError
from robustscanner.job import JOB_NAME, Job, Output, engine_sha256
from robustscanner.output import OutputError
from robustscanner.source import Source, SourceError, open_source

pytest.importorskip("fsspec", reason="fsspec is not installed")

WORDS = ["ABC", "DEF", "GHI"]


@pytest.fixture
def crops(word: Callable[..., Path]) -> Path:
    for text in WORDS:
        word(text, f"crops/{text}.png")
    return word("ABC", "crops/more/JKL.png").parents[1]


def as_tar(crops: Path) -> Path:
    path = crops.parent / "a.tar"
    with tarfile.open(path, "w") as tar:
        for text in WORDS:
            tar.add(crops / f"{text}.png", f"{text}.png")
            info = tarfile.TarInfo(f"{text}.txt")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def as_lmdb(crops: Path) -> Path:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    path = crops.parent / "set"
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as records:
        for number, text in enumerate(WORDS, 1):
            records.put(b"image-%09d" % number, (crops / f"{text}.png").read_bytes())
        records.put(b"num-samples", b"%d" % len(WORDS))
    return path


def as_parquet(crops: Path) -> Path:
    pa = pytest.importorskip("pyarrow", reason="PyArrow is not installed")
    from pyarrow import parquet

    path = crops.parent / "a.parquet"
    data = [(crops / f"{text}.png").read_bytes() for text in WORDS]
    parquet.write_table(pa.table({"key": WORDS, "image": data}), path, row_group_size=2)
    return path


def files_of(source: Source, keys: slice = slice(None)) -> dict[str, Any]:
    return dict(source.read(source.places()[keys]))


@pytest.mark.parametrize(
    ("pack", "keys"),
    [
        (lambda crops: crops, ["ABC.png", "DEF.png", "GHI.png", "more/JKL.png"]),
        (as_tar, [f"a.tar/{text}.png" for text in WORDS]),
        (as_lmdb, ["image-000000001", "image-000000002", "image-000000003"]),
        (as_parquet, WORDS),
    ],
    ids=["folder", "tar", "lmdb", "parquet"],
)
def test_every_kind_of_set(crops: Path, pack: Callable[[Path], Path], keys: list[str]) -> None:
    """All of it, and any piece of it: a worker reads from the middle."""
    source = open_source(str(pack(crops)))
    assert [place.key for place in source.places()] == keys
    wanted = dict(zip(keys, [(crops / f"{text}.png").read_bytes() for text in WORDS], strict=False))
    assert {key: data for key, data in files_of(source).items() if key in wanted} == wanted
    assert list(files_of(source, slice(1, 3))) == keys[1:3]


def test_a_folder_of_tars_tells_them_apart(crops: Path, tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    for name in ("b.tar", "a.tar"):
        (tmp_path / "tars" / name).write_bytes(as_tar(crops).read_bytes())
    keys = [place.key for place in open_source(str(tmp_path / "tars")).places()]
    assert keys == [f"{name}/{text}.png" for name in ("a.tar", "b.tar") for text in WORDS]


def test_sets_that_cannot_be_read(crops: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.tar").write_bytes(as_tar(crops).read_bytes()[:700])
    for path, says in [("none", "no such file"), ("empty", "neither pictures"), (".", "holds .tar and pictures")]:
        with pytest.raises(SourceError, match=says):
            open_source(str(tmp_path / path)).places()
    with pytest.raises(SourceError, match=r"cut\.tar: .*; check it"):
        open_source(str(tmp_path / "cut.tar")).places()


def test_columns_have_other_names(crops: Path) -> None:
    path = str(as_parquet(crops))
    with pytest.raises(SourceError, match="has no column jpg, but key, image; name it with --key-column or"):
        open_source(path, image_column="jpg").places()


def test_a_picture_that_is_gone_is_one_bad_picture(crops: Path) -> None:
    source = open_source(str(crops))
    places = source.places()
    (crops / "DEF.png").unlink()
    found = dict(source.read(places))
    assert [key for key, data in found.items() if isinstance(data, ImageError)] == ["DEF.png"]


def test_rows_of_a_shard(crops: Path, engine: Path) -> None:
    """Bad pictures are rows too, in their place, whatever the size of a run."""
    (crops / "EEE.png").write_bytes(b"no picture")
    source = open_source(str(crops))
    for batch in (1, 2, 16):
        rows = read_shard(source, source.places(), engine, engine_sha256(engine), batch)
        assert [(row.key, row.text) for row in rows] == [
            *(("ABC.png", "ABC"), ("DEF.png", "DEF"), ("EEE.png", None)),
            *(("GHI.png", "GHI"), ("more/JKL.png", "ABC")),
        ]
        assert [row.error is None for row in rows] == [True, True, False, True, True]


def test_another_engine_on_a_worker_is_refused(crops: Path, engine: Path) -> None:
    source = open_source(str(crops))
    with pytest.raises(EngineError, match="another one on this machine"):
        read_shard(source, source.places(), engine, "0" * 64, 1)


def job_of(crops: Path, engine: Path, *, shard: int = 3) -> Job:
    source = open_source(str(crops))
    return Job.of(source, source.places(), engine=engine, shard=shard)


def test_parts_hold_each_picture_once(crops: Path, engine: Path) -> None:
    places = open_source(str(crops)).places()
    for shard in (1, 3, 4, 100):
        job = job_of(crops, engine, shard=shard)
        assert [place for part in range(job.parts) for place in places[job.rows(part)]] == places


def test_a_part_that_is_there_is_done(crops: Path, engine: Path, tmp_path: Path) -> None:
    job, output = job_of(crops, engine), Output(tmp_path / "out")
    output.begin(job, force=False)
    assert output.missing(job) == [0, 1]
    output.part(0).touch()
    output.begin(job, force=False)
    assert output.missing(job) == [1]


def test_another_jobs_folder_is_refused(crops: Path, engine: Path, tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.begin(job_of(crops, engine), force=False)
    output.part(0).touch()
    with pytest.raises(OutputError, match="holds another job: shard is 3, not 2; choose another folder, or begin"):
        output.begin(job_of(crops, engine, shard=2), force=False)
    (crops / "DEF.png").unlink()
    with pytest.raises(OutputError, match="another job: count is 4, not 3, other pictures; choose"):
        output.begin(job_of(crops, engine), force=False)
    output.begin(job := job_of(crops, engine), force=True)
    assert output.missing(job) == [0]


def test_what_is_of_no_job_stays(crops: Path, engine: Path, tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.folder.mkdir()
    (output.folder / "notes.txt").touch()
    with pytest.raises(OutputError, match=f"it has no {JOB_NAME}"):
        output.begin(job_of(crops, engine), force=False)
    with pytest.raises(OutputError, match=r"holds notes\.txt, which is of no job"):
        output.begin(job_of(crops, engine), force=True)
    assert [path.name for path in output.folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_what_is_missing_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", object())
    monkeypatch.setitem(sys.modules, "ray", object())
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["crops", "-o", "out"]) == 1
    assert capsys.readouterr().err == f"error: this needs {missing}; pip install 'robustscanner[batch]'\n"


def test_goes_on_with_ray(crops: Path, engine: Path, tmp_path: Path) -> None:
    """One part is there already; the others are read by a worker, and each picture stands in one row."""
    pytest.importorskip("ray", reason="Ray is not installed; pip install '.[batch]'")
    from pyarrow import parquet

    (crops / "EEE.png").write_bytes(b"no picture")
    job, output = job_of(crops, engine, shard=2), Output(tmp_path / "out")
    output.begin(job, force=False)
    places = job.source.places()
    output.write(0, read_shard(job.source, places[job.rows(0)], engine, job.engine_sha256, 16))
    before = output.part(0).stat().st_ino
    command = [sys.executable, str(ROOT / "runtime" / "batch.py"), str(crops), "-o", str(output.folder)]
    options = ["--engine", str(engine), "--shard", "2", "--workers", "1"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert result.stderr.splitlines()[0] == "1 of 3 parts are there already"
    assert result.stderr.splitlines()[1].startswith("error: EEE.png: not a picture")
    assert result.stderr.splitlines()[2:] == ["1 of 5 pictures could not be read"]
    assert (result.returncode, output.part(0).stat().st_ino) == (1, before)
    table = parquet.read_table(output.folder)
    assert dict(zip(table["key"].to_pylist(), table["text"].to_pylist(), strict=True)) == {
        **{f"{text}.png": text for text in WORDS},
        **{"EEE.png": None, "more/JKL.png": "ABC"},
    }
    assert table.num_rows == 5
