"""The C++ program against the Python one: the same bytes on stdout and stderr, the same exit status.

Run by `make test` where the C++ toolchain is; ROBUSTSCANNER_CPP names another build folder.
"""

import ctypes
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from convert.build_engine import main as build_engine
from robustscanner import Constraint, Recognizer, SessionOptions, WordList
from tests.runtime.fake_model import SPEC, open_width, write_fake_model

ROOT = Path(__file__).parents[1]
BUILT = Path(os.environ.get("ROBUSTSCANNER_CPP", ROOT / "build" / "cpp" / "release"))
CPP = BUILT / "bin" / "recognize"
LIBRARY = BUILT / "lib" / "librobustscanner.so"
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
CROPS = ROOT / "calib_data" / "images"
DEMO = ROOT / "calib_data" / "demo"

pytestmark = pytest.mark.skipif(not CPP.exists(), reason=f"{CPP} is not built; make cpp")

Outcome = tuple[int, bytes, bytes]


def outcomes(*arguments: object, cwd: Path = ROOT, stdin: bytes = b"") -> tuple[Outcome, Outcome]:
    """Exit status, stdout and stderr of the C++ and the Python program."""
    results = [
        subprocess.run([*program, *arguments], cwd=cwd, input=stdin, capture_output=True, timeout=300)
        for program in ([CPP], [sys.executable, ROOT / "runtime" / "recognize.py"])
    ]
    cpp, python = ((result.returncode, result.stdout, result.stderr) for result in results)
    return cpp, python


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with pictures of every kind, good and bad, under awkward names."""
    image = cv2.imread(str(DEMO / "01.jpg"))
    kinds = {
        "w10.png": image,
        "w9.JPG": image,
        "W1.webp": image,
        "grey.png": image[:, :, 0],
        "deep.png": image.astype(np.uint16) * 257,
        "ink.png": np.dstack([image, 255 - image[:, :, :1]]),
        "d,o\n'\tg\".bmp": image,
        "[x].tiff": image[:, ::-1],
        "sub/Äb 2.ppm": image,
        "sub/äb 10.png": image[::-1],
        "sub/.hidden.png": image,
        "a.jp2": image,
        "b.jfif": image,
        "c.jpe": image,
    }
    for name, picture in kinds.items():
        suffix = Path(name).suffix.lower().replace(".jfif", ".jpg")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
    (tmp_path / "film.jpg").write_bytes(
        (tmp_path / "b.jfif").read_bytes() + bytes(range(256)) * 9 + b"\xff\xd9\xff\xda"
    )
    (tmp_path / os.fsdecode(b"d\xffg.png")).write_bytes((tmp_path / "w10.png").read_bytes())
    png, jpeg = (tmp_path / "w10.png").read_bytes(), (tmp_path / "w9.JPG").read_bytes()
    bad = {
        "empty.png": b"",
        "text.jpg": b"no picture at all",
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.webp": (tmp_path / "W1.webp").read_bytes()[:30],
        "bomb.png": png[:16] + (50000).to_bytes(4, "big") * 2 + png[24:],
        "broken.png": png[:45] + bytes(8) + png[53:],
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.fixture(scope="session")
def int8_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with 8-bit convolutions."""
    engine = tmp_path_factory.mktemp("int8") / "edge.engine"
    options = ["--int8", "--backend", "onnxruntime", "--calib-images", "16", "-o", str(engine)]
    assert build_engine(options) == 0
    return engine


# --- Readings


def test_crops_with_the_shipped_model() -> None:
    cpp, python = outcomes(CROPS)
    assert python[1].count(b"\n") >= 300
    assert cpp == python


