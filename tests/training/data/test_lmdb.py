"""LMDBs: what is packed comes out again, and what is broken is left out or refused with a reason."""

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustscanner.labels import DataError
from robustscanner.output import OutputError
from tests.training.crop_sets import make_folder, make_lmdb, picture
from training.data.crop_set import open_crop_set
from training.data.folder import FolderSet
from training.data.lmdb_set import LmdbSet, write_lmdb
from training.data.record import BadRecord, CropSet, describe_skipped, good_records
from training.make_lmdb import main

ROOT = Path(__file__).parents[3]
BROKEN = {
    b"num-samples": b"6",
    b"image-000000001": picture(1),
    b"label-000000001": b"good",
    b"image-000000002": picture(2),  # no label
    b"label-000000003": b"no picture",
    b"image-000000004": picture(4)[:60],
    b"label-000000004": b"truncated",
    b"image-000000005": picture(5),
    b"label-000000005": "Größe".encode("latin-1"),
    b"image-000000006": picture(6),
    b"label-000000006": b"  ",
}


def read_label(crops: LmdbSet, index: int) -> str:
    return crops.label(index)


def good(crops: CropSet) -> list[tuple[str, int]]:
    return [(label, int(image[0, 0, 0])) for _, label, _, image in good_records(crops, Counter())]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The program, in this process."""
    monkeypatch.setattr("training.data.render.synth.find_fonts", lambda: [])  # all of a system's takes seconds

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["make_lmdb.py", *map(str, arguments)])
        return main()

    return call


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records = [(picture(i), f"wörd{i}") for i in range(5)]
    assert write_lmdb(tmp_path / "a.lmdb", iter(records)) == 5
    crops = LmdbSet(tmp_path / "a.lmdb")
    assert [(crops.data(i), crops.label(i)) for i in range(len(crops))] == records
    assert os.listdir(tmp_path / "a.lmdb") == ["data.mdb"]


def test_grows_beyond_its_first_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.lmdb_set._FIRST_MAP_MIB", 1)
    monkeypatch.setattr("training.data.lmdb_set._RECORDS_PER_COMMIT", 3)
    write_lmdb(tmp_path / "a.lmdb", ((bytes([i]) * 600_000, str(i)) for i in range(10)))
    crops = LmdbSet(tmp_path / "a.lmdb")
    assert [(crops.data(i)[0], crops.label(i)) for i in range(len(crops))] == [(i, str(i)) for i in range(10)]


def test_broken_records_are_counted_by_reason(tmp_path: Path) -> None:
    crops, skipped = LmdbSet(make_lmdb(tmp_path / "b", BROKEN)), Counter[tuple[str, str]]()
    assert [label for _, label, *_ in good_records(crops, skipped)] == ["good"]
    reasons = ["label is empty", "label is not UTF-8", "no label", "no picture", "picture: truncated"]
    assert describe_skipped(skipped) == [f"{tmp_path / 'b'}: 1 left out: {reason}" for reason in reasons]


def test_missing_file_of_a_folder_is_a_bad_record(tmp_path: Path) -> None:
    crops = FolderSet(make_folder(tmp_path / "f", ["a", "b"]))
    (tmp_path / "f" / "images" / "0.png").unlink()
    assert good(crops) == [("b", 1)]
    with pytest.raises(BadRecord, match="no such file"):
        crops.data(0)


def test_what_is_no_lmdb_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mdb").write_text("x" * 10000)
    (tmp_path / "empty.mdb").touch()
    make_lmdb(tmp_path / "uncounted", {b"image-000000001": b""})
    make_lmdb(tmp_path / "miscounted", {b"num-samples": b"many"})
    write_lmdb(tmp_path / "whole", ((bytes(100_000), "x") for _ in range(20)))
    (tmp_path / "cut.mdb").write_bytes((tmp_path / "whole" / "data.mdb").read_bytes()[:100_000])
    cases = {
        "text.mdb": "not an LMDB",
        "empty.mdb": "cannot be opened",
        "cut.mdb": "cut short",
        "uncounted": "no count",
        "miscounted": "no count",
        "nothing": "no such folder",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=message) as error:
            open_crop_set(tmp_path / name)
        assert "\n" not in str(error.value)


def test_reads_behind_a_fork_and_in_a_new_process(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a.lmdb", [(picture(i), str(i)) for i in range(4)])
    crops = LmdbSet(tmp_path / "a.lmdb")
    assert crops.label(3) == "3"  # open here while the workers start
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.starmap(read_label, [(crops, i) for i in range(4)]) == ["0", "1", "2", "3"]
    assert crops.label(2) == "2"


def test_two_sets_may_share_a_path(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a.lmdb", [(picture(1), "old")])
    first = LmdbSet(tmp_path / "a.lmdb")
    assert first.label(0) == "old"
    write_lmdb(tmp_path / "a.lmdb", [(picture(1), "new")], force=True)
    assert [LmdbSet(tmp_path / "a.lmdb").label(0), first.label(0)] == ["new", "new"]


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[bytes, str]]:
        yield picture(1), "new"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_lmdb(tmp_path / "a.lmdb", failing())
    assert not (tmp_path / "a.lmdb").exists()
    write_lmdb(tmp_path / "a.lmdb", [(picture(1), "old")])
    with pytest.raises(RuntimeError):
        write_lmdb(tmp_path / "a.lmdb", failing(), force=True)
    with pytest.raises(OutputError, match="--force"):
        write_lmdb(tmp_path / "a.lmdb", [(picture(1), "new")])
    assert LmdbSet(tmp_path / "a.lmdb").label(0) == "old"
    assert os.listdir(tmp_path / "a.lmdb") == ["data.mdb"]


def test_program_packs_folders_lmdbs_and_rendered_words(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "f", ["Größe", "two words", "x"])
    (folder / "images" / "2.png").write_bytes(b"")
    other = make_lmdb(tmp_path / "b", BROKEN)
    (tmp_path / "words.txt").write_text("cab\nbac\n")
    output = tmp_path / "out.lmdb"
    assert run(folder, other, "--render", 2, "--words", tmp_path / "words.txt", "-o", output) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}: 5 words\n"
    assert f"{folder}: 1 left out: picture: empty file" in printed.err
    assert printed.err.count(" left out: ") == 6
    crops = LmdbSet(output)
    assert good(crops)[:3] == [("Größe", 0), ("two words", 1), ("good", 1)]
    assert crops.data(0) == picture(0)


def test_program_refuses_to_overwrite(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "f", ["a"])
    assert run(folder, "-o", tmp_path / "out.lmdb") == 0
    capsys.readouterr()
    assert run(folder, "-o", tmp_path / "out.lmdb") == 1
    error = capsys.readouterr().err
    assert "--force" in error
    assert error.count("\n") == 1
    assert run(folder, "-o", tmp_path / "out.lmdb", "--force") == 0


def test_program_runs_by_path_and_knows_wrong_use(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "training" / "make_lmdb.py", "-o", tmp_path / "none.lmdb"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing to pack" in done.stderr
