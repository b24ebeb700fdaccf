"""Writes engines whose plans the stand-in can run: of tiny, edge and small, split and fused as for TensorRT.

old.engine is tiny's as engines were before they took constraints; kernel.engine and kernel-half.engine are edge's with
the decode kernel, and emulation.so is that, compiled for the CPU. launches.json is what Python makes of launches.

Exits with 77, which is "skipped" to CTest, where Python lacks onnx.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]
try:
    import numpy as np
    import onnx
    from onnx import ModelProto, numpy_helper

    from convert.engine.trt.attention import fuse_attention
    from convert.engine.trt.extent import open_shapes
    from convert.engine.trt.half import to_half
    from convert.engine.trt.kernel_weights import decode_weights
    from convert.graph.split import split
    from robustscanner.engine import KERNELS_NAME, SINGLE_NAME, WEIGHTS_NAME, BatchRange, EngineManifest, file_sha256
    from robustscanner.errors import EngineError
    from robustscanner.gpu.kernels import DecodeSizes, Room, pack_weights, plan_launch, weight_layout
    from robustscanner.spec import ModelSpec
    from tests.runtime.cuda.emulation import library
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

BATCH = BatchRange(1, 8, 16)
TINY = ROOT / "tests" / "tiny" / "tiny.onnx"
MODELS = ROOT / "runtime" / "robustscanner" / "models"
NAMES = ("encoder.plan", "decoder.plan", SINGLE_NAME)


def forbid_constraints(decoder: ModelProto) -> None:
    """Everything is allowed, always."""
    (allowed,) = (value for value in decoder.graph.input if value.name == "allowed")
    shape = [size.dim_value for size in allowed.type.tensor_type.shape.dim]
    decoder.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), "allowed"))
    decoder.graph.input.remove(allowed)


def write_kernel(folder: Path, model: ModelProto, spec: ModelSpec, *, half: bool) -> None:
    """What stands for the compiled kernel, and its weights."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (folder / KERNELS_NAME).write_bytes(b"compiled")
    packed = pack_weights(decode_weights(weights, np.float16 if half else np.float32), spec)
    (folder / WEIGHTS_NAME).write_bytes(packed)


def launches(spec: ModelSpec) -> list[dict[str, object]]:
    """For the C++ side, which has to make the same of them."""
    sizes = [DecodeSizes(words, 240, 96, 92, 40, columns) for words in (1, 3, 16, 300) for columns in (0, 40)]
    rooms = [
        Room(groups, 1024 * kib, clusters=clusters)
        for groups in (0, 1, 2, 16)
        for kib in (16, 48, 99, 227)
        for clusters in (False, True)
    ]
    found: list[dict[str, object]] = []
    for size in sizes:
        for room in rooms:
            try:
                made: object = list(vars(plan_launch(size, room)).values())
            except EngineError as error:
                made = str(error)
            found.append({"sizes": list(vars(size).values()), "room": list(vars(room).values()), "launch": made})
    for half in (False, True):
        layout, size_bytes = weight_layout(spec, 96, half=half)
        found.append({"half": half, "size_bytes": size_bytes, "offsets": {n: w.offset for n, w in layout.items()}})
    return found


def write_engine(path: Path, folder: Path, *, old: bool = False, kernel: bool = False, half: bool = False) -> None:
    """Both plans, an engine.json that names the stand-in's GPU, and beside them the model for ONNX Runtime."""
    model = onnx.load(path)
    fact = next(fact for fact in model.metadata_props if fact.key == "robustscanner.spec")
    spec = ModelSpec.from_json(fact.value)
    encoder, decoder = fuse_attention(*split(model, spec))
    shapes = open_shapes(encoder, decoder, spec.input.canvas_widths)
    if old:
        forbid_constraints(decoder)
    if half:
        encoder, decoder = (to_half(part, ("values", "position")) for part in (encoder, decoder))
    folder.mkdir(parents=True, exist_ok=True)
    names = NAMES[:2] if old else NAMES
    for name, graph in zip(names, (encoder, decoder, decoder), strict=False):
        largest = 1 if name == SINGLE_NAME else BATCH.max
        header = json.dumps({"min": BATCH.min, "max": largest, "shapes": shapes}).encode() + b"\n"
        (folder / name).write_bytes(header + graph.SerializeToString())
    if kernel:
        write_kernel(folder, model, spec, half=half)
        names = (*names, KERNELS_NAME, WEIGHTS_NAME)
    onnx.save(model, folder.with_suffix(".onnx"))
    manifest = EngineManifest(
        model=spec,
        precision="fp32",
        batch=BATCH,
        backend="tensorrt",
        versions={"tensorrt": "10.3.0"},
        device={"name": "stand-in", "compute_capability": "sm_87"},
        accuracy=None,
        history=(),
        files={name: file_sha256(folder / name) for name in names},
    )
    (folder / "engine.json").write_text(manifest.to_json(), encoding="utf-8")


target = Path(sys.argv[1])
write_engine(TINY, target / "tiny.engine")
write_engine(TINY, target / "old.engine", old=True)
for name in ("edge", "small"):
    write_engine(MODELS / f"{name}.onnx", target / f"{name}.engine")
write_engine(MODELS / "edge.onnx", target / "kernel.engine", kernel=True)
write_engine(MODELS / "edge.onnx", target / "kernel-half.engine", kernel=True, half=True)
(target / "emulation.so").write_bytes(Path(library()._name).read_bytes())
edge = onnx.load(MODELS / "edge.onnx")
(spec,) = (fact.value for fact in edge.metadata_props if fact.key == "robustscanner.spec")
(target / "launches.json").write_text(json.dumps(launches(ModelSpec.from_json(spec))), encoding="utf-8")