@pytest.mark.parametrize(
    "constraint",
    [
        ["--characters", "0-9A-F"],
        ["--characters", "]a-c^\\d"],
        ["--pattern", r"[A-Z]{2}\d{2,4}"],
        ["--pattern", r"(?:EXIT|\w+[,.]\d\d|(?P<long>[^a-z]{3,}?))"],
        ["--pattern", r"^\w{2}(ab|c)?$", "--length", "0-4"],
        ["--pattern", r"[\W\d]{,5}x*|a{2"],
        ["--length", "5-"],
    ],
)
def test_constraints(constraint: list[str]) -> None:
    """Patterns are followed by two implementations, of which one is Python's own parser."""
    cpp, python = outcomes(*sorted(CROPS.glob("*.jpg"))[::40], *constraint)
    assert cpp == python
    assert cpp[0] == 0


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
@pytest.mark.parametrize("engine", [TINY, None], ids=["tiny", "shipped"])
def test_words_of_a_list(tmp_path: Path, form: list[str], engine: Path | None) -> None:
    labels = (CROPS.parent / "labels.tsv").read_text(encoding="utf-8").splitlines()
    words = [label for line in labels[::2] if len(label := line.split("\t")[1]) < 12]
    (tmp_path / "words.txt").write_text("\ufeff" + "\r\n".join(words) + "\n\n", encoding="utf-8")
    options = ["--words", tmp_path / "words.txt", *form, *(["--engine", engine] if engine else [])]
    cpp, python = outcomes(*sorted(CROPS.glob("*.jpg"))[::16], *options)
    assert cpp == python
    assert cpp[0] == 0


@pytest.mark.parametrize("model", ["edge", "small"])
@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_letters(form: str, model: str) -> None:
    engine = ROOT / "runtime" / "robustscanner" / "models" / f"{model}.onnx"
    cpp, python = outcomes("--letters", form, "--engine", engine, *sorted(CROPS.glob("*.jpg"))[::10])
    assert cpp == python
    assert cpp[0] == 0
    assert cpp[1].count(b"probability") > 100


def test_letters_on_a_sheet(tmp_path: Path) -> None:
    crops = sorted(CROPS.glob("*.jpg"))[:6]
    sheets = [tmp_path / "cpp.png", tmp_path / "python.png"]
    assert subprocess.run([CPP, "--letters", "--sheet", sheets[0], *crops], capture_output=True).returncode == 0
    python = [sys.executable, ROOT / "runtime" / "recognize.py", "--letters", "--sheet", sheets[1], *crops]
    assert subprocess.run(python, capture_output=True).returncode == 0
    green, others = ((cv2.imread(str(path)) == (60, 140, 16)).all(-1) for path in sheets)  # their lines
    assert np.array_equal(green, others)
    assert green.sum() > 100


def test_letters_of_older_exports() -> None:
    cpp, python = outcomes("--letters", "--json", CROPS / "0000.jpg", "--engine", ROOT / "tests/models/edge-lstm.onnx")
    assert cpp == python
    assert b"older than letters" in cpp[2]


@pytest.mark.parametrize("text", [None, "", "stra\u00dfe\n", "a" * 50])
def test_words_that_are_no_list(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "words.txt").write_text(text)
    cpp, python = outcomes(DEMO / "01.jpg", "--engine", TINY, "--words", tmp_path / "words.txt")
    assert cpp[:2] == python[:2] == (1, b"")
    assert cpp[2].count(b"\n") == python[2].count(b"\n") == 1


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_low_scores_are_left_out(form: list[str]) -> None:
    cpp, python = outcomes(*sorted(CROPS.glob("*.jpg"))[::20], "--min-score", "0.9", *form)
    assert cpp == python
    assert cpp[0] == 0
    assert b" of 16 readings are left out: score below 0.9\n" in cpp[2]


@pytest.mark.parametrize(
    "constraint",
    [
        ["--pattern", "(?i)a"],
        ["--pattern", "(?i:a)"],
        ["--pattern", "a(?=b)"],
        ["--pattern", r"(a)\1"],
        ["--pattern", r"a\b"],
        ["--pattern", "a^b"],
        ["--pattern", "a**"],
        ["--pattern", "a*+"],
        ["--pattern", "a{3,2}"],
        ["--pattern", "(a"],
        ["--pattern", "a)"],
        ["--pattern", "*"],
        ["--pattern", "[b-a]"],
        ["--pattern", "\u20ac"],
        ["--pattern", "((a{30}){30}){30}"],
        ["--characters", "a]b"],
        ["--characters", "\u20ac"],
        ["--length", "5-3"],
        ["--length", "99"],
    ],
)
def test_constraints_that_are_none(constraint: list[str]) -> None:
    cpp, python = outcomes(DEMO / "01.jpg", "--engine", TINY, *constraint)
    assert cpp[:2] == python[:2] == (1, b"")
    for _, _, said in (cpp, python):
        assert said.startswith(b"error: ")
        assert said.count(b"\n") == 1


