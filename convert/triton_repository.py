"""Makes a model of an engine that NVIDIA's Triton Inference Server serves, by its Python backend."""

import argparse
import json
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "convert"

from robustscanner.errors import EngineError
from robustscanner.program import add_sessions, exit_status, number_between, whole_number

if TYPE_CHECKING:
    from robustscanner.spec import ModelSpec

Settings = dict[str, str | int]  # what the configs have in common

EPILOG = """examples:
  python convert/triton_repository.py -o repository                       the shipped model
  python convert/triton_repository.py build/e.engine -o repository -f     any engine, for TensorRT as well
  python convert/triton_repository.py -o repository --backend onnxruntime
  tritonserver --model-repository repository

The server's Python needs this package: pip install 'robustscanner[cpu]', and for TensorRT engines what docs/tensorrt.md
lists. Inputs: image, the bytes of a picture's file. Outputs: text and score.
"""
NAME, GRAPH_NAME = "robustscanner", "robustscanner_graph"
CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {max_batch}
input [ {{ name: "image" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [
  {{ name: "text" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "score" data_type: TYPE_FP32 dims: [ 1 ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
instance_group [ {{ count: {instances} kind: {kind} }} ]
"""
ENGINE_CONFIG = """\
parameters {{ key: "engine" value: {{ string_value: {engine} }} }}
parameters {{ key: "threads" value: {{ string_value: "{threads}" }} }}
model_warmup [ {{
  name: "a word"
  batch_size: 1
  inputs {{ key: "image" value: {{ data_type: TYPE_STRING dims: [ 1 ] input_data_file: "word" }} }}
}} ]
"""
# No warm-up: it would ask the graph, which may still be loading.
ENTRY_CONFIG = """\
parameters {{ key: "graph" value: {{ string_value: "{graph}" }} }}
"""
GRAPH_CONFIG = """\
name: "{graph}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{ name: "images" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }},
  {{ name: "valid_width" data_type: TYPE_INT32 dims: [ 1 ] reshape: {{ shape: [ ] }} }}
]
output [
  {{ name: "tokens" data_type: TYPE_INT32 dims: [ {steps} ] }},
  {{ name: "scores" data_type: TYPE_FP32 dims: [ {steps} ] }}
]
dynamic_batching {{ }}
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}
model_warmup [ {{
  name: "a word"
  batch_size: 1
  inputs {{ key: "images" value: {{ data_type: TYPE_UINT8 dims: [ {word_shape} ] input_data_file: "images" }} }}
  inputs {{ key: "valid_width" value: {{ data_type: TYPE_INT32 dims: [ 1 ] input_data_file: "valid_width" }} }}
}} ]
"""
MODEL = "from robustscanner.serving.triton_model import TritonPythonModel  # noqa: F401\n"
WORD = Path(__file__).parents[1] / "calib_data" / "images" / "0000.jpg"
MOST_WAIT_MS = 60_000


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "engine", type=Path, nargs="?", metavar="ENGINE", help="NAME.engine or NAME.onnx (default: the shipped model)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help=f"the repository; the model is DIR/{NAME}"
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace the model that is there")
    parser.add_argument(
        "--backend",
        choices=("python", "onnxruntime"),
        default="python",
        help="what runs the engine; onnxruntime: a model of its own, which the one for pictures asks (default: python)",
    )
    parser.add_argument("--max-batch", type=whole_number, default=16, metavar="N", help="pictures a run (default: 16)")
    parser.add_argument(
        "--max-wait-ms",
        type=number_between(0, MOST_WAIT_MS, f"milliseconds from 0 to {MOST_WAIT_MS}"),
        default=2.0,
        metavar="MS",
        help="a picture waits so long for others (default: 2)",
    )
    add_sessions(parser, "--instances")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from robustscanner.cpu import share_cores
    from robustscanner.engine import default_engine, runs_on_gpu

    engine = arguments.engine or default_engine()
    on_gpu = runs_on_gpu(engine)
    instances, threads = share_cores(arguments.instances or (1 if on_gpu else None), arguments.threads)
    settings = {
        "name": NAME,
        "graph": GRAPH_NAME,
        "max_batch": arguments.max_batch,
        "delay_us": round(1000 * arguments.max_wait_ms),
        "instances": instances,
        "kind": "KIND_GPU" if on_gpu else "KIND_CPU",
        "threads": threads,
    }
    spec = None if on_gpu else _spec(engine)
    if arguments.backend == "python":
        _write_engine(engine, arguments.output, settings, force=arguments.force)
    elif spec is None:
        raise EngineError(f"{engine}: is for TensorRT, not for ONNX Runtime; leave out --backend")
    else:
        _write_graph(engine, spec, arguments.output, settings, force=arguments.force)
    print(f"{arguments.output / NAME}: {engine.name}, {instances} x {'GPU' if on_gpu else 'CPU'}")
    print(f"  try it       tritonserver --model-repository {arguments.output}")


def _spec(engine: Path) -> "ModelSpec":
    """What cannot be opened here would not be opened there either."""
    from robustscanner.recognizer import Recognizer

    with Recognizer(engine) as recognizer:
        return recognizer.spec


def _write_engine(engine: Path, repository: Path, settings: Settings, *, force: bool) -> None:
    """One model, whose Python opens the engine."""
    from robustscanner.output import OutputError

    if (repository / GRAPH_NAME).exists():  # Triton would load it for nothing
        raise OutputError(
            f"{repository}: holds {GRAPH_NAME}; remove it, choose another folder, or --backend onnxruntime"
        )
    with _writing_model(repository / NAME, force=force) as folder:
        config = (CONFIG + ENGINE_CONFIG).format(**settings, engine=json.dumps(engine.name, ensure_ascii=False))
        _write(folder / "config.pbtxt", config.encode())
        _write(folder / "1" / "model.py", MODEL.encode())
        copy = shutil.copytree if engine.is_dir() else shutil.copy
        copy(engine, folder / "1" / engine.name)
        picture = WORD.read_bytes()
        _write(folder / "warmup" / "word", len(picture).to_bytes(4, "little") + picture)  # as Triton stores strings


def _write_graph(engine: Path, spec: "ModelSpec", repository: Path, settings: Settings, *, force: bool) -> None:
    """Two models: the graph, and what makes canvases of pictures, and texts of its tokens."""
    from robustscanner.engine import ONNX_NAME
    from robustscanner.preprocess import load_image, make_batch

    canvas, valid_width = make_batch([load_image(WORD)], spec.input)
    with (
        _writing_model(repository / GRAPH_NAME, force=force) as graph,
        _writing_model(repository / NAME, force=force) as entry,
    ):
        _write(entry / "config.pbtxt", (CONFIG + ENTRY_CONFIG).format(**settings).encode())
        _write(entry / "1" / "model.py", MODEL.encode())
        _write(entry / "1" / "spec.json", spec.to_json().encode())
        config = GRAPH_CONFIG.format(
            **settings,
            height=spec.input.height_px,
            width=-1 if spec.input.canvas_step_px else spec.input.width_px,
            steps=spec.network.max_length,
            word_shape=", ".join(map(str, canvas.shape[1:])),
        )
        _write(graph / "config.pbtxt", config.encode())
        _write(graph / "1" / "model.onnx", (engine / ONNX_NAME if engine.is_dir() else engine).read_bytes())
        _write(graph / "warmup" / "images", canvas.tobytes())
        _write(graph / "warmup" / "valid_width", valid_width.tobytes())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _writing_model(target: Path, *, force: bool) -> AbstractContextManager[Path]:
    from robustscanner.output import writing_folder

    return writing_folder(target, lambda: _check(target, force=force))


def _check(target: Path, *, force: bool) -> None:
    from robustscanner.output import OutputError

    if target.exists() and not (target / "config.pbtxt").is_file():
        raise OutputError(f"{target}: exists and is no model of Triton; choose another folder")
    if target.exists() and not force:
        raise OutputError(f"{target}: exists; choose another folder, or replace it with --force")


if __name__ == "__main__":
    sys.exit(main())
