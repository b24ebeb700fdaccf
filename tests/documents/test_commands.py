"""The commands of README and docs: what needs no GPU and little time is run, of all others the options are parsed."""

import argparse
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from .markdown import PAGES, ROOT, blocks, commands

FOLDERS = ("benchmarks", "calib_data", "convert", "runtime", "tests", "training")
INSTALLED = {
    "robustscanner": "robustscanner.recognize",
    "robustscanner-batch": "robustscanner.batch",
    "robustscanner-build": "convert.build_engine",
    "robustscanner-serve": "robustscanner.serve",
}
READS = "runtime/recognize.py"
BUILDS = "convert/build_engine.py"
RUN = {
    READS,
    BUILDS,
    "convert/quantize.py",
    "training/render_crops.py",
    "benchmarks/latency.py",
    "benchmarks/accuracy.py",
}
SLOW = {"--backend", "--fp16", "--max-drop"}  # or in need of a GPU; checkpoints and r31 are as slow
ON_GPUS = ("gpu-decoding.md", "jetson.md", "tensorrt.md")  # pages whose commands and Python run there only
CPP = ROOT / "build" / "cpp" / "release"

SCRIPTS = [
    path
    for folder in ("runtime/robustscanner", "convert", "training", "benchmarks")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "\nexamples:\n" in path.read_text(encoding="utf-8").replace('"""', "\n")
]

Command = list[str]


class Parsed(Exception):
    """The command line is right, and the program goes no further."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, name)

        def parse(self: Any, *arguments: Any, original: Any = original, **options: Any) -> None:
            original(self, *arguments, **options)
            raise Parsed

        monkeypatch.setattr(argparse.ArgumentParser, name, parse)


@pytest.mark.usefixtures("parse_only")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And make targets, presets, extras and packages."""
    for command in commands(page):
        for program, *arguments in _piped(command):
            if module := _module(program, arguments):
                monkeypatch.setattr(sys, "argv", [program, *module[1]])
                _check_program(module[0], f"{page.name}: {' '.join(command)}")
            else:
                check_tool = TOOLS.get(Path(program).name)
                assert check_tool, f"{page.name}: {program}: nothing here checks this command; see TOOLS"
                check_tool(arguments)