def test_crops_with_an_int8_engine(int8_engine: Path) -> None:
    cpp, python = outcomes("--engine", int8_engine, CROPS)
    assert python[1].count(b"\n") >= 300
    assert cpp == python


@pytest.mark.parametrize("batch", [1, 16])
def test_canvases_as_wide_as_their_word(tmp_path: Path, batch: int) -> None:
    """The fake model's scores tell how wide each canvas was."""
    model = write_fake_model(tmp_path / "open.onnx", open_width())
    cpp, python = outcomes("--engine", model, "--batch", str(batch), CROPS)
    assert len({line.split(b"\t")[-1] for line in python[1].splitlines()}) > 30
    assert cpp == python


@pytest.mark.parametrize("options", [[], ["--json"], ["--csv", "--batch", "3", "--threads", "1"]])
def test_every_kind_of_picture(pictures: Path, options: list[str]) -> None:
    cpp, python = outcomes("--engine", TINY, ".", "missing.png", *options, cwd=pictures)
    assert python[0] == 1
    assert b"8 of 21 pictures could not be read" in python[2]
    assert cpp == python


# --- What the arguments stand for


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["./w10.png", "sub/", ".//sub//Äb 2.ppm"], b""),
        (["w*.png", "**/*.png", "[x].tiff", "[!w]*.ti?f", "s*/*"], b""),
        (["**"], b""),
        (["sub/**", "*/../*.JPG", ".?*/*", "**/"], b""),
        (["./**/[äÄ]?[!1]*.p[no][mg]", "*[x]*", "[[]x*"], b""),
        (["none*.png", "w10.png", "sub/none"], b""),
        (["-", "w9.JPG"], b"w10.png\n\n./w9.JPG\r\nnothing\n"),
        (["-"], b"\n"),
        (["--", "w10.png"], b""),
        (["--", "-dash.png", "--json"], b""),
        (["w10.png", "-o", "none/words.tsv"], b""),
        (["w10.png", "-f", "-o", "/dev/null"], b""),
        (["w10.png", "-o", "a" * 300], b""),
        (["w10.png", "-o", "w9.JPG"], b""),
        (["w10.png", "--sheet", "w9.JPG"], b""),
        (["w10.png", "--device", "-1"], b""),
        (["/"], b""),
    ],
)
def test_arguments(pictures: Path, arguments: list[str], stdin: bytes) -> None:
    cpp, python = outcomes("--engine", TINY, *arguments, cwd=pictures, stdin=stdin)
    assert cpp == python


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["a", "--bach"], ["a", "--bat", "3"], ["a", "--batch", "0"], ["a", "--batch"], ["a", "--force=1"]),
        *(["a", "--json", "--csv"], ["-x"], ["a", "--sheet", "b.txt"], ["a", "-o", "b.png", "--sheet", "b.png"]),
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    cpp, python = outcomes(*arguments)
    assert cpp[:2] == python[:2] == (2, b"")
    assert b"usage: " in cpp[2]


def test_version() -> None:
    cpp, python = outcomes("--version", "a")
    assert cpp == python


@pytest.mark.parametrize("engine", ["none.onnx", "w10.png", "sub", "text.onnx"])
def test_engines_that_are_none(pictures: Path, engine: str) -> None:
    (pictures / "text.onnx").write_bytes(b"no model")
    cpp, python = outcomes("--engine", engine, "w10.png", cwd=pictures)
    assert python[0] == 1
    assert cpp == python


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"precision": 'in"t\x7f7\n'},
        {"words": None},
        {"format": [2, {"b": 1.5, "a": "'"}]},
        {"history": 1},
        {"batch": {"min": 1, "opt": True, "max": 4}},
        {"batch": {"min": 1, "opt": "Ä" * 500, "max": 4}},
        {"files": {"../x": "0" * 64}},
        {"model": {"format": None}},
        {"model": SPEC.to_dict() | {"input": {**SPEC.to_dict()["input"], "canvas_step_px": 12}}},
        {"model": SPEC.to_dict() | {"network": {**SPEC.to_dict()["network"], "backbone": "large"}}},
    ],
)
def test_bundles_that_are_damaged(int8_engine: Path, pictures: Path, change: dict[str, object]) -> None:
    manifest = json.loads((int8_engine / "engine.json").read_text())
    (pictures / "x.engine").mkdir()
    (pictures / "x.engine" / "engine.json").write_text(json.dumps({**manifest, **change}))
    cpp, python = outcomes("--engine", "x.engine", "w10.png", cwd=pictures)
    assert python[0] == 1
    assert cpp == python


