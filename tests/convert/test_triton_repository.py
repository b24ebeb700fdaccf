"""A model repository for Triton: what is in it, what is refused, and a real server reading words with it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robustscanner import Recognizer
from robustscanner.engine import ONNX_NAME, BatchRange, EngineManifest, default_engine, file_sha256
from robustscanner.errors import EngineError
from robustscanner.onnx_session import OnnxSession
from robustscanner.serving.triton_model import TritonPythonModel
from robustscanner.session import SessionOptions

ROOT = Path(__file__).parents[2]
CROPS = sorted((ROOT / "calib_data" / "images").glob("*.jpg"))
PORT = 18473


def make(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "convert/triton_repository.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "repository"
    made = make("-o", path, "--max-wait-ms", "1.5", "--instances", "2", "--threads", "1")
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph as a model of its own."""
    path = tmp_path_factory.mktemp("triton") / "split"
    made = make("-o", path, "--backend", "onnxruntime", "--threads", "1")
    assert made.returncode == 0, made.stderr
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_holds_what_triton_wants(repository: Path) -> None:
    model = repository / "robustscanner"
    assert files(model) == ["1/model.py", "1/small.onnx", "config.pbtxt", "warmup/word"]
    data = (model / "warmup" / "word").read_bytes()
    assert data[4:] == CROPS[0].read_bytes()
    assert int.from_bytes(data[:4], "little") == len(data) - 4


def test_the_graph_is_a_model_of_its_own(split: Path) -> None:
    assert files(split / "robustscanner") == ["1/model.py", "1/spec.json", "config.pbtxt"]
    graph = split / "robustscanner_graph"
    assert files(graph) == ["1/model.onnx", "config.pbtxt", "warmup/images", "warmup/valid_width"]
    assert (graph / "1" / "model.onnx").read_bytes() == default_engine().read_bytes()


def config_of(model: Path) -> Any:
    """As Triton parses it."""
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError):  # as tritonclient says that it came without gRPC
        pytest.skip("pip install 'tritonclient[grpc]'")
    return text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def test_triton_can_read_its_config(repository: Path) -> None:
    config = config_of(repository / "robustscanner")
    assert (config.backend, config.max_batch_size) == ("python", 16)
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (2, 2)  # KIND_CPU
    assert config.parameters["engine"].string_value == "small.onnx"


def test_the_graphs_config_is_the_graph(split: Path) -> None:
    """As Triton's backend for ONNX Runtime compares them when it loads: names, types, dimensions after the batch."""
    import onnxruntime

    types = {2: "tensor(uint8)", 8: "tensor(int32)", 11: "tensor(float)"}  # of model_config.proto
    config, entry = config_of(split / "robustscanner_graph"), config_of(split / "robustscanner")
    session = onnxruntime.InferenceSession(split / "robustscanner_graph" / "1" / "model.onnx")

    def shape(node: Any) -> list[int]:
        return [size if isinstance(size, int) else -1 for size in node.shape[1:]]

    inputs = [(node.name, node.type, shape(node)) for node in session.get_inputs()]
    outputs = [(node.name, node.type, shape(node)) for node in session.get_outputs()]
    assert inputs == [
        (io.name, types[io.data_type], list(io.reshape.shape if io.HasField("reshape") else io.dims))
        for io in config.input
    ]
    assert [(io.name, types[io.data_type], list(io.dims)) for io in config.output] == outputs[:2]
    assert config.HasField("dynamic_batching")
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == entry.max_batch_size
    assert (config.name, entry.backend) == (entry.parameters["graph"].string_value, "python")


def test_keeps_what_is_there(repository: Path, tmp_path: Path) -> None:
    again = make("-o", repository)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "exists; choose another folder, or replace it with --force" in again.stderr
    (tmp_path / "robustscanner").mkdir()
    assert "is no model of Triton" in make("-o", tmp_path, "-f").stderr


def bundle(path: Path, backend: str) -> Path:
    """With the shipped model in it, whatever it says that it is for."""
    path.mkdir()
    shutil.copy(default_engine(), path / ONNX_NAME)
    with OnnxSession(default_engine(), SessionOptions(threads=1)) as session:
        facts = {"versions": {}, "device": {}, "accuracy": None, "history": ()}
        files = {ONNX_NAME: file_sha256(path / ONNX_NAME)}
        manifest = EngineManifest(session.spec, "fp32", BatchRange(1, 1, 1), backend, files=files, **facts)
    (path / "engine.json").write_text(manifest.to_json(), encoding="utf-8")
    return path


