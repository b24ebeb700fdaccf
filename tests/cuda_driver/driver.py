"""The stand-in for NVIDIA's driver, `libcuda.c`: built, loaded before PyCUDA looks for the real one, and asked."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("libcuda.c")
BUILD = Path(__file__).parents[2] / "build" / "stand-in"
NAME = "libcuda.so.1"
LEFT = ("device allocations", "page-locked allocations", "graphs", "events", "streams", "modules", "pushed contexts")
OFFSET = 1 << 56  # from where memory is on the host to its device address
OUT_OF_MEMORY, ILLEGAL_ADDRESS, UNKNOWN = 2, 700, 999  # CUresult

_Run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_long)
_Kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint64))
_Freed = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_size_t)


def build() -> Path:
    """Compiles it, unless this very source was compiled before; returns the folder for LD_LIBRARY_PATH."""
    folder = BUILD / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = folder / NAME
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"{NAME}.new"
        flags = ["-shared", "-fPIC", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
        subprocess.run(["gcc", *flags, f"-Wl,-soname,{NAME}", "-o", made, SOURCE, "-ldl"], check=True)
        made.replace(library)
        (folder / "libcuda.so").unlink(missing_ok=True)
        (folder / "libcuda.so").symlink_to(NAME)  # for the linker, when PyCUDA is built
    return folder


def environment(report: Path | None = None) -> dict[str, str]:
    """Of a program that is to find the stand-in and one GPU; it writes what was left and called into a file."""
    search = os.pathsep.join(filter(None, [str(build()), os.environ.get("LD_LIBRARY_PATH")]))
    found = os.environ | {"LD_LIBRARY_PATH": search, "STAND_IN_GPU": "1 8 7 0"}
    return found | ({"STAND_IN_REPORT": str(report)} if report else {})


@cache
def missing() -> str | None:
    """Why session tests cannot run on the stand-in here."""
    if shutil.which("gcc") is None:
        return "the stand-in driver needs gcc"
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return "the stand-in driver needs Linux"
    mapped = {line.split()[-1] for line in maps.read_text().splitlines() if line.endswith(NAME)}
    if any(BUILD.name not in path for path in mapped):
        return "NVIDIA's own driver is loaded in this process; run these tests by themselves"
    load()
    try:
        import cuda.bindings.driver  # noqa: F401
        import pycuda.driver  # noqa: F401  # type: ignore[import-untyped]
    except ImportError as error:
        return f"needs PyCUDA and cuda-bindings ({error}): make pycuda, where nvcc is"
    return None


@cache
def load() -> ctypes.CDLL:
    """Loads it; whoever asks for libcuda.so.1 in this process gets it then."""
    library = ctypes.CDLL(str(build() / NAME), ctypes.RTLD_GLOBAL)
    library.standin_plug_in.argtypes = [ctypes.c_int] * 4
    library.standin_connect.argtypes = [_Run, _Freed]
    library.standin_fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
    library.standin_run_ahead.argtypes = [ctypes.c_long]
    library.standin_calls.argtypes, library.standin_calls.restype = [ctypes.c_char_p], ctypes.c_long
    library.standin_launch.argtypes = [ctypes.c_void_p, ctypes.c_long]
    library.standin_is_recording.argtypes = [ctypes.c_void_p]
    library.standin_break_recording.argtypes = [ctypes.c_void_p]
    library.standin_reach.argtypes, library.standin_reach.restype = [ctypes.c_uint64, ctypes.c_size_t], ctypes.c_void_p
    library.standin_kernel.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    library.standin_left.argtypes, library.standin_left.restype = [ctypes.c_char_p], ctypes.c_long
    for name in ("standin_name", "standin_problem"):
        getattr(library, name).argtypes, getattr(library, name).restype = [ctypes.c_int], ctypes.c_char_p
    return library


class Driver:
    """A machine that can be plugged in. The library is one for the process, and so is what it counts."""

    def __init__(self, devices: int = 1, compute_capability: tuple[int, int] = (8, 7), *, integrated: bool = False):
        self._machine = devices, *compute_capability, int(integrated)
        self._failures: dict[str, tuple[int, int]] = {}  # name -> which call, and its status
        self._work: dict[int, Callable[[], int]] = {}
        self._kernels: list[Any] = []  # kept, as the library calls them
        self.errors: list[BaseException] = []  # raised in queued work, where nobody can catch them
        self.freed: Callable[[int, int], None] = lambda address, size_bytes: None
        self._hooks = _Run(self._run), _Freed(lambda address, size_bytes: self.freed(address, size_bytes))

    def plug_in(self) -> None:
        """From now on there is a GPU, and nothing was called yet."""
        load().standin_plug_in(*self._machine)
        self.attach()

    def attach(self) -> None:
        """Runs the work of a machine that was plugged in by the environment, see `environment`."""
        self._library = load()
        self._library.standin_connect(*self._hooks)
        for name, (which, status) in self._failures.items():
            self._library.standin_fail(name.encode(), 1, which, status)

    def unplug(self) -> None:
        """From now on there is no GPU."""
        self._library.standin_plug_in(0, 0, 0, 0)

    def fail(self, name: str, which: int = 1, *, status: int = UNKNOWN) -> None:
        """Lets a call return a status: the `which`-th of that name from the beginning; -3: all from the third on."""
        self._failures[name] = which, status
        if hasattr(self, "_library"):
            self._library.standin_fail(name.encode(), 1, which, status)

    @property
    def calls(self) -> Counter[str]:
        """How often each function was called, by its name without a version."""
        found: Counter[str] = Counter()
        index = 0
        while name := self._library.standin_name(index):
            found[name.decode()] = self._library.standin_calls(name)
            index += 1
        return +found

    @property
    def depth(self) -> int:
        """Contexts that this thread pushed."""
        return int(self._library.standin_depth())

    def context_flags(self, device: int = 0) -> int:
        """How threads wait in a primary context."""
        return int(self._library.standin_context_flags(device))

    def left(self, what: str) -> int:
        """How many of one of LEFT, or of "retained contexts", there are."""
        return int(self._library.standin_left(what.encode()))

    def problems(self) -> list[str]:
        """What a GPU would have punished."""
        found: list[str] = []
        while text := self._library.standin_problem(len(found)):
            found.append(text.decode())
        return found + [f"{type(error).__name__}: {error}" for error in self.errors]

    def add_kernel(self, name: str, function: ctypes._CFuncPtr, sizes: Sequence[int]) -> None:
        """What a kernel of that name does; it takes grid, block and shared bytes, and parameters of these sizes."""
        array = (ctypes.c_size_t * len(sizes))(*sizes)
        self._library.standin_kernel(name.encode(), ctypes.cast(function, ctypes.c_void_p), len(sizes), array)

    def teach(self, name: str, parameter_bytes: int, kernel: Callable[[int], None]) -> None:
        """Likewise for a kernel in Python, which is given the host address of its one parameter."""

        def run(_: Any, values: Any) -> None:
            try:
                kernel(values[0])
            except BaseException as error:
                self.errors.append(error)

        self._kernels.append(_Kernel(run))
        self.add_kernel(name, self._kernels[-1], [parameter_bytes])

    def launch(self, stream: int, work: Callable[[], int]) -> int:
        """Queues work on a stream, or into what is being recorded there; a CUresult."""
        number = len(self._work)
        self._work[number] = work
        return int(self._library.standin_launch(stream, number))

    def run_ahead(self, pieces: int) -> None:
        """From now on so much runs beyond what is waited for: a real device does not stop there."""
        self._library.standin_run_ahead(pieces)

    def is_recording(self, stream: int) -> bool:
        return bool(self._library.standin_is_recording(stream))

    def break_recording(self, stream: int) -> None:
        """As a call does that cannot be recorded."""
        self._library.standin_break_recording(stream)

    def memory(self, address: int, size_bytes: int) -> ctypes.Array[ctypes.c_char] | None:
        """Memory at a device address, to be read and written; None where nothing is."""
        host = self._library.standin_reach(address, size_bytes)
        return (ctypes.c_char * size_bytes).from_address(host) if host else None

    def _run(self, number: int) -> int:
        try:
            return self._work[number]()
        except BaseException as error:
            self.errors.append(error)
            return UNKNOWN