def test_bundles_that_are_no_objects(pictures: Path) -> None:
    (pictures / "x.engine").mkdir()
    (pictures / "x.engine" / "engine.json").write_text("[1]")
    cpp, python = outcomes("--engine", "x.engine", "w10.png", cwd=pictures)
    assert python[0] == 1
    assert cpp == python


def test_output_and_sheet(pictures: Path) -> None:
    arguments = ["w10.png", "empty.png", "w9.JPG", "-o", "words.tsv", "--sheet", "sheet.png", "--force"]
    cpp, python = outcomes("--engine", TINY, *arguments, cwd=pictures)
    assert cpp == python
    assert not list(pictures.glob(".robustscanner*"))
    kept = (pictures / "words.tsv").read_bytes(), cv2.imread(str(pictures / "sheet.png"))
    subprocess.run([CPP, "--engine", TINY, *arguments], cwd=pictures, check=False, stderr=subprocess.DEVNULL)
    assert (pictures / "words.tsv").read_bytes() == kept[0]
    assert (cv2.imread(str(pictures / "sheet.png")).shape) == kept[1].shape  # fonts differ between OpenCV versions


TERMINATED = b"1 of 2 pictures could not be read\nterminated after 2 of 3 pictures\n"


def told_to_stop(process: "subprocess.Popen[bytes]", signal: int) -> bytes:
    """What it still writes on stderr. Told again if need be: Python overlooks a signal just before it waits to read."""
    for _ in range(9):
        process.send_signal(signal)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=20)[1]
    raise AssertionError(f"goes on after {signal}")


@pytest.mark.parametrize("program", [[CPP], [sys.executable, ROOT / "runtime" / "recognize.py"]])
@pytest.mark.parametrize(("signal", "says"), [(2, b""), (15, TERMINATED)])
def test_signals(pictures: Path, program: list[object], signal: int, says: bytes) -> None:
    """Ctrl-C leaves nothing, SIGTERM what was read."""
    os.mkfifo(pictures / "pipe")
    writer = os.open(pictures / "pipe", os.O_RDWR)  # who writes nothing
    before = set(pictures.iterdir())
    command = [*program, "--engine", TINY, "w10.png", "none.png", "pipe", "--batch", "1", "-o", "words.tsv"]
    process = subprocess.Popen(command, cwd=pictures, stderr=subprocess.PIPE)
    assert process.stderr
    assert b"none.png: No such file" in process.stderr.readline()  # the next is the pipe
    assert told_to_stop(process, signal) == says
    assert process.returncode == 128 + signal
    kept = {pictures / "words.tsv"} if signal == 15 else set()
    assert set(pictures.iterdir()) == before | kept
    assert not kept or (pictures / "words.tsv").read_text().startswith("w10.png\t")
    os.close(writer)


def test_a_pipe_is_not_waited_for(pictures: Path) -> None:
    os.mkfifo(pictures / "pipe.jpg")
    cpp, python = outcomes("--engine", TINY, "pipe.jpg", cwd=pictures)
    assert b"pipe.jpg: a pipe into which nobody writes" in python[2]
    assert cpp == python