@pytest.mark.parametrize(("backend", "kind"), [("onnxruntime", "KIND_CPU"), ("tensorrt", "KIND_GPU")])
def test_takes_engines(backend: str, kind: str, tmp_path: Path) -> None:
    engine = bundle(tmp_path / "é.engine", backend)
    assert make(engine, "-o", tmp_path / "repository").returncode == 0
    model = tmp_path / "repository" / "robustscanner"
    assert files(model / "1") == ["model.py", "é.engine/engine.json", "é.engine/model.onnx"]
    config = (model / "config.pbtxt").read_text(encoding="utf-8")
    assert f"kind: {kind}" in config
    assert 'string_value: "é.engine"' in config


def test_takes_the_graph_out_of_an_engine_for_onnx_runtime(tmp_path: Path) -> None:
    engine, graph = bundle(tmp_path / "e.engine", "onnxruntime"), tmp_path / "repository" / "robustscanner_graph"
    assert make(engine, "-o", tmp_path / "repository", "--backend", "onnxruntime").returncode == 0
    assert files(graph / "1") == ["model.onnx"]
    made = make(bundle(tmp_path / "t.engine", "tensorrt"), "-o", tmp_path / "other", "--backend", "onnxruntime")
    assert (made.returncode, made.stderr.count("\n")) == (1, 1)
    assert "is for TensorRT, not for ONNX Runtime; leave out --backend" in made.stderr


def test_a_graph_left_over_is_not_served_for_nothing(split: Path) -> None:
    again = make("-o", split, "-f")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "holds robustscanner_graph; remove it" in again.stderr


@pytest.mark.parametrize("wait", ["nan", "-1", "inf"])
def test_refuses_a_wait_that_is_no_time(wait: str, tmp_path: Path) -> None:
    made = make("-o", tmp_path / "repository", "--max-wait-ms", wait)
    assert made.returncode == 2
    assert "is not milliseconds from 0 to 60000" in made.stderr


