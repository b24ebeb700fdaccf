"""Who may import whom: a table that every import statement of the project is checked against."""

import ast
import sys
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What both backends and what measures them may use of `convert`.
ENGINE = {f"convert.engine.{noun}" for noun in ("backend", "bundle", "model_source", "product")}
SHARED = {"convert.graph", "convert.int8", *ENGINE}

# file or folder -> modules it may import, besides the standard library; the longest matching entry counts.
# "robustscanner.*" are the library's modules, "training" and "convert" the folders of programs.
TABLE: dict[str, set[str]] = {
    "runtime/recognize.py": {"robustscanner.recognize"},
    "runtime/robustscanner/__init__.py": {
        "robustscanner.constraint",
        "robustscanner.errors",
        "robustscanner.letters",
        "robustscanner.recognizer",
        "robustscanner.session",
        "robustscanner.words",
    },
    "runtime/robustscanner/__main__.py": {"robustscanner.recognize"},
    "runtime/robustscanner/errors.py": set(),
    "runtime/robustscanner/spec.py": {"robustscanner.errors"},
    "runtime/robustscanner/metrics.py": set(),
    "runtime/robustscanner/scoring.py": {"robustscanner.charset", "robustscanner.metrics", "robustscanner.spec"},
    "runtime/robustscanner/labels.py": {"robustscanner.errors"},
    "runtime/robustscanner/output.py": {"robustscanner.errors"},
    "runtime/robustscanner/program.py": {"robustscanner.errors"},
    "runtime/robustscanner/charset.py": {"numpy", "robustscanner.spec"},
    "runtime/robustscanner/preprocess.py": {"numpy", "cv2", "robustscanner.errors", "robustscanner.spec"},
    "runtime/robustscanner/picture.py": {"numpy", "PIL", "robustscanner.errors", "robustscanner.preprocess"},
    "runtime/robustscanner/pictures.py": {"robustscanner.errors"},
    "runtime/robustscanner/cpu.py": set(),
    "runtime/robustscanner/session.py": {"numpy", "robustscanner.cpu", "robustscanner.errors", "robustscanner.spec"},
    "runtime/robustscanner/onnx_session.py": {
        "numpy",
        "onnxruntime",
        "robustscanner.cpu",
        "robustscanner.errors",
        "robustscanner.session",
        "robustscanner.spec",
    },
    "runtime/robustscanner/gpu/__init__.py": set(),
    "runtime/robustscanner/gpu/decoding.py": set(),
    "runtime/robustscanner/gpu/device.py": {
        "numpy",
        "pycuda",
        "cuda.bindings",
        "robustscanner.errors",
        "robustscanner.session",
    },
    "runtime/robustscanner/gpu/probe.py": {
        "numpy",
        "robustscanner.constraint",
        "robustscanner.session",
        "robustscanner.spec",
    },
    "runtime/robustscanner/gpu/plan.py": {
        "numpy",
        "tensorrt",
        "tensorrt_rtx",
        "robustscanner.errors",
        "robustscanner.gpu.device",
        "robustscanner.spec",
    },
    "runtime/robustscanner/gpu/kernels.py": {"numpy", "robustscanner.errors", "robustscanner.spec"},
    "runtime/robustscanner/gpu/kernel_module.py": {
        "cuda.bindings",
        "numpy",
        "robustscanner.errors",
        "robustscanner.gpu.device",
        "robustscanner.gpu.kernels",
        "robustscanner.gpu.plan",
    },
    "runtime/robustscanner/gpu/row_encoder.py": {
        "numpy",
        "robustscanner.errors",
        "robustscanner.gpu.bucket",
        "robustscanner.gpu.kernel_module",
        "robustscanner.gpu.kernels",
        "robustscanner.gpu.plan",
    },
    "runtime/robustscanner/gpu/kernel_decoder.py": {
        "numpy",
        "robustscanner.errors",
        "robustscanner.gpu.bucket",
        "robustscanner.gpu.crops",
        "robustscanner.gpu.kernel_module",
        "robustscanner.gpu.kernels",
        "robustscanner.gpu.plan",
        "robustscanner.regions",
        "robustscanner.session",
        "robustscanner.spec",
    },
    "runtime/robustscanner/regions.py": {
        "numpy",
        "robustscanner.errors",
        "robustscanner.preprocess",
        "robustscanner.spec",
    },
    "runtime/robustscanner/gpu/crops.py": {
        "numpy",
        "robustscanner.errors",
        "robustscanner.gpu.device",
        "robustscanner.regions",
    },
    "runtime/robustscanner/gpu/bucket.py": {
        "numpy",
        "robustscanner.gpu.crops",
        "robustscanner.regions",
        "robustscanner.gpu.decoding",
        "robustscanner.errors",
        "robustscanner.gpu.device",
        "robustscanner.gpu.plan",
        "robustscanner.session",
        "robustscanner.spec",
    },
    "runtime/robustscanner/gpu/tensorrt_session.py": {
        "numpy",
        "robustscanner.gpu.crops",
        "robustscanner.regions",
        "robustscanner.gpu.kernel_decoder",
        "robustscanner.gpu.kernel_module",
        "robustscanner.gpu.probe",
        "robustscanner.gpu.row_encoder",
        "robustscanner.gpu.bucket",
        "robustscanner.gpu.decoding",
        "robustscanner.errors",
        "robustscanner.gpu.device",
        "robustscanner.gpu.plan",
        "robustscanner.session",
        "robustscanner.spec",
    },
    "runtime/robustscanner/engine.py": {
        "robustscanner.scoring",
        "robustscanner.errors",
        "robustscanner.onnx_session",
        "robustscanner.session",
        "robustscanner.spec",
        "robustscanner.gpu.tensorrt_session",
    },
    "runtime/robustscanner/constraint.py": {"numpy", "robustscanner.errors", "robustscanner.spec"},
    "runtime/robustscanner/words.py": {
        "numpy",
        "robustscanner.constraint",
        "robustscanner.errors",
        "robustscanner.session",
        "robustscanner.spec",
    },
    "runtime/robustscanner/letters.py": {
        "numpy",
        "robustscanner.constraint",
        "robustscanner.errors",
        "robustscanner.session",
        "robustscanner.spec",
    },
    "runtime/robustscanner/recognizer.py": {
        "numpy",
        "robustscanner.letters",
        "robustscanner.words",
        "robustscanner.charset",
        "robustscanner.constraint",
        "robustscanner.engine",
        "robustscanner.errors",
        "robustscanner.preprocess",
        "robustscanner.regions",
        "robustscanner.session",
        "robustscanner.picture",
        "robustscanner.spec",
    },
    "runtime/robustscanner/photo.py": {"numpy", "rapidocr", "robustscanner"},
    "runtime/robustscanner/sheet.py": {"numpy", "cv2", "robustscanner"},
    "runtime/robustscanner/recognize.py": {"robustscanner"},
    "runtime/robustscanner/source.py": {
        "fsspec",
        "lmdb",
        "pyarrow",
        "robustscanner.errors",
        "robustscanner.pictures",
    },
    "runtime/robustscanner/job.py": {
        "pyarrow",
        "robustscanner.engine",
        "robustscanner.errors",
        "robustscanner.output",
        "robustscanner.source",
    },
    "runtime/batch.py": {"robustscanner.batch"},
    "runtime/robustscanner/batch.py": {"pyarrow", "ray", "robustscanner"},
    "runtime/examples": {"numpy", "rapidocr", "robustscanner"},
    "runtime/serve.py": {"robustscanner.serve"},
    "runtime/robustscanner/serve.py": {"robustscanner", "uvicorn"},
    "runtime/robustscanner/serving": {"robustscanner", "pydantic", "starlette"},
    "runtime/robustscanner/serving/app.py": {"numpy", "cv2", "fastapi", "pydantic", "robustscanner"},
    "runtime/robustscanner/serving/triton_model.py": {"numpy", "triton_python_backend_utils", "robustscanner"},
    "runtime/robustscanner/serving/triton_graph.py": {"triton_python_backend_utils", "robustscanner"},
    "runtime/robustscanner/serving/ray_serve.py": {"ray", "robustscanner", "starlette"},
    "runtime/robustscanner/serving/settings.py": set(),
    "runtime/robustscanner/serving/metrics.py": {"prometheus_client"},
    "convert": {"robustscanner", "convert"},  # programs, and what they share
    "convert/sensitivity.py": {"onnxruntime", "robustscanner", "convert"},
    "convert/import_checkpoint.py": {"torch", "robustscanner", "convert", "training.checkpoint", "training.model"},
    "convert/foreign": {"numpy", "robustscanner.errors", "robustscanner.spec", "convert.foreign"},
    "convert/foreign/weight_file.py": {"numpy", "robustscanner.errors", "convert.foreign", "training.checkpoint"},
    "convert/graph": {"numpy", "onnx", "robustscanner", "convert.graph"},
    "convert/graph/session.py": {"onnx", "onnxruntime"},
    "convert/graph/export.py": {
        "numpy",
        "onnx",
        "onnxsim",
        "torch",
        "robustscanner",
        "convert.graph",
        "training.checkpoint",
        "training.model",
    },
    "convert/int8": {"numpy", "onnx", "robustscanner", "convert.graph", "convert.int8"},
    "convert/int8/calibration.py": {"numpy", "onnx", "tqdm", "robustscanner", "convert.graph.session"},
    "convert/engine": {"numpy", "onnx", "robustscanner", "convert.graph", *ENGINE},
    "convert/engine/backend.py": {"robustscanner.spec", "convert.int8", *ENGINE},
    "convert/engine/product.py": {"robustscanner.engine"},
    "convert/engine/accuracy": {"numpy", "onnx", "tqdm", "robustscanner", "convert.engine.accuracy", *SHARED},
    "convert/engine/accuracy/chart.py": {"matplotlib"},
    "convert/engine/cpu": {"numpy", "onnx", "onnxruntime", "robustscanner", "convert.engine.cpu", *SHARED},
    "convert/engine/trt": {"numpy", "onnx", "onnxruntime", "robustscanner", "convert.engine.trt", *SHARED},
    "convert/engine/trt/installed.py": {"robustscanner.errors", "robustscanner.gpu.device", "tensorrt", "tensorrt_rtx"},
    "convert/engine/trt/layers.py": set(),
    "convert/engine/trt/watch.py": {"tqdm"},
    "training": {"numpy", "cv2", "PIL", "torch", "safetensors", "tqdm", "yaml", "lmdb", "robustscanner", "training"},
    "training/adopt_encoder.py": {"numpy", "onnx", "torch", "robustscanner", "training"},
    "benchmarks/lmdb_stream.py": {"numpy", "cv2", "robustscanner", "training", "benchmarks"},
    "benchmarks/letters.py": {"numpy", "PIL", "matplotlib", "robustscanner", "benchmarks"},
    "benchmarks/peer_server.py": {"fastapi", "uvicorn", "robustscanner", "benchmarks"},
    "benchmarks/constraints.py": {"numpy", "robustscanner", "training.data.render", "benchmarks"},
    "benchmarks/reliability.py": {"numpy", "robustscanner", "training.data.render", "benchmarks"},
    "benchmarks/finetune.py": {"robustscanner", "training", "benchmarks"},
    "benchmarks/photos.py": {
        "numpy",
        "cv2",
        "rapidocr",
        "robustscanner",
        "examples.rapidocr_recognizer",
        "benchmarks",
    },
    "benchmarks/scenes.py": {"numpy", "cv2", "robustscanner", "training.data.render"},
    "benchmarks/random_checkpoint.py": {"torch", "robustscanner", "training"},
    "benchmarks": {"numpy", "cv2", "onnx", "onnxruntime", "robustscanner", "benchmarks"},
    "benchmarks/peers.py": {
        "numpy",
        "cv2",
        "robustscanner",
        "benchmarks",
        "rapidocr",
        "rapidocr_onnxruntime",
        "openvino",
    },
    "benchmarks/stages.py": {"numpy", "onnx", "onnxruntime", "robustscanner", "benchmarks", "convert.graph"},
    "benchmarks/eager.py": {"torch", "training.checkpoint", "training.model"},
    "benchmarks/charts.py": {"matplotlib"},
    "benchmarks/sections.py": {"matplotlib", "benchmarks", "convert.engine.accuracy.chart"},
    "benchmarks/layer_sensitivity.py": {"benchmarks", "convert"},
}
LAZY = {
    "runtime/robustscanner/engine.py": {"robustscanner.onnx_session", "robustscanner.gpu.tensorrt_session"}
}  # only inside the function that opens it


