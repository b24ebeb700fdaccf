"""The program, as a user runs it."""

import csv
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fake_model import ROOT, FakeOptions, colour_of, write_fake_model

from robustscanner.preprocess import load_image

Program = Callable[..., subprocess.CompletedProcess[str]]
Word = Callable[..., Path]
PROGRAM = str(ROOT / "runtime" / "recognize.py")


def error_line(result: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The only line on stderr of a run that failed."""
    assert result.returncode == status
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


# --- What it prints


def test_tsv(recognize: Program, word: Word) -> None:
    result = recognize(word("dog"), word("cat"))
    folder = word("dog").parent
    assert result.stdout == f"{folder}/dog.png\tdog\t0.5000\n{folder}/cat.png\tcat\t0.5000\n"
    assert (result.returncode, result.stderr) == (0, "")


def test_json_lines(recognize: Program, word: Word) -> None:
    word("dog")
    word("cat")
    result = recognize("--json", "dog.png", "cat.png")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"path": "dog.png", "text": "dog", "score": 0.5},
        {"path": "cat.png", "text": "cat", "score": 0.5},
    ]


def test_csv_quotes(recognize: Program, word: Word) -> None:
    word('a"b')
    word("dog", "d,o\ng.png")
    result = recognize("--csv", 'a"b.png', "d,o\ng.png")
    assert list(csv.reader(result.stdout.splitlines(keepends=True))) == [
        ["path", "text", "score"],
        ['a"b.png', 'a"b', "0.5000"],
        ["d,o\ng.png", "dog", "0.5000"],
    ]


def test_controls_in_a_path_do_not_break_lines(recognize: Program, word: Word) -> None:
    word("dog", "a\tb\nc.png")
    result = recognize("a\tb\nc.png", "no\n.png")
    assert result.stdout == "a\\tb\\nc.png\tdog\t0.5000\n"
    assert result.stderr.splitlines()[0].startswith("error: no\\n.png: No such file")


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are bytes")
def test_path_that_is_no_utf8(recognize: Program, word: Word) -> None:
    name = os.fsdecode(b"d\xffg.png")
    word("dog").rename(word("dog").parent / name)
    assert recognize(name).stdout == "d\\udcffg.png\tdog\t0.5000\n"
    assert json.loads(recognize("--json", name).stdout)["path"] == name


# --- What it reads


def test_folder_is_sorted_naturally(recognize: Program, word: Word, tmp_path: Path) -> None:
    for text, name in (
        ("ten", "w10.png"),
        ("two", "w2.JPG"),
        ("one", "W1.webp"),
        ("hid", ".w0.png"),
        ("sub", "sub/w.png"),
    ):
        word(text, f"crops/{name}")
    (tmp_path / "crops" / "labels.tsv").touch()
    assert [line.split("\t")[0] for line in recognize("crops").stdout.splitlines()] == [
        "crops/W1.webp",
        "crops/w2.JPG",
        "crops/w10.png",
    ]


def test_patterns(recognize: Program, word: Word) -> None:
    for name in ("a10.png", "a9.png", "b.png", "sub/c.png", "[x].png"):
        word("dog", name)
    names = [line.split("\t")[0] for line in recognize("a*.png", "sub/**/*.png", "[x].png").stdout.splitlines()]
    assert names == ["a9.png", "a10.png", "sub/c.png", "[x].png"]


def test_list_on_stdin(recognize: Program, word: Word) -> None:
    word("dog")
    word("cat", "c t.png")
    result = recognize("-", stdin="dog.png\n\nc t.png\r\n")
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["dog", "cat"]
    assert "lists no pictures" in error_line(recognize("-", stdin="\n"))


def test_names_that_begin_with_a_dash(recognize: Program, word: Word) -> None:
    word("dog", "-dash.png")
    word("cat").rename(word("cat").parent / "--json")
    assert recognize("--", "-dash.png").stdout == "-dash.png\tdog\t0.5000\n"
    result = recognize("--csv", word("owl", "owl.png").name, "--", "-dash.png", "--json")
    assert [line.split(",")[1] for line in result.stdout.splitlines()] == ["text", "owl", "dog", "cat"]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".avif", ".jp2", ".dib"])
def test_every_suffix_in_a_folder(recognize: Program, word: Word, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "crops").mkdir()
    word("dog").rename(tmp_path / "crops" / f"dog{suffix}")  # the bytes say what it is
    assert recognize("crops").stdout == f"crops/dog{suffix}\tdog\t0.5000\n"


def test_options_may_follow_pictures(recognize: Program, word: Word) -> None:
    assert recognize(word("dog"), "--json", word("cat")).stdout.count("{") == 2


# --- Bad pictures


def test_bad_pictures_are_reported_and_the_others_read(recognize: Program, word: Word, tmp_path: Path) -> None:
    whole = word("dog").read_bytes()
    bad = {
        "empty.png": b"",
        "text.jpg": b"no picture at all",
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": word("cat", "cat.jpg").read_bytes()[:300],
        "cut.webp": word("cat", "cat.webp").read_bytes()[:30],
        "bomb.png": whole[:16] + struct.pack(">II", 50000, 50000) + whole[24:],
        "broken.png": whole[:45] + bytes(8) + whole[53:],
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    result = recognize("dog.png", *bad, "missing.png", "cat.jpg", "--batch", 2)
    assert result.returncode == 1
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["dog", "cat"]
    *errors, last = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in errors] == [*bad, "missing.png"]
    assert all(line.startswith("error: ") and ";" in line for line in errors), errors
    assert last == "8 of 10 pictures could not be read"


def test_folder_without_pictures(recognize: Program, word: Word, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "error: none: holds no pictures" in error_line(recognize("none"))
    result = recognize("none", word("dog"), "no*.png")
    assert result.returncode == 1
    assert result.stdout.endswith("\tdog\t0.5000\n")
    assert result.stderr.count("error: ") == 2
    assert "no*.png: matches no file" in result.stderr


# --- Engines


def test_engine_errors(recognize: Program, word: Word, tmp_path: Path) -> None:
    (tmp_path / "x.engine").mkdir()
    assert "holds no engine.json" in error_line(recognize(word("dog"), with_engine="x.engine"))
    assert "no such engine" in error_line(recognize(word("dog"), with_engine="none.onnx"))
    broken = write_fake_model(tmp_path / "nan.onnx", FakeOptions(score_scale=float("nan")))
    assert "nan.onnx: scores are not finite" in error_line(recognize(word("dog"), with_engine=broken))
    write_fake_model(broken, FakeOptions(opset=99))
    assert "made with opset 99" in error_line(recognize(word("dog"), with_engine=broken))


def test_verbose_names_the_engine(recognize: Program, word: Word) -> None:
    result = recognize("-v", "--threads", 1, word("dog"))
    assert "fake.onnx: fake, ONNX Runtime" in result.stderr
    assert "threads=1" in result.stderr
    assert "1 pictures in " in result.stderr


# --- Output


def test_output_file(recognize: Program, word: Word, tmp_path: Path) -> None:
    result = recognize(word("dog"), "-o", "words.tsv")
    assert (result.returncode, result.stdout) == (0, "")
    assert (tmp_path / "words.tsv").read_text().endswith("dog.png\tdog\t0.5000\n")
    assert "words.tsv: exists; choose another name, or overwrite it with --force" in error_line(
        recognize(word("cat"), "-o", "words.tsv")
    )
    assert "\tdog\t" in (tmp_path / "words.tsv").read_text()
    assert recognize(word("cat"), "-o", "words.tsv", "-f").returncode == 0
    assert "\tcat\t" in (tmp_path / "words.tsv").read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cat.png", "dog.png", "words.tsv"]


def test_output_is_written_beside_bad_pictures(recognize: Program, word: Word, tmp_path: Path) -> None:
    assert recognize(word("dog"), "none.png", "-o", "words.tsv").returncode == 1
    assert "\tdog\t" in (tmp_path / "words.tsv").read_text()


def test_unwritable_output(recognize: Program, word: Word, tmp_path: Path) -> None:
    assert "none/words.tsv: its folder does not exist" in error_line(recognize(word("dog"), "-o", "none/words.tsv"))
    assert "not a regular file" in error_line(recognize(word("dog"), "-f", "-o", "/dev/null"))
    assert "not a regular file" in error_line(recognize(word("dog"), "-f", "-o", tmp_path))
    assert "cannot be written" in error_line(recognize(word("dog"), "-o", "a" * 300))
    if os.path.exists("/proc/version"):
        assert "/proc/words.tsv: cannot be written" in error_line(recognize(word("dog"), "-o", "/proc/words.tsv"))


def test_engine_error_leaves_no_output(recognize: Program, word: Word, tmp_path: Path) -> None:
    error_line(recognize(word("dog"), "-o", "words.tsv", "--sheet", "s.png", with_engine="none.onnx"))
    assert [file.name for file in tmp_path.iterdir()] == ["dog.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_full_stdout(engine: Path, word: Word) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, PROGRAM, "--engine", str(engine), word("dog")], stdout=full, stderr=-1, text=True
        )
    assert result.returncode == 1
    assert result.stderr == "error: standard output: No space left on device; write to a file with -o\n"


def test_reader_that_leaves(engine: Path, word: Word) -> None:
    process = subprocess.Popen([sys.executable, PROGRAM, "--engine", str(engine), word("dog")], stdout=-1, stderr=-1)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1
    process.stderr.close()


def told_to_stop(process: "subprocess.Popen[bytes]", by: signal.Signals | int) -> bytes:
    """What it still writes on stderr. Told again if need be: Python overlooks a signal just before it waits to read."""
    for _ in range(9):
        process.send_signal(by)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=20)[1]
    raise AssertionError(f"goes on after {by}")


def stopped(by: signal.Signals, engine: Path, folder: Path) -> tuple[int, str]:
    """Exit status and stderr of a program that reads dog.png and then waits for a pipe, until it is told to stop."""
    os.mkfifo(folder / "pipe.png")
    writer = os.open(folder / "pipe.png", os.O_RDWR)  # who writes nothing
    command = [sys.executable, PROGRAM, "--engine", str(engine), "--batch", "1", "-o", "words.tsv"]
    process = subprocess.Popen([*command, "dog.png", "none.png", "pipe.png"], cwd=folder, stderr=-1)
    assert process.stderr
    first = process.stderr.readline()  # about none.png: the next is the pipe
    rest = told_to_stop(process, by)
    os.close(writer)
    return process.returncode, (first + rest).decode()


NONE_PNG = "error: none.png: No such file or directory; check the path and its permissions\n"


def test_interrupt_leaves_nothing(engine: Path, word: Word, tmp_path: Path) -> None:
    word("dog")
    assert stopped(signal.SIGINT, engine, tmp_path) == (130, NONE_PNG)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dog.png", "pipe.png"]


def test_sigterm_keeps_what_was_read(engine: Path, word: Word, tmp_path: Path) -> None:
    word("dog")
    counts = "1 of 2 pictures could not be read\nterminated after 2 of 3 pictures\n"
    assert stopped(signal.SIGTERM, engine, tmp_path) == (143, NONE_PNG + counts)
    assert (tmp_path / "words.tsv").read_text() == "dog.png\tdog\t0.5000\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dog.png", "pipe.png", "words.tsv"]


# --- The contact sheet


def test_sheet(recognize: Program, word: Word, tmp_path: Path) -> None:
    (tmp_path / "bad.png").touch()
    assert recognize(word("zzz"), "bad.png", "--sheet", "sheet.png").returncode == 1
    sheet = load_image(tmp_path / "sheet.png")
    assert (sheet[0, 0] == 255).all()
    cell = sheet[:, : sheet.shape[1] // 2]
    assert (cell == colour_of("zzz")).all(2).sum() > 1000  # the picture
    red = (sheet[..., 0] > 180) & (sheet[..., 1] < 60)
    assert red.any()
    assert not red[:, : sheet.shape[1] // 2].any()


def test_sheet_is_kept(recognize: Program, word: Word, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"mine")
    assert "sheet.png: exists" in error_line(recognize(word("dog"), "--sheet", "sheet.png"))
    assert (tmp_path / "sheet.png").read_bytes() == b"mine"


def test_sheet_has_a_limit(recognize: Program, word: Word) -> None:
    result = recognize("-", "--sheet", "sheet.png", stdin=f"{word('dog')}\n" * 1001)
    assert "1001 pictures, but a sheet holds 1000" in error_line(result)


# --- Usage


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--batch", "2"],
        ["--"],
        ["a.png", "--bach", "2"],
        ["a.png", "--js"],
        ["a.png", "--batch", "0"],
        ["a.png", "--threads", "many"],
        ["a.png", "--threads", "9" * 30],
        ["a.png", "--json", "--csv"],
        ["a.png", "--sheet", "sheet.pdf"],
        ["a.png", "-o", "s.png", "--sheet", "s.png"],
    ],
)
def test_wrong_usage(recognize: Program, arguments: list[str]) -> None:
    result = recognize(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")
    assert "Traceback" not in result.stderr


def test_help_is_quick_and_shows_examples() -> None:
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = subprocess.run([sys.executable, PROGRAM, "--help"], capture_output=True, text=True, check=True)
    assert "examples:\n  recognize.py sign.png" in result.stdout
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - started < 0.3  # s of CPU: others may keep it busy


@pytest.mark.parametrize("count", [20, 250])
def test_progress_only_on_a_terminal_and_for_long_work(engine: Path, word: Word, count: int) -> None:
    terminal, stderr = pty.openpty()
    command = [sys.executable, PROGRAM, "--engine", str(engine), *[str(word("dog"))] * count]
    result = subprocess.run(command, stdout=-1, stderr=stderr, check=True, text=True)
    os.write(stderr, b"end")
    os.close(stderr)
    assert result.stdout.count("\tdog\t") == count
    assert (f" of {count} pictures" in os.read(terminal, 9999).decode()) == (count > 200)
    os.close(terminal)