def test_refuses_what_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no")
    made = make(tmp_path / "bad.onnx", "-o", tmp_path / "repository")
    assert (made.returncode, made.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "repository").exists()


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class TritonError(Exception):
    INVALID_ARG = 3

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the Python backend gives to models."""
    found = SimpleNamespace(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=lambda tensors, error=None: SimpleNamespace(tensors=tensors, error=error),
        get_input_tensor_by_name=lambda request, name: request[name],
        get_output_tensor_by_name=lambda answer, name: answer.tensors[name],
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", found)
    return found


def opened(repository: Path, **parameters: str) -> TritonPythonModel:
    """As the Python backend opens it."""
    config = {
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
        "max_batch_size": 4,
    }
    found = TritonPythonModel()
    found.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(repository / "robustscanner"),
            "model_version": "1",
            "model_instance_device_id": "0",
        }
    )
    return found


def request(*pictures: bytes) -> dict[str, Tensor]:
    return {"image": Tensor("image", np.array([[picture] for picture in pictures], np.object_))}


@pytest.mark.usefixtures("backend")
def test_answers_requests_of_any_size_and_errs_for_one_alone(repository: Path) -> None:
    check_answers(opened(repository, engine="small.onnx", threads="1"))


def check_answers(model: TritonPythonModel) -> None:
    pictures = [path.read_bytes() for path in CROPS[:5]]
    with Recognizer(default_engine()) as recognizer:
        expected = [reading.text for reading in recognizer.read_batch(pictures)]
    answers = model.execute([request(*pictures[:2]), request(b"no picture"), request(*pictures[2:])])
    texts = [[row[0].decode() for row in answer.tensors[0].array] if answer.tensors else None for answer in answers]
    assert texts == [expected[:2], None, expected[2:]]
    assert answers[2].tensors[1].array.shape == (3, 1)
    assert "not a picture" in str(answers[1].error)
    assert answers[1].error.code == TritonError.INVALID_ARG
    model.finalize()


class GraphRequest:
    """Asks the graph as the server would."""

    def __init__(self, *, model_name: str, requested_output_names: list[str], inputs: list[Tensor]) -> None:
        assert model_name == "robustscanner_graph"
        self.names, self.arrays = requested_output_names, {tensor.name: tensor.array for tensor in inputs}

    def exec(self) -> SimpleNamespace:
        assert self.arrays["valid_width"].shape == (len(self.arrays["images"]), 1)
        with OnnxSession(default_engine(), SessionOptions(threads=1)) as session:
            found = session.run(self.arrays["images"], self.arrays["valid_width"][:, 0])
        tensors = {name: Tensor(name, array) for name, array in zip(self.names, found, strict=True)}
        return SimpleNamespace(tensors=tensors, has_error=lambda: False)


def test_reads_with_the_graph_of_another_model(split: Path, backend: SimpleNamespace) -> None:
    backend.InferenceRequest = GraphRequest
    check_answers(opened(split, graph="robustscanner_graph"))


def test_a_fault_of_the_graph_is_told(split: Path, backend: SimpleNamespace) -> None:
    error = SimpleNamespace(message=lambda: "not ready")
    answer = SimpleNamespace(has_error=lambda: True, error=lambda: error)
    backend.InferenceRequest = lambda **_: SimpleNamespace(exec=lambda: answer)
    with pytest.raises(EngineError, match="robustscanner_graph: not ready"):
        opened(split, graph="robustscanner_graph").execute([request(CROPS[0].read_bytes())])


# --- The server itself: TRITONSERVER=…/bin/tritonserver, TRITON_PACKAGES=folder with what its Python is to import


@contextmanager
def serving(repository: Path, server: Path) -> Iterator[str]:
    paths = [str(ROOT / "runtime"), os.environ["TRITON_PACKAGES"]]
    for code in repository.glob("*/1/model.py"):  # its Python may leave PYTHONPATH alone
        code.write_text(f"import sys\nsys.path[:0] = {paths}\n{code.read_text()}")
    options = {
        "model-repository": repository,
        "backend-directory": server.parents[1] / "backends",
        "http-address": "127.0.0.1",
        "http-port": PORT,
        "allow-grpc": "false",
        "allow-metrics": "false",
    }
    with subprocess.Popen([server, *(f"--{name}={value}" for name, value in options.items())]) as process:
        try:
            yield f"http://127.0.0.1:{PORT}/v2"
        finally:
            process.terminate()


def wait(address: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/health/ready").close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail("Triton did not become ready")


def ask(address: str, pictures: list[bytes]) -> list[str]:
    """By the binary extension of the KServe protocol: JSON, then the strings."""
    data = b"".join(len(picture).to_bytes(4, "little") + picture for picture in pictures)
    tensor = {"name": "image", "shape": [len(pictures), 1], "datatype": "BYTES"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    asked = urllib.request.Request(f"{address}/models/robustscanner/infer", head + data, headers)
    with urllib.request.urlopen(asked) as answer:
        outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
    return outputs["text"]


def ask_raw(address: str, picture: bytes) -> str:
    """As curl does in docs/triton.md; the text comes after the JSON, behind its length."""
    asked = urllib.request.Request(
        f"{address}/models/robustscanner/infer", picture, {"Inference-Header-Content-Length": "0"}
    )
    with urllib.request.urlopen(asked) as answer:
        data = answer.read()[int(answer.headers["Inference-Header-Content-Length"]) :]
    return data[4 : 4 + int.from_bytes(data[:4], "little")].decode()


# Runs the graph where the server lacks the backend for ONNX Runtime, with the same config.
STAND_IN = """
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        self.session = onnxruntime.InferenceSession(f"{args['model_repository']}/1/model.onnx")

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        inputs = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in ("images", "valid_width")}
        assert inputs["valid_width"].ndim == 1, "reshaped by the server"
        found = self.session.run(["tokens", "scores"], inputs)
        return triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(("tokens", "scores"), found)])
"""


def put_in_place_of_the_backend(graph: Path) -> None:
    config = (graph / "config.pbtxt").read_text()
    (graph / "config.pbtxt").write_text(config.replace('backend: "onnxruntime"', 'backend: "python"'))
    (graph / "1" / "model.py").write_text(STAND_IN)


@pytest.mark.parametrize("backend_name", ["python", "onnxruntime"])
def test_a_real_triton_reads_the_same(backend_name: str, tmp_path: Path) -> None:
    if "TRITONSERVER" not in os.environ:
        pytest.skip("needs TRITONSERVER=…/bin/tritonserver and TRITON_PACKAGES, see docs/triton.md")
    server, repository = Path(os.environ["TRITONSERVER"]), tmp_path / "repository"
    assert make("-o", repository, "--instances", "2", "--threads", "1", "--backend", backend_name).returncode == 0
    if backend_name == "onnxruntime" and not (server.parents[1] / "backends" / "onnxruntime").exists():
        put_in_place_of_the_backend(repository / "robustscanner_graph")
    pictures = [path.read_bytes() for path in CROPS[:100]]
    with Recognizer(default_engine()) as recognizer:
        expected = [reading.text for reading in recognizer.read_batch(pictures)]
    with serving(repository, server) as address:
        wait(address)
        assert [text for start in range(0, 100, 10) for text in ask(address, pictures[start : start + 10])] == expected
        with pytest.raises(urllib.error.HTTPError, match=r"HTTP Error [45]00"):
            ask(address, [b"no picture"])
        assert ask_raw(address, pictures[0]) == expected[0]