def test_nothing_is_sent_or_left_behind(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    unset = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    command = [CPP, "--engine", TINY, pictures / "w10.png"]
    subprocess.run(command, env={**environment, "HOME": str(tmp_path / "home")}, check=True, capture_output=True)
    assert list((tmp_path / "home").iterdir()) == []


# --- The C API, from Python


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t)] + [
        (name, ctypes.c_int32)
        for name in ("batch_size", "threads", "no_spinning", "device", "no_cuda_graphs", "allow_host_code")
    ]
    _fields_ += [("characters", ctypes.c_char_p), ("pattern", ctypes.c_char_p)]
    _fields_ += [("fewest", ctypes.c_int32), ("most", ctypes.c_int32)]
    _fields_ += [("words", ctypes.POINTER(ctypes.c_char_p)), ("word_count", ctypes.c_size_t)]


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(LIBRARY))
    found.robustscanner_error.restype = found.robustscanner_text.restype = ctypes.c_char_p
    found.robustscanner_problem.restype = ctypes.c_char_p
    found.robustscanner_score.restype = ctypes.c_double
    found.robustscanner_count.restype = ctypes.c_size_t
    return found


def opened(library: ctypes.CDLL, engine: Path, **constraint: bytes | int) -> ctypes.c_void_p:
    recognizer = ctypes.c_void_p()
    options = Options(ctypes.sizeof(Options), threads=1, no_spinning=1, **constraint)
    status = library.robustscanner_open(os.fsencode(engine), ctypes.byref(options), ctypes.byref(recognizer))
    assert status == 0, library.robustscanner_error()
    return recognizer


def read(library: ctypes.CDLL, recognizer: ctypes.c_void_p, paths: list[Path]) -> list[tuple[str, float]]:
    readings = ctypes.c_void_p()
    names = (ctypes.c_char_p * len(paths))(*map(os.fsencode, paths))
    assert library.robustscanner_read_files(recognizer, names, ctypes.c_size_t(len(paths)), ctypes.byref(readings)) == 0
    index = map(ctypes.c_size_t, range(library.robustscanner_count(readings)))
    found = [
        (library.robustscanner_text(readings, i).decode(), library.robustscanner_score(readings, i)) for i in index
    ]
    library.robustscanner_free(readings)
    return found


def test_c_api_reads_as_the_library_does(library: ctypes.CDLL) -> None:
    paths = sorted(DEMO.glob("*.jpg"))
    recognizer = opened(library, TINY)
    with ThreadPoolExecutor(10) as threads:  # that share one recognizer
        found = list(threads.map(lambda _: read(library, recognizer, paths), range(10)))
    library.robustscanner_close(recognizer)
    with Recognizer(TINY, options=SessionOptions(threads=1)) as reference:
        expected = reference.read_batch(paths)
    assert found == [found[0]] * 10
    assert [text for text, _ in found[0]] == [reading.text for reading in expected]
    assert [score for _, score in found[0]] == pytest.approx([reading.score for reading in expected])


def test_c_api_heeds_a_constraint(library: ctypes.CDLL) -> None:
    paths = sorted(DEMO.glob("*.jpg"))
    recognizer = opened(library, TINY, pattern=rb"[A-Z]{2}\d{2,4}", characters=b"A-M0-4", fewest=5, most=5)
    with Recognizer(TINY, constraint=Constraint("A-M0-4", r"[A-Z]{2}\d{2,4}", 5)) as ours:
        expected = [(reading.text, reading.score) for reading in ours.read_batch(paths)]
    assert read(library, recognizer, paths) == expected
    library.robustscanner_close(recognizer)
    listed = ["EXIT", "TAXI", "Harbour", "24"]
    recognizer = opened(library, TINY, words=(ctypes.c_char_p * 4)(*(w.encode() for w in listed)), word_count=4)
    with Recognizer(TINY, constraint=WordList(listed)) as ours:
        expected = [(reading.text, pytest.approx(reading.score)) for reading in ours.read_batch(paths)]
    assert read(library, recognizer, paths) == expected
    library.robustscanner_close(recognizer)
    options = Options(ctypes.sizeof(Options), pattern=b"a(?=b)")
    assert library.robustscanner_open(None, ctypes.byref(options), ctypes.byref(recognizer)) == 2
    assert b"cannot hold" in library.robustscanner_error()


def test_c_api_says_what_is_wrong(library: ctypes.CDLL) -> None:
    recognizer = ctypes.c_void_p()
    assert library.robustscanner_open(b"none.onnx", None, ctypes.byref(recognizer)) == 2
    assert library.robustscanner_error().startswith(b"none.onnx: no such engine; ")
    assert not recognizer