@pytest.mark.usefixtures("parse_only")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT)))
def test_examples_of_help(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = script.read_text(encoding="utf-8")
    found = re.search(r"examples:\n(.*?)(?:\n\n|\"\"\")", text, re.DOTALL)
    assert found, "no examples"
    for line in found[1].replace("\\\\\n", " ").replace("%(prog)s", script.name).splitlines():
        command = shlex.split(re.split(r"\s{3,}", line.strip())[0])
        for program, *arguments in _piped(command):
            ours = (_name(script), arguments) if program == script.name else _module(program, arguments)
            if ours:
                monkeypatch.setattr(sys, "argv", [program, *ours[1]])
                _check_program(ours[0], f"{script.name}: {line.strip()}")


def _piped(command: Command) -> list[Command]:
    return [list(part) for joint, part in groupby(command, ("|", "&&").__contains__) if not joint]


def _module(program: str, arguments: Command) -> tuple[str, Command] | None:
    """The module of a program of ours, and its arguments."""
    if program in INSTALLED:
        return INSTALLED[program], arguments
    if arguments[:2] == ["-m", "robustscanner"]:
        return INSTALLED["robustscanner"], arguments[2:]
    if Path(program).name in ("python", "torchrun") and "-m" not in arguments:
        for index, argument in enumerate(arguments):
            if argument.endswith(".py"):
                assert (ROOT / argument).exists(), f"{argument} does not exist"
                return _name(ROOT / argument), arguments[index + 1 :]
    return None


def _name(script: Path) -> str:
    name = ".".join(script.relative_to(ROOT).with_suffix("").parts)
    return f"robustscanner.{script.stem}" if name.startswith("runtime.") else name


def _check_program(module: str, where: str) -> None:
    try:
        importlib.import_module(module).main()
    except Parsed:
        return
    except SystemExit:
        pytest.fail(f"{where}: wrong usage")
    pytest.fail(f"{where}: its arguments were not parsed")


def _check_make(arguments: Command) -> None:
    subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _check_cmake(arguments: Command) -> None:
    presets = json.loads((ROOT / "CMakePresets.json").read_text())
    known = {preset["name"] for preset in presets["configurePresets"]}
    assert "--preset" not in arguments or arguments[arguments.index("--preset") + 1] in known


def _check_pip(arguments: Command) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    extras = {extra for argument in arguments if argument.startswith(".[") for extra in argument[2:-1].split(",")}
    assert all(f"\n{extra} = [" in project for extra in extras)


def _check_apt(arguments: Command) -> None:
    ours = (ROOT / ".ci" / "run").read_text() + (ROOT / "pyproject.toml").read_text()
    system = {"apt", "install", "python3-venv", "python3-dev", "nvidia-jetpack"}
    assert all(package in ours for package in arguments if package not in system)


def _check_python(arguments: Command) -> None:
    assert arguments[:2] in (["-m", "pytest"], ["-m", "venv"])
    assert all((ROOT / argument).exists() for argument in arguments if argument.startswith("tests/"))


def _check_nothing(arguments: Command) -> None:
    del arguments  # the system's, or built by a command before it


TOOLS = {
    "apt": _check_apt,
    "bench": _check_nothing,
    "cmake": _check_cmake,
    "curl": _check_nothing,
    "export": _check_nothing,
    "find": _check_nothing,
    "make": _check_make,
    "pip": _check_pip,
    "python": _check_python,
    "python3": _check_python,
    "ray": _check_nothing,
    "recognize": _check_nothing,
    "serve": _check_nothing,
    "sudo": _check_apt,
}


# --- What is run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as a user has it, with pictures, and with few crops to calibrate with."""
    place = tmp_path_factory.mktemp("checkout")
    for folder in set(FOLDERS) - {"calib_data"}:
        (place / folder).symlink_to(ROOT / folder)
    labels = (ROOT / "calib_data" / "labels.tsv").read_text(encoding="utf-8").splitlines()[:6]
    for folder in ("calib_data", "my_crops", "crops"):
        (place / folder / "images").mkdir(parents=True)
        (place / folder / "labels.tsv").write_text("\n".join(labels) + "\n", encoding="utf-8")
        for line in labels:
            name = line.split("\t")[0]
            shutil.copy(ROOT / "calib_data" / name, place / folder / name)
    demo = sorted((ROOT / "calib_data" / "demo").glob("*.jpg"))
    (place / "more").mkdir()
    for source, name in zip(demo, ("sign.png", "crops/0.jpg", "more/1.jpg"), strict=False):
        shutil.copy(source, place / name)
    (place / "words.txt").write_text("EXIT\nBakery\nopen\n")
    models = ROOT / "runtime" / "robustscanner" / "models"
    (place / "build").mkdir()
    shutil.copy(models / "edge.onnx", place / "build" / "edge.onnx")  # of export_onnx.py
    return place


def test_quick_commands(place: Path) -> None:
    """In the order of the pages, each once: they use what those before them made."""
    pages = [page for page in PAGES if page.name not in ON_GPUS]
    lines = [_quoted(command) for page in pages for command in commands(page) if _is_quick(command)]
    for line in dict.fromkeys(lines):
        result = subprocess.run(line, cwd=place, shell=True, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{line}: {result.stderr}"


def _is_quick(command: Command) -> bool:
    slow = re.search(r"\.safetensors|r31", " ".join(command))
    return not (RUN.isdisjoint(command) or SLOW & set(command) or slow)


def _quoted(command: Command) -> str:
    words = [sys.executable if word.endswith("python") else word for word in command]
    return " ".join(word if word in ("|", "&&") else shlex.quote(word) for word in words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    for block in blocks(page, "python"):
        code = compile(block.text, page.name, "exec")
        if page.name not in ON_GPUS:
            exec(code, {})
            assert "EXIT" in capsys.readouterr().out


@pytest.mark.skipif(not CPP.exists(), reason=f"{CPP} is not built; make cpp")
def test_cpp(place: Path) -> None:
    (source,) = blocks(ROOT / "docs" / "cpp.md", "cpp")
    (place / "app.cpp").write_text(source.text)
    folders = [f"-I{ROOT / 'runtime' / 'cpp' / 'include'}", f"-I{CPP / 'include'}", f"-L{CPP / 'lib'}"]
    link = ["-lrobustscanner", f"-Wl,-rpath,{CPP / 'lib'}", "-Wl,--allow-shlib-undefined"]
    subprocess.run(["c++", "-std=c++17", "app.cpp", *folders, *link, "-o", "app"], cwd=place, check=True, timeout=300)
    assert subprocess.run([place / "app"], cwd=place, check=True, capture_output=True).stdout == b"EXIT\n"