def sources() -> list[Path]:
    return sorted(
        p for folder in ("runtime", "convert", "training", "benchmarks") for p in (ROOT / folder).rglob("*.py")
    )


def allowed(name: str) -> set[str]:
    entries = [entry for entry in TABLE if name == entry or name.startswith(entry + "/")]
    assert entries, f"{name}: not in the table; say there what it may import"
    return TABLE[max(entries, key=len)]


def imports(tree: ast.AST, package: Sequence[str]) -> list[str]:
    """Dotted names, relative ones resolved; of `from a import b` both readings, a.b first, as b may be a module."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [
                f"{base}.{alias.name}" if node.module is None or base == "robustscanner" else base
                for alias in node.names
            ]
    return names


def forbidden(path: Path, source: str) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    found = imports(ast.parse(source), path.relative_to(ROOT).parent.parts)
    may = allowed(name)
    return [
        module
        for module in found
        if module.split(".")[0] not in sys.stdlib_module_names
        and not any(module == entry or module.startswith(entry + ".") for entry in may)
    ]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_only_what_the_table_allows(path: Path) -> None:
    assert forbidden(path, path.read_text(encoding="utf-8")) == []


def test_nothing_imports_in_a_circle() -> None:
    """Late imports count, those for type checkers alone do not; names that are no files lead nowhere."""
    graph: dict[str, list[str]] = {}
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                node.body = []
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[parts[0] == "runtime" :]
        graph[".".join(parts).removesuffix(".__init__")] = imports(tree, parts[:-1])
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("name", LAZY)
def test_sessions_are_imported_where_they_are_opened(name: str) -> None:
    top = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    top.body = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not LAZY[name].intersection(imports(top, ["runtime"]))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("runtime/robustscanner/charset.py", "import torch"),
        ("runtime/robustscanner/metrics.py", "import numpy as np"),
        ("runtime/robustscanner/spec.py", "from robustscanner.engine import open_engine"),
        ("convert/quantize.py", "def later():\n    import torch"),
        ("convert/engine/bundle.py", "from .cpu.graph import for_cpu"),
        ("convert/engine/cpu/backend.py", "from ..trt.half import to_half"),
        ("training/train.py", "from convert.quantize import quantize"),
    ],
)
def test_the_table_notices(name: str, line: str) -> None:
    assert forbidden(ROOT / name, line) != []
